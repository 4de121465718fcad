"""Populations on the disk: resuming, kills, full disks."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
from skorch.callbacks import EarlyStopping

from sklyap.datasets import load_sequential_digits
from sklyap.networks import RNNClassifier, RNNRegressor
from sklyap.population import NetworkPopulation, train_population
from sklyap.storage import write_tensors
from tests.population.helpers import EPOCHS, GRID, X, assert_same, estimator, train, y


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
    assert all(name.endswith((".json", ".safetensors", ".lock")) and not name.startswith(".") for name in names)
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
    monkeypatch.setattr("sklyap.population.directory.PopulationDirectory.belongs_to", lambda self, call: False)
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
