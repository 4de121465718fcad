"""How well is the loss predicted? Three populations, the honest table, learning curves.

    python -m benchmarks.loss_prediction train digits --directory populations
    python -m benchmarks.loss_prediction table digits mnist text --directory populations

Training is resumable and takes minutes per population on one core; MNIST and the text are read from
``--data`` (see `sklyap.datasets` for what is downloaded otherwise).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import loguniform

from sklyap.datasets import fetch_sequential_mnist, fetch_war_and_peace, load_sequential_digits
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population


@dataclass(frozen=True)
class Task:
    """A task, the networks that learn it, and how many sequences drive them for the spectrum."""

    n_networks: int
    n_probes: int
    estimator: dict[str, Any]
    sizes: list[int]
    init_scale: tuple[float, float]
    lr: tuple[float, float]
    load: Any = field(repr=False)

    def train(self, directory: Path, data: Path | None, n_jobs: int | None = None) -> NetworkPopulation:
        X, y, X_val, y_val = self.load(data)
        return train_population(
            RNNClassifier(init="uniform", **self.estimator),
            {
                "cell": ["lstm", "gru", "rnn"],
                "hidden_size": self.sizes,
                "init_scale": loguniform(*self.init_scale),
                "lr": loguniform(*self.lr),
            },
            X,
            y,
            n_networks=self.n_networks,
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


TASKS = {
    "digits": Task(
        400, 16, {"max_epochs": 12, "batch_size": 32}, [16, 24, 32, 48, 64], (0.05, 3.0), (1e-3, 2e-2), _digits
    ),
    "mnist": Task(
        300, 16, {"max_epochs": 6, "batch_size": 64}, [16, 24, 32, 48, 64], (0.05, 3.0), (1e-3, 2e-2), _mnist
    ),
    "text": Task(
        120,
        8,
        {"max_epochs": 8, "batch_size": 32, "input_type": "tokens", "readout": "all"},
        [32, 48, 64, 96],
        (0.04, 1.0),
        (1e-3, 1e-2),
        _text,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train"])
    parser.add_argument("tasks", nargs="+", choices=list(TASKS))
    parser.add_argument("--directory", type=Path, default=Path("populations"))
    parser.add_argument("--data", type=Path, help="folder with MNIST's IDX files and war_and_peace.txt")
    parser.add_argument("--n-jobs", type=int, help="networks trained at once")
    arguments = parser.parse_args()
    for name in arguments.tasks:
        print(TASKS[name].train(arguments.directory / name, arguments.data, arguments.n_jobs))


if __name__ == "__main__":
    main()
