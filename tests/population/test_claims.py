"""Several calls on one directory, and workers whose caller has died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch

from sklyap.exceptions import SklyapWarning
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population
from sklyap.population.claims import ForeignDirectoryError
from sklyap.population.directory import PopulationDirectory
from sklyap.population.worker import TrainingTask, run_task
from sklyap.storage import read_json

rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 6, 2)).astype(np.float32), np.arange(40) % 2


def train(directory, *, seed=0, max_epochs=2, n_networks=3, **options):
    base = RNNClassifier("gru", hidden_size=3, max_epochs=max_epochs, device="cpu")
    return train_population(
        base, {"lr": [0.01]}, X, y, n_networks=n_networks, random_state=seed, directory=directory,
        **{"verbose": 0, **options},
    )  # fmt: skip


def weights(population):
    return [n.export_state()[0]["recurrent.weight_hh_l0"] for n in population.networks()]


def both(directory, *calls):
    """Make calls at once and return what each returned or raised."""
    results = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(i, options):
        start.wait()
        try:
            results[i] = train(directory, **options)
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_two_calls_with_different_seeds_do_not_mix(tmp_path):
    results = both(tmp_path, {"seed": 0, "max_epochs": 60}, {"seed": 1, "max_epochs": 60})
    won = [i for i, r in enumerate(results) if isinstance(r, NetworkPopulation)]
    assert len(won) == 1, results
    lost = results[1 - won[0]]
    assert isinstance(lost, OSError | ValueError) and "'directory' parameter of train_population" in str(lost)
    expected = weights(train(None, seed=won[0], max_epochs=60))
    assert all(map(torch.equal, weights(NetworkPopulation.load(tmp_path)), expected))


@pytest.mark.filterwarnings("ignore:Another process trains:sklyap.exceptions.SklyapWarning")
def test_the_same_call_twice_at_once_agrees(tmp_path):
    first, second = both(tmp_path, {}, {})
    assert all(map(torch.equal, weights(first), weights(second)))


def test_starting_anew_while_another_trains_is_refused(tmp_path):
    with PopulationDirectory(tmp_path).claim("another", wait=False):
        start = time.monotonic()
        with pytest.raises(OSError, match="must not be in use by another call"):
            train(tmp_path, resume=False)
        assert time.monotonic() - start < 30
    train(tmp_path, resume=False)


def test_whoever_waits_says_so(tmp_path):
    train(tmp_path)
    directory = PopulationDirectory(tmp_path)
    call = read_json(directory.mark)["call"]
    claim = directory.claim(call, wait=True).__enter__()
    threading.Timer(0.5, claim.__exit__, (None, None, None)).start()
    with pytest.warns(SklyapWarning, match="waiting for its end"):
        train(tmp_path)


def test_no_worker_writes_once_the_directory_is_another_calls(tmp_path):
    """Like a worker that outlives its call: the other's files stay as they are."""
    population = train(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "networks").iterdir()}
    stranger = TrainingTask(
        RNNClassifier("gru", hidden_size=3, max_epochs=1), 0, {}, 5, (), str(tmp_path), "another call"
    )
    record = run_task(stranger, X, y, X, y)
    assert record.snapshots["last"].path is None
    with pytest.raises(ForeignDirectoryError, match="taken over by another call"):
        PopulationDirectory(tmp_path).write("another call", record)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "networks").iterdir()}
    assert len(population) == 3


def test_directory_that_is_deleted_while_training_is_named(tmp_path, monkeypatch):
    import shutil

    write = PopulationDirectory._write_files

    def remove_first(self, call, record):
        if record.index == 1:
            shutil.rmtree(self.path)
        return write(self, call, record)

    monkeypatch.setattr(PopulationDirectory, "_write_files", remove_first)
    with pytest.raises(OSError, match="removed while networks were trained"):
        train(tmp_path / "gone")


PROGRAM = """
    import sys
    import numpy as np
    from sklyap import RNNClassifier, train_population

    if __name__ == "__main__":
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((200, 30, 2)).astype("float32"), np.arange(200) % 2
        train_population(
            RNNClassifier("gru", hidden_size=16, max_epochs=12, device="cpu"), {"lr": [1e-3]}, X, y,
            n_networks=int(sys.argv[2]), random_state=0, directory=sys.argv[1], n_jobs=2, verbose=0,
        )
"""


def workers(session):
    """Return the worker processes of a session: not its leader, nor joblib's tracker of resources."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as stat, open(f"/proc/{entry}/cmdline") as command:
                fields, line = stat.read().rpartition(")")[2].split(), command.read()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z" and "popen_loky" in line:
            found.append(int(entry))
    return found


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="reads /proc")
def test_killed_worker_is_replaced_and_workers_go_with_their_caller(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    networks = tmp_path / "networks"
    process = subprocess.Popen(
        [sys.executable, program, tmp_path, "500"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert wait_until(lambda: len(list(networks.glob("[0-9]*.json"))) > 3, 90), "nothing was trained"
        first = workers(process.pid)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)
        assert wait_until(lambda: len(workers(process.pid)) == 2 and first[0] not in workers(process.pid), 60)
        done = len(list(networks.glob("[0-9]*.json")))
        assert wait_until(lambda: len(list(networks.glob("[0-9]*.json"))) > done + 2, 90), "it did not go on"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert wait_until(lambda: not workers(process.pid), 10), "workers outlived their caller"
    finally:
        if process.poll() is None:
            process.kill()
        for worker in workers(process.pid):
            os.kill(worker, signal.SIGKILL)
