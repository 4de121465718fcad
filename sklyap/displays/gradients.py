"""Gradients and their alignment with tangent directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from sklyap.displays.base import (
    MARKERS,
    Display,
    check_array,
    check_labels,
    check_length,
    check_names,
    legend,
    ordered_colors,
)
from sklyap.displays.snapshots import networks_through
from sklyap.gradients import AlignmentResult, LossGradient
from sklyap.validation import (
    check_dense,
    check_instance,
    check_instances,
    check_int,
    check_methods,
    check_networks,
    check_real,
)

__all__ = ["AlignmentDisplay", "GradientEnergyDisplay"]


class AlignmentDisplay(Display):
    """Alignment of directions with a singular vector of the gradient, as an image with chance in the middle.

    Parameters
    ----------
    alignment : array-like of shape (n_columns, n_directions)
        ``|cos|``; NaN, drawn in grey, where there is no gradient.
    columns : sequence of length n_columns
        What the columns are: epochs, or lengths of prefixes.
    baseline : float
        What chance gives.
    column_label : str, default="epoch"
        What the columns are, in words.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Raises
    ------
    ValueError
        If `alignment` does not have a row for each of `columns`.

    Examples
    --------
    >>> from sklyap import GradientAlignmentAnalyzer, RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.displays import AlignmentDisplay
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> result = GradientAlignmentAnalyzer(X[:10], y[:10], n_directions=3, n_baseline=0).analyze(network)
    >>> AlignmentDisplay.from_result(result).alignment.shape
    (8, 3)
    """

    def __init__(self, alignment: Any, columns: Any, *, baseline: float, column_label: str = "epoch") -> None:
        who = type(self).__name__
        self.columns = check_names(columns, "columns", who)
        self.alignment = check_array(alignment, "alignment", (len(self.columns), "n_directions"), who)
        self.baseline = check_real(baseline, "baseline", low=0, high=1, caller=who)
        self.column_label = check_instance(column_label, "column_label", str, caller=who)

    @classmethod
    def from_training(
        cls, results: Mapping[Any, Sequence[AlignmentResult]], *, singular: int = 0, ax: Any = None
    ) -> AlignmentDisplay:
        """Draw the alignment through epochs, mean over networks, as `analyze_training` returns it.

        Parameters
        ----------
        results : mapping of epoch to list of AlignmentResult
            From :meth:`~sklyap.GradientAlignmentAnalyzer.analyze_training`.
        singular : int, default=0
            Which singular vector.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AlignmentDisplay
        """
        check_int(singular, "singular", low=0)
        check_instances(check_instance(results, "results", Mapping).values(), "results", Sequence)
        for epoch in results.values():
            check_instances(epoch, "results", AlignmentResult)
        means = [
            np.mean([_column(result.alignment, singular) for result in epoch], axis=0) for epoch in results.values()
        ]
        baseline = np.mean([result.baseline for epoch in results.values() for result in epoch])
        return cls(means, list(results), baseline=float(baseline)).plot(ax)

    @classmethod
    def from_population(
        cls, population: Any, analyzer: Any, *, epochs: Any, singular: int = 0, ax: Any = None
    ) -> AlignmentDisplay:
        """Analyse a population at several epochs and draw the alignment, mean over networks.

        Parameters
        ----------
        population : NetworkPopulation
            With snapshots at these epochs.
        analyzer : GradientAlignmentAnalyzer
            Does the analysis.
        epochs : iterable of numbers or "last"
            When to look.
        singular : int, default=0
            Which singular vector.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AlignmentDisplay
        """
        check_methods(analyzer, "analyzer", ["analyze_training"])
        return cls.from_training(analyzer.analyze_training(population, epochs), singular=singular, ax=ax)

    @classmethod
    def from_transformer(cls, transformer: Any, network: Any, *, singular: int = 0, ax: Any = None) -> AlignmentDisplay:
        """Analyse one network with a GradientAlignmentAnalyzer and draw its alignment by prefix.

        Parameters
        ----------
        transformer : GradientAlignmentAnalyzer
            Does the analysis; it need not be fitted.
        network : torch module, fitted skorch net or fitted sklyap estimator
            What is analysed.
        singular : int, default=0
            Which singular vector.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AlignmentDisplay
        """
        check_methods(transformer, "transformer", ["analyze", "analyze_training"])
        return cls.from_result(transformer.analyze(network), singular=singular, ax=ax)

    @classmethod
    def from_result(cls, result: AlignmentResult, *, singular: int = 0, ax: Any = None) -> AlignmentDisplay:
        """Draw one network's alignment with the gradients of the losses of prefixes, by their length.

        Prefixes whose loss does not depend on the recurrent weights are left out in grey: the first step of a network
        that starts from zeros.

        Parameters
        ----------
        result : AlignmentResult
            With prefixes.
        singular : int, default=0
            Which singular vector.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        AlignmentDisplay

        Raises
        ------
        ValueError
            If the result has no prefixes.
        """
        check_instance(result, "result", AlignmentResult)
        if not len(result.prefixes):
            raise ValueError("The 'result' parameter must be computed with prefixes. Got one without.")
        by_prefix = np.array([_column(alignment, singular) for alignment in result.alignment_by_prefix])
        values = result.singular_values_by_prefix
        values = values[:, singular] if singular < values.shape[1] else np.zeros(len(values))
        by_prefix[values <= np.finfo(float).eps * max(values.max(), np.finfo(float).tiny)] = np.nan
        label = "sequences end after step"
        return cls(by_prefix, result.prefixes, baseline=result.baseline, column_label=label).plot(ax)

    def _draw(self, ax: Any) -> None:
        import matplotlib as mpl

        # White is chance, red more and blue less, down to orthogonality; grey is what there is no gradient for.
        largest = np.nanmax(self.alignment, initial=1.5 * self.baseline)
        norm: Any = mpl.colors.Normalize(0, largest or 1.0)
        if self.baseline > 0:
            norm = mpl.colors.TwoSlopeNorm(self.baseline, vmin=0, vmax=largest)
        k = self.alignment.shape[1]
        extent = (-0.5, len(self.columns) - 0.5, k + 0.5, 0.5)
        image = ax.imshow(
            self.alignment.T, aspect="auto", cmap="RdBu_r", interpolation="nearest", norm=norm, extent=extent
        )
        ax.set_facecolor("0.8")
        ax.figure.colorbar(image, ax=ax, label=f"|cos| (by chance {self.baseline:.2f})")
        shown = np.unique(np.linspace(0, len(self.columns) - 1, min(len(self.columns), 10)).round().astype(int))
        ax.set_xticks(shown, [self.columns[i] for i in shown])
        if k <= 12:
            ax.set_yticks(np.arange(1, k + 1))
        grey = " (grey: no gradient)" if np.isnan(self.alignment).any() else ""
        ax.set(xlabel=self.column_label + grey, ylabel="direction i")


class GradientEnergyDisplay(Display):
    """How much of the loss gradient lies in the span of the first q directions.

    Parameters
    ----------
    energies : sequence of array-like (k_i,)
        Shares for q = 1, 2, … k.
    sizes : sequence of int
        N of each network, whose chance is q/N.
    labels : sequence of str, optional
        A name for each network, shown in a legend.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap import RNNClassifier, loss_gradient
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.displays import GradientEnergyDisplay
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> display = GradientEnergyDisplay.from_results(loss_gradient(network, X[:10], y[:10]), labels=["Elman"])
    >>> display.sizes, round(float(display.energies[0][-1]), 6)
    ([6], 1.0)
    """

    def __init__(self, energies: Any, sizes: Sequence[int], *, labels: Sequence[Any] | None = None) -> None:
        who = type(self).__name__
        check_dense(energies, "energies", caller=who)
        self.energies = [check_array(energy, "energies", ("k",), who) for energy in energies]
        check_length(check_instance(sizes, "sizes", Sized, caller=who), "sizes", len(self.energies), who)
        self.sizes = [
            check_int(N, "sizes", low=len(energy), caller=who) for N, energy in zip(sizes, self.energies, strict=True)
        ]
        self.labels = check_labels(labels, len(self.energies), who)

    @classmethod
    def from_results(
        cls,
        results: AlignmentResult | LossGradient | Sequence[AlignmentResult | LossGradient],
        *,
        labels: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> GradientEnergyDisplay:
        """Draw one result or several.

        Parameters
        ----------
        results : AlignmentResult, LossGradient, or a sequence of these
            What :meth:`~sklyap.GradientAlignmentAnalyzer.analyze` or :func:`~sklyap.loss_gradient` returned.
        labels : sequence of str, optional
            A name for each, shown in a legend.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        GradientEnergyDisplay
        """
        results = check_instances(results, "results", (AlignmentResult, LossGradient))
        return cls([r.energy for r in results], [r.tangent_size for r in results], labels=labels).plot(ax)

    @classmethod
    def from_transformer(
        cls, transformer: Any, networks: Any, *, labels: Sequence[Any] | None = None, ax: Any = None
    ) -> GradientEnergyDisplay:
        """Analyse networks with a GradientAlignmentAnalyzer and draw the energy of each.

        Parameters
        ----------
        transformer : GradientAlignmentAnalyzer
            Does the analysis; it need not be fitted.
        networks : sequence of networks
            What is analysed.
        labels : sequence of str, optional
            A name for each, shown in a legend.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        GradientEnergyDisplay
        """
        check_methods(transformer, "transformer", ["analyze", "analyze_training"])
        networks = check_networks(networks, name="networks", caller=f"{cls.__name__}.from_transformer")
        labels = check_labels(labels, len(networks), cls.__name__)
        return cls.from_results([transformer.analyze(network) for network in networks], labels=labels, ax=ax)

    @classmethod
    def from_population(
        cls, population: Any, transformer: Any, *, epochs: Any = ("last",), index: int = 0, ax: Any = None
    ) -> GradientEnergyDisplay:
        """Draw the energy of one network of a population at several epochs.

        Parameters
        ----------
        population : NetworkPopulation
            With snapshots at these epochs.
        transformer : GradientAlignmentAnalyzer
            Does the analysis.
        epochs : iterable of numbers or "last", default=("last",)
            When to look.
        index : int, default=0
            Which network of the population.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        GradientEnergyDisplay
        """
        by_epoch = networks_through(population, epochs, index)
        labels = [f"epoch {epoch}" for epoch in by_epoch]
        return cls.from_transformer(transformer, list(by_epoch.values()), labels=labels, ax=ax)

    def _draw(self, ax: Any) -> None:
        colors = ordered_colors(len(self.energies))
        for i, (energy, N) in enumerate(zip(self.energies, self.sizes, strict=True)):
            q = np.arange(1, len(energy) + 1)
            label = None if self.labels is None else self.labels[i]
            ax.plot(
                q / N, energy, linewidth=1.5, color=colors[i], marker=MARKERS[i % len(MARKERS)], markersize=4,
                markevery=max(1, len(q) // 12), label=label,
            )  # fmt: skip
        ax.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="chance")
        ax.set(xlabel="share of directions q / N", ylabel="share of gradient energy", xlim=(0, 1.02), ylim=(0, 1.02))
        legend(ax)


def _column(alignment: np.ndarray, singular: int) -> np.ndarray:
    return alignment[:, check_int(singular, "singular", low=0, high=alignment.shape[1] - 1)]
