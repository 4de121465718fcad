"""The latent code of spectra, and how well the loss is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklyap.displays.base import Display, check_array, check_names
from sklyap.population import NetworkPopulation
from sklyap.validation import check_choice, check_instance, check_methods, check_real

__all__ = ["LatentDisplay", "LossPredictorsDisplay"]

_FAR_OFF = -1.0
"""Scores below it are cut off: an R² of -1 has twice the error of the mean."""


class LatentDisplay(Display):
    """The latent code of spectra in its two leading principal components, good and bad networks apart.

    Parameters
    ----------
    components : array-like of shape (n_networks, 2)
        The two leading principal components of the code.
    losses : array-like of shape (n_networks,)
        Those up to the median are good; networks whose loss is NaN are drawn in grey.
    explained : array-like of shape (2,), optional
        Share of the variance that each component explains.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap import SpectrumAutoencoder
    >>> from sklyap.displays import LatentDisplay
    >>> spectra = -np.sort(np.random.default_rng(0).exponential(size=(30, 8)))
    >>> losses = spectra[:, 0] ** 2
    >>> coder = SpectrumAutoencoder(2, max_epochs=2, random_state=0).fit(spectra, losses)
    >>> LatentDisplay.from_estimator(coder, spectra, losses).components.shape
    (30, 2)
    """

    def __init__(self, components: Any, losses: Any, *, explained: Any = None) -> None:
        who = type(self).__name__
        self.components = check_array(components, "components", ("n_networks", 2), who)
        self.losses = check_array(losses, "losses", (len(self.components),), who)
        self.explained = check_array(explained, "explained", (2,), who, optional=True)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, losses: Any, *, ax: Any = None) -> LatentDisplay:
        """Draw the latent code of a fitted SpectrumAutoencoder, or of a pipeline that ends in one.

        Parameters
        ----------
        estimator : SpectrumAutoencoder or Pipeline
            Its `transform` is the code.
        X : array-like of spectra, or list of networks for a pipeline that takes them
            What is coded.
        losses : array-like of shape (n_networks,)
            Those up to the median are good.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        LatentDisplay
        """
        check_methods(estimator, "estimator", ["transform"])
        from sklearn.decomposition import PCA

        pca = PCA(2)
        components = pca.fit_transform(np.asarray(estimator.transform(X)))
        return cls(components, losses, explained=pca.explained_variance_ratio_).plot(ax)

    @classmethod
    def from_population(cls, population: Any, estimator: Any, *, epoch: Any = "last", ax: Any = None) -> LatentDisplay:
        """Draw the latent code of a population, good and bad by each network's lowest loss.

        Parameters
        ----------
        population : NetworkPopulation
            The networks and their losses.
        estimator : Pipeline
            Fitted, from networks to the code of a SpectrumAutoencoder.
        epoch : number or "last", default="last"
            The snapshot whose spectra are coded.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        LatentDisplay
        """
        check_instance(population, "population", NetworkPopulation)
        return cls.from_estimator(estimator, population.networks(epoch), population.best_losses, ax=ax)

    def _draw(self, ax: Any) -> None:
        known = ~np.isnan(self.losses)
        median = np.median(self.losses[known]) if known.any() else np.nan
        good = self.losses <= median
        groups = ((good, "loss up to the median", "tab:blue", "o"), (known & ~good, "above", "tab:red", "^"))
        for chosen, label, color, marker in (*groups, (~known, "no loss", "0.6", "x")):
            if not chosen.any():
                continue
            ax.scatter(*self.components[chosen, :2].T, s=22, alpha=0.7, color=color, marker=marker, label=label)
        share = ["", ""] if self.explained is None else [f" ({e:.0%} of variance)" for e in self.explained]
        ax.set(xlabel=f"first principal component{share[0]}", ylabel=f"second{share[1]}")
        ax.legend()


class LossPredictorsDisplay(Display):
    """Scores of loss predictors with their intervals, one row each.

    Parameters
    ----------
    names : sequence of str
        Of the predictors.
    scores, low, high : array-like of shape (n_predictors,)
        The scores and the ends of their intervals.
    label : str, default="R²"
        Of the axis.
    lower : float, default=-1.0
        Where the axis ends; scores below it are written at the edge, with an arrow, and intervals are cut off there.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap.displays import LossPredictorsDisplay
    >>> display = LossPredictorsDisplay(["spectrum", "loss so far"], [0.4, -7.5], [0.2, -20.0], [0.6, -1.5]).plot()
    >>> float(display.ax_.get_xlim()[0]), [text.get_text() for text in display.ax_.texts]
    (-1.0, ['−7.5'])
    """

    def __init__(
        self,
        names: Sequence[str],
        scores: Any,
        low: Any,
        high: Any,
        *,
        label: str = "R²",
        lower: float = _FAR_OFF,
    ) -> None:
        who = type(self).__name__
        self.names = check_names(names, "names", who)
        shape = (len(self.names),)
        self.scores = check_array(scores, "scores", shape, who)
        self.low, self.high = check_array(low, "low", shape, who), check_array(high, "high", shape, who)
        self.label = check_instance(label, "label", str, caller=who)
        self.lower = check_real(lower, "lower", caller=who)

    @classmethod
    def from_table(cls, table: Any, *, measure: str = "r2", ax: Any = None) -> LossPredictorsDisplay:
        """Draw a table of :func:`~sklyap.compare_loss_predictors`.

        Parameters
        ----------
        table : DataFrame
            One row for each predictor.
        measure : str, default="r2"
            One of the columns that come with an interval: "r2", "spearman", "r2_gain", "spearman_gain", ….
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        LossPredictorsDisplay
        """
        check_instance(table, "table", pd.DataFrame)
        measured = [column.removesuffix("_low") for column in table.columns if column.endswith("_low")]
        check_choice(measure, "measure", measured)
        kind, _, what = measure.partition("_")
        label = {"r2": "out-of-fold R²", "spearman": "out-of-fold Spearman's ρ"}.get(kind, kind)
        label += {"gain": " gained", "added": " added by the spectrum"}.get(what, "")
        columns = (table[name] for name in (measure, f"{measure}_low", f"{measure}_high"))
        return cls(table.index, *columns, label=label).plot(ax)

    @classmethod
    def from_population(
        cls, population: Any, sequences: Any, *, measure: str = "r2", ax: Any = None, **options: Any
    ) -> LossPredictorsDisplay:
        """Compare predictors on a population and draw their scores.

        Parameters
        ----------
        population : NetworkPopulation
            The networks and their losses.
        sequences : array-like of shape (n_sequences, n_steps, n_inputs)
            What drives the networks for their spectra.
        measure : str, default="r2"
            As in :meth:`from_table`.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Of :func:`~sklyap.compare_loss_predictors`.

        Returns
        -------
        LossPredictorsDisplay
        """
        from sklyap.comparison import compare_loss_predictors

        return cls.from_table(compare_loss_predictors(population, sequences, **options), measure=measure, ax=ax)

    def _draw(self, ax: Any) -> None:
        there = np.isfinite(self.scores)
        names = [name for name, finite in zip(self.names, there, strict=True) if finite]
        scores, low, high = (values[there] for values in (self.scores, self.low, self.high))
        rows, lower = np.arange(len(names))[::-1], self.lower
        ax.axvline(0, color="0.7", linewidth=1)
        ax.hlines(rows, np.fmax(low, lower), np.fmax(high, lower), color="tab:blue", alpha=0.5, linewidth=3)
        seen = scores >= lower
        ax.plot(scores[seen], rows[seen], "o", color="tab:blue")
        cut = low < lower
        if cut.any():  # an empty line that is not clipped reaches to the figure's corner and breaks its layout
            ax.plot(np.full(cut.sum(), lower), rows[cut], "<", color="tab:blue", alpha=0.5, clip_on=False)
        for score, row in zip(scores[~seen], rows[~seen], strict=True):
            text = f"{score:.2g}".replace("-", "−")
            ax.annotate(
                text, (lower, row), xytext=(8, 5), textcoords="offset points", color="tab:blue", fontsize="small"
            )
        if cut.any():
            ax.set_xlim(left=lower)
        note = f"\n(cut off at {lower:g}; numbers are scores beyond)" if cut.any() else ""
        ax.set_yticks(rows, names)
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set(xlabel=self.label + note.replace("-", "−"))
