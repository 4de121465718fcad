"""What LyapunovMonitor costs, as a share of the training time: a look after every epoch, and ``every="auto"``.

Both are CPU seconds of the same run, which other processes disturb alike. Run as

    python -m benchmarks.monitor_overhead [n_threads]
"""

from __future__ import annotations

import sys
import time

import torch

from sklyap import RNNClassifier
from sklyap.datasets import load_sequential_digits, make_recall
from sklyap.training import LyapunovMonitor


class Timed(LyapunovMonitor):
    """Counts CPU seconds of its looks, the first aside, which pays for imports."""

    cpu = 0.0

    def _spectrum(self, net):
        start = time.process_time()
        result = super()._spectrum(net)
        if self.spectra_:
            self.cpu += time.process_time() - start
        return result


def measure(cell: str, hidden_size: int, task: str, max_epochs: int = 12) -> tuple[float, float, int]:
    """Return CPU seconds of training per epoch and of a look, and what ``every="auto"`` comes to."""
    if task == "digits, 8 steps":
        X, y = load_sequential_digits(return_X_y=True)
    else:
        X, y = make_recall(1000, n_steps=100, random_state=0)
    monitor, auto = Timed(), LyapunovMonitor(every="auto")
    RNNClassifier(cell, hidden_size, max_epochs=0, callbacks=[auto], device="cpu", random_state=0).fit(X, y)
    estimator = RNNClassifier(
        cell, hidden_size, max_epochs=max_epochs, callbacks=[monitor], device="cpu", random_state=0
    )
    start = time.process_time()
    estimator.fit(X, y)
    total = time.process_time() - start
    return (total - monitor.cpu) / max_epochs, monitor.cpu / max_epochs, auto.every_


CASES = [
    ("rnn", 32, "recall, 100 steps"),
    ("gru", 64, "recall, 100 steps"),
    ("lstm", 64, "recall, 100 steps"),
    ("lstm", 64, "digits, 8 steps"),
    ("rnn", 16, "digits, 8 steps"),
]


def main(n_threads: int = 1) -> None:
    torch.set_num_threads(n_threads)
    print(
        f"{'network and task':<32} {'s per epoch':>12} {'s per look':>11} {'share':>7} {'every=auto':>11} {'share':>7}"
    )
    for cell, hidden_size, task in CASES:
        training, look, every = measure(cell, hidden_size, task)
        share = look / training
        print(
            f"{f'{cell} {hidden_size}, {task}':<32} {training:12.3f} {look:11.4f} {share:7.1%} "
            f"{every:11d} {share / every:7.1%}"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
