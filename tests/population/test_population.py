"""Populations: what is kept, resuming, failures, bad input, untrusted files, and use with scikit-learn."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_predict, train_test_split
from sklearn.pipeline import FeatureUnion, make_pipeline
from skorch.callbacks import Callback, EarlyStopping

from sklyap.cells import RecurrentCell
from sklyap.datasets import load_sequential_digits, load_text
from sklyap.exceptions import FailedNetworkWarning, SklyapWarning, UntrustedFileError
from sklyap.networks import RNNClassifier, RNNRegressor
from sklyap.population import HistoryFeatures, NetworkPopulation, train_population
from sklyap.population.parallel import run_all
from sklyap.storage import read_json, write_json, write_tensors

X, y = load_sequential_digits(n_class=3, return_X_y=True)
X, y = X[:120], y[:120]
GRID = [
    {"cell": ["lstm", "gru"], "hidden_size": [3, 4], "lr": loguniform(1e-3, 1e-1)},
    {"cell": ["rnn"], "nonlinearity": ["relu", "tanh"], "init": ["uniform"], "init_scale": [0.5, 1.0]},
]
EPOCHS = (0, 0.5, 1, "last")


def estimator(**params):
    return RNNClassifier(**{"hidden_size": 4, "max_epochs": 2, "device": "cpu", "batch_size": 32, **params})


def train(directory=None, *, data=(X, y), grid=GRID, base=None, **params):
    options = {"n_networks": 6, "snapshot_epochs": EPOCHS, "random_state": 0, "verbose": 0, **params}
    return train_population(base or estimator(), grid, *data, directory=directory, **options)


def assert_same(one, other, epochs=EPOCHS):
    """Two populations are equal to the last bit: parameters, losses, histories, weights."""
    assert [r.params for r in one.records] == [r.params for r in other.records]
    assert [r.seed for r in one.records] == [r.seed for r in other.records]
    assert [r.index for r in one.failures] == [r.index for r in other.failures]
    for a, b in zip(one.histories, other.histories, strict=True):
        pd.testing.assert_frame_equal(a.drop(columns="dur"), b.drop(columns="dur"), check_exact=True)
    for epoch in epochs:
        np.testing.assert_array_equal(one.losses(epoch), other.losses(epoch))
        for a, b in zip(one.networks(epoch), other.networks(epoch), strict=True):
            weights, others = a.export_state()[0], b.export_state()[0]
            assert weights.keys() == others.keys()
            assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def population():
    return train()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stored") / "digits"
    return directory, train(directory)


@pytest.fixture
def directory(stored, tmp_path):
    """A copy of the stored population, to be damaged."""
    import shutil

    shutil.copytree(stored[0], tmp_path / "digits")
    return tmp_path / "digits"


# -- what is trained, and what is kept ----------------------------------------------------------------


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


def test_harness_costs_little():
    from benchmarks.population_overhead import needs, overhead, tasks

    assert overhead(n_networks=3, hidden_size=16)["harness / bare loop"] < 0.1  # under 0.05 in larger runs
    task = next(tasks(small=True))
    assert all(value > 0 for key, value in needs(task).items() if key != "task")


# -- tasks --------------------------------------------------------------------------------------------


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


# -- on the disk --------------------------------------------------------------------------------------


def test_population_in_a_directory_is_the_same(population, stored):
    directory, from_disk = stored
    assert_same(from_disk, population)
    loaded = NetworkPopulation.load(directory)
    assert_same(loaded, population)
    assert repr(loaded) == repr(from_disk)
    pd.testing.assert_frame_equal(loaded.to_frame(), from_disk.to_frame())
    np.testing.assert_array_equal(loaded[1].predict_proba(X), population[1].predict_proba(X))


def test_directory_holds_no_pickle_and_no_temporary(stored):
    names = [path.name for path in stored[0].rglob("*") if path.is_file()]
    assert all(name.endswith((".json", ".safetensors")) and not name.startswith(".") for name in names)
    assert sum(name.endswith(".safetensors") for name in names) == 6 * len(EPOCHS)


def test_nothing_is_trained_again(stored, monkeypatch):
    directory, population = stored

    def refuse(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("sklyap.population.worker._train", refuse)
    assert_same(train(directory), population)


def test_moved_directory_loads(stored, tmp_path):
    import shutil

    shutil.move(shutil.copytree(stored[0], tmp_path / "a"), tmp_path / "b")
    assert_same(NetworkPopulation.load(tmp_path / "b"), stored[1])
    assert_same(train(tmp_path / "b"), stored[1])


def test_weights_stay_on_the_disk_until_asked_for(stored):
    directory, population = stored
    for record in population.records:
        assert all(snapshot.state is None and snapshot.path.is_file() for snapshot in record.snapshots.values())
    networks = population.networks(1)
    size = sum(path.stat().st_size for path in directory.rglob("*.safetensors"))
    assert len(pickle.dumps(networks[:2])) < 40_000 and size > 0
    assert networks[0] is not networks[0]


def test_worker_that_does_not_see_the_directory(population, tmp_path, monkeypatch):
    """As on another machine; the networks are then written where the call was made."""
    monkeypatch.setattr("sklyap.population.records.PopulationDirectory.belongs_to", lambda self, call: False)
    assert_same(train(tmp_path), population)
    assert_same(NetworkPopulation.load(tmp_path), population)


def test_resume_with_networks_missing(directory, stored):
    for name in ("00001.json", "00004.json"):
        (directory / "networks" / name).unlink()
    partial = NetworkPopulation.load(directory)
    assert [record.index for record in partial.records] == [0, 2, 3, 5]
    assert_same(train(directory, n_jobs=2), stored[1])


def test_random_state_none_goes_on_with_its_seed(tmp_path):
    first = train(tmp_path / "a", random_state=None, n_networks=3)
    (tmp_path / "a" / "networks" / "00001.json").unlink()
    assert_same(train(tmp_path / "a", random_state=None, n_networks=3), first)


def test_resume_false_trains_anew(directory, stored):
    other = train(directory, resume=False, random_state=1, n_networks=2)
    assert_same(NetworkPopulation.load(directory), other)
    assert not (directory / "networks" / "00004.json").exists()


CHANGES = {
    "estimator.params.lr": {"base": estimator(lr=0.5)},
    "snapshot_epochs": {"snapshot_epochs": (1, "last")},
    "random_state": {"random_state": 1},
    "n_networks": {"n_networks": 7},
    "networks": {"grid": [*GRID, {"hidden_size": [9]}]},
    "data.X": {"data": (X + np.float32(1e-6), y)},
    "data.y": {"data": (X, np.roll(y, 1))},
    "data.validation": {"validation": 0.3},
    "data.X_val": {"validation": (X, y)},
    "callbacks": {"base": estimator(callbacks=[EarlyStopping(patience=3)])},
    "estimator.class": {"base": RNNRegressor(hidden_size=4, max_epochs=2, device="cpu", batch_size=32)},
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_call_is_refused(stored, what):
    with pytest.raises(ValueError, match=r"directory.*begun by another") as caught:
        train(stored[0], **CHANGES[what])
    assert what in str(caught.value)


def test_call_may_change_where_networks_do_not(stored, capsys):
    assert_same(train(stored[0], n_jobs=2, verbose=1, base=estimator(verbose=1, random_state=7)), stored[1])
    assert "6/6" in capsys.readouterr().err


PROGRAM = """
    import signal
    import sys
    from sklyap.networks import RNNClassifier
    from sklyap.datasets import load_sequential_digits
    from sklyap.population import train_population

    if __name__ == "__main__":
        # A test run in the background hands "ignore Ctrl-C" down to its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        X, y = load_sequential_digits(n_class=3, return_X_y=True)
        train_population(
            RNNClassifier("gru", hidden_size=8, max_epochs=10, device="cpu"), {"lr": [1e-3, 1e-2]}, X, y,
            n_networks=8, random_state=0, directory=sys.argv[1], n_jobs=int(sys.argv[2]), verbose=0,
        )
