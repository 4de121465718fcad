"""What train_population costs over a bare loop, and what a sweep needs in time, memory and disk.

Times are CPU seconds, with one thread, which other processes disturb less than the clock on the wall. Run as

    python -m benchmarks.population_overhead [--text FILE] [--mnist FOLDER]

to add the rows of the tasks whose data are files.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from benchmarks.measure import machine
from sklyap.datasets import fetch_sequential_mnist, fetch_war_and_peace, load_sequential_digits
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population
from sklyap.population.description import identity
from sklyap.population.directory import PopulationDirectory
from sklyap.population.snapshots import SnapshotCallback
from sklyap.runtime import one_thread

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
    """Return CPU seconds of a bare loop over `fit`, and of what train_population does beside training.

    On a busy machine two runs differ by more than the harness costs. So each network is trained twice in one run,
    with the harness and bare, in turn first and second; what the harness costs is measured on itself: the callback
    that keeps snapshots, and everything outside `fit`.
    """
    X, y = load_sequential_digits(return_X_y=True)
    X, X_val, y, y_val = train_test_split(X, y, test_size=0.2, random_state=0)
    estimator = RNNClassifier("lstm", hidden_size, max_epochs=max_epochs, device="cpu")
    fit, bare, snapshots = Stopwatch(), Stopwatch(), Stopwatch()
    keeping = {
        name: snapshots.around(getattr(SnapshotCallback, name))
        for name in ("on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")
    }
    plain = RNNClassifier.fit
    with_harness, without = fit.around(plain), bare.around(plain)
    bare_first = itertools.cycle([True, False])

    def fit_twice(estimator, *data):
        if estimator.max_epochs == 0:  # the rehearsal before the first network is no training
            return plain(estimator, *data)
        twin = RNNClassifier(**{**estimator.get_params(deep=False), "callbacks": None})
        first = next(bare_first)
        if first:
            without(twin, *data)
        with_harness(estimator, *data)
        if not first:
            without(twin, *data)
        return estimator

    with one_thread(), tempfile.TemporaryDirectory() as directory:
        clone(estimator).set_params(max_epochs=1).fit(X, y, X_val, y_val)  # pays for imports and allocation
        with mock.patch.multiple(SnapshotCallback, **keeping), mock.patch.object(RNNClassifier, "fit", fit_twice):
            start = time.process_time()
            train_population(
                estimator,
                {"lr": [1e-3, 3e-3, 1e-2, 3e-2]},
                X,
                y,
                n_networks=n_networks,
                validation=(X_val, y_val),
                directory=directory if on_disk else None,
                random_state=0,
                verbose=0,
            )
            total = time.process_time() - start
    return {
        "networks": f"{n_networks} x LSTM {hidden_size}, {max_epochs} epochs",
        "where": "directory" if on_disk else "memory",
        "bare loop": bare.seconds,
        "training": fit.seconds - snapshots.seconds,
        "snapshots": snapshots.seconds,
        "all else": total - fit.seconds - bare.seconds,
        "harness / bare loop": (total - fit.seconds - bare.seconds + snapshots.seconds) / bare.seconds,
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
    with _new_process() as pool:
        before = pool.submit(_memory, "VmHWM").result()
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
    with one_thread(), tempfile.TemporaryDirectory() as directory:
        few = slice(estimator.batch_size)
        clone(estimator).set_params(max_epochs=1).fit(X[few], y[few])  # pays for imports and allocation
        start = time.process_time()
        train_population(estimator, {}, X, y, directory=directory, random_state=0, verbose=0)
        seconds = time.process_time() - start
        size = sum(path.stat().st_size for path in Path(directory).rglob("0*"))
    return seconds, size, _memory("VmHWM")


def loading(n_networks=2000, hidden_size=64):
    """Return what reading a large population costs, in a new process: copies of one network stand for the many."""
    X, y = load_sequential_digits(return_X_y=True)
    with tempfile.TemporaryDirectory() as directory:
        one = train_population(
            RNNClassifier("lstm", hidden_size, max_epochs=12, device="cpu"),
            {"lr": [1e-3]},
            X[:200],
            y[:200],
            directory=Path(directory) / "one",
            random_state=0,
            verbose=0,
        )
        manifest = PopulationDirectory(Path(directory) / "one").read_manifest()
        manifest["call"]["networks"] *= n_networks
        many, call = PopulationDirectory(Path(directory) / "many"), identity(manifest["call"])
        many.open(call, manifest, anew=True)
        record = one.records[0]
        loaded = {key: replace(s, state=s.load(), path=None) for key, s in record.snapshots.items()}
        for index in range(n_networks):
            many.write(call, replace(record, index=index, snapshots=loaded))
        size = sum(path.stat().st_size for path in many.path.rglob("*") if path.is_file())
        with _new_process() as pool:
            reading = pool.submit(_read, many.path).result()
    return {"networks": f"{n_networks} x LSTM {hidden_size}", "MB on disk": size / 2**20, **reading}


def _read(directory):
    before = _memory("VmRSS")
    clock = [time.process_time()]
    population = NetworkPopulation.load(directory)
    clock.append(time.process_time())
    after = _memory("VmRSS")
    population.to_frame()
    clock.append(time.process_time())
    networks = population.networks(epoch=1)
    networks[0]  # pays for imports and allocation
    start = _memory("VmHWM")
    for _network in networks:
        pass
    clock.append(time.process_time())
    seconds = [end - begin for begin, end in itertools.pairwise(clock)]
    return {
        **dict(zip(("load, s", "to_frame(), s", "every network once, s"), seconds, strict=True)),
        "MB of the loaded population": (after - before) / 2**20,
        "MB more at the peak of the pass over its networks": (_memory("VmHWM") - start) / 2**20,
    }


def _new_process():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _memory(kind):
    """Return memory of this process in bytes, "VmRSS" or its peak "VmHWM" (Linux; getrusage counts the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{kind}:")[2].split()[0]) * 1024


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
        whole = fetch_war_and_peace(path=text).n_characters
        for size, n_characters in ((64, 320_000), (512, 100_000)):
            novel = fetch_war_and_peace(path=text, n_characters=n_characters, splits=(1, 0, 0))
            options = {"input_type": "tokens", "n_tokens": novel.n_tokens, "readout": "all", "max_epochs": 1}
            estimator = RNNClassifier("lstm", size, batch_size=100, device="cpu", **options)
            data = (novel.X_train, novel.y_train)
            yield Task(f"War and Peace, LSTM {size}", estimator, data, 15, n_characters / whole / 15)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", help="a file of War and Peace")
    parser.add_argument("--mnist", help="a folder with MNIST's IDX files")
    options = parser.parse_args()
    print(f"Measured {machine()}.")
    sizes = ({"hidden_size": 16, "max_epochs": 5}, {"hidden_size": 32, "max_epochs": 12})
    rows = [overhead(on_disk=on_disk, **size) for size in sizes for on_disk in (False, True)]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    rows = [needs(task) for task in tasks(options.text, options.mnist)]
    print(pd.DataFrame(rows).T.to_string(header=False, float_format="{:.3g}".format))
    print(pd.Series(loading()).to_string(float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
