"""Growth along blocks of the QR iteration, summed over bins of time: rates and their standard error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.tangent import Factors, GrowthBlock, QRBlock

__all__ = ["GrowthRecord", "standard_error", "time_bins"]

_SPREAD_ALONE = 32
"""Minimum sequences for a standard error from the spread of their averages alone."""
_SAMPLES_WANTED = 64
"""Sums over bins of time that the standard error of fewer sequences is estimated from."""
_COARSE_BINS_FROM = 8
"""Minimum sequences for bins of at least `_SHORTEST_BIN` steps."""
_SHORTEST_BIN = 8
"""Minimum steps of a coarse bin: every edge of a bin costs an exact factorisation."""
_FEWEST_SAMPLES = 8
"""Minimum sums over bins of time for an estimate of correlations in time."""


def time_bins(warmup: int, n_steps: int, n_sequences: int) -> list[int]:
    """Return the edges of the bins of time over which growth is summed, for the standard error.

    Examples
    --------
    >>> from sklyap.lyapunov import time_bins
    >>> time_bins(10, 74, 1)[:3], len(time_bins(10, 74, 1)) - 1
    ([10, 11, 12], 64)
    """
    steps = n_steps - warmup
    wanted = 1 if n_sequences >= _SPREAD_ALONE else math.ceil(_SAMPLES_WANTED / max(1, n_sequences - 1))
    n_bins = max(1, min(wanted, steps // _SHORTEST_BIN if n_sequences >= _COARSE_BINS_FROM else steps))
    return [warmup + (steps * i) // n_bins for i in range(n_bins + 1)]


@dataclass(frozen=True)
class GrowthRecord:
    """Growth of some sequences, summed over bins of time, and where it ended.

    Attributes
    ----------
    indices : list of int
        Which sequences of the run these are.
    sums : ndarray of shape (n, n_bins, k)
        Growth in nats; columns in the order of the basis.
    steps : ndarray of shape (n, n_bins)
        Steps in each bin; zero after the end of a sequence.
    log_spread : float
        The largest that was met.
    intervals : Counter
        How many blocks had how many steps.
    local : ndarray of shape (n, n_steps, k) or None
        Growth at each step.
    basis, r_factors : ndarray or None
        As in :class:`~sklyap.LyapunovResult`.
    block_steps : list of int or None
        Steps of the blocks that `r_factors` belong to.
    s, Q : ndarray of shape (n, state_size) and (n, N, k), or None
        State and basis after each sequence's last step.

    Examples
    --------
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.datasets import systems
    >>> record = lyapunov_spectrum(systems.henon().cell, 100, random_state=0).end.record
    >>> record.sums.shape[-1], int(record.steps.sum())
    (2, 90)
    """

    indices: list[int]
    sums: np.ndarray
    steps: np.ndarray
    log_spread: float
    intervals: Counter[int]
    local: np.ndarray | None = None
    basis: np.ndarray | None = None
    r_factors: np.ndarray | None = None
    block_steps: list[int] | None = None
    s: np.ndarray | None = None
    Q: np.ndarray | None = None

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
        lengths: Sequence[int] | None = None,
    ) -> GrowthRecord:
        """Consume the blocks of an iteration that starts from Q; blocks before the first edge of `bins` are warm-up.

        A block counts in the bin in which it starts; bins in which none starts are left out. `factors` are what is
        collected meanwhile of these blocks and goes into the record. `lengths` are those of the sequences, in
        descending order, if the ends are to be kept.
        """
        n, _, k = Q.shape
        warmup, end = bins[0], bins[-1]
        sums = torch.zeros(n, len(bins) - 1, k, dtype=torch.float64, device=Q.device)
        steps = np.zeros((n, len(bins) - 1), dtype=np.int64)
        local = np.full((n, end - warmup, k), np.nan) if keep_local else None
        ends, spans = _Ends(lengths or ()), list[int]()
        worst, intervals, current, total = 0.0, Counter[int](), 0, sums[:, 0]
        for block in blocks:
            ends.look_at(block)
            if block.stop <= warmup:
                continue
            while bins[current + 1] <= block.start:
                current += 1
                total = sums[:, current]
            m, length = len(block.log_growth), block.stop - block.start
            (total if m == n else total[:m]).add_(block.log_growth)
            steps[:m, current] += length
            worst = max(worst, block.log_spread)
            intervals[length] += 1
            if factors is not None:
                spans.append(length)
            if local is not None:
                rate = (block.log_growth / length).cpu().numpy()
                local[:m, block.start - warmup : block.stop - warmup] = rate[:, None]
        filled = steps.any(0)
        # numpy's sums depend in the last bit on the order in memory, so it is always the same.
        kept = [np.ascontiguousarray(values[:, filled]) for values in (sums.cpu().numpy(), steps)]
        record = cls(indices, kept[0], kept[1], worst, intervals, local)
        if factors is not None:
            basis, R = (torch.stack(parts, 1).cpu().numpy() for parts in (factors.Q, factors.R))
            record = replace(record, basis=basis, r_factors=R, block_steps=spans)
        return replace(record, s=ends.states(), Q=ends.bases()) if lengths else record

    @property
    def n_steps(self) -> int:
        """Steps of the longest sequence."""
        return int(self.steps.sum(1).max())

    @classmethod
    def beside(cls, records: Sequence[GrowthRecord]) -> GrowthRecord:
        """Return the record of several batches of sequences, in the order of their indices."""
        indices = [i for record in records for i in record.indices]
        order = np.argsort(indices)
        if len(records) == 1 and indices == sorted(indices):
            return records[0]

        def gather(name: str) -> Any:
            parts = [getattr(record, name) for record in records]
            return None if parts[0] is None else np.concatenate(_same_width(parts))[order]

        return cls(
            sorted(indices), gather("sums"), gather("steps"), max(record.log_spread for record in records),
            sum((record.intervals for record in records), Counter[int]()),
            gather("local"), gather("basis"), gather("r_factors"), records[0].block_steps,
            gather("s"), gather("Q"),
        )  # fmt: skip

    def then(self, later: GrowthRecord) -> GrowthRecord:
        """Return the record of the same sequences over both stretches of time."""

        def both(name: str, skip: int = 0) -> Any:
            parts = getattr(self, name), getattr(later, name)
            return None if parts[0] is None or parts[1] is None else np.concatenate([parts[0], parts[1][:, skip:]], 1)

        spans = self.block_steps and later.block_steps and self.block_steps + later.block_steps
        return replace(
            later, sums=both("sums"), steps=both("steps"), log_spread=max(self.log_spread, later.log_spread),
            intervals=self.intervals + later.intervals,
            local=both("local"), basis=both("basis", skip=1), r_factors=both("r_factors"), block_steps=spans,
        )  # fmt: skip

    def coarsened(self) -> GrowthRecord:
        """Return the record with every two neighbouring bins in one."""
        starts = np.arange(0, self.steps.shape[1], 2)
        sums, steps = np.add.reduceat(self.sums, starts, axis=1), np.add.reduceat(self.steps, starts, axis=1)
        return replace(self, sums=sums, steps=steps)

    def without_bins(self, n_bins: int) -> GrowthRecord:
        """Return the record without its first bins."""
        return replace(self, sums=self.sums[:, n_bins:], steps=self.steps[:, n_bins:])

    def exponents(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return means over time (n, k), their mean over sequences (k,) and its standard error (k,), unsorted."""
        per_sequence = self.sums.sum(1) / self.steps.sum(1)[:, None]
        exponents = per_sequence.mean(0)
        return per_sequence, exponents, standard_error(self.sums, self.steps, exponents)