"""


def call_of_the_program(directory):
    X, y = load_sequential_digits(n_class=3, return_X_y=True)
    base = RNNClassifier("gru", hidden_size=8, max_epochs=10, device="cpu")
    return train_population(
        base, {"lr": [1e-3, 1e-2]}, X, y, n_networks=8, random_state=0, directory=directory, verbose=0
    )


def interrupt(directory, tmp_path, signal_number, n_jobs):
    """Run the program, send the signal once networks are finished, and return their number."""
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    process = subprocess.Popen(
        [sys.executable, program, directory, str(n_jobs)], stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while len(list((directory / "networks").glob("[0-9]*.json"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read().decode()
            time.sleep(0.005)
    finally:
        os.killpg(process.pid, signal_number)
    process.wait(timeout=30)
    process.stderr.close()
    return len(list((directory / "networks").glob("[0-9]*.json")))


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_run_resumes_to_the_same_population(tmp_path, signal_number):
    for attempt in range(5):  # a busy machine may let this process sleep until all networks are trained
        directory = tmp_path / f"killed-{attempt}"
        finished = interrupt(directory, tmp_path, signal_number, n_jobs=1)
        if finished < 8:
            break
    assert 2 <= finished < 8, "it was to be interrupted in the middle"
    partial = NetworkPopulation.load(directory)
    assert len(partial) == finished
    whole = tmp_path / "whole"
    assert_same(call_of_the_program(directory), call_of_the_program(whole), epochs=(1, "last"))
    for path in (whole / "networks").glob("*.safetensors"):
        assert (directory / "networks" / path.name).read_bytes() == path.read_bytes()


def test_full_disk_ends_the_call_and_loses_nothing(tmp_path, stored, monkeypatch):
    def full(path, *args):
        if path.name == "00003-epoch-1.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_tensors(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr("sklyap.storage.write_tensors", full)
        with pytest.raises(OSError, match=r"network 3 could not be written to .*networks \(No space left") as caught:
            train(tmp_path)
    assert caught.value.errno == errno.ENOSPC and len(NetworkPopulation.load(tmp_path)) == 3
    assert_same(train(tmp_path), stored[1])


# -- failures -----------------------------------------------------------------------------------------


class Trouble(Callback):
    """Raises what is asked for in networks of some sizes."""

    def __init__(self, kind, sizes, when="on_epoch_end"):
        self.kind, self.sizes, self.when = kind, sizes, when

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "__dict__").get("when"):
            return self.strike
        return super().__getattribute__(name)

    def strike(self, net, **kwargs):
        if net.module_.recurrent.hidden_size in self.sizes:
            if self.kind == "exit":
                os._exit(3)
            raise self.kind("no more")


def test_failures_are_kept_apart_and_the_rest_goes_on(tmp_path):
    huge = {"cell": ["rnn"], "nonlinearity": ["relu"], "init": ["uniform"], "init_scale": [1e30]}
    grid = [{"hidden_size": [3, 5]}, huge, {"dropout": [2.0]}]
    base = estimator(callbacks=[Trouble(MemoryError, [5], "on_batch_begin")])
    with pytest.warns(FailedNetworkWarning) as caught:
        population = train(tmp_path, grid=grid, base=base, n_networks=None)
    assert len(caught) == 1 and "3 of 4 networks failed" in str(caught[0].message)
    assert len(population) == 1 and len(population.networks()) == 1 == len(population.losses())
    reasons = [record.reason for record in population.failures]
    assert [record.params for record in population.failures] == [
        {"hidden_size": 5},
        {name: value for name, (value,) in huge.items()},
        {"dropout": 2.0},
    ]
    assert reasons[0] == "MemoryError: no more"
    assert reasons[1].startswith("DivergedError: Training diverged")
    assert reasons[2].startswith("ValueError: The 'dropout' parameter")
    with pytest.warns(FailedNetworkWarning, match="3 of 4"):
        again = train(tmp_path, grid=grid, base=base, n_networks=None)
    assert [record.reason for record in again.failures] == reasons
    assert [record.reason for record in NetworkPopulation.load(tmp_path).failures] == reasons
    assert "3 failed" in repr(population) and "MemoryError" in population._repr_html_()


def test_failed_network_keeps_the_history_that_it_has():
    base = estimator(max_epochs=3, callbacks=[Trouble(RuntimeError, [4])])
    with pytest.warns(FailedNetworkWarning, match="RuntimeError: no more"):
        population = train(base=base, grid={}, n_networks=1)
    (failure,) = population.failures
    assert len(failure.losses) == 1 and set(failure.snapshots) == {"0", "0.5", "1"}
    assert len(population) == 0 and population.losses().shape == (0,) and "1 failed" in repr(population)


def test_worker_that_dies_takes_no_other_network_along(monkeypatch):
    monkeypatch.setattr("sklyap.population.parallel._PATIENCE", 1)  # each death costs new workers
    base = estimator(callbacks=[Trouble("exit", [5])])
    with pytest.warns(FailedNetworkWarning, match="its worker died"):
        population = train(base=base, grid={"hidden_size": [3, 4, 5, 6]}, n_networks=None, n_jobs=2)
    assert [record.params["hidden_size"] for record in population.records] == [3, 4, 6]
    assert [record.params["hidden_size"] for record in population.failures] == [5]


def test_exceptions_of_the_harness_are_not_taken_for_deaths():
    with pytest.raises(AttributeError):
        run_all([object()], (X, y, None, None), n_jobs=1, done=lambda record: None)


def test_interrupt_in_memory_keeps_the_finished_networks(population):
    base = estimator(callbacks=[Trouble(KeyboardInterrupt, [5], "on_batch_begin")])
    with pytest.warns(SklyapWarning, match="interrupted: the population has 2 of 4 networks"):
        partial = train(base=base, grid={"hidden_size": [3, 4, 5, 6]}, n_networks=None)
    assert len(partial) == 2 and partial[0].predict(X).shape == y.shape


def test_interrupt_with_a_directory_is_passed_on(tmp_path):
    base = estimator(callbacks=[Trouble(KeyboardInterrupt, [5], "on_batch_begin")])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base=base, grid={"hidden_size": [3, 4, 5, 6]}, n_networks=None)
    assert len(NetworkPopulation.load(tmp_path)) == 2


# -- bad input, before anything is trained ------------------------------------------------------------

BAD = [
    ({"grid": {"hiden_size": [3]}}, ValueError, "Got 'hiden_size' instead. Did you mean 'hidden_size'"),
    ({"grid": {"random_state": [1, 2]}}, ValueError, "must not set 'random_state'"),
    ({"grid": "hidden_size"}, TypeError, "must be a dict or a list of dicts"),
    ({"grid": [{}, 3]}, TypeError, "must be a dict or a list of dicts"),
    ({"grid": []}, TypeError, "must be a dict or a list of dicts"),
    ({"grid": {"lr": loguniform(1, 2)}, "n_networks": None}, ValueError, "n_networks.*must be an int when"),
    ({"n_networks": 0}, ValueError, r"n_networks.*Got 0"),
    ({"n_networks": 2.5}, TypeError, r"n_networks.*Got 2\.5"),
    ({"snapshot_epochs": 3}, ValueError, "snapshot_epochs.*max_epochs, which is 2 for network 0. Got 3"),
    ({"snapshot_epochs": (-1,)}, ValueError, "snapshot_epochs.*Got -1"),
    ({"snapshot_epochs": ("first",)}, ValueError, "snapshot_epochs.*Got 'first'"),
    ({"snapshot_epochs": (True,)}, ValueError, "snapshot_epochs.*Got True"),
    ({"data": (X, y[:-1])}, ValueError, "same length. Got 120 and 119"),
    ({"data": (np.full_like(X, np.nan), y)}, ValueError, "NaN"),
    ({"data": (X[:, :, :, None], y)}, ValueError, "X"),
    ({"validation": 1.5}, ValueError, "validation.*Got 1.5"),
    ({"validation": "some"}, TypeError, "validation.*Got 'some'"),
    ({"validation": (X, y, y)}, ValueError, "validation.*3 items"),
    ({"validation": (X, y[:-2])}, ValueError, "'X_val' and 'y_val'.*120 and 118"),
    ({"validation": (X[:, :, :3], y)}, ValueError, "X_val"),
    ({"validation": (X, None)}, TypeError, "'y_val' parameter.*Got None"),
    ({"data": (X, None)}, TypeError, "'y' parameter.*Got None"),
    ({"grid": {"optimizer__weight_decay": [0.1]}}, ValueError, r"'net_params': \[{'optimizer__weight_decay'"),
    ({"base": RNNClassifier}, TypeError, "must be an instance of"),
    ({"base": Ridge()}, TypeError, "must be an instance of RNNClassifier or RNNRegressor"),
    ({"base": estimator(max_epochs=0)}, ValueError, "max_epochs.*Got 0"),
    ({"grid": {"dropout": [2.0]}, "n_networks": 3}, ValueError, "dropout.*Got 2.0"),
    ({"random_state": "seed"}, TypeError, "random_state"),
]


@pytest.mark.parametrize(("change", "error", "match"), BAD)
def test_bad_input_is_refused_before_training(tmp_path, monkeypatch, change, error, match):
    monkeypatch.setattr("sklyap.population.training.run_all", lambda *args, **kwargs: pytest.fail("it was trained"))
    with pytest.raises(error, match=match):
        train(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="directory that one can write to"):
        train(tmp_path / "file")
    with pytest.raises(TypeError, match=r"'directory' parameter must be a path\. Got 3"):
        train(3)


# -- untrusted files ----------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def poison(path, tmp_path):
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))


def truncate(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-5])


def lead_out(path, tmp_path):
    path.replace(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")


def empty(path, tmp_path):
    path.write_bytes(b"")


def other_weights(path, tmp_path):
    write_tensors(path, {"readout.bias": torch.zeros(3)}, {"history": []})


@pytest.mark.parametrize("damage", [poison, truncate, lead_out, empty, other_weights])
@pytest.mark.parametrize("name", ["00002.json", "00002-epoch-1.safetensors"])
def test_damaged_file_is_named_and_its_network_trained_again(directory, stored, tmp_path, damage, name):
    damage(directory / "networks" / name, tmp_path)
    loaded = None
    if name.endswith(".json"):
        with pytest.warns(FailedNetworkWarning, match=rf"Network 2 is left out: .*{name}"):
            loaded = NetworkPopulation.load(directory)
        assert len(loaded) == 5 and len(loaded.failures) == 1
    else:
        with pytest.raises(UntrustedFileError, match=name):
            list(NetworkPopulation.load(directory).networks(1))
    with pytest.warns(FailedNetworkWarning, match=rf"Network 2 is trained again: .*{name}"):
        assert_same(train(directory), stored[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(train(directory), stored[1])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("params", [1]),
        ("seed", "0"),
        ("index", 3),
        ("call", "another"),
        ("history", {"valid_loss": "low"}),
        ("history", {"valid_loss": [1.0], "train_loss": [1.0, 2.0]}),
        ("history", {"valid_loss": [10**400]}),
        ("snapshots", {}),
        ("snapshots", {"1": {"epoch": 1}}),
        ("reason", 5),
    ],
)
def test_record_of_wrong_types_is_not_trusted(directory, stored, key, value):
    path = directory / "networks" / "00002.json"
    write_json(path, {**read_json(path), key: value})
    with pytest.warns(FailedNetworkWarning, match=r"00002\.json"):
        assert_same(train(directory), stored[1])


def test_changed_digit_is_noticed(directory, stored):
    path = directory / "networks" / "00002.json"
    content = path.read_text()
    loss = repr(float(stored[1].records[2].losses[0]))
    path.write_text(content.replace(loss, "0" + loss[1:]))
    assert loss in content and loss not in path.read_text()
    with pytest.warns(FailedNetworkWarning, match=r"00002\.json was changed"):
        assert_same(train(directory), stored[1])


def test_networks_outlive_the_manifest(directory, stored):
    networks = {path: path.stat().st_mtime_ns for path in (directory / "networks").iterdir()}
    (directory / "population.json").unlink()
    assert_same(train(directory), stored[1])
    assert networks == {path: path.stat().st_mtime_ns for path in (directory / "networks").iterdir()}


def test_record_cannot_name_a_file_elsewhere(directory, tmp_path):
    path = directory / "networks" / "00002.json"
    record = read_json(path)
    elsewhere = ("../../outside.safetensors", "/etc/passwd", str(tmp_path / "outside.safetensors"))
    for name in (*elsewhere, "00003-epoch-1.safetensors", "..", "a\0b", "a" * 5000):
        record["snapshots"]["1"]["file"] = name
        write_json(path, record)
        with pytest.warns(FailedNetworkWarning, match=r"00002\.json names a file outside its directory"):
            NetworkPopulation.load(directory)


def test_record_of_another_network_is_not_taken(directory, stored):
    networks = directory / "networks"
    (networks / "00002.json").write_bytes((networks / "00003.json").read_bytes())
    with pytest.warns(FailedNetworkWarning, match=r"00002\.json is the record of another network"):
        assert_same(train(directory), stored[1])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 99, "name": "a", "call": {}}', b"\x80\x04."])
def test_manifest_that_is_not_ours_is_named(directory, content):
    (directory / "population.json").write_bytes(content)
    for action in (lambda: NetworkPopulation.load(directory), lambda: train(directory)):
        with pytest.raises(UntrustedFileError, match=r"population\.json"):
            action()


@pytest.mark.parametrize(
    ("key", "value"),
    [("networks", [1, 2]), ("networks", {}), ("random_state", None), ("estimator", {"class": "a", "params": {}})],
)
def test_manifest_of_wrong_types_is_named(directory, key, value):
    path = directory / "population.json"
    manifest = read_json(path)
    manifest["call"][key] = value
    write_json(path, manifest)
    for action in (lambda: NetworkPopulation.load(directory), lambda: train(directory)):
        with pytest.raises(UntrustedFileError, match=r"population\.json"):
            action()


def test_nested_values_do_not_exhaust_the_stack(directory):
    path = directory / "population.json"
    manifest = read_json(path)
    manifest["call"]["networks"][0]["cell"] = json.loads("[" * 900 + "]" * 900)
    write_json(path, manifest)
    with pytest.warns(FailedNetworkWarning, match="another network or population"):
        assert len(NetworkPopulation.load(directory)) == 0
    with pytest.raises(ValueError, match="begun by another"):
        train(directory)


def test_no_population_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"population\.json"):
        NetworkPopulation.load(tmp_path)


def test_no_module_is_imported_on_the_word_of_a_file(directory, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Cell: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    manifest = read_json(directory / "population.json")
    original = json.dumps(manifest)
    manifest["call"]["estimator"]["class"] = {"__class__": "evil.Cell"}
    write_json(directory / "population.json", manifest)
    with pytest.raises(ValueError, match=r"evil\.Cell, which is not loaded"):
        NetworkPopulation.load(directory)
    manifest = json.loads(original)
    manifest["call"]["estimator"]["params"]["cell"] = {"__class__": "evil.Cell"}
    write_json(directory / "population.json", manifest)
    with pytest.raises(ValueError, match=r"cell=evil\.Cell, a class that is not loaded"):
        NetworkPopulation.load(directory)
    assert not (tmp_path / "executed").exists() and "evil" not in sys.modules


class Leaky(RecurrentCell):
    """A cell of the user's own."""

    def __init__(self, n_inputs, hidden_size):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = n_inputs, hidden_size, hidden_size
        self.hidden_size = hidden_size
        self.linear = torch.nn.Linear(n_inputs + hidden_size, hidden_size)

    def step(self, s, x):
        return 0.5 * s + 0.5 * torch.tanh(self.linear(torch.cat([s, x], -1)))


