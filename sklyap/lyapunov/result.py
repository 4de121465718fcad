"""LyapunovResult: the exponents of a run with their errors, and the warnings about them."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sklyap.cells import CELLS, RecurrentCell
from sklyap.exceptions import ConvergenceWarning, DegenerateSpectrumWarning, PrecisionWarning
from sklyap.lyapunov.dimension import kaplan_yorke_dimension
from sklyap.lyapunov.growth import GrowthRecord
from sklyap.lyapunov.resumption import RunEnd
from sklyap.lyapunov.verdict import verdict_on
from sklyap.runtime import is_unwarned
from sklyap.validation import check_choice, check_real

__all__ = ["LyapunovResult", "summarise", "time_step_of", "warn_about"]


@dataclass(frozen=True)
class LyapunovResult:
    """Lyapunov exponents with their uncertainty and how they were computed.

    Attributes
    ----------
    exponents : ndarray of shape (k,)
        Mean over sequences, descending, in `unit` per step (or per unit of time, see `per`); -inf for annihilated
        directions.
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
        Whether the sign of the largest exponent is settled (it is more than two standard errors from zero), or the
        exponent is zero to within 0.001 nats per step (per unit of time where `time_step` is known; the tolerance where
        one was asked for); `status` says which. False also where a `tolerance` that was asked for is not reached.
    status : str
        The verdict in a sentence, with advice.
    basis : ndarray of shape (n_sequences, n_blocks + 1, N, k) or None
        Tangent basis before the first averaged block and after each.
    r_factors : ndarray of shape (n_sequences, n_blocks, k, k) or None
        Upper-triangular factors, ``J … J basis[:, i] = basis[:, i + 1] r_factors[:, i]``.
    block_steps : ndarray of shape (n_blocks,) or None
        Steps covered by each of these blocks.
    unit : {"nats", "bits"}
        Of the exponents; a bit is ln 2 nats.
    per : {"step", "time"}
        Whether rates are per step or per unit of time.
    time_step : float or None
        Units of time that a step takes, where the cell says so.
    n_undecided : int
        How many exponents are within two standard errors of zero, so that their sign is open.
    end : RunEnd or None
        Where the run ended, for `resume`; O(n_sequences · N · k) numbers.

    Examples
    --------
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.datasets import systems
    >>> result = lyapunov_spectrum(systems.henon().cell, 2000, random_state=0)
    >>> bool(result.exponents[0] > 0), result.unit, result.converged
    (True, 'nats', True)
    >>> round(float(result.exponents.sum()), 6), round(result.log_abs_det, 6)  # ln 0.3 at every step
    (-1.203973, -1.203973)
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
    per: str = "step"
    time_step: float | None = None
    n_undecided: int = 0
    end: RunEnd | None = field(default=None, repr=False)

    @property
    def kaplan_yorke_dimension(self) -> float:
        """Kaplan-Yorke dimension, see :func:`~sklyap.statistics.kaplan_yorke_dimension`.

        NaN for a truncated spectrum whose sum is not negative yet: more exponents would tell.
        """
        if self.log_abs_det is None and self.exponents.sum() >= 0:
            return math.nan
        return float(kaplan_yorke_dimension(self.exponents))

    @property
    def lyapunov_time(self) -> float:
        """1 / λ₁, after which a perturbation has grown by a factor e; infinite unless λ₁ > 0.

        In units of time where `time_step` is known, else in steps.
        """
        rate = self.to("nats").exponents[0]
        if not rate > 0:
            return math.inf
        return float(1 / rate if self.per == "time" else (self.time_step or 1.0) / rate)

    def per_time(self, dt: float | None = None) -> LyapunovResult:
        """Return the result with rates per unit of time instead of per step.

        Parameters
        ----------
        dt : float, optional
            Units of time that a step takes; by default `time_step`, which the cells of flows know.

        Raises
        ------
        ValueError
            If neither is known.

        Examples
        --------
        >>> from sklyap import lyapunov_spectrum
        >>> from sklyap.datasets import systems
        >>> lorenz = systems.lorenz()
        >>> rates = lyapunov_spectrum(lorenz.cell, 3000).per_time(lorenz.time_step).exponents
        >>> print(f"{rates.sum():.2f}")
        -13.67
        """
        if dt is None and self.time_step is None:
            raise ValueError(
                "The 'dt' parameter of LyapunovResult.per_time must be given: the units of time that a step of this "
                "network takes are not known. Got None."
            )
        owner = "LyapunovResult.per_time"
        step = self.time_step if dt is None else check_real(dt, "dt", low=np.finfo(float).tiny, caller=owner)
        assert step is not None
        factor = 1 / step if self.per == "step" else (self.time_step or 1.0) / step
        return replace(self, per="time", time_step=step, **self._scaled(factor))

    def to(self, unit: str) -> LyapunovResult:
        """Return the result with rates in "nats" or "bits"."""
        check_choice(unit, "unit", ["nats", "bits"], caller="LyapunovResult.to")
        if unit == self.unit:
            return self
        factor = 1 / math.log(2) if unit == "bits" else math.log(2)
        return replace(self, unit=unit, **self._scaled(factor))

    def _scaled(self, factor: float) -> dict[str, Any]:
        """Return everything that is a rate, times `factor`."""
        rates = ("exponents", "standard_error", "per_sequence", "local", "log_abs_det")
        values = {name: getattr(self, name) for name in rates}
        return {name: None if value is None else value * factor for name, value in values.items()}

    def __repr__(self) -> str:
        shown = [f"{e:.4g} ± {se:.2g}" for e, se in zip(self.exponents[:4], self.standard_error[:4], strict=True)]
        more = f", … {self.exponents[-1]:.4g}" if len(self.exponents) > 4 else ""
        per = "step" if self.per == "step" else "unit of time"
        return (
            f"LyapunovResult: {len(self.exponents)} exponents in {self.unit} per {per}: {', '.join(shown)}{more}\n"
            f"  {len(self.per_sequence)} sequence(s), {self.n_steps} steps after {self.warmup} of warm-up, "
            f"QR every {self.qr_interval} step(s), condition {self.condition:.1g}\n"
            f"  {self.status}"
        )


