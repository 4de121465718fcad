"""Searches: the losses of candidates rung by rung, what was predicted of them, and regret against budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklyap.displays.base import MARKERS, Display, check_array, legend, plain_log, whole_ticks
from sklyap.validation import check_choice, check_dense, check_instance, check_methods, check_real

__all__ = ["RegretDisplay", "SearchDisplay"]

_SPENT = ("epochs", "cost", "seconds")


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
        who = type(self).__name__
        check_dense(curves, "curves", caller=who)
        self.curves = [check_array(curve, "curves", ("n_epochs",), who) for curve in curves]
        if not self.curves:
            raise ValueError(f"The 'curves' parameter of {who} must hold a curve for each candidate. Got none.")
        rungs = check_instance(rungs, "rungs", Iterable, caller=who)
        self.rungs = [check_real(rung, "rungs", low=0, caller=who) for rung in rungs]
        self.predicted, self.low, self.high = (
            check_array(values, name, (len(self.curves),), who, optional=True)
            for name, values in (("predicted", predicted), ("low", low), ("high", high))
        )
        self.kind = check_choice(kind, "kind", ("losses", "predictions"), caller=who)

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
        best = int(np.argmin(self._lowest()))
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
        ax.set(xlabel="epoch", ylabel="validation loss")
        whole_ticks(ax.xaxis)
        if all((curve[np.isfinite(curve)] > 0).all() for curve in self.curves):
            ax.set_yscale("log")
            plain_log(ax.yaxis)

    def _lowest(self) -> np.ndarray:
        """Return the lowest loss of each candidate; infinity for one that has none."""
        return np.array([np.min(curve, where=~np.isnan(curve), initial=np.inf) for curve in self.curves])

    def _draw_predictions(self, ax: Any) -> None:
        longest = max(map(len, self.curves))
        final = self._lowest()
        finished = np.array([len(curve) == longest for curve in self.curves])
        known = np.zeros(len(final), dtype=bool)
        if self.predicted is not None:
            predicted = self.predicted
            low, high = (predicted if end is None else end for end in (self.low, self.high))
            known = np.isfinite(predicted) & np.isfinite(final)
        if not known.any():
            raise ValueError("This search has predicted nothing; kind='predictions' needs promote_by='predictor'.")
        groups = ((known & ~finished, "stopped", "0.5", "x"), (known & finished, "finished", "tab:blue", "o"))
        for chosen, label, color, marker in groups:
            ax.vlines(final[chosen], low[chosen], high[chosen], color=color, alpha=0.5)
            ax.plot(final[chosen], predicted[chosen], marker, markersize=5, color=color, label=label)
        ends = [final[known].min(), final[known].max()]
        ax.plot(ends, ends, color="0.5", linewidth=1, linestyle="--")
        ax.set(xlabel="lowest validation loss", ylabel="predicted final loss")
        if min(*ends, np.nanmin(predicted[known]), np.nanmin(low[known])) > 0:
            ax.set(xscale="log", yscale="log")
            plain_log(ax.xaxis, ax.yaxis)
        ax.legend()


class RegretDisplay(Display):
    """Regret of replayed searches against what they spent, with intervals.

    Parameters
    ----------
    table : DataFrame
        From :meth:`~sklyap.search.ReplayResult.curve`.
    against : {"epochs", "cost", "seconds"}, default="epochs"
        What was spent: epochs, epochs and spectra, or recorded seconds.

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
        who = type(self).__name__
        self.table = check_instance(table, "table", pd.DataFrame, caller=who)
        self.against = check_choice(against, "against", _SPENT, caller=who)
        missing = [name for name in ("policy", self.against, "regret", "low", "high") if name not in table]
        if missing or not len(table):
            got = f"without {', '.join(map(repr, missing))}" if missing else "without rows"
            raise ValueError(f"The 'table' parameter of {who} must be one of ReplayResult.curve. Got one {got}.")

    @classmethod
    def from_replay(cls, result: Any, *, against: str = "epochs", ax: Any = None) -> RegretDisplay:
        """Draw a result of :func:`~sklyap.search.replay_search`.

        Parameters
        ----------
        result : ReplayResult
            Of one policy or several.
        against : {"epochs", "cost", "seconds"}, default="epochs"
            What was spent.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RegretDisplay
        """
        check_methods(result, "result", ["curve"], caller="RegretDisplay.from_replay")
        return cls(result.curve(), against=against).plot(ax)

    @classmethod
    def from_population(
        cls,
        population: Any,
        policy: Any,
        sequences: Any = None,
        *,
        against: str = "epochs",
        ax: Any = None,
        **options: Any,
    ) -> RegretDisplay:
        """Replay searches on a population and draw their regret.

        Parameters
        ----------
        population : NetworkPopulation
            Trained to the end.
        policy : str, Policy, list or dict of these
            As in :func:`~sklyap.search.replay_search`.
        sequences : array-like of shape (n_sequences, n_steps, n_inputs), optional
            What drives the networks for their spectra.
        against : {"epochs", "cost", "seconds"}, default="epochs"
            What was spent.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Of :func:`~sklyap.search.replay_search`.

        Returns
        -------
        RegretDisplay
        """
        from sklyap.search import replay_search

        check_choice(against, "against", _SPENT, caller=f"{cls.__name__}.from_population")
        return cls.from_replay(replay_search(population, policy, sequences, **options), against=against, ax=ax)

    def _draw(self, ax: Any) -> None:
        for i, (policy, rows) in enumerate(self.table.groupby("policy", sort=False)):
            spent, marker = rows[self.against].to_numpy(), MARKERS[i % len(MARKERS)]
            (line,) = ax.plot(spent, rows["regret"], marker=marker, markersize=5, label=policy)
            ax.fill_between(spent, rows["low"], rows["high"], color=line.get_color(), alpha=0.15, linewidth=0)
        label = "epochs spent, spectra included" if self.against == "cost" else f"{self.against} spent"
        ax.set(xlabel=label, ylabel="mean regret (ln loss)", xscale="log")
        plain_log(ax.xaxis)
        legend(ax)