def test_own_cell_and_optimizer_survive_storage(tmp_path):
    base = estimator(optimizer=torch.optim.SGD, callbacks=[Trouble(ValueError, [99])])
    population = train(tmp_path, base=base, grid={"cell": [Leaky, "gru"]}, n_networks=2)
    loaded = NetworkPopulation.load(tmp_path)
    assert loaded[0].cell is Leaky and loaded[0].optimizer is torch.optim.SGD
    assert loaded[0].callbacks is None, "an object is not built from a file"
    np.testing.assert_array_equal(loaded[0].predict_proba(X), population[0].predict_proba(X))
    with_own = NetworkPopulation.load(tmp_path, estimator=base)
    assert with_own[0].callbacks is not None


# -- the population as a container ----------------------------------------------------------------------


def test_indexing(population):
    assert len(population[1:3]) == 2 and len(population[[0, 5]]) == 2 and len(population[[]]) == 0
    assert population[-1].random_state == population.records[5].seed
    mask = population.params["cell"] == "rnn"
    assert len(population[mask]) == mask.sum()
    assert [n.random_state for n in population] == [r.seed for r in population.records]
    with pytest.raises(IndexError):
        population[6]
    with pytest.raises(IndexError, match="mask of 6"):
        population[[True]]
    with pytest.raises(IndexError, match="indexed by"):
        population["cell"]


