"""Searches: the losses of candidates rung by rung, what was predicted of them, and regret against budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklyap.displays.base import MARKERS, Display
from sklyap.validation import check_choice, check_instance, check_methods

__all__ = ["RegretDisplay", "SearchDisplay"]


class SearchDisplay(Display):
    """Candidates of a search: curves of losses, stopped and promoted, or predicted against final loss.

    Parameters
    ----------
    curves : list of array-like
        Validation losses of each candidate after every epoch that it was trained.
    rungs : sequence of int
        Epochs at which candidates were compared.
    predicted, low, high : array-like of shape (n_candidates,), optional
        Last predicted final loss of each candidate and its interval; NaN where none was predicted.
    kind : {"losses", "predictions"}, default="losses"
        What to draw.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap.displays import SearchDisplay
    >>> display = SearchDisplay([[1.0, 0.9], [1.1, 0.8, 0.4, 0.2]], rungs=[2, 4]).plot()
    >>> display.ax_.get_ylabel()
    'validation loss'
    """

    def __init__(
        self,
        curves: Sequence[Any],
        rungs: Sequence[int],
        *,
        predicted: Any = None,
        low: Any = None,
        high: Any = None,
        kind: str = "losses",
    ) -> None:
        self.curves = [np.asarray(curve, dtype=float) for curve in curves]
        self.rungs = list(rungs)
        self.predicted, self.low, self.high = predicted, low, high
        self.kind = check_choice(kind, "kind", ("losses", "predictions"), caller="SearchDisplay")

    @classmethod
    def from_search(cls, search: Any, *, kind: str = "losses", ax: Any = None) -> SearchDisplay:
        """Draw a fitted :class:`~sklyap.search.LyapunovHalvingSearch`.

        Parameters
        ----------
        search : LyapunovHalvingSearch
            After `fit`.
        kind : {"losses", "predictions"}, default="losses"
            Curves of losses, or the last prediction against the lowest loss.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        SearchDisplay
        """
        check_methods(search, "search", ["decisions_", "population_"], caller="SearchDisplay.from_search")
        decisions = search.decisions_
        records = [record for record in search.population_.records if len(record.losses)]
        told = decisions.dropna(subset="predicted").groupby("candidate").last()
        told = told.reindex([record.index for record in records])
        columns = {name: told[name].to_numpy() for name in ("predicted", "low", "high")}
        rungs = sorted(epoch for epoch in decisions["epoch"].unique() if epoch > 0)
        return cls([record.losses for record in records], rungs, kind=kind, **columns).plot(ax)

    def _draw(self, ax: Any) -> None:
        if self.kind == "losses":
            self._draw_losses(ax)
        else:
            self._draw_predictions(ax)

    def _draw_losses(self, ax: Any) -> None:
        longest = max(map(len, self.curves))
        best = int(np.argmin([curve.min() for curve in self.curves]))
        for i, curve in enumerate(self.curves):
            finished = len(curve) == longest
            color = "tab:red" if i == best else "tab:blue" if finished else "0.7"
            epochs = np.arange(1, len(curve) + 1)
            ax.plot(epochs, curve, color=color, linewidth=1.5 if finished else 0.8, zorder=2 + finished + (i == best))
            marker, size = ("*", 10) if i == best else ("o", 4) if finished else ("x", 4)
            ax.plot(epochs[-1:], curve[-1:], marker, color=color, markersize=size, zorder=4)
        for rung in self.rungs[:-1]:
            ax.axvline(rung, color="0.85", linewidth=1, zorder=1)
        labels = (("stopped", "0.7", "x"), ("finished", "tab:blue", "o"), ("best", "tab:red", "*"))
        ax.legend(handles=[ax.plot([], [], color=c, marker=marker, label=label)[0] for label, c, marker in labels])
        ax.set(xlabel="epoch", ylabel="validation loss", yscale="log")

    def _draw_predictions(self, ax: Any) -> None:
        longest = max(map(len, self.curves))
        final = np.array([curve.min() for curve in self.curves])
        finished = np.array([len(curve) == longest for curve in self.curves])
        known = np.zeros(len(final), dtype=bool)
        if self.predicted is not None:
            predicted, low, high = (np.asarray(v, dtype=float) for v in (self.predicted, self.low, self.high))
            known = np.isfinite(predicted)
        if not known.any():
            raise ValueError("This search has predicted nothing; kind='predictions' needs promote_by='predictor'.")
        groups = ((known & ~finished, "stopped", "0.5", "x"), (known & finished, "finished", "tab:blue", "o"))
        for chosen, label, color, marker in groups:
            ax.vlines(final[chosen], low[chosen], high[chosen], color=color, alpha=0.5)
            ax.plot(final[chosen], predicted[chosen], marker, markersize=5, color=color, label=label)
        ends = [final[known].min(), final[known].max()]
        ax.plot(ends, ends, color="0.5", linewidth=1, linestyle="--")
        ax.set(xlabel="lowest validation loss", ylabel="predicted final loss", xscale="log", yscale="log")
        ax.legend()


class RegretDisplay(Display):
    """Regret of replayed searches against what they spent, with intervals.

    Parameters
    ----------
    table : DataFrame
        From :meth:`~sklyap.search.ReplayResult.curve`.
    against : {"epochs", "seconds"}, default="epochs"
        What was spent.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklyap.displays import RegretDisplay
    >>> rows = pd.DataFrame({"policy": ["halving"] * 2, "epochs": [50, 100], "regret": [0.4, 0.1]})
    >>> RegretDisplay(rows.assign(low=rows["regret"] - 0.1, high=rows["regret"] + 0.1)).plot().ax_.get_xlabel()
    'epochs spent'
    """

    def __init__(self, table: Any, *, against: str = "epochs") -> None:
        self.table = check_instance(table, "table", pd.DataFrame, caller="RegretDisplay")
        self.against = check_choice(against, "against", ("epochs", "cost", "seconds"), caller="RegretDisplay")

    @classmethod
    def from_replay(cls, result: Any, *, against: str = "epochs", ax: Any = None) -> RegretDisplay:
        """Draw a result of :func:`~sklyap.search.replay_search`.

        Parameters
        ----------
        result : ReplayResult
            Of one policy or several.
        against : {"epochs", "seconds"}, default="epochs"
            What was spent.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RegretDisplay
        """
        check_methods(result, "result", ["curve"], caller="RegretDisplay.from_replay")
        return cls(result.curve(), against=against).plot(ax)

    def _draw(self, ax: Any) -> None:
        for i, (policy, rows) in enumerate(self.table.groupby("policy", sort=False)):
            spent, marker = rows[self.against].to_numpy(), MARKERS[i % len(MARKERS)]
            (line,) = ax.plot(spent, rows["regret"], marker=marker, markersize=5, label=policy)
            ax.fill_between(spent, rows["low"], rows["high"], color=line.get_color(), alpha=0.15, linewidth=0)
        label = "epochs spent, spectra included" if self.against == "cost" else f"{self.against} spent"
        ax.set(xlabel=label, ylabel="mean regret (ln loss)", xscale="log")
        ax.legend()
