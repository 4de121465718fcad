"""Growth along sequences: how a spectrum converges, and where a network expands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from sklyap.displays.base import (
    MARKERS,
    UNITS,
    Display,
    band,
    check_array,
    check_length,
    legend,
    ordered_colors,
    shade_warmup,
    whole_ticks,
    zero_line,
)
from sklyap.displays.snapshots import network_of
from sklyap.lyapunov import LyapunovResult, standard_error
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.validation import check_choice, check_instance, check_int

__all__ = ["ConvergenceDisplay", "LocalExponentDisplay"]

_MOST_LINES = 6
_MOST_ERRORS = 40
"""At how many steps the standard error of the running mean is computed; lines in between."""
_BINS = 32
"""Of time, for the standard error of a running mean."""


class _GrowthDisplay(Display):
    """What is drawn from growth at each step comes from a result, or from a transformer and a network."""

    @classmethod
    def from_result(cls, result: LyapunovResult, *, ax: Any = None) -> Self:
        """Draw a result that was computed with ``return_local=True``."""
        raise NotImplementedError

    @classmethod
    def from_transformer(cls, transformer: Any, network: Any, *, ax: Any = None, **options: Any) -> Self:
        """Compute one network's spectrum as a transformer does, with growth at each step, and draw it.

        Parameters
        ----------
        transformer : LyapunovSpectrumTransformer
            With the sequences and settings; it need not be fitted, and is left as it is.
        network : torch module, fitted skorch net or fitted sklyap estimator
            What is analysed.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            As in :meth:`from_result`.

        Returns
        -------
        display
        """
        check_instance(transformer, "transformer", LyapunovSpectrumTransformer)
        return cls.from_result(transformer.analyze(network, return_local=True), ax=ax, **options)

    @classmethod
    def from_population(
        cls, population: Any, transformer: Any, *, index: int = 0, epoch: Any = "last", ax: Any = None, **options: Any
    ) -> Self:
        """Do the same for one network of a population.

        Parameters
        ----------
        population : NetworkPopulation
            The networks.
        transformer : LyapunovSpectrumTransformer
            With the sequences and settings.
        index : int, default=0
            Which network.
        epoch : number or "last", default="last"
            The snapshot that is looked at.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            As in :meth:`from_result`.

        Returns
        -------
        display
        """
        return cls.from_transformer(transformer, network_of(population, epoch, index), ax=ax, **options)


class ConvergenceDisplay(_GrowthDisplay):
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
        who = type(self).__name__
        self.running = check_array(running, "running", ("n_steps", "n_lines"), who)
        self.standard_error = check_array(
            standard_error, "standard_error", self.running.shape, who, like="running", optional=True
        )
        n_lines = self.running.shape[1]
        self.indices = list(range(n_lines)) if indices is None else _indices(indices, who)
        check_length(self.indices, "indices", n_lines, who)
        self.warmup = check_int(warmup, "warmup", low=0, caller=who)
        self.unit = check_choice(unit, "unit", UNITS, caller=who)
        self.per = check_instance(per, "per", str, caller=who)

    @classmethod
    def from_result(
        cls,
        result: LyapunovResult,
        *,
        n_exponents: int | None = None,
        indices: Sequence[int] | None = None,
        ax: Any = None,
    ) -> Self:
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
        indices = _indices(indices, cls.__name__, high=local.shape[-1] - 1)
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
        n_lines = len(self.indices)
        for i, (index, color) in enumerate(zip(self.indices, ordered_colors(n_lines), strict=True)):
            shown = np.where(np.isfinite(self.running[:, i]), self.running[:, i], np.nan)
            annihilated = " = −∞" if np.isneginf(self.running[-1, i]) else ""
            ax.plot(
                steps, shown, color=color, linewidth=1.2, label=f"$\\lambda_{{{index + 1}}}${annihilated}",
                marker=MARKERS[i % len(MARKERS)], markersize=4, markevery=_some_of(len(steps), i / n_lines),
            )  # fmt: skip
            if self.standard_error is not None:
                band(ax, steps, shown, 2 * self.standard_error[:, i], color)
        limits = self._limits()
        if limits is not None:
            ax.set_ylim(*limits)
        zero_line(ax)
        ax.set(xlabel="step", ylabel=f"mean growth so far ({self.unit} per {self.per})", xlim=(0.5, steps[-1] + 0.5))
        whole_ticks(ax.xaxis)
        legend(ax, outside=True)

    def _limits(self) -> tuple[float, float] | None:
        """Return limits that hold all lines but for their first steps, which would set the scale, and later bands."""
        T = len(self.running)
        held = [self.running[T // 20 :]]
        if self.standard_error is not None:
            later, error = self.running[T // 2 :], self.standard_error[T // 2 :]
            held += [later - 2 * error, later + 2 * error]
        values = np.concatenate([part[np.isfinite(part)] for part in held])
        if not len(values):
            return None
        low, high = float(values.min()), max(float(values.max()), 0.0)
        margin = 0.08 * (high - low) or 0.1
        return low - margin, high + margin


class LocalExponentDisplay(_GrowthDisplay):
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
        who = type(self).__name__
        self.local = check_array(local, "local", ("n_steps", "n_exponents"), who)
        self.warmup = check_int(warmup, "warmup", low=0, caller=who)
        self.unit = check_choice(unit, "unit", UNITS, caller=who)
        self.per = check_instance(per, "per", str, caller=who)

    @classmethod
    def from_result(cls, result: LyapunovResult, *, sequence: int | None = None, ax: Any = None) -> Self:
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
        finite = np.abs(self.local[np.isfinite(self.local)])
        limit = (float(np.percentile(finite, 98)) if len(finite) else 0.0) or 1.0
        shown = np.clip(self.local, -2 * limit, 2 * limit)  # matplotlib would leave -inf out, as if there was no growth
        T, k = shown.shape
        ax.set_facecolor("0.8")
        shade_warmup(ax, self.warmup)
        image = ax.imshow(
            shown.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest",
            extent=(self.warmup + 0.5, self.warmup + T + 0.5, k + 0.5, 0.5),
        )  # fmt: skip
        ax.figure.colorbar(image, ax=ax, label=f"growth ({self.unit} per {self.per})", extend="both")
        title = f"steps 1 to {self.warmup} are warm-up" if self.warmup else ""
        ax.set(xlabel="step", ylabel="direction i", xlim=(0.5, self.warmup + T + 0.5), title=title)
        whole_ticks(ax.xaxis, ax.yaxis)


def _some_of(n_steps: int, shift: float) -> slice | None:
    """Return which steps have a marker: five of them, not the same for all lines, or all of a few."""
    every = n_steps // 5
    return slice(int(shift * every), None, every) if every > 1 else None


def _indices(indices: Any, who: str, *, high: int | None = None) -> list[int]:
    check_instance(indices, "indices", Iterable, caller=who)
    found = [check_int(i, "indices", low=0, high=high, caller=who) for i in indices]
    if not found:
        raise ValueError(f"The 'indices' parameter of {who} must name one exponent at least. Got none.")
    return found


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