def test_filter(population):
    few = population.filter(lambda record: record.best_loss < np.median(population.best_losses))
    assert len(few) == 3
    gated = population.filter(cell=["lstm", "gru"])
    assert set(gated.params["cell"]) <= {"lstm", "gru"} and 0 < len(gated) < 6
    assert len(population.filter(cell="rnn")) + len(gated) == 6
    assert len(population.filter(max_epochs=2)) == 6, "a parameter that does not vary"
    assert len((population + train(name="other", n_networks=2)).filter(population="other")) == 2
    with pytest.raises(ValueError, match="Got 'cel'"):
        population.filter(cel="rnn")


def test_concatenation(population):
    other = train(grid={"hidden_size": [6]}, n_networks=2, name="other", snapshot_epochs=(1, "last"))
    both = population + other
    assert len(both) == 8 and both.params["hidden_size"].tolist()[-2:] == [6, 6]
    assert both.groups("population").tolist() == ["population"] * 6 + ["other"] * 2
    assert both.networks(1)[7].predict(X).shape == y.shape
    np.testing.assert_array_equal(both.losses(1), np.concatenate([population.losses(1), other.losses(1)]))
    with pytest.raises(ValueError, match=r"of networks must be one that was kept: 1, last. Got 0\.5"):
        both.networks(0.5)
    assert len(NetworkPopulation.concatenate([other, other, population])) == 10
    with pytest.raises(TypeError):
        population + 1


