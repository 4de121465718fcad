"""Spectra, their convergence, and local growth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sklyap.displays.base import Display
from sklyap.lyapunov import LyapunovResult

__all__ = ["ConvergenceDisplay", "LocalExponentDisplay", "SpectrumDisplay"]


class SpectrumDisplay(Display):
    """Lyapunov spectra against the relative index i/(N - 1), so that networks of any size share an axis.

    Parameters
    ----------
    spectra : sequence of array-like (n_exponents_i,), or array-like (n_networks, n_exponents)
        Each descending; entries of -inf are left out.
    standard_error : sequence like `spectra`, optional
        Drawn as a band of ± 2 standard errors.
    color : array-like of shape (n_networks,), optional
        A number for each network (its loss, say), shown as colour.
    color_label, unit : str
    """

    def __init__(
        self,
        spectra: Any,
        *,
        standard_error: Any = None,
        color: Any = None,
        color_label: str | None = None,
        unit: str = "nats",
    ) -> None:
        self.spectra = [np.asarray(s, dtype=float) for s in spectra]
        self.standard_error = None if standard_error is None else [np.asarray(e, dtype=float) for e in standard_error]
        self.color = None if color is None else np.asarray(color, dtype=float)
        if self.color is not None and self.color.shape != (len(self.spectra),):
            raise ValueError(
                f"The 'color' parameter of SpectrumDisplay must have shape ({len(self.spectra)},), one number for each "
                f"spectrum. Got shape {self.color.shape} instead."
            )
        self.color_label = color_label
        self.unit = unit

    @classmethod
    def from_results(
        cls, results: LyapunovResult | Sequence[LyapunovResult], *, ax: Any = None, **options: Any
    ) -> SpectrumDisplay:
        """Draw one result or several, with their standard errors; `options` as in the constructor."""
        results = [results] if isinstance(results, LyapunovResult) else list(results)
        errors = [np.where(np.isfinite(r.standard_error), r.standard_error, 0.0) for r in results]
        return cls([r.exponents for r in results], standard_error=errors, unit=results[0].unit, **options).plot(ax)

    @classmethod
    def from_transformer(cls, transformer: Any, *, ax: Any = None, **options: Any) -> SpectrumDisplay:
        """Draw what a LyapunovSpectrumTransformer computed last, each network with its own spectrum."""
        return cls.from_results([r for r in transformer.results_ if r is not None], ax=ax, **options)

    def _draw(self, ax: Any) -> None:
        import matplotlib as mpl

        colors = None
        if self.color is not None:
            norm = mpl.colors.Normalize(np.nanmin(self.color), np.nanmax(self.color))
            palette = mpl.cm.ScalarMappable(norm, "viridis")
            ax.figure.colorbar(palette, ax=ax, label=self.color_label)
            colors = palette.to_rgba(self.color)
        for i, spectrum in enumerate(self.spectra):
            index = np.linspace(0, 1, len(spectrum)) if len(spectrum) > 1 else np.zeros(1)
            shown = np.where(np.isfinite(spectrum), spectrum, np.nan)
            style: dict[str, Any] = {"linewidth": 1, "alpha": 0.8}
            if colors is not None:
                style["color"] = colors[i]
            (line,) = ax.plot(index, shown, marker="." if len(spectrum) < 5 else None, **style)
            if self.standard_error is not None:
                width = 2 * self.standard_error[i]
                ax.fill_between(index, shown - width, shown + width, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(xlabel="relative index i / (N − 1)", ylabel=f"Lyapunov exponent ({self.unit} per step)")


class ConvergenceDisplay(Display):
    """Running means of local exponents: how the spectrum converges along the sequences.

    Parameters
    ----------
    running : array-like of shape (n_steps, n_exponents)
        Mean growth up to each step.
    unit : str
    """

    def __init__(self, running: Any, *, unit: str = "nats") -> None:
        self.running = np.asarray(running, dtype=float)
        self.unit = unit

    @classmethod
    def from_result(
        cls, result: LyapunovResult, *, n_exponents: int | None = None, ax: Any = None
    ) -> ConvergenceDisplay:
        """Draw the leading `n_exponents` (all by default) of a result computed with ``return_local=True``."""
        local = _local(result)[..., :n_exponents]
        rates = np.nanmean(local, axis=0)  # sequences that have ended no longer count
        running = np.cumsum(rates, axis=0) / np.arange(1, len(rates) + 1)[:, None]
        return cls(running, unit=result.unit).plot(ax)

    def _draw(self, ax: Any) -> None:
        steps = np.arange(1, len(self.running) + 1)
        ax.plot(steps, np.where(np.isfinite(self.running), self.running, np.nan), linewidth=1)
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(xlabel="steps averaged", ylabel=f"mean growth ({self.unit} per step)")


class LocalExponentDisplay(Display):
    """Growth at every step and direction, as an image: where along a sequence a network expands.

    Parameters
    ----------
    local : array-like of shape (n_steps, n_exponents)
    unit : str
    """

    def __init__(self, local: Any, *, unit: str = "nats") -> None:
        self.local = np.asarray(local, dtype=float)
        self.unit = unit

    @classmethod
    def from_result(
        cls, result: LyapunovResult, *, sequence: int | None = None, ax: Any = None
    ) -> LocalExponentDisplay:
        """Draw one sequence, or the mean over all, of a result computed with ``return_local=True``."""
        local = _local(result)
        return cls(np.nanmean(local, axis=0) if sequence is None else local[sequence], unit=result.unit).plot(ax)

    def _draw(self, ax: Any) -> None:
        finite = np.where(np.isfinite(self.local), self.local, np.nan)
        limit = np.nanpercentile(np.abs(finite), 98)
        image = ax.imshow(finite.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.figure.colorbar(image, ax=ax, label=f"growth ({self.unit} per step)")
        ax.set(xlabel="step", ylabel="direction i")


def _local(result: LyapunovResult) -> np.ndarray:
    if result.local is None:
        raise ValueError(
            "The 'result' parameter must be computed with return_local=True. Got one without local growth."
        )
    return result.local
