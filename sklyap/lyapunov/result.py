"""The result of a spectrum: its record, its verdict, its warnings."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sklyap.exceptions import ConvergenceWarning, DegenerateSpectrumWarning, PrecisionWarning
from sklyap.lyapunov.growth import GrowthRecord, standard_error
from sklyap.runtime import is_unwarned
from sklyap.validation import check_choice

__all__ = ["LyapunovResult", "summarise", "warn_about"]

_SIGN_TOLERANCE = 0.01
"""A standard error below this share of the largest |exponent| is small enough to call zero zero."""


@dataclass(frozen=True)
class LyapunovResult:
    """Lyapunov exponents with their uncertainty and how they were computed.

    Attributes
    ----------
    exponents : ndarray of shape (k,)
        Mean over sequences, descending, in `unit` per step; -inf for annihilated directions.
    standard_error : ndarray of shape (k,)
        Of `exponents`, from the spread over sequences and over blocks of time; inf where one sample is
        all there is, NaN for annihilated directions.
    per_sequence : ndarray of shape (n_sequences, k)
        Each sequence's average over time, columns as in `exponents`.
    local : ndarray of shape (n_sequences, n_steps, k) or None
        Finite-time growth at each step; padded with NaN where sequences are shorter than the longest.
    log_abs_det : float or None
        Mean of ln|det J| per step; None for a truncated spectrum.
    condition : float
        The largest ratio of entries of a factor R to its diagonal that was met (with rows scaled to one size, where
        saturated units make them differ). Times machine precision it bounds the relative error of the most contracted
        direction over a block.
    qr_interval : int
        Steps between factorisations (the most frequent number where it was chosen automatically).
    n_steps : int
        Steps averaged over (of the longest sequence), the warm-up not counted.
    warmup : int
        Steps before them that were not averaged.
    n_degenerate : int
        How many directions are annihilated (exponent -inf).
    converged : bool
        Whether the sign of the largest exponent is settled.
    status : str
        The verdict in a sentence, with advice.
    basis : ndarray of shape (n_sequences, n_blocks + 1, N, k) or None
        Tangent basis before the first averaged block and after each.
    r_factors : ndarray of shape (n_sequences, n_blocks, k, k) or None
        Upper-triangular factors, ``J … J basis[:, i] = basis[:, i + 1] r_factors[:, i]``.
    block_steps : ndarray of shape (n_blocks,) or None
        Steps covered by each of these blocks.
    unit : {"nats", "bits"}
    """

    exponents: np.ndarray
    standard_error: np.ndarray
    per_sequence: np.ndarray
    local: np.ndarray | None
    log_abs_det: float | None
    condition: float
    qr_interval: int
    n_steps: int
    warmup: int
    n_degenerate: int
    converged: bool
    status: str
    basis: np.ndarray | None = None
    r_factors: np.ndarray | None = None
    block_steps: np.ndarray | None = None
    unit: str = "nats"

    def to(self, unit: str) -> LyapunovResult:
        """Return the result with rates in "nats" or "bits" per step."""
        check_choice(unit, "unit", ["nats", "bits"], caller="LyapunovResult.to")
        if unit == self.unit:
            return self
        factor = 1 / math.log(2) if unit == "bits" else math.log(2)
        scaled: dict[str, Any] = {
            name: None if value is None else value * factor
            for name in ("exponents", "standard_error", "per_sequence", "local", "log_abs_det")
            for value in [getattr(self, name)]
        }
        return replace(self, unit=unit, **scaled)

    def __repr__(self) -> str:
        shown = [f"{e:.4g} ± {se:.2g}" for e, se in zip(self.exponents[:4], self.standard_error[:4], strict=True)]
        more = f", … {self.exponents[-1]:.4g}" if len(self.exponents) > 4 else ""
        return (
            f"LyapunovResult: {len(self.exponents)} exponents in {self.unit} per step: {', '.join(shown)}{more}\n"
            f"  {len(self.per_sequence)} sequence(s), {self.n_steps} steps after {self.warmup} of warm-up, "
            f"QR every {self.qr_interval} step(s), condition {self.condition:.1g}\n"
            f"  {self.status}"
        )


def summarise(records: list[GrowthRecord], warmup: int, interval: int | str, complete: bool) -> LyapunovResult:
    """Return the result of batches of sequences; `complete` if all directions of the tangent space were carried."""
    order = np.argsort([i for record in records for i in record.indices])

    def gather(name: str) -> np.ndarray | None:
        parts = [getattr(record, name) for record in records]
        return None if parts[0] is None else np.concatenate(_same_width(parts))[order]

    sums, steps = gather("sums"), gather("steps")
    assert sums is not None and steps is not None
    n_steps = steps.sum(1)
    per_sequence = sums.sum(1) / n_steps[:, None]
    exponents = per_sequence.mean(0)
    errors = standard_error(sums, steps, exponents)
    # The basis is nearly sorted by itself; ties and noise may swap neighbours.
    rank = np.argsort(-exponents, kind="stable")
    exponents, errors, per_sequence = exponents[rank], errors[rank], per_sequence[:, rank]
    local = gather("local")
    n_degenerate = int(np.isneginf(exponents).sum())
    converged, status = _verdict(exponents, errors, n_degenerate)
    intervals = np.concatenate([record.intervals for record in records])
    return LyapunovResult(
        exponents=exponents,
        standard_error=errors,
        per_sequence=per_sequence,
        local=None if local is None else local[..., rank],
        log_abs_det=float(per_sequence.sum(1).mean()) if complete else None,
        condition=_exp(max(record.log_spread for record in records)),
        qr_interval=int(np.bincount(intervals).argmax()) if interval == "auto" else int(interval),
        n_steps=int(n_steps.max()),
        warmup=warmup,
        n_degenerate=n_degenerate,
        converged=converged,
        status=status,
        basis=gather("basis"),
        r_factors=gather("r_factors"),
        block_steps=np.array(records[0].intervals) if records[0].basis is not None else None,
    )


def _same_width(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return arrays (n, m, ...) padded with zeros to the same m: batches may have filled more or fewer bins."""
    width = max(part.shape[1] for part in parts)
    return [np.pad(part, [(0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)]) for part in parts]


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(float).max) else math.inf


