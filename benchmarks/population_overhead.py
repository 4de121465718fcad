"""What train_population costs over a bare loop, and what a network of a sweep needs in time, memory and disk.

Times are CPU seconds, with one thread, which other processes disturb less than the clock on the wall. Run as

    python -m benchmarks.population_overhead [--text FILE] [--mnist FOLDER]

to add the rows of the tasks whose data are files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pandas as pd

from sklyap.datasets import fetch_sequential_mnist, fetch_war_and_peace, load_sequential_digits
from sklyap.networks import RNNClassifier
from sklyap.population import train_population
from sklyap.population.snapshots import SnapshotCallback

# The sweep that the last columns speak of.
N_NETWORKS = 10_000


class Stopwatch:
    """CPU seconds spent in functions that it is put around."""

    def __init__(self):
        self.seconds = 0.0

    def around(self, function):
        def timed(*args, **kwargs):
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.process_time() - start

        return timed


def overhead(*, hidden_size=32, max_epochs=5, n_networks=8, on_disk=True):
    """Return CPU seconds of training itself and of everything that train_population does beside it.

    The two are told apart within one run, because on a busy machine two runs differ by more than the harness costs.
    Training is the estimator's `fit` without the callback that keeps snapshots, that is, a bare loop over `fit`.
    """
    X, y = load_sequential_digits(return_X_y=True)
    fit, snapshots = Stopwatch(), Stopwatch()
    keeping = {
        name: snapshots.around(getattr(SnapshotCallback, name))
        for name in ("on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")
    }
    with (
        tempfile.TemporaryDirectory() as directory,
        mock.patch.multiple(SnapshotCallback, **keeping),
        mock.patch.object(RNNClassifier, "fit", fit.around(RNNClassifier.fit)),
    ):
        estimator = RNNClassifier("lstm", hidden_size, max_epochs=max_epochs, device="cpu")
        start = time.process_time()
        train_population(
            estimator,
            {"lr": [1e-3, 3e-3, 1e-2, 3e-2]},
            X,
            y,
            n_networks=n_networks,
            directory=directory if on_disk else None,
            random_state=0,
        )
        total = time.process_time() - start
    training = fit.seconds - snapshots.seconds
    return {
        "networks": f"{n_networks} x LSTM {hidden_size}, {max_epochs} epochs",
        "where": "directory" if on_disk else "memory",
        "training": training,
        "snapshots": snapshots.seconds,
        "all else": total - fit.seconds,
        "harness / training": (total - training) / training,
    }


@dataclass(frozen=True)
class Task:
    """A sweep: its estimator trains for the `measured` share of what a network of the sweep needs."""

    name: str
    estimator: RNNClassifier
    data: tuple
    epochs: int
    measured: float = 1.0


def needs(task):
    """Return what one network of a sweep needs; it is trained in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        before = pool.submit(_peak_memory).result()
        seconds, size, peak = pool.submit(_train_one, task.estimator, *task.data).result()
    seconds /= task.measured
    return {
        "task": task.name,
        "epochs": task.epochs,
        "core seconds per network": seconds,
        "MB of a worker": peak / 2**20,
        "of these before training": before / 2**20,
        "MB on disk per network": size / 2**20,
        f"core hours of {N_NETWORKS:,}": seconds * N_NETWORKS / 3600,
        f"GB on disk of {N_NETWORKS:,}": size * N_NETWORKS / 2**30,
    }


def _train_one(estimator, X, y):
    with tempfile.TemporaryDirectory() as directory:
        start = time.process_time()
        train_population(estimator, {}, X, y, directory=directory, random_state=0, verbose=0)
        seconds = time.process_time() - start
        size = sum(path.stat().st_size for path in Path(directory).rglob("0*"))
    return seconds, size, _peak_memory()


def _peak_memory():
    """Return the peak memory of this process in bytes (Linux; getrusage would count the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def tasks(text=None, mnist=None, small=False):
    """Yield the sweeps; those whose data are files only with the files."""
    X, y = load_sequential_digits(return_X_y=True)
    for size in (16, 64):
        estimator = RNNClassifier("lstm", size, max_epochs=1 if small else 12, device="cpu")
        data = (X[:200], y[:200]) if small else (X, y)
        yield Task(f"digits by rows, LSTM {size}", estimator, data, 12, estimator.max_epochs / 12)
    if mnist is not None:
        data = fetch_sequential_mnist(folder=mnist, return_X_y=True)
        estimator = RNNClassifier("lstm", 64, max_epochs=1, batch_size=128, device="cpu")
        yield Task("MNIST by rows, LSTM 64", estimator, data, 10, 1 / 10)
    if text is not None:
        novel = fetch_war_and_peace(path=text, n_characters=320_000, splits=(1, 0, 0))
        share = 320_000 / 3_202_303
        for size in (64, 512):
            options = {"input_type": "tokens", "n_tokens": novel.n_tokens, "readout": "all", "max_epochs": 1}
            estimator = RNNClassifier("lstm", size, batch_size=100, device="cpu", **options)
            yield Task(f"War and Peace, LSTM {size}", estimator, (novel.X_train, novel.y_train), 15, share / 15)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a file of War and Peace")
    parser.add_argument("--mnist", help="a folder with MNIST's IDX files")
    options = parser.parse_args()
    sizes = ({"hidden_size": 16, "max_epochs": 5}, {"hidden_size": 32, "max_epochs": 12})
    rows = [overhead(on_disk=on_disk, **size) for size in sizes for on_disk in (False, True)]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    rows = [needs(task) for task in tasks(options.text, options.mnist)]
    print(pd.DataFrame(rows).T.to_string(header=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
