"""The latent code of spectra, and how well the loss is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sklyap.displays.base import Display, check_length
from sklyap.validation import check_choice

__all__ = ["LatentDisplay"]


class LatentDisplay(Display):
    """The latent code of spectra in its two leading principal components, good and bad networks apart.

    Parameters
    ----------
    components : array-like of shape (n_networks, 2)
    losses : array-like of shape (n_networks,)
    explained : array-like of shape (2,), optional
        Share of the variance that each component explains.
    """

    def __init__(self, components: Any, losses: Any, *, explained: Any = None) -> None:
        self.components = np.asarray(components, dtype=float)
        self.losses = np.asarray(losses, dtype=float)
        if self.components.ndim != 2 or self.components.shape[1] < 2:
            raise ValueError(
                "The 'components' parameter of LatentDisplay must have shape (n, 2). "
                f"Got shape {self.components.shape} instead."
            )
        check_length(self.losses, "losses", len(self.components), "LatentDisplay")
        self.explained = explained

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, losses: Any, *, ax: Any = None) -> LatentDisplay:
        """Draw the latent code of a fitted SpectrumAutoencoder (or of a pipeline that ends in one) on X."""
        from sklearn.decomposition import PCA

        pca = PCA(2)
        components = pca.fit_transform(np.asarray(estimator.transform(X)))
        return cls(components, losses, explained=pca.explained_variance_ratio_).plot(ax)

    def _draw(self, ax: Any) -> None:
        good = self.losses <= np.median(self.losses)
        for chosen, label, color in ((good, "loss below the median", "tab:blue"), (~good, "above", "tab:red")):
            ax.scatter(*self.components[chosen].T, s=18, alpha=0.7, color=color, label=label)
        share = ["", ""] if self.explained is None else [f" ({e:.0%} of variance)" for e in self.explained]
        ax.set(xlabel=f"first principal component{share[0]}", ylabel=f"second{share[1]}")
        ax.legend()


class LossPredictorsDisplay(Display):
    """Scores of loss predictors with their intervals, one row each.

    Parameters
    ----------
    names : sequence of str
    scores, low, high : array-like of shape (n_predictors,)
        The scores and the ends of their intervals.
    label : str
        Of the axis.
    """

    def __init__(self, names: Sequence[str], scores: Any, low: Any, high: Any, *, label: str = "R²") -> None:
        self.names = [str(name) for name in names]
        self.scores, self.low, self.high = (np.asarray(values, dtype=float) for values in (scores, low, high))
        for name, values in (("scores", self.scores), ("low", self.low), ("high", self.high)):
            check_length(values, name, len(self.names), "LossPredictorsDisplay")
        self.label = label

    @classmethod
    def from_table(cls, table: Any, *, measure: str = "r2", ax: Any = None) -> LossPredictorsDisplay:
        """Draw a table of :func:`~sklyap.compare_loss_predictors`.

        Parameters
        ----------
        table : DataFrame
        measure : str, default="r2"
            One of the columns that come with an interval: "r2", "spearman", "r2_gain", "spearman_gain".
        ax : matplotlib Axes, optional
        """
        measured = [column.removesuffix("_low") for column in table.columns if column.endswith("_low")]
        check_choice(measure, "measure", measured)
        kind, _, gain = measure.partition("_")
        label = {"r2": "out-of-fold R²", "spearman": "out-of-fold Spearman's ρ"}[kind] + (" gained" if gain else "")
        columns = (table[name] for name in (measure, f"{measure}_low", f"{measure}_high"))
        return cls(table.index, *columns, label=label).plot(ax)

    def _draw(self, ax: Any) -> None:
        rows = np.arange(len(self.names))[::-1]
        ax.axvline(0, color="0.7", linewidth=1)
        ax.hlines(rows, self.low, self.high, color="tab:blue", alpha=0.5, linewidth=3)
        ax.plot(self.scores, rows, "o", color="tab:blue")
        ax.set_yticks(rows, self.names)
        ax.set(xlabel=self.label)
