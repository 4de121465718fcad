"""What training through the estimator costs over a bare PyTorch loop with the same module and batches.

Both train in turn, epoch by epoch, in one process with the given number of threads; times are CPU seconds, which
other processes disturb less than the clock on the wall. Run as

    python benchmarks/training_overhead.py [n_threads]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sklyap import RNNClassifier
from sklyap.networks import RecurrentNetwork


class EpochClock(Callback):
    """CPU seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, net, **kwargs) -> None:
        self._start = time.process_time()

    def on_epoch_end(self, net, **kwargs) -> None:
        self.seconds.append(time.process_time() - self._start)


@dataclass(frozen=True)
class Task:
    """Sequences to classify: character prediction at every step, or one class per short sequence."""

    name: str
    hidden_size: int
    n_sequences: int
    n_steps: int
    n_inputs: int
    n_classes: int
    characters: bool
    batch_size: int = 64

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        if self.characters:
            text = rng.integers(self.n_inputs, size=(self.n_sequences, self.n_steps + 1))
            return text[:, :-1], text[:, 1:]
        X = rng.normal(size=(self.n_sequences, self.n_steps, self.n_inputs)).astype(np.float32)
        return X, np.arange(self.n_sequences) % self.n_classes

    def estimator(self) -> RNNClassifier:
        return RNNClassifier(
            "lstm",
            self.hidden_size,
            input_type="tokens" if self.characters else "values",
            n_tokens=self.n_inputs if self.characters else None,
            readout="all" if self.characters else "last",
            batch_size=self.batch_size,
            device="cpu",
            random_state=0,
        )

    def module(self) -> RecurrentNetwork:
        return RecurrentNetwork(
            "lstm",
            self.n_inputs,
            self.hidden_size,
            1,
            self.n_classes,
            tokens=self.characters,
            readout="all" if self.characters else "last",
        )


TASKS = (
    Task("characters, LSTM 64", 64, 2000, 100, 82, 82, characters=True),
    Task("characters, LSTM 128", 128, 2000, 100, 82, 82, characters=True),
    Task("digits, LSTM 64", 64, 1437, 8, 8, 10, characters=False),
    Task("digits, LSTM 16", 16, 1437, 8, 8, 10, characters=False),
)


def bare_epoch(module: nn.Module, optimizer: torch.optim.Optimizer, X, y, batch_size: int) -> float:
    """Train for an epoch and return the mean loss, with nothing that isn't needed."""
    module.train()
    total = 0.0
    for rows in torch.randperm(len(X)).split(batch_size):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(X[rows]).flatten(0, -2), y[rows].flatten())
        loss.backward()
        optimizer.step()
        total += loss.item() * len(rows)
    return total / len(X)


def measure(task: Task, n_epochs: int = 7) -> dict[str, float]:
    """Return the fastest epoch of both in seconds, and the ratio: what other processes do only adds to either."""
    X, y = task.data()
    X_tensor, y_tensor = torch.from_numpy(X), torch.from_numpy(y)
    torch.manual_seed(0)
    module = task.module()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    clock = EpochClock()
    estimator = task.estimator().set_params(callbacks=[clock])
    bare, call = [], []
    for _ in range(n_epochs + 1):
        start = time.process_time()
        bare_epoch(module, optimizer, X_tensor, y_tensor, task.batch_size)
        bare.append(time.process_time() - start)
        start = time.process_time()
        estimator.partial_fit(X, y)
        call.append(time.process_time() - start)
    # The first epoch of each pays for imports and allocation.
    fastest, fastest_epoch, fastest_call = (min(times[1:]) for times in (bare, clock.seconds, call))
    return {
        "bare": fastest,
        "estimator": fastest_epoch,
        "ratio": fastest_epoch / fastest,
        "ratio with checks of the data": fastest_call / fastest,
    }


def main(n_threads: int = 1) -> None:
    torch.set_num_threads(n_threads)
    print(f"{'CPU seconds per epoch':<22} {'bare':>8} {'estimator':>10} {'ratio':>7} {'with data checks':>17}")
    for task in TASKS:
        seconds = measure(task, 7 if task.characters else 60)
        print(
            f"{task.name:<22} {seconds['bare']:8.3f} {seconds['estimator']:10.3f} {seconds['ratio']:7.3f} "
            f"{seconds['ratio with checks of the data']:17.3f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