def test_callbacks_of_the_grid_are_shared_by_no_networks(tmp_path):
    stop = EarlyStopping(patience=1, threshold=10)
    grid = {"callbacks": [None, [stop]], "hidden_size": [3, 4]}
    first = train(tmp_path, grid=grid, n_networks=4, base=estimator(max_epochs=4))
    assert [len(r.losses) for r in first.records] == [4, 4, 2, 2]
    assert stop.misses_ == 0, "the caller's own is not touched"
    again = train(tmp_path, grid=grid, n_networks=4, base=estimator(max_epochs=4))
    np.testing.assert_array_equal(again.losses(), first.losses())
    loaded = NetworkPopulation.load(tmp_path)
    assert loaded.params["hidden_size"].tolist() == [3, 4, 3, 4]
    np.testing.assert_array_equal(loaded[3].predict_proba(X), first[3].predict_proba(X))


def test_groups(population):
    assert set(population.groups("cell")) == set(population.params["cell"])
    assert population.groups("max_epochs").tolist() == [2] * 6
    with pytest.raises(ValueError, match="Got 'colour'"):
        population.groups("colour")
    with pytest.raises(ValueError, match="Got 'score'"):
        population.groups("score")  # an attribute, but no parameter


@pytest.mark.parametrize(
    ("method", "epoch"), [("networks", 2), ("networks", "first"), ("losses", 3), ("losses", 1.5), ("losses", True)]
)
def test_unknown_epoch_is_refused(population, method, epoch):
    with pytest.raises(ValueError, match=f"'epoch' parameter of {method} must be.*Got {epoch!r}"):
        getattr(population, method)(epoch)


