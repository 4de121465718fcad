"""What a spectrum says about the sign of the largest exponent, in a sentence, and the warnings that go with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["ZERO_TOLERANCE", "SpectrumVerdict", "verdict_on"]

ZERO_TOLERANCE = 1e-3
"""Rate in nats per step (per unit of time, for a cell that knows its time step) up to which a largest exponent counts
as zero, two standard errors included, unless a tolerance was asked for. Over a thousand steps, perturbations then grow
or shrink by less than a factor e."""
_SIGN_ERRORS = 2.0
"""Minimum distance from zero, in standard errors, of an exponent whose sign is settled. On about 95 % of independent
runs the truth lies within two of them."""
_ROUNDING_UNITS = 64
"""Rounding of an exponent in units of machine precision, below which a sign means nothing."""


@dataclass(frozen=True)
class SpectrumVerdict:
    """Whether the largest exponent's sign is settled or it is zero, how many signs are open, and a sentence."""

    converged: bool
    n_undecided: int
    status: str


def verdict_on(
    exponents: np.ndarray,
    standard_error: np.ndarray,
    *,
    tolerance: float | None = None,
    time_step: float | None = None,
    eps: float = np.finfo(float).eps,
) -> SpectrumVerdict:
    """Return the verdict on a spectrum.

    Parameters
    ----------
    exponents, standard_error : ndarray of shape (k,)
        Descending, in nats per step.
    tolerance : float, optional
        The standard error that was asked for.
    time_step : float, optional
        Units of time in a step.
    eps : float
        Machine precision of the run.
    """
    finite = np.isfinite(exponents)
    if not finite.any():
        sentence = "Every direction is annihilated within the sequences."
        return SpectrumVerdict(True, 0, sentence + _notes(0, len(exponents)))
    rounding = _ROUNDING_UNITS * eps
    undecided = np.abs(exponents[finite]) <= np.maximum(_SIGN_ERRORS * standard_error[finite], rounding)
    first, error = float(exponents[0]), float(standard_error[0])
    largest_error = float(standard_error[finite].max())
    bound = max(abs(first) + _SIGN_ERRORS * error, rounding)
    zero = ZERO_TOLERANCE * (time_step or 1.0) if tolerance is None else tolerance
    if tolerance is not None and not largest_error <= tolerance:
        converged = False
        sentence = (
            f"Not converged: the largest standard error is {largest_error:.2g} per step, above the tolerance of "
            f"{tolerance:.2g}; use more or longer sequences, or go on with resume."
        )
    elif not undecided[0]:
        converged, sign = True, "positive" if first > 0 else "negative"
        sentence = f"Converged: the largest exponent is {sign}, {first:.3g} ± {error:.2g} per step."
    elif bound <= max(zero, rounding):
        converged = True
        sentence = f"Converged: the largest exponent is zero to within {bound:.2g} per step; its sign is open."
    else:
        converged = False
        sentence = (
            f"Not converged: the largest exponent is {first:.3g} ± {error:.2g} per step, so its sign cannot "
            f"be told; use more or longer sequences. It is not zero to within {zero:.1g} either."
        )
    n_undecided = int(undecided.sum())
    return SpectrumVerdict(converged, n_undecided, sentence + _notes(n_undecided, int((~finite).sum())))


def _notes(n_undecided: int, n_degenerate: int) -> str:
    notes = ""
    if n_undecided > 1:
        notes += f" {n_undecided} exponents are within {_SIGN_ERRORS:.0f} standard errors of zero."
    if n_degenerate:
        notes += f" {n_degenerate} direction(s) are annihilated to rounding and have exponent -inf."
    return notes
