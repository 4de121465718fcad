"""The figures of a report that no display draws, and figures as ``data:`` addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from sklyap.displays.base import plain_log, whole_ticks
from sklyap.population import NetworkPopulation
from sklyap.report.text import shown

__all__ = ["draw_losses", "draw_sweep", "picture"]

_DPI = 120
_MOST_CURVES = 500
"""Maximum number of networks whose losses are drawn one by one; of more, equally spaced ranks of the best loss are."""
_FEW_VALUES = 6
"""A number with at most so many values is drawn as groups."""


def picture(draw: Callable[[Any], Any], size: tuple[float, float] = (7.0, 4.2)) -> str:
    """Return what `draw` draws into a figure as a ``data:`` address."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def draw_losses(figure: Any, population: NetworkPopulation) -> None:
    """Draw the loss of every network at every epoch."""
    ax = figure.add_subplot()
    order = np.argsort(population.best_losses)
    if len(order) > _MOST_CURVES:
        order = order[np.linspace(0, len(order) - 1, _MOST_CURVES).astype(int)]
    for rank, i in enumerate(order[::-1]):
        curve = np.asarray(population.records[i].losses, dtype=float)
        is_best = rank == len(order) - 1
        style = {"color": "tab:red", "marker": "*"} if is_best else {"color": "0.6", "marker": "."}
        ax.plot(np.arange(1, len(curve) + 1), curve, linewidth=1, **style)
    _log_scale_if_wide(ax, population.best_losses)
    whole_ticks(ax.xaxis)
    ax.set(xlabel="epoch", ylabel="loss (the best network in red, with stars)")


def draw_sweep(figure: Any, params: pd.DataFrame, losses: np.ndarray) -> None:
    """Draw the lowest losses against each hyperparameter."""
    n = len(params.columns)
    axes = figure.subplots(-(-n // 3), min(3, n), squeeze=False).ravel()
    for ax, name in zip(axes, params.columns, strict=False):
        column = params[name]
        is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        if is_number and column.nunique() > _FEW_VALUES:
            ax.plot(column, losses, ".", alpha=0.7)
            if (column > 0).all() and column.max() > 5 * column.min():
                ax.set_xscale("log")
                plain_log(ax.xaxis)
        else:
            values = [shown(value) for value in (column.sort_values() if is_number else column)]
            names = list(dict.fromkeys(map(str, values)))
            groups = [losses[[str(shown(v)) == label for v in column]] for label in names]
            ax.boxplot(groups, tick_labels=[_plain(label) for label in names])
        _log_scale_if_wide(ax, losses)
        ax.set(xlabel=_plain(name), ylabel="lowest loss")
    for ax in axes[n:]:
        ax.remove()


def _log_scale_if_wide(ax: Any, losses: np.ndarray) -> None:
    if np.nanmin(losses) > 0 and np.nanmax(losses) > 5 * np.nanmin(losses):
        ax.set_yscale("log")
        plain_log(ax.yaxis)


def _plain(name: Any) -> str:
    """Return a name as matplotlib shows it: a dollar sign begins no formula."""
    return str(name).replace("$", r"\$")