def test_reprs(population):
    text = repr(population)
    assert text.startswith("NetworkPopulation of 6 networks") and "lr: 0.0" in text and "best loss" in text
    page = population._repr_html_()
    assert page.count("<tr>") == text.count("\n") and "NetworkPopulation of 6 networks" in page
    assert repr(population.networks(1)) == "<6 trained networks, epoch 1>"


def test_html_is_escaped():
    population = train(name="<script>", grid={"hidden_size": [3]}, n_networks=1)
    population.records[0].params["<b>"] = "<i>"
    population.records[0].origin.estimator.get_params = lambda deep=False: {"<b>": "<i>"}
    assert "<b>" not in population._repr_html_() and "&lt;i&gt;" in population._repr_html_()


def test_progress_bar_shows_best_loss(capsys):
    train(n_networks=2, verbose=1)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "best loss" in shown


# -- with scikit-learn ------------------------------------------------------------------------------------


class WeightNorms(TransformerMixin, BaseEstimator):
    """A stand-in for a transformer of networks."""

    def __init__(self, power=1):
        self.power = power

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.array([[float(n.net_.module_.readout.weight.detach().norm()) ** self.power] for n in X])

    def get_feature_names_out(self, input_features=None):
        return np.array(["norm"], dtype=object)


def test_networks_work_as_X(stored):
    networks, losses = stored[1].networks(1), stored[1].best_losses
    model = make_pipeline(FeatureUnion([("norms", WeightNorms()), ("loss", HistoryFeatures())]), Ridge())
    search = GridSearchCV(model, {"featureunion__norms__power": [1, 2]}, cv=3, n_jobs=2, error_score="raise")
    search.fit(networks, losses)
    as_list = clone(search).set_params(n_jobs=1).fit(list(networks), losses)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], as_list.cv_results_["mean_test_score"])
    assert search.predict(networks).shape == (6,)
    train_part, test_part = train_test_split(networks, random_state=0, test_size=2)
    assert type(train_part) is type(networks) and len(test_part) == 2
    groups = stored[1].groups("cell")
    predicted = cross_val_predict(model, networks, losses, groups=groups, cv=LeaveOneGroupOut())
    assert np.isfinite(predicted).all()


