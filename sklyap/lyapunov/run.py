"""Runs of the QR iteration over some sequences, for some steps: in batches, on threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sklyap.cells import RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.lyapunov.growth import GrowthRecord
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals, one_thread
from sklyap.tangent import Factors, GrowthBlock, QRBlock, growth_iteration, qr_iteration

__all__ = ["Run"]

_THREADS_ENTRIES = 2**13
"""Minimum entries of a sequence's basis for several threads to be faster; with fewer, threads wait for one another."""


@dataclass(frozen=True)
class Run:
    """How sequences are run, whatever they are: a cell in its dtype on its device, and the settings of the iteration.

    Attributes
    ----------
    cell : RecurrentCell
    k, N : int
        Number of exponents and dimension of the tangent space.
    dtype, device
        Of the bases.
    seed : int
        Of the random bases.
    interval, orthonormalizer, state
        As for :func:`~sklyap.tangent.qr_iteration`.
    keep_local, keep_basis, keep_ends : bool
        What a record keeps beside the sums of growth.
    batch_size : int or None
    progress : callable or None
        See :func:`~sklyap.lyapunov_spectrum`.
    """

    cell: RecurrentCell
    k: int
    N: int
    dtype: torch.dtype
    device: torch.device
    seed: int
    interval: int | str
    orthonormalizer: str
    state: str
    keep_local: bool
    keep_basis: bool
    keep_ends: bool
    batch_size: int | None
    progress: Callable[[int], Any] | None

    def record(
        self, drive: Drive, bins: Sequence[int], *, indices: Sequence[int] | None = None, Q: Tensor | None = None
    ) -> GrowthRecord:
        """Return the growth along sequences of `drive`.

        Parameters
        ----------
        drive : Drive
        bins : sequence of int
            Edges of the bins of time; steps before the first one are warm-up.
        indices : sequence of int, optional
            Which sequences; all by default.
        Q : Tensor of shape (n_sequences, N, k), optional
            Bases to start from; random ones by default.
        """
        chosen = range(drive.n_sequences) if indices is None else indices
        size = min(self.batch_size or len(chosen), len(chosen))
        n_threads = torch.get_num_threads()

        def batch(indices: list[int]) -> GrowthRecord:
            return self._batch(drive, bins, indices, Q)

        if self.device.type == "cpu" and self.N * self.k < _THREADS_ENTRIES:
            with one_thread():
                records = [batch(part) for part in _batches(drive, chosen, size)]
        elif self.device.type == "cpu" and n_threads > 1 and size > 1:
            # A thread for each share of the sequences factors large matrices faster than threads inside a
            # factorisation. How many threads MKL takes is a setting of each thread.
            with one_thread(), ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                records = list(pool.map(batch, _batches(drive, chosen, math.ceil(size / n_threads))))
        else:
            records = [batch(part) for part in _batches(drive, chosen, size)]
        return GrowthRecord.beside(records)

    def _batch(self, drive: Drive, bins: Sequence[int], indices: list[int], Q: Tensor | None) -> GrowthRecord:
        with torch.no_grad(), flushed_denormals():
            x, s, lengths = drive.padded(self.cell, indices, ends_are_seen=self.keep_ends)
            if Q is None:
                start = random_bases(self.N, self.k, self.seed, indices, dtype=self.dtype, device=self.device)
            else:
                start = Q[indices]
            options: dict[str, Any] = {
                "Q": start, "s": s, "lengths": lengths, "qr_interval": self.interval,
                "orthonormalizer": self.orthonormalizer, "state": self.state, "breakpoints": [bins[0]],
            }  # fmt: skip
            factors = Factors([start], [], []) if self.keep_basis else None
            blocks: Iterator[QRBlock | GrowthBlock]
            if factors is not None:
                blocks = iter(factors.collecting(qr_iteration(self.cell, x, **options), bins[0]))
            elif self.keep_local:
                blocks = iter(qr_iteration(self.cell, x, **options))
            else:
                blocks = iter(growth_iteration(self.cell, x, exact=bins, **options))
            if self.progress is not None:
                blocks = _reported(blocks, self.progress)
            ends = lengths if self.keep_ends else None
            return GrowthRecord.of(
                blocks, start, indices, bins, keep_local=self.keep_local, factors=factors, lengths=ends
            )


def _batches(drive: Drive, indices: Sequence[int], size: int) -> list[list[int]]:
    """Return `indices` in batches, those of the longest sequences first (padding then only trails)."""
    order = sorted(indices, key=lambda i: -drive.lengths[i])
    return [order[i : i + size] for i in range(0, len(order), size)]


def _reported(
    blocks: Iterable[QRBlock | GrowthBlock], progress: Callable[[int], Any]
) -> Iterator[QRBlock | GrowthBlock]:
    for block in blocks:
        yield block
        progress((block.stop - block.start) * len(block.log_growth))
