"""Growth along blocks of the QR iteration, summed over bins of time: rates and their standard error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sklyap.tangent import Factors, GrowthBlock, QRBlock

__all__ = ["GrowthRecord", "standard_error", "time_bins"]

_MANY_SEQUENCES = 32
"""From how many sequences on their spread alone tells the standard error."""
_SAMPLES_WANTED = 64
"""Independent sums over bins of time that the standard error of fewer sequences rests on."""
_SHORTEST_BIN = 8
"""Steps of a bin where there are some sequences: exact sums cost a factorisation at every edge."""
_SOME_SEQUENCES = 8
"""From how many sequences on bins may be that coarse."""
_FEWEST_SAMPLES = 8
"""Below this many, correlations in time cannot be told."""


def time_bins(warmup: int, n_steps: int, n_sequences: int) -> list[int]:
    """Return the edges of the bins of time over which growth is summed, for the standard error."""
    steps = n_steps - warmup
    wanted = 1 if n_sequences >= _MANY_SEQUENCES else math.ceil(_SAMPLES_WANTED / max(1, n_sequences - 1))
    n_bins = max(1, min(wanted, steps // _SHORTEST_BIN if n_sequences >= _SOME_SEQUENCES else steps))
    return [warmup + (steps * i) // n_bins for i in range(n_bins + 1)]


@dataclass
class GrowthRecord:
    """Growth of one batch of sequences, summed over bins of time."""

    indices: list[int]
    sums: np.ndarray  # (n, n_bins, k)
    steps: np.ndarray  # (n, n_bins)
    log_spread: float
    intervals: list[int]
    local: np.ndarray | None
    basis: np.ndarray | None
    r_factors: np.ndarray | None

    @classmethod
    def of(
        cls,
        blocks: Iterable[QRBlock | GrowthBlock],
        Q: Tensor,
        indices: list[int],
        bins: Sequence[int],
        *,
        keep_local: bool = False,
        factors: Factors | None = None,
    ) -> GrowthRecord:
        """Consume the blocks of an iteration that starts from Q; blocks before the first edge of `bins` are warm-up.

        A block counts in the bin in which it starts; bins in which none starts are left out. `factors` are what is
        collected meanwhile of these blocks and goes into the record.
        """
        n, _, k = Q.shape
        warmup, end = bins[0], bins[-1]
        sums = torch.zeros(n, len(bins) - 1, k, dtype=torch.float64, device=Q.device)
        steps = np.zeros((n, len(bins) - 1), dtype=np.int64)
        local = np.full((n, end - warmup, k), np.nan) if keep_local else None
        worst, intervals, current, total = 0.0, [], 0, sums[:, 0]
        for block in blocks:
            if block.stop <= warmup:
                continue
            while bins[current + 1] <= block.start:
                current += 1
                total = sums[:, current]
            m, length = len(block.log_growth), block.stop - block.start
            (total if m == n else total[:m]).add_(block.log_growth)
            steps[:m, current] += length
            worst = max(worst, block.log_spread)
            intervals.append(length)
            if local is not None:
                rate = (block.log_growth / length).cpu().numpy()
                local[:m, block.start - warmup : block.stop - warmup] = rate[:, None]
        filled = steps.any(0)
        return cls(
            indices, sums.cpu().numpy()[:, filled], steps[:, filled], worst, intervals, local,
            None if factors is None else torch.stack(factors.Q, 1).cpu().numpy(),
            None if factors is None else torch.stack(factors.R, 1).cpu().numpy(),
        )  # fmt: skip


def standard_error(sums: np.ndarray, steps: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over sequences of averages over time.

    The larger of two estimates: from the spread of the sequences' averages, which no correlation in time
    can deceive but which few sequences leave vague, and from the growth in bins of time, whose
    correlations are summed over a window that adapts to them [1]_. Where growth cancels itself in time (a zero
    exponent along a flow), the second is an upper bound: less than its own noise it does not resolve.

    Parameters
    ----------
    sums : ndarray of shape (n_sequences, n_bins, k)
        Growth summed over bins of time.
    steps : ndarray of shape (n_sequences, n_bins)
        Steps in each bin; zero after the end of a sequence.
    mean : ndarray of shape (k,)

    Returns
    -------
    ndarray of shape (k,)
        Infinite where one sample is all there is, NaN where `mean` is -inf.

    References
    ----------
    .. [1] Madras, N. and Sokal, A. D. (1988). The pivot algorithm: a highly efficient Monte Carlo method for
       the self-avoiding walk. Journal of Statistical Physics 50, appendix C.
    """
    n = len(sums)
    annihilated = np.isneginf(mean)
    sums, mean = np.where(annihilated, 0.0, sums), np.where(annihilated, 0.0, mean)
    totals = n * steps.sum(1)[:, None, None]
    deviations = (sums - steps[..., None] * mean) / totals  # they add up to zero
    variance = np.fmax(_spread_variance(deviations), _serial_variance(deviations, steps))
    return np.where(annihilated, np.nan, np.sqrt(np.where(np.isnan(variance), np.inf, variance)))


def _spread_variance(deviations: np.ndarray) -> np.ndarray:
    """Return the variance (k,) of the sum of `deviations` (n, n_bins, k), sequences being independent.

    NaN for a single sequence.
    """
    n = len(deviations)
    return (deviations.sum(1) ** 2).sum(0) * n / (n - 1) if n > 1 else np.full(deviations.shape[-1], np.nan)


def _serial_variance(deviations: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the same from correlations along time, NaN where there is only one bin."""
    n, n_bins, k = deviations.shape
    n_samples = max(1, n - 1) * n_bins
    if n_bins == 1:
        return np.full(k, np.nan)
    if n > 1:
        # What all sequences do at the same time, as they settle, is no noise.
        present = (steps > 0)[..., None]
        n_present = present.sum(0)
        profile = deviations.sum(0) / np.maximum(n_present, 1)
        deviations = (deviations - profile) * present * np.sqrt(n_present / np.maximum(n_present - 1, 1))
    square = (deviations**2).sum((0, 1))
    if n_samples < _FEWEST_SAMPLES:
        return square * (n_samples / (n_samples - 1) if n == 1 else 1.0)
    total, variance, growing = square.copy(), square.copy(), np.ones(k, dtype=bool)
    for lag in range(1, max(2, min(n_bins, n_samples // 3))):
        total += 2 * (deviations[:, lag:] * deviations[:, :-lag]).sum((0, 1))
        # Deviations from one sequence's own mean are correlated by construction.
        bias = 1 - (2 * lag + 1) / n_bins if n == 1 else 1.0
        variance = np.where(growing, total / bias, variance)
        # total / square is twice the correlation time, in bins.
        growing &= lag * square < total
        if not growing.any():
            break
    return np.maximum(variance, square / math.sqrt(n_samples))