def test_networks_of_two_populations_stay_lazy(stored):
    networks = stored[1].networks(0) + stored[1].networks("last")
    assert type(networks) is type(stored[1].networks()) and len(networks) == 12
    plain = list(networks[:2])
    assert len(networks + plain) == len(plain + networks) == 14
    assert len(networks[0].history_) == 0 and len(networks[11].history_) == 2


def test_history_features_read_where_the_network_stands(population):
    for epoch in EPOCHS:
        features = HistoryFeatures().fit_transform(population.networks(epoch))
        np.testing.assert_array_equal(features[:, 0], population.losses(epoch))
    last = HistoryFeatures(("train_loss", "valid_accuracy"), epoch=[1, 2]).fit(population.networks())
    table = last.set_output(transform="pandas").transform(population.networks())
    assert list(table.columns) == [
        "train_loss_epoch_1",
        "train_loss_epoch_2",
        "valid_accuracy_epoch_1",
        "valid_accuracy_epoch_2",
    ]
    np.testing.assert_array_equal(table.iloc[:, 1], [h["train_loss"].iloc[-1] for h in population.histories])
    logs = HistoryFeatures(log=True).fit(population.networks())
    np.testing.assert_allclose(logs.transform(population.networks())[:, 0], np.log(population.losses()))
    assert logs.get_feature_names_out().tolist() == ["log_valid_loss"]


