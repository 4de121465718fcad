"""Growth along sequences: how a spectrum converges, and where a network expands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sklyap.displays.base import MARKERS, UNITS, Display, band, ordered_colors, shade_warmup, zero_line
from sklyap.lyapunov import LyapunovResult, standard_error
from sklyap.validation import check_choice, check_instance, check_int

__all__ = ["ConvergenceDisplay", "LocalExponentDisplay"]

_MOST_LINES = 6
_MOST_ERRORS = 40
"""At how many steps the standard error of the running mean is computed; lines in between."""
_BINS = 32
"""Of time, for the standard error of a running mean."""


class ConvergenceDisplay(Display):
    """Running means of local exponents: how the spectrum converges along the sequences.

    Parameters
    ----------
    running : array-like of shape (n_steps, n_lines)
        Mean growth up to each step.
    standard_error : array-like of shape (n_steps, n_lines), optional
        Of the running means, drawn as a band of ± 2; NaN or infinite where it is not known.
    indices : sequence of int, optional
        Which exponents the lines are, 0 the largest; 0, 1, … by default.
    warmup : int, default=0
        Steps before the first of `running`, which are shaded.
    unit, per : str, default="nats", "step"
        Of the exponents.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.datasets import systems
    >>> from sklyap.displays import ConvergenceDisplay
    >>> result = lyapunov_spectrum(systems.henon().cell, 500, return_local=True)
    >>> ConvergenceDisplay.from_result(result).running.shape
    (450, 2)
    """

    def __init__(
        self,
        running: Any,
        *,
        standard_error: Any = None,
        indices: Sequence[int] | None = None,
        warmup: int = 0,
        unit: str = "nats",
        per: str = "step",
    ) -> None:
        self.running = np.asarray(running, dtype=float)
        self.standard_error = None if standard_error is None else np.asarray(standard_error, dtype=float)
        if self.standard_error is not None and self.standard_error.shape != self.running.shape:
            raise ValueError(
                "The 'standard_error' parameter of ConvergenceDisplay must have the shape of 'running', "
                f"{self.running.shape}. Got shape {self.standard_error.shape} instead."
            )
        self.indices = list(range(self.running.shape[1])) if indices is None else list(indices)
        self.warmup = check_int(warmup, "warmup", low=0)
        self.unit = check_choice(unit, "unit", UNITS)
        self.per = per

    @classmethod
    def from_result(
        cls,
        result: LyapunovResult,
        *,
        n_exponents: int | None = None,
        indices: Sequence[int] | None = None,
        ax: Any = None,
    ) -> ConvergenceDisplay:
        """Draw a result that was computed with ``return_local=True``.

        Parameters
        ----------
        result : LyapunovResult
            With growth at each step.
        n_exponents : int, optional
            Choose among the leading so many exponents; among all by default.
        indices : sequence of int, optional
            Which exponents to draw, 0 the largest; by default six of them, from the first to the last.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        ConvergenceDisplay

        Raises
        ------
        ValueError
            If the result has no local growth, or an index is out of range.
        """
        local = _local(result)
        k = local.shape[-1] if n_exponents is None else check_int(n_exponents, "n_exponents", low=1)
        k = min(k, local.shape[-1])
        if indices is None:
            indices = np.unique(np.linspace(0, k - 1, min(k, _MOST_LINES)).round().astype(int)).tolist()
        indices = [check_int(i, "indices", low=0, high=local.shape[-1] - 1) for i in indices]
        local = local[..., indices]
        with np.errstate(invalid="ignore"):
            rates = np.nanmean(local, axis=0)  # sequences that have ended no longer count
            running = np.cumsum(rates, axis=0) / np.arange(1, len(rates) + 1)[:, None]
        errors = _running_errors(local, running)
        return cls(
            running, standard_error=errors, indices=indices, warmup=result.warmup, unit=result.unit, per=result.per
        ).plot(ax)

    def _draw(self, ax: Any) -> None:
        steps = self.warmup + np.arange(1, len(self.running) + 1)
        shade_warmup(ax, self.warmup)
        for i, (index, color) in enumerate(zip(self.indices, ordered_colors(len(self.indices)), strict=True)):
            shown = np.where(np.isfinite(self.running[:, i]), self.running[:, i], np.nan)
            ax.plot(
                steps, shown, color=color, linewidth=1.2, label=f"$\\lambda_{{{index + 1}}}$",
                marker=MARKERS[i % len(MARKERS)], markersize=4, markevery=(0.08 + 0.02 * i, 0.22),
            )  # fmt: skip
            if self.standard_error is not None:
                band(ax, steps, shown, 2 * self.standard_error[:, i], color)
        later = self.running[len(self.running) // 20 :]  # the first steps would set the scale for all
        if np.isfinite(later).any():
            low, high = np.nanmin(later[np.isfinite(later)]), np.nanmax(later[np.isfinite(later)])
            margin = 0.08 * (high - low) or 0.1
            ax.set_ylim(low - margin, max(high, 0) + margin)
        zero_line(ax)
        ax.set(xlabel="step", ylabel=f"mean growth so far ({self.unit} per {self.per})", xlim=(0.5, steps[-1] + 0.5))
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


class LocalExponentDisplay(Display):
    """Growth at every step and direction, as an image: where along a sequence a network expands.

    Parameters
    ----------
    local : array-like of shape (n_steps, n_exponents)
        Growth at each step.
    warmup : int, default=0
        Steps before the first of `local`, which are shaded.
    unit, per : str, default="nats", "step"
        Of the growth.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> import torch
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.displays import LocalExponentDisplay
    >>> result = lyapunov_spectrum(torch.nn.GRU(2, 6), torch.zeros(1, 30, 2), warmup=5, return_local=True)
    >>> LocalExponentDisplay.from_result(result).local.shape
    (25, 6)
    """

    def __init__(self, local: Any, *, warmup: int = 0, unit: str = "nats", per: str = "step") -> None:
        self.local = np.asarray(local, dtype=float)
        self.warmup = check_int(warmup, "warmup", low=0)
        self.unit = check_choice(unit, "unit", UNITS)
        self.per = per

    @classmethod
    def from_result(
        cls, result: LyapunovResult, *, sequence: int | None = None, ax: Any = None
    ) -> LocalExponentDisplay:
        """Draw one sequence, or the mean over all, of a result computed with ``return_local=True``.

        Parameters
        ----------
        result : LyapunovResult
            With growth at each step.
        sequence : int, optional
            Which sequence; the mean over all by default.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        LocalExponentDisplay

        Raises
        ------
        ValueError
            If the result has no local growth, or `sequence` is out of range.
        """
        local = _local(result)
        if sequence is not None:
            check_int(sequence, "sequence", low=0, high=len(local) - 1)
        with np.errstate(invalid="ignore"):
            shown = np.nanmean(local, axis=0) if sequence is None else local[sequence]
        return cls(shown, warmup=result.warmup, unit=result.unit, per=result.per).plot(ax)

    def _draw(self, ax: Any) -> None:
        finite = np.where(np.isfinite(self.local), self.local, np.nan)
        limit = np.nanpercentile(np.abs(finite), 98) if np.isfinite(finite).any() else 1.0
        T, k = finite.shape
        shade_warmup(ax, self.warmup)
        image = ax.imshow(
            finite.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest",
            extent=(self.warmup + 0.5, self.warmup + T + 0.5, k + 0.5, 0.5),
        )  # fmt: skip
        ax.figure.colorbar(image, ax=ax, label=f"growth ({self.unit} per {self.per})", extend="both")
        title = f"steps 1 to {self.warmup} are warm-up" if self.warmup else ""
        ax.set(xlabel="step", ylabel="direction i", xlim=(0.5, self.warmup + T + 0.5), title=title)


def _local(result: LyapunovResult) -> np.ndarray:
    check_instance(result, "result", LyapunovResult)
    if result.local is None:
        raise ValueError(
            "The 'result' parameter must be computed with return_local=True. Got one without local growth."
        )
    return result.local


def _running_errors(local: np.ndarray, running: np.ndarray) -> np.ndarray:
    """Return standard errors (T, k) of the running means of growth (n, T, k), interpolated between some steps."""
    T, k = running.shape
    at = np.unique(np.geomspace(1, T, _MOST_ERRORS).round().astype(int))
    there, growth = np.isfinite(local) | np.isneginf(local), np.nan_to_num(local, neginf=0.0)
    errors = np.full((len(at), k), np.nan)
    for row, t in enumerate(at):
        edges = np.unique(np.linspace(0, t, min(t, _BINS) + 1).round().astype(int))[:-1]
        sums = np.add.reduceat(growth[:, :t], edges, axis=1)  # (n, n_bins, k)
        steps = np.add.reduceat(there[:, :t, 0].astype(float), edges, axis=1)
        errors[row] = standard_error(sums, steps, running[t - 1])
    errors[~np.isfinite(errors)] = np.nan
    between = np.arange(1, T + 1)
    return np.stack([np.interp(between, at, column) for column in errors.T], 1)
