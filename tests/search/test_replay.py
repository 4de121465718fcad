"""replay_search: what policies see and spend, regret, ablations, and what it refuses."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklyap import RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.displays import RegretDisplay
from sklyap.search import (
    Belief,
    HalvingPolicy,
    HyperbandPolicy,
    Knowledge,
    Policy,
    PredictorPolicy,
    RandomPolicy,
    Request,
    replay_search,
)

matplotlib.use("Agg")


def plateau(n, seed, *, mislead=False):
    """Networks whose loss stays at 1 for six epochs and then falls by what one exponent knows from the beginning."""
    rng = np.random.default_rng(seed)
    talent = rng.normal(size=n)
    final = np.exp(-2 * np.maximum(talent, 0))
    losses = np.ones((n, 9)) + 1e-3 * rng.normal(size=(n, 9))
    losses[:, 6:] = final[:, None] * np.array([1.3, 1.1, 1.0])
    said = -talent if mislead else talent
    spectra = {e: np.column_stack([said + 0.1 * rng.normal(size=n), rng.normal(size=n)]) for e in (0, 1, 3)}
    params = pd.DataFrame({"lr": rng.uniform(size=n), "cell": rng.choice(["rnn", "gru"], n)})
    return Knowledge(params, losses, spectra, kept=[0, 1, 3])


def falling(n, seed):
    """Networks whose loss after one epoch says it all, and whose spectra say nothing."""
    rng = np.random.default_rng(seed)
    final = np.exp(rng.normal(size=n))
    losses = final[:, None] * np.linspace(3, 1, 9)
    spectra = {e: rng.normal(size=(n, 2)) for e in (0, 1, 3)}
    return Knowledge(pd.DataFrame({"lr": rng.uniform(size=n)}), losses, spectra, kept=[0, 1, 3])


def linear(priors, kinds):
    model = make_pipeline(StandardScaler(), RidgeCV())
    return PredictorPolicy(Belief(priors, kinds=kinds, model=model))


def test_where_the_spectrum_knows_first_it_finds_more_for_less():
    policies = {"loss": "halving", "ours": linear([plateau(80, 1)], ("spectrum", "loss")), "random": "random"}
    result = replay_search(plateau(100, 2), policies, budgets=[0.1], n_repeats=60, random_state=0)
    regret = result.curve().set_index("policy")
    assert regret.loc["ours", "high"] < regret.loc["loss", "low"]
    assert regret.loc["ours", "epochs"] <= 0.1 * 80 * 9 and regret.loc["ours", "spectra"] > 80


def test_a_misleading_prior_is_survived():
    """The belief ranks candidates upside down; the seats for chance and loss keep the search near random search."""
    misled = linear([plateau(80, 1, mislead=True)], ("spectrum", "loss"))
    result = replay_search(
        plateau(100, 2), {"misled": misled, "halving": "halving"}, budgets=[0.4], n_repeats=60, random_state=0
    )
    regret = result.curve().set_index("policy")["regret"]
    assert regret["misled"] < 1.5


def test_where_the_loss_says_it_all_it_is_no_worse_than_halving():
    ours = linear([falling(80, 1)], ("spectrum", "loss"))
    result = replay_search(
        falling(100, 2), {"ours": ours, "halving": "halving"}, budgets=[0.3], n_repeats=100, random_state=0
    )
    table = result.table.pivot(index="repeat", columns="policy", values="regret")
    difference = table["ours"] - table["halving"]
    assert difference.mean() <= difference.std() / np.sqrt(len(difference))


def test_the_oracle_has_no_regret_and_trains_one():
    result = replay_search(plateau(50, 0), "oracle", budgets=[0.1], n_repeats=5, random_state=0)
    assert (result.table["regret"] == 0).all() and (result.table["epochs"] == 9).all()


@pytest.mark.parametrize("policy", ["random", "halving", "hyperband", "extrapolation"])
@pytest.mark.parametrize("budget", [0.01, 0.07, 0.5])
def test_no_policy_overdraws_its_budget(policy, budget):
    result = replay_search(plateau(60, 0), policy, budgets=[budget], n_repeats=20, random_state=0)
    assert (result.table["epochs"] <= max(budget * 48 * 9, 1)).all()


def test_searches_that_found_nothing_have_an_infinite_regret_and_no_interval():
    """A budget of one epoch does not pay for a first rung of three; tests fail on warnings."""
    result = replay_search(plateau(40, 0), HalvingPolicy(min_epochs=3), budgets=[0.0, 1.0], n_repeats=4, random_state=0)
    nothing, all_of_it = result.curve().to_dict("records")
    assert nothing["regret"] == nothing["median"] == np.inf and nothing["solved"] == 0
    assert np.isnan([nothing["low"], nothing["high"]]).all() and np.isfinite(all_of_it["high"])


def test_all_of_the_budget_finds_the_best():
    result = replay_search(plateau(40, 0), ["random", "hyperband"], budgets=[1.0], n_repeats=10, random_state=0)
    assert (result.table.query("policy == 'random'")["regret"] == 0).all()


class Peeking(Policy):
    """Reads what it has not paid for."""

    name = "peeking"

    def requests(self, board, rng):
        yield Request(np.arange(3), 2)
        assert np.isnan(board.losses[3:]).all() and np.isnan(board.losses[:3, 2:]).all()
        assert not np.isnan(board.losses[:3, :2]).any()
        assert all(np.isnan(values).all() for values in board.spectra.values())
        board.look(np.arange(2), 1)
        assert not np.isnan(board.spectra[1][:2]).any() and np.isnan(board.spectra[1][2:]).all()


def test_a_policy_sees_what_it_has_paid_for():
    result = replay_search(plateau(40, 0), Peeking(), budgets=[1.0], n_repeats=2, random_state=0)
    assert (result.table["epochs"] == 6).all() and (result.table["spectra"] == 2).all()


def test_one_seed_gives_the_same_table_and_policies_meet_the_same_candidates():
    tables = [
        replay_search(plateau(40, 0), ["random", "halving"], budgets=[0.2], n_repeats=5, random_state=s).table
        for s in (0, 0, 1)
    ]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_halving_with_budget_begins_with_as_many_as_it_pays_for():
    for policy in (HalvingPolicy(budget=60), HalvingPolicy(7), HyperbandPolicy(), RandomPolicy(3)):
        assert repr(policy).startswith(type(policy).__name__)
    result = replay_search(plateau(60, 0), HalvingPolicy(7), budgets=[1.0], n_repeats=2, random_state=0)
    assert (result.table["epochs"] == 7 + 3 * 2 + 6).all()


@pytest.fixture(scope="module")
def populations():
    trained = []
    for seed in (0, 1):
        X, y = make_recall(80, n_steps=4, random_state=seed)
        trained.append(
            train_population(
                RNNClassifier(hidden_size=3, max_epochs=4),
                {"lr": [1e-3, 1e-2, 1e-1], "cell": ["rnn", "gru"]},
                X,
                y,
                n_networks=12,
                snapshot_epochs=(0, 1, "last"),
                random_state=seed,
                verbose=0,
            )
        )
    return *trained, X[:2]


def test_trained_populations_and_all_words(populations):
    target, prior, sequences = populations
    words = ["predictor", "predictor without spectrum", "predictor without prior", "halving"]
    result = replay_search(
        target, words, sequences, prior=prior, budgets=[0.3, 0.6], n_repeats=3, n_candidates=10, random_state=0
    )
    curve = result.curve()
    assert list(curve["policy"].unique()) == words and (curve["seconds"] > 0).all()
    assert curve.set_index("policy").loc["halving", "spectra"].eq(0).all()
    display = RegretDisplay.from_replay(result, against="seconds")
    assert display.ax_.get_xlabel() == "seconds spent" and len(display.ax_.lines) == 4


@pytest.mark.parametrize(
    "options,error,words",
    [
        ({"policy": "magic"}, ValueError, "'policy' .* 'random', 'halving'"),
        ({"policy": "predictor"}, ValueError, "'prior' parameter of replay_search"),
        ({"budgets": [-0.1]}, ValueError, "'budgets'"),
        ({"n_repeats": 0}, ValueError, "'n_repeats'"),
        ({"n_candidates": 50}, ValueError, r"'n_candidates' .* \[1, 40\]"),
        ({"population": [1, 2]}, TypeError, "'population' .* NetworkPopulation"),
        ({"prior": 3}, TypeError, "'prior' parameter of replay_search"),
    ],
)
def test_wrong_parameters_are_named(options, error, words):
    given = {"population": plateau(40, 0), "policy": "halving"} | options
    with pytest.raises(error, match=words):
        replay_search(**given)


def test_spectra_need_sequences(populations):
    with pytest.raises(ValueError, match="'sequences' parameter of replay_search"):
        replay_search(populations[0], "predictor", prior=populations[1])