def _verdict(exponents: np.ndarray, standard_error: np.ndarray, n_degenerate: int) -> tuple[bool, str]:
    finite = np.abs(exponents[np.isfinite(exponents)])
    degenerate = (
        f" {n_degenerate} direction(s) are annihilated to rounding and have exponent -inf." if n_degenerate else ""
    )
    if not len(finite):
        return True, "Every direction is annihilated within the sequences." + degenerate
    first, error = exponents[0], standard_error[0]
    if abs(first) <= 2 * error and error > _SIGN_TOLERANCE * finite.max():
        return False, (
            f"Not converged: the largest exponent is {first:.3g} ± {error:.2g} per step, so its sign cannot be told; "
            "use more or longer sequences." + degenerate
        )
    return True, "Converged: the sign of the largest exponent is settled." + degenerate


def warn_about(result: LyapunovResult, *, explicit: bool, budget: float) -> None:
    """Warn of what the verdict of a result says; `explicit` if its QR interval was asked for."""
    if is_unwarned():
        return
    if not result.converged:
        warnings.warn(result.status, ConvergenceWarning, stacklevel=3)
    if result.n_degenerate:
        warnings.warn(
            f"{result.n_degenerate} of {len(result.exponents)} directions are annihilated to rounding; "
            "their exponents are -inf and their standard errors NaN.",
            DegenerateSpectrumWarning,
            stacklevel=3,
        )
    if explicit and result.qr_interval > 1 and result.condition > math.exp(budget):
        warnings.warn(
            f"qr_interval={result.qr_interval} loses digits: directions separate by a factor {result.condition:.1e} "
            "between factorisations, and the smallest exponents carry that much rounding error. "
            "Lower qr_interval or leave it at 'auto'.",
            PrecisionWarning,
            stacklevel=3,
        )
