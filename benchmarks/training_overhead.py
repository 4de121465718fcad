"""What training through the estimator costs over a bare PyTorch loop with the same module and batches.

Both train in turn, epoch by epoch, in one process with the given number of threads; times are CPU seconds, which
other processes disturb less than the clock on the wall. Run as

    python -m benchmarks.training_overhead [n_threads] [studies | others]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import nn

from sklyap import RNNClassifier, RNNRegressor
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
    """Sequences to learn: tokens with a class at every step, a class per sequence, or values at every step."""

    name: str
    hidden_size: int
    n_sequences: int
    n_steps: int
    n_inputs: int
    n_classes: int
    characters: bool = False
    batch_size: int = 64
    cell: str = "lstm"
    num_layers: int = 1
    regression: bool = False
    gradient_clip: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Options that the estimator and its module share."""
        return {"cell": self.cell, "hidden_size": self.hidden_size, "num_layers": self.num_layers,
                "readout": "all" if self.characters or self.regression else "last"}  # fmt: skip

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        if self.characters:
            text = rng.integers(self.n_inputs, size=(self.n_sequences, self.n_steps + 1))
            return text[:, :-1], text[:, 1:]
        X = rng.normal(size=(self.n_sequences, self.n_steps, self.n_inputs)).astype(np.float32)
        return X, X.copy() if self.regression else np.arange(self.n_sequences) % self.n_classes

    def estimator(self) -> RNNClassifier | RNNRegressor:
        kind = RNNRegressor if self.regression else RNNClassifier
        tokens = {"input_type": "tokens", "n_tokens": self.n_inputs} if self.characters else {}
        return kind(
            **self.options, **tokens, batch_size=self.batch_size, gradient_clip=self.gradient_clip, device="cpu",
            random_state=0,
        )  # fmt: skip

    def module(self) -> RecurrentNetwork:
        n_outputs = self.n_inputs if self.regression else self.n_classes
        return RecurrentNetwork(n_inputs=self.n_inputs, n_outputs=n_outputs, tokens=self.characters, **self.options)


TASKS = (
    Task("characters, LSTM 64", 64, 2000, 100, 82, 82, characters=True),
    Task("characters, LSTM 128", 128, 2000, 100, 82, 82, characters=True),
    Task("digits, LSTM 64", 64, 1437, 8, 8, 10),
    Task("digits, LSTM 16", 16, 1437, 8, 8, 10),
)

STUDIES = (
    *(Task(f"characters, {cell} 32", 32, 1700, 50, 82, 82, characters=True, batch_size=32, cell=cell)
      for cell in ("lstm", "gru", "rnn")),
    *(Task(f"MNIST rows, {cell} 32", 32, 3200, 28, 28, 10, batch_size=128, cell=cell)
      for cell in ("lstm", "gru", "rnn", "antisymmetric", "cornn")),
    Task("MNIST pixels, rnn 128", 128, 256, 784, 1, 10, batch_size=64, cell="rnn"),
    *(Task(f"motion, 2 x {cell} 32", 32, 160, 50, 3, 0, batch_size=16, cell=cell, num_layers=2, regression=True,
           gradient_clip=1.0) for cell in ("lstm", "gru", "rnn")),
    Task("sines, rate 64", 64, 64, 240, 1, 0, batch_size=8, cell="rate", regression=True, gradient_clip=1.0),
)  # fmt: skip
"""The settings of the studies of the thesis' experiments, at their laptop size."""


def bare_epoch(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    X: torch.Tensor,
    y: torch.Tensor,
    batch_size: int,
    gradient_clip: float | None = None,
) -> float:
    """Train for an epoch and return the mean loss, with nothing that isn't needed."""
    module.train()
    total = 0.0
    for rows in torch.randperm(len(X)).split(batch_size):
        optimizer.zero_grad()
        made, wanted = module(X[rows]), y[rows]
        if wanted.is_floating_point():
            loss = nn.functional.mse_loss(made, wanted)
        else:
            loss = nn.functional.cross_entropy(made.flatten(0, -2), wanted.flatten())
        loss.backward()
        if gradient_clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), gradient_clip)
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
        bare_epoch(module, optimizer, X_tensor, y_tensor, task.batch_size, task.gradient_clip)
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


def main(n_threads: int = 1, tasks: str = "studies") -> None:
    torch.set_num_threads(n_threads)
    print(f"{'CPU seconds per epoch':<26} {'bare':>8} {'estimator':>10} {'ratio':>7} {'with data checks':>17}")
    for task in STUDIES if tasks == "studies" else TASKS:
        seconds = measure(task, 60 if task.name.startswith("digits") else 7)
        print(
            f"{task.name:<26} {seconds['bare']:8.3f} {seconds['estimator']:10.3f} {seconds['ratio']:7.3f} "
            f"{seconds['ratio with checks of the data']:17.3f}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:3])
