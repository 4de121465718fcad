"""Populations for the studies of loss prediction: many architectures, and networks that differ in little.

    python -m benchmarks.prediction_populations architectures seeds --directory populations

Training is resumable. `architectures` trains eight architectures on two tasks, one population each; `seeds` trains
LSTMs that differ in seed and initial scale only, the same ones on two tasks.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import loguniform

from sklyap.datasets import load_sequential_digits, make_recall
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population

ARCHITECTURES = ("rnn", "gru", "lstm", "antisymmetric", "cornn", "lipschitz", "lem", "orthogonal")
EPOCHS = {"recall": 15, "digits": 12}
"""Of training, by task: recall over 30 steps, and scikit-learn's digits by rows."""


def load(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return sequences and classes of a task."""
    if task == "recall":
        return make_recall(1500, n_steps=30, random_state=0)
    X, y = load_sequential_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(X))
    return X[order], y[order]


def _train(
    task: str, directory: Path, estimator: RNNClassifier, varied: dict[str, Any], n: int, n_jobs: int | None
) -> Any:
    X, y = load(task)
    return train_population(
        estimator.set_params(max_epochs=EPOCHS[task], batch_size=64),
        varied,
        X,
        y,
        n_networks=n,
        snapshot_epochs=(0, 1, 3, "last"),
        directory=directory,
        n_jobs=n_jobs,
        random_state=0,
    )


def architectures(task: str, directory: Path, n: int = 40, n_jobs: int | None = None) -> dict[str, NetworkPopulation]:
    """Train, or take from the directory, `n` networks of every architecture."""
    varied = {
        "hidden_size": [16, 24, 32, 40, 48],
        "init_scale": loguniform(0.05, 2.0),
        "lr": loguniform(1e-3, 2e-2),
    }
    return {
        cell: _train(
            task, directory / "architectures" / task / cell, RNNClassifier(cell, init="uniform"), varied, n, n_jobs
        )
        for cell in ARCHITECTURES
    }


def seeds(task: str, directory: Path, n: int = 100, n_jobs: int | None = None) -> NetworkPopulation:
    """Train LSTMs that differ in seed and initial scale: on either task the i-th has the same seed and scale."""
    lstm = RNNClassifier("lstm", 24, init="uniform", lr=5e-3)
    return _train(task, directory / "seeds" / task, lstm, {"init_scale": loguniform(0.1, 2.0)}, n, n_jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=["architectures", "seeds"])
    parser.add_argument("--directory", type=Path, default=Path("populations"))
    parser.add_argument("--tasks", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--networks", type=int, help="of each population; by default 40 and 100")
    parser.add_argument("--n-jobs", type=int, help="networks trained at once")
    options = parser.parse_args()
    given = {} if options.networks is None else {"n": options.networks}
    for study in options.studies:
        for task in options.tasks:
            print(task, {"architectures": architectures, "seeds": seeds}[study](
                task, options.directory, n_jobs=options.n_jobs, **given
            ))  # fmt: skip


if __name__ == "__main__":
    main()
