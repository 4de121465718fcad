"""What a replay spends on spectra, and what the policy learns on the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sklyap import RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.search import Belief, Board, Knowledge, PredictorPolicy, replay_search
from sklyap.search.belief import Estimate
from sklyap.search.labels import learn_from_numbers
from sklyap.search.spectra import default_transformer


@pytest.fixture(scope="module")
def population():
    X, y = make_recall(60, n_steps=4, random_state=0)
    drawn = {"lr": [1e-3, 1e-2, 1e-1], "cell": ["rnn", "gru"]}
    estimator = RNNClassifier(hidden_size=3, max_epochs=4)
    snapshots = (0, 1, "last")
    trained = train_population(
        estimator, drawn, X, y, n_networks=20, snapshot_epochs=snapshots, random_state=0, verbose=0
    )
    return trained, X[:2]


def replayed(population, policy, **options):
    networks, sequences = population
    return replay_search(
        networks, policy, sequences, prior=networks[:12], n_repeats=4, n_candidates=16, random_state=0, **options
    )


def test_spectra_are_paid_for_where_they_count(population):
    """At a price of two epochs, half of the budget, 0.4 x 16 x 4 epochs, pays for six spectra of the untrained."""
    epoch = np.mean([record.history["dur"] for record in population[0].records])
    tables = {
        counts: replayed(population, "predictor", budgets=[0.4], count_spectra=counts, spectrum_epochs=2.0).table
        for counts in (False, True)
    }
    assert (tables[False]["spectra"] > 16).all() and (tables[True]["spectra"] <= 6 + 4).all()
    assert (tables[True]["epochs"] < tables[False]["epochs"]).all()
    for table in tables.values():
        np.testing.assert_allclose(table["cost"], table["epochs"] + 2 * table["spectra"])
        assert (table["seconds"] > 2 * epoch * table["spectra"]).all()


def test_a_budget_that_cannot_pay_for_spectra_goes_into_halving(population):
    dear = replayed(population, "predictor", budgets=[0.2], count_spectra=True, spectrum_epochs=50.0).table
    plain = replayed(population, "halving", budgets=[0.2]).table
    assert (dear["spectra"] == 0).all()
    np.testing.assert_array_equal(dear["regret"], plain["regret"])


def test_policies_without_spectra_pay_for_none(population):
    options = {"budgets": [0.4], "count_spectra": True, "spectrum_epochs": 5.0}
    table = replayed(population, "predictor without spectrum", **options).table
    assert (table["spectra"] == 0).all() and (table["cost"] == table["epochs"]).all()


def test_a_cache_does_not_make_spectra_free(population, tmp_path):
    sequences = population[1]
    transformer = default_transformer(sequences).set_params(memory=str(tmp_path))
    costs = [
        replayed(population, "predictor", budgets=[0.4], transformer=transformer).table["cost"].mean() for _ in range(2)
    ]
    assert min(costs) > 1.1 * 0.4 * 16 * 4 * 0.5


def test_wrong_prices_are_named():
    known = Knowledge(pd.DataFrame({"lr": np.arange(10.0)}), np.ones((10, 3)))
    with pytest.raises(ValueError, match=r"'spectrum_epochs' .* must be given .* not timed"):
        replay_search(known, "halving", count_spectra=True)
    with pytest.raises(TypeError, match="'count_spectra'"):
        replay_search(known, "halving", count_spectra="yes")
    with pytest.raises(ValueError, match="'spectrum_epochs'"):
        replay_search(known, "halving", spectrum_epochs=-1.0)


def board_at(epoch, losses, spectra):
    board = Board(pd.DataFrame({"lr": np.linspace(0, 1, len(losses))}), losses.shape[1])
    board.losses[:, :epoch] = losses[:, :epoch]
    board.reached[:] = epoch
    board.spectra = spectra
    return board


@pytest.fixture
def learnt():
    """Thirty candidates whose loss at epoch 3 is what their spectrum said at epoch 1; their loss then said nothing."""
    rng = np.random.default_rng(0)
    talent = rng.normal(size=30)
    losses = np.ones((30, 9)) + 1e-3 * rng.normal(size=(30, 9))
    losses[:, 2:] = np.exp(-talent)[:, None]
    return talent, board_at(3, losses, {1: talent[:, None], 3: talent[:, None]})


def test_the_next_rung_is_learnt_from_those_that_have_been_there(learnt):
    talent, board = learnt
    here, ahead = np.arange(20), np.arange(20, 30)
    y = np.log(board.best(3)[here])
    predicted, weight = learn_from_numbers(board, here, y, 1, ahead, 3, ("spectrum", "loss", "hyperparameters"))
    assert np.corrcoef(predicted, -talent[ahead])[0, 1] > 0.95 and 0.4 < weight < 20 / 30
    # Noise has no weight, and five labels are too few.
    noise = np.random.default_rng(1).normal(size=20)
    assert learn_from_numbers(board, here, noise, 1, ahead, 3, ("spectrum",))[1] < 0.3
    assert learn_from_numbers(board, here[:5], y[:5], 1, ahead, 3, ("spectrum",)) is None


@pytest.mark.parametrize("sign,n_by_loss", [(-1, 0), (1, 6)])
def test_seats_go_to_what_has_ranked_the_next_rung_better(learnt, sign, n_by_loss):
    """A belief that was right has all six seats; one that was upside down has none."""
    talent, board = learnt
    policy = PredictorPolicy(Belief([], kinds=("spectrum", "loss")))
    who = np.arange(30)
    policy._said = [(1, who, Estimate(sign * talent, {}, {}))]
    assert policy._seats_of_the_other(policy._leader(board), 3, 6) == n_by_loss
    policy._said = []
    assert policy._seats_of_the_other(policy._leader(board), 3, 6) == 3


def test_gaps_and_words_become_numbers():
    table = pd.DataFrame({"cell": ["rnn", "gru", "rnn"], "lr": [0.1, 0.3, 0.2]})
    known = Knowledge(table, np.ones((3, 2)), {1: np.array([[1.0], [np.nan], [3.0]])})
    numbers = known.numbers(1, ("spectrum", "hyperparameters"))
    assert numbers.shape == (3, 4) and np.allclose(numbers[1, 0], np.mean(np.arcsinh([1.0, 3.0])))
    assert numbers[:, 1].tolist() == pytest.approx([1 / 3, 1, 2 / 3])
    assert numbers[:, 2:].tolist() == [[0, 1], [1, 0], [0, 1]]
