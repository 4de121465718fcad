"""Populations: what is trained, and what is kept of it."""

from __future__ import annotations

import itertools
import math

import joblib
import numpy as np
import pytest
import torch
from scipy.stats import loguniform
from skorch.callbacks import EarlyStopping

from sklyap.datasets import load_text
from sklyap.networks import RNNClassifier, RNNRegressor
from sklyap.population import train_population
from tests.population.helpers import EPOCHS, GRID, X, assert_same, estimator, train, y


def test_networks_differ_as_asked(population):
    params = population.params
    assert len(population) == 6 and list(params.index) == list(range(6))
    assert set(params["cell"]) == {"rnn", "gru"} or set(params["cell"]) == {"rnn", "lstm", "gru"}
    assert params["lr"].between(1e-3, 1e-1).all()
    # What one family of the grid does not set is the estimator's.
    gated = params["cell"] != "rnn"
    assert (params.loc[gated, "nonlinearity"] == "tanh").all() and (params.loc[gated, "init"] == "default").all()
    assert len({record.seed for record in population.records}) == 6


def test_snapshot_is_the_network_at_that_epoch(population):
    """A snapshot holds the weights that training for so many epochs would have given."""
    record = population.records[2]
    for epoch, n_epochs in ((0, 0), (1, 1), ("last", 2)):
        alone = record.estimator().set_params(max_epochs=n_epochs)
        split = _split_of(population)
        weights = alone.fit(*split).export_state()[0]
        snapshot = population.networks(epoch)[2]
        assert all(torch.equal(weights[name], w) for name, w in snapshot.export_state()[0].items())
        assert len(snapshot.history_) == n_epochs


def _split_of(population):
    """Find the validation rows again from the losses: train once with validation data given."""
    from sklyap.population.plan import make_plan

    plan = make_plan(estimator(), GRID, X, y, n_networks=6, validation=0.2, snapshot_epochs=EPOCHS, random_state=0)
    return plan.data


def test_losses_are_those_of_the_snapshot_on_the_validation_data(population):
    _, _, X_val, y_val = _split_of(population)
    for epoch in EPOCHS:
        for network, loss in zip(population.networks(epoch), population.losses(epoch), strict=True):
            probabilities = network.predict_proba(X_val)[np.arange(len(y_val)), y_val]
            assert loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)


def test_snapshots_do_not_change_training(population):
    assert_same(train(snapshot_epochs="last"), population, epochs=["last"])