class _Ends:
    """Collects state and basis of each sequence where it ends; `lengths` are in descending order."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths = lengths
        self._stops = set(lengths)
        self._parts: list[tuple[Tensor, Tensor]] = []

    def look_at(self, block: QRBlock | GrowthBlock) -> None:
        if block.stop in self._stops and block.s is not None and block.Q is not None:
            go_on = sum(length > block.stop for length in self._lengths)
            self._parts.append((block.s[go_on:], block.Q[go_on:]))

    def states(self) -> np.ndarray:
        # Rows are in order of length: the shortest sequences, which end first, come last.
        return torch.cat([s for s, _ in reversed(self._parts)]).cpu().numpy()

    def bases(self) -> np.ndarray:
        return torch.cat([Q for _, Q in reversed(self._parts)]).cpu().numpy()


def _same_width(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return arrays (n, m, ...) padded with zeros to the same m: batches may have filled more or fewer bins."""
    width = max(part.shape[1] for part in parts)
    missing = [width - part.shape[1] for part in parts]
    return [
        np.pad(part, [(0, 0), (0, m), *[(0, 0)] * (part.ndim - 2)]) if m else part
        for part, m in zip(parts, missing, strict=True)
    ]


def standard_error(sums: np.ndarray, steps: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the standard error of the mean over sequences of averages over time.

    It is the larger of two estimates. The first is the spread of the sequences' averages: it assumes nothing about
    correlations in time, but few sequences determine it poorly. The second comes from the growth in bins of time, whose
    correlations are summed over a window that adapts to them [1]_. Where growth cancels itself in time (a zero exponent
    along a flow), the second is an upper bound, as it cannot resolve less than its own noise.

    Parameters
    ----------
    sums : ndarray of shape (n_sequences, n_bins, k)
        Growth summed over bins of time.
    steps : ndarray of shape (n_sequences, n_bins)
        Steps in each bin; zero after the end of a sequence.
    mean : ndarray of shape (k,)
        Over sequences, of the averages over time.

    Returns
    -------
    ndarray of shape (k,)
        Infinite where one sample is all there is, NaN where `mean` is -inf.

    References
    ----------
    .. [1] Madras, N. and Sokal, A. D. (1988). The pivot algorithm: a highly efficient Monte Carlo method for
       the self-avoiding walk. Journal of Statistical Physics 50, appendix C.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap.lyapunov import standard_error
    >>> sums = np.random.default_rng(0).normal(size=(40, 1, 1))  # forty sequences, one bin of one step
    >>> error = standard_error(sums, np.ones((40, 1)), sums.mean((0, 1)))
    >>> bool(np.isclose(error[0], sums.std(ddof=1) / 40**0.5))
    True
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
        # The transient moves all sequences at the same time. It is common to them, so it is not noise of their mean.
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
        # The deviations of a single sequence are from its own mean, which makes them correlated.
        bias = 1 - (2 * lag + 1) / n_bins if n == 1 else 1.0
        variance = np.where(growing, total / bias, variance)
        # total / square is twice the correlation time, in bins.
        growing &= lag * square < total
        if not growing.any():
            break
    return np.maximum(variance, square / math.sqrt(n_samples))