def test_history_features_of_any_trained_estimator():
    network = estimator(validation_fraction=0.2, random_state=0).fit(X, y)
    features = HistoryFeatures(("train_loss", "valid_loss")).fit_transform([network])
    np.testing.assert_array_equal(features, [[network.history_[-1, c] for c in ("train_loss", "valid_loss")]])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"columns": ()}, "columns"),
        ({"columns": ("loss",)}, r"no column 'loss' at epoch last; it has \["),
        ({"epoch": 0}, r"epoch.*Got 0"),
        ({"epoch": 3}, "has trained for 2 epochs. HistoryFeatures needs epoch 3"),
        ({"epoch": "first"}, "epoch"),
    ],
)
def test_history_features_bad_input(population, params, match):
    with pytest.raises((ValueError, TypeError), match=match):
        HistoryFeatures(**params).fit(population.networks()).transform(population.networks())
    with pytest.raises((ValueError, TypeError)):
        HistoryFeatures().fit([])
    with pytest.raises(ValueError, match="have a history_"):
        HistoryFeatures().fit_transform([torch.nn.GRU(2, 3)])


def test_history_features_follow_the_contract_of_transformers(population):
    from sklyap.testing import check_network_transformer

    check_network_transformer(HistoryFeatures(("train_loss", "valid_loss")), list(population.networks()))