def test_weights_change_within_an_epoch(population):
    states = [population.networks(epoch)[0].export_state()[0] for epoch in EPOCHS]
    for before, after in itertools.pairwise(states):
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_validation_is_the_same_for_all_and_stratified(population):
    X_train, y_train, X_val, y_val = _split_of(population)
    assert len(X_val) == 24 and len(X_train) == 96
    np.testing.assert_array_equal(np.bincount(y_val), np.bincount(y) // 5)
    assert len(y_train) + len(y_val) == len(y)
    assert_same(train(validation=(X_val, y_val), data=(X_train, y_train)), population)


def test_without_validation_losses_are_those_of_training():
    population = train(validation=None, n_networks=2, base=estimator(validation_fraction=0.5))
    assert all("valid_loss" not in history for history in population.histories)
    np.testing.assert_array_equal(population.losses(), [h["train_loss"].iloc[-1] for h in population.histories])
    assert np.isfinite(population.losses(0)).all() and np.isfinite(population.best_losses).all()


def test_best_and_last_losses(population):
    for history, last, best in zip(population.histories, population.losses(), population.best_losses, strict=True):
        assert last == history["valid_loss"].iloc[-1] and best == history["valid_loss"].min()
    np.testing.assert_array_equal(population.losses(2), population.losses("last"))


def test_histories(population):
    for history in population.histories:
        assert list(history.index) == [1, 2]
        assert {"train_loss", "valid_loss", "valid_accuracy", "dur"} <= set(history.columns)
        assert (history["dur"] > 0).all() and history.notna().all().all()


def test_table(population):
    table = population.to_frame()
    assert len(table) == 6
    for column in ("population", "cell", "seed", "duration", "loss_0", "loss_0.5", "loss_1", "loss_last", "best_loss"):
        assert column in table, column
    np.testing.assert_array_equal(table["loss_1"], population.losses(1))
    assert (table["duration"] > 0).all()


def test_early_stopping_keeps_what_there_is():
    base = estimator(max_epochs=4, lr=0.0, callbacks=[EarlyStopping(patience=1, threshold=1.0)])
    population = train(grid={"hidden_size": [3]}, base=base, n_networks=2, snapshot_epochs=(1, 3))
    assert [len(history) for history in population.histories] == [2, 2]
    for record in population.records:
        assert set(record.snapshots) == {"1", "3", "last"} and record.snapshots["3"].epoch == 2
    np.testing.assert_array_equal(population.losses(3), population.losses("last"))
    np.testing.assert_array_equal(population.losses(4), population.losses("last"))


def test_grid_and_sampling_rules():
    grid = train(grid={"hidden_size": [2, 3], "cell": ["rnn", "gru"]}, n_networks=None)
    assert len(grid) == 4 and len(grid.params.drop_duplicates()) == 4
    more = train(grid={"hidden_size": [2, 3]}, n_networks=5)
    assert sorted(more.params["hidden_size"].value_counts()) == [2, 3]
    one = train(grid={}, n_networks=None)
    assert len(one) == 1


def test_random_state_decides():
    kwargs = {"n_networks": 2, "grid": {"lr": loguniform(1e-4, 1e-2)}}
    assert_same(train(random_state=3, **kwargs), train(random_state=np.int64(3), **kwargs))
    other = train(random_state=4, **kwargs)
    assert train(random_state=3, **kwargs).params["lr"].iloc[0] != other.params["lr"].iloc[0]
    assert train(random_state=None, **kwargs).records[0].seed != train(random_state=None, **kwargs).records[0].seed


def test_training_leaves_no_trace_in_the_process():
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    base = estimator()
    params = base.get_params()
    train(base=base, n_networks=1)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert base.get_params() == params and not hasattr(base, "net_")


def test_n_jobs_does_not_change_a_bit(population, tmp_path):
    assert_same(train(n_jobs=2), population)
    assert_same(train(tmp_path / "new", n_jobs=2), population)


def test_threads_share_no_randomness(population):
    with joblib.parallel_config(backend="threading"):
        assert_same(train(n_jobs=3), population)


def test_backend_without_generators(population):
    with joblib.parallel_config(backend="multiprocessing"):
        assert_same(train(n_jobs=2), population)


def test_the_benchmark_of_what_the_harness_costs_runs():
    from benchmarks.population_overhead import needs, overhead, tasks

    assert math.isfinite(overhead(n_networks=1, hidden_size=4)["harness / bare loop"])
    task = next(tasks(small=True))
    assert all(value > 0 for key, value in needs(task).items() if key != "task")


def test_regression():
    rng = np.random.default_rng(0)
    sequences = rng.normal(size=(60, 7, 2)).astype(np.float32)
    base = RNNRegressor(hidden_size=3, max_epochs=2, readout="all", device="cpu")
    population = train(data=(sequences, sequences.sum(-1)), base=base, grid={"lr": [1e-2, 1e-3]}, n_networks=2)
    assert population[0].predict(sequences).shape == (60, 7)
    assert population.losses(0).shape == (2,)


def test_next_character(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 60)
    text = load_text(path, n_steps=20)
    base = RNNClassifier(
        "gru", 8, input_type="tokens", n_tokens=text.n_tokens, readout="all", max_epochs=2, device="cpu"
    )
    population = train_population(
        base,
        {"lr": [0.01, 0.03]},
        text.X_train,
        text.y_train,
        validation=(text.X_valid, text.y_valid),
        snapshot_epochs=EPOCHS,
        random_state=0,
        verbose=0,
    )
    assert (population.losses() < population.losses(0)).all()
    assert population[1].predict(text.X_test).shape == text.X_test.shape