def time_step_of(cell: RecurrentCell) -> float | None:
    """Return the units of time that a step of a cell takes, None where it is counted in steps.

    Layers for networks that are made of a differential equation (coRNN, LEM) have a `dt` too; their time is counted in
    inputs.
    """
    dt = getattr(cell, "dt", None)
    return None if dt is None or isinstance(cell, tuple(CELLS.values())) else float(dt)


def summarise(
    record: GrowthRecord,
    warmup: int,
    interval: int | str,
    complete: bool,
    *,
    end: RunEnd | None = None,
    tolerance: float | None = None,
    time_step: float | None = None,
    eps: float = np.finfo(float).eps,
) -> LyapunovResult:
    """Return the result of a record of growth.

    Parameters
    ----------
    record : GrowthRecord
    warmup : int
    interval : int or "auto"
    complete : bool
        Whether all directions of the tangent space were carried.
    end : RunEnd, optional
    tolerance, time_step, eps
        See :func:`~sklyap.lyapunov.verdict.verdict_on`.
    """
    per_sequence, exponents, errors = record.exponents()
    # QR sorts directions by growth, but exponents that are close may come out in the wrong order.
    rank = np.argsort(-exponents, kind="stable")
    exponents, errors, per_sequence = exponents[rank], errors[rank], per_sequence[:, rank]
    verdict = verdict_on(exponents, errors, tolerance=tolerance, time_step=time_step, eps=eps)
    most_frequent = max(sorted(record.intervals), key=lambda length: record.intervals[length])
    return LyapunovResult(
        exponents=exponents,
        standard_error=errors,
        per_sequence=per_sequence,
        local=None if record.local is None else record.local[..., rank],
        log_abs_det=float(per_sequence.sum(1).mean()) if complete else None,
        condition=_exp(record.log_spread),
        qr_interval=most_frequent if interval == "auto" else int(interval),
        n_steps=record.n_steps,
        warmup=warmup,
        n_degenerate=int(np.isneginf(exponents).sum()),
        converged=verdict.converged,
        status=verdict.status,
        basis=record.basis,
        r_factors=record.r_factors,
        block_steps=None if record.block_steps is None else np.array(record.block_steps),
        time_step=time_step,
        n_undecided=verdict.n_undecided,
        end=end,
    )


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(float).max) else math.inf


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
