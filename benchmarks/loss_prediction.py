"""How well is the loss predicted? Three populations, the honest table, learning curves.

    python -m benchmarks.loss_prediction train digits --directory populations
    python -m benchmarks.loss_prediction table digits mnist text --directory populations

Training is resumable; MNIST and the text are read from ``--data`` (see `sklyap.datasets` for what is downloaded
otherwise). The tables and figures are those of docs/prediction.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import loguniform, uniform

from benchmarks import prediction_populations, prediction_tables
from sklyap.datasets import fetch_sequential_mnist, fetch_war_and_peace, load_sequential_digits
from sklyap.exceptions import DegenerateSpectrumWarning
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population


@dataclass(frozen=True)
class Task:
    """A task, the networks that learn it, and how many sequences drive them for the spectrum."""

    n_networks: int
    n_probes: int
    estimator: dict[str, Any]
    varied: dict[str, Any]
    load: Any = field(repr=False)

    def train(
        self, directory: Path, data: Path | None, n_networks: int | None = None, n_jobs: int | None = None
    ) -> NetworkPopulation:
        X, y, X_val, y_val = self.load(data)
        return train_population(
            RNNClassifier(**self.estimator),
            self.varied,
            X,
            y,
            n_networks=self.n_networks if n_networks is None else n_networks,
            validation=(X_val, y_val),
            snapshot_epochs=(0, 1, 3, "last"),
            directory=directory,
            n_jobs=n_jobs,
            random_state=0,
        )


def _digits(data: Path | None) -> tuple[np.ndarray, ...]:
    X, y = load_sequential_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    X, y = X[order], y[order]
    return X[:1437], y[:1437], X[1437:], y[1437:]


def _mnist(data: Path | None) -> tuple[np.ndarray, ...]:
    X, y = fetch_sequential_mnist(folder=data, n_samples=4000, return_X_y=True)
    return X[:3000], y[:3000], X[3000:], y[3000:]


def _text(data: Path | None) -> tuple[np.ndarray, ...]:
    path = None if data is None else data / "war_and_peace.txt"
    text = fetch_war_and_peace(path=path, n_steps=50, splits=(0.85, 0.15, 0.0), n_characters=120_000)
    return text.X_train, text.y_train, text.X_valid, text.y_valid


def _mixed(sizes: list[int], init_scale: tuple[float, float], lr: tuple[float, float]) -> dict[str, Any]:
    """Return what varies in a population of three architectures."""
    return {
        "cell": ["lstm", "gru", "rnn"],
        "hidden_size": sizes,
        "init_scale": loguniform(*init_scale),
        "lr": loguniform(*lr),
    }


RECALL = "recall"
"""A study of the LSTM, GRU and Elman networks that benchmarks.prediction_populations trains on recall."""
_SIZES = [16, 24, 32, 48, 64]
_CHARACTERS = {"batch_size": 32, "input_type": "tokens", "readout": "all"}
TASKS = {
    "digits": Task(
        400,
        16,
        {"init": "uniform", "max_epochs": 12, "batch_size": 32},
        _mixed(_SIZES, (0.05, 3.0), (1e-3, 2e-2)),
        _digits,
    ),
    "mnist": Task(
        300,
        16,
        {"init": "uniform", "max_epochs": 6, "batch_size": 64},
        _mixed(_SIZES, (0.05, 3.0), (1e-3, 2e-2)),
        _mnist,
    ),
    "text": Task(
        120,
        8,
        {"init": "uniform", "max_epochs": 8, **_CHARACTERS},
        _mixed([32, 48, 64, 96], (0.04, 1.0), (1e-3, 1e-2)),
        _text,
    ),
    # One architecture of one size: what varies is how it is trained.
    "text-lstm": Task(
        110,
        8,
        {"cell": "lstm", "hidden_size": 64, "max_epochs": 6, **_CHARACTERS},
        {"dropout": uniform(0.0, 0.4), "lr": loguniform(1e-3, 1e-2)},
        _text,
    ),
}


def _population(name: str, options: argparse.Namespace) -> tuple[NetworkPopulation, np.ndarray]:
    """Return a trained population and what drives it."""
    if name == RECALL:
        cells = [
            NetworkPopulation.load(options.directory / "architectures" / RECALL / c) for c in ("lstm", "gru", "rnn")
        ]
        return NetworkPopulation.concatenate(cells), prediction_populations.load(RECALL)[0][:16]
    task = TASKS[name]
    return NetworkPopulation.load(options.directory / name), task.load(options.data)[0][: task.n_probes]


def study(options: argparse.Namespace) -> list[prediction_tables.Study]:
    """Return what is to be known about each population at each epoch."""
    studies = []
    # Networks that annihilate directions are common; their exponents are floored.
    warnings.simplefilter("ignore", DegenerateSpectrumWarning)
    for epoch in options.epochs:
        for name in options.tasks:
            start = time.perf_counter()
            population, probes = _population(name, options)
            memory = options.directory / "spectra"
            study = prediction_tables.Study(
                name,
                population[: options.networks],
                probes,
                epoch,
                memory,
                options.n_jobs,
                options.small,
                options.folds,
                options.parts,
            )
            done = study.run()
            print(f"{name}, epoch {epoch}: {len(population)} networks, {time.perf_counter() - start:.0f} s")
            print(done.table.to_string(float_format="{:.3f}".format))
            studies.append(done)
    return studies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "table"])
    parser.add_argument("tasks", nargs="+", choices=[*TASKS, RECALL])
    parser.add_argument("--directory", type=Path, default=Path("populations"))
    parser.add_argument("--data", type=Path, help="folder with MNIST's IDX files and war_and_peace.txt")
    parser.add_argument("--networks", type=int, help="how many to train or look at; by default all")
    parser.add_argument("--folds", type=int, default=10, help="of the cross-validation")
    parser.add_argument("--parts", nargs="+", default=["table"], choices=prediction_tables.PARTS)
    parser.add_argument("--n-jobs", type=int, help="networks trained, or models fitted, at once")
    parser.add_argument("--epochs", type=int, nargs="+", default=prediction_tables.EPOCHS, help="of the tables")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs", help="of the tables")
    parser.add_argument("--small", action="store_true", help="tables that only show that everything runs")
    options = parser.parse_args()
    if options.command == "train":
        for name in options.tasks:
            if name == RECALL:
                raise SystemExit("python -m benchmarks.prediction_populations architectures trains recall")
            print(TASKS[name].train(options.directory / name, options.data, options.networks, options.n_jobs))
        return
    print("written to", prediction_tables.write(study(options), options.output))


if __name__ == "__main__":
    main()
