"""Spectra of one network or many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from sklyap.displays.base import (
    MARKERS,
    UNITS,
    Display,
    band,
    check_array,
    check_labels,
    check_length,
    legend,
    ordered_colors,
    zero_line,
)
from sklyap.lyapunov import LyapunovResult
from sklyap.population import NetworkPopulation
from sklyap.validation import check_choice, check_dense, check_instance, check_instances, check_methods

__all__ = ["SpectrumDisplay", "loss_colors"]

_FEW_POINTS = 40
"""Spectra with at most so many exponents show each as a point."""


class SpectrumDisplay(Display):
    """Lyapunov spectra against the relative index i/(N - 1), so that networks of any size share an axis.

    Parameters
    ----------
    spectra : sequence of array-like (n_exponents_i,), or array-like (n_networks, n_exponents)
        Each descending; entries of -inf are left out.
    standard_error : sequence like `spectra`, optional
        Drawn as a band of ± 2 standard errors.
    labels : sequence of str, optional
        A name for each spectrum, shown in a legend, with a marker of its own.
    color : array-like of shape (n_networks,), optional
        A number for each network (its loss, say), shown as colour; grey where it is not finite.
    color_label : str, optional
        What `color` is.
    unit : str, default="nats"
        Of the exponents.
    per : str, default="step"
        What they are rates of.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Raises
    ------
    ValueError
        If `labels` or `color` do not have an entry for each spectrum.

    Examples
    --------
    >>> import torch
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.displays import SpectrumDisplay
    >>> torch.manual_seed(0)
    <torch...
    >>> x = torch.randn(4, 60, 3)
    >>> results = [lyapunov_spectrum(layer(3, 8, batch_first=True), x) for layer in (torch.nn.GRU, torch.nn.RNN)]
    >>> display = SpectrumDisplay.from_results(results, labels=["GRU", "Elman"])
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['GRU', 'Elman']
    """

    def __init__(
        self,
        spectra: Any,
        *,
        standard_error: Any = None,
        labels: Sequence[str] | None = None,
        color: Any = None,
        color_label: str | None = None,
        unit: str = "nats",
        per: str = "step",
    ) -> None:
        who = type(self).__name__
        check_dense(spectra, "spectra", caller=who)
        self.spectra = [check_array(spectrum, "spectra", ("n_exponents",), who) for spectrum in spectra]
        if not self.spectra:
            raise ValueError(f"The 'spectra' parameter of {who} must hold one spectrum at least. Got none.")
        self.standard_error = self._errors(standard_error, who)
        self.labels = check_labels(labels, len(self.spectra), who)
        self.color = check_array(color, "color", (len(self.spectra),), who, optional=True)
        self.color_label = check_instance(color_label, "color_label", (str, type(None)), caller=who)
        self.unit = check_choice(unit, "unit", UNITS, caller=who)
        self.per = check_instance(per, "per", str, caller=who)

    def _errors(self, given: Any, who: str) -> list[np.ndarray] | None:
        """Return a standard error for each exponent of each spectrum."""
        if given is None:
            return None
        check_dense(given, "standard_error", caller=who)
        check_length(given, "standard_error", len(self.spectra), who)
        return [
            check_array(error, "standard_error", spectrum.shape, who)
            for error, spectrum in zip(given, self.spectra, strict=True)
        ]

    @classmethod
    def from_results(
        cls, results: LyapunovResult | Sequence[LyapunovResult], *, ax: Any = None, **options: Any
    ) -> SpectrumDisplay:
        """Draw one result or several, with their standard errors.

        Parameters
        ----------
        results : LyapunovResult or sequence of LyapunovResult
            All in one unit.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            `labels`, `color`, `color_label` as in the constructor.

        Returns
        -------
        SpectrumDisplay

        Raises
        ------
        ValueError
            If there is no result, or results have different units.
        """
        results = check_instances(results, "results", LyapunovResult)
        units = {(result.unit, result.per) for result in results}
        if len(units) != 1:
            got = ", ".join(f"{unit} per {per}" for unit, per in sorted(units)) or "no result"
            raise ValueError(f"The 'results' parameter must hold results in one unit. Got {got} instead.")
        ((unit, per),) = units
        errors = [r.standard_error for r in results]
        return cls([r.exponents for r in results], standard_error=errors, unit=unit, per=per, **options).plot(ax)

    @classmethod
    def from_transformer(
        cls, transformer: Any, networks: Any = None, *, ax: Any = None, **options: Any
    ) -> SpectrumDisplay:
        """Draw the spectra of networks, each with its own, or what a transformer computed last.

        Parameters
        ----------
        transformer : LyapunovSpectrumTransformer
            Computes the spectra of `networks`, and is left as it is; without them, after `transform`.
        networks : sequence of networks, optional
            What is analysed.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            `labels`, `color`, `color_label` as in the constructor, an entry for each network that was given; networks
            that failed are left out, with their entries.

        Returns
        -------
        SpectrumDisplay
        """
        if networks is not None:
            check_methods(transformer, "transformer", ["fit_transform"])
            transformer = clone(transformer)
            transformer.fit_transform(networks)
        check_methods(transformer, "transformer", ["results_"])
        results = transformer.results_
        there = [i for i, result in enumerate(results) if result is not None]
        for name in ("labels", "color"):
            if options.get(name) is not None:
                check_length(options[name], name, len(results), "SpectrumDisplay")
                options[name] = [options[name][i] for i in there]
        return cls.from_results([results[i] for i in there], ax=ax, **options)

    @classmethod
    def from_population(
        cls, population: Any, transformer: Any, *, epoch: Any = "last", ax: Any = None, **options: Any
    ) -> SpectrumDisplay:
        """Draw the spectra of a population, coloured by the logarithm of each network's lowest loss.

        Parameters
        ----------
        population : NetworkPopulation
            The networks and their losses.
        transformer : LyapunovSpectrumTransformer
            Computes the spectra; it is left as it is.
        epoch : number or "last", default="last"
            The snapshot whose spectra are drawn.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            `labels`, `color`, `color_label` as in the constructor.

        Returns
        -------
        SpectrumDisplay
        """
        check_instance(population, "population", NetworkPopulation)
        check_methods(transformer, "transformer", ["fit_transform"])
        networks = population.networks(epoch)
        if options.get("color") is None:
            options["color"], label = loss_colors(population.best_losses)
            options.setdefault("color_label", label)
        return cls.from_transformer(transformer, networks, ax=ax, **options)

    def _draw(self, ax: Any) -> None:
        for i, (spectrum, color) in enumerate(zip(self.spectra, self._colors(ax), strict=True)):
            index = np.linspace(0, 1, len(spectrum)) if len(spectrum) > 1 else np.zeros(1)
            shown = np.where(np.isfinite(spectrum), spectrum, np.nan)
            style: dict[str, Any] = {"linewidth": 1, "alpha": 0.8, "color": color}
            if self.labels is not None:
                style |= {"label": self.labels[i], "alpha": 1}
            if self.labels is not None or len(spectrum) < 5:
                style |= {"marker": MARKERS[i % len(MARKERS)] if self.labels else ".", "markersize": 4}
                style["markevery"] = max(1, len(spectrum) // _FEW_POINTS)
            (line,) = ax.plot(index, shown, **style)
            if self.standard_error is not None:
                band(ax, index, shown, 2 * self.standard_error[i], line.get_color())
        zero_line(ax)
        ax.set(xlabel="relative index i / (N − 1)", ylabel=f"Lyapunov exponent ({self.unit} per {self.per})")
        if self.labels is not None:
            legend(ax)

    def _colors(self, ax: Any) -> list[Any]:
        if self.color is None:
            return ordered_colors(len(self.spectra)) if self.labels is not None else [None] * len(self.spectra)
        import matplotlib as mpl

        known = self.color[np.isfinite(self.color)]
        norm = mpl.colors.Normalize(*((known.min(), known.max()) if len(known) else (0, 1)))
        on_white = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.92, 256)))
        palette = mpl.cm.ScalarMappable(norm, on_white.with_extremes(bad="0.7"))
        ax.figure.colorbar(palette, ax=ax, label=self.color_label)
        return list(palette.to_rgba(np.ma.masked_invalid(self.color)))


def loss_colors(losses: Any) -> tuple[np.ndarray, str]:
    """Return numbers that colour networks by their losses, logarithms where there are any, and what they are."""
    losses = np.asarray(losses, dtype=float)
    if (losses > 0).all():
        return np.log(losses), "ln lowest loss"
    return losses, "lowest loss"
