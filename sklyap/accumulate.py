"""Growth along blocks of the QR iteration, summed over bins of time: rates and their standard error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sklyap.tangent import QRBlock

__all__ = ["GrowthRecord", "standard_error", "time_bins"]

_SAMPLES_WANTED = 32
"""Sequences times blocks over time that a standard error should rest on."""
_SHORTEST_BIN = 10


def time_bins(warmup: int, n_steps: int, n_sequences: int) -> list[int]:
    """Return the edges of the blocks of time whose means tell the standard error."""
    steps = n_steps - warmup
    wanted = math.ceil(_SAMPLES_WANTED / n_sequences)
    longest_blocks = max(1, steps // _SHORTEST_BIN) if n_sequences > 1 else steps
    n_bins = max(1, min(wanted, longest_blocks))
    return sorted({warmup + (steps * i) // n_bins for i in range(n_bins + 1)})


@dataclass
class GrowthRecord:
    """Growth of one batch of sequences, summed over bins of time."""

    indices: list[int]
    sums: np.ndarray  # (n, n_bins, k)
    steps: np.ndarray  # (n, n_bins)
    strain: float
    intervals: list[int]
    local: np.ndarray | None
    basis: np.ndarray | None
    r_factors: np.ndarray | None

    @classmethod
    def of(
        cls,
        blocks: Iterable[QRBlock],
        Q: Tensor,
        indices: list[int],
        lengths: list[int],
        bins: Sequence[int],
        keep_local: bool,
        keep_basis: bool,
    ) -> GrowthRecord:
        """Consume the blocks of an iteration; blocks before the first edge of `bins` are warm-up."""
        n, _, k = Q.shape
        warmup, end = bins[0], bins[-1]
        sums = torch.zeros(n, len(bins) - 1, k, dtype=torch.float64, device=Q.device)
        steps = np.zeros((n, len(bins) - 1), dtype=np.int64)
        local = np.full((n, end - warmup, k), np.nan) if keep_local else None
        bases, factors = [Q], []
        worst, intervals, current = 0.0, [], 0
        for block in blocks:
            if block.stop <= warmup:
                bases = [block.Q]
                continue
            while bins[current + 1] <= block.start:
                current += 1
            m, length = len(block.Q), block.stop - block.start
            sums[:m, current] += block.log_growth
            steps[:m, current] += length
            worst = max(worst, block.strain)
            intervals.append(length)
            if local is not None:
                rate = (block.log_growth / length).cpu().numpy()
                local[:m, block.start - warmup : block.stop - warmup] = rate[:, None]
            if keep_basis:
                bases.append(block.Q)
                factors.append(block.R)
        return cls(
            indices, sums.cpu().numpy(), steps, worst, intervals, local,
            torch.stack(bases, 1).cpu().numpy() if keep_basis else None,
            torch.stack(factors, 1).cpu().numpy() if keep_basis else None,
        )  # fmt: skip


def standard_error(sums: np.ndarray, steps: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over sequences of averages over time.

    Every block of time of every sequence is one sample of the rate, weighted as in the mean.
    """
    filled = steps > 0
    n_samples = int(filled.sum())
    if n_samples < 2:
        return np.where(np.isneginf(mean), np.nan, np.inf)
    weights = (steps / steps.sum(1, keepdims=True) / len(steps))[filled]
    with np.errstate(invalid="ignore"):
        deviations = sums[filled] / steps[filled][:, None] - mean
        variance = (weights[:, None] ** 2 * deviations**2).sum(0) * n_samples / (n_samples - 1)
    return np.where(np.isneginf(mean), np.nan, np.sqrt(variance))
