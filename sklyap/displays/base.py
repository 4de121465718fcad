"""What all displays share: axes, colours with an order, markers, bands, steps counted from 1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sklyap.validation import check_dense, check_instance

__all__ = [
    "MARKERS",
    "UNITS",
    "Display",
    "band",
    "check_array",
    "check_labels",
    "check_length",
    "check_names",
    "legend",
    "ordered_colors",
    "plain_log",
    "shade_warmup",
    "whole_ticks",
    "zero_line",
]

MARKERS = "os^Dv<>pP*X"
"""Tell lines and groups apart where colours cannot be."""
UNITS = ("nats", "bits")
_FEW_ENTRIES = 10
_ENTRIES_A_COLUMN = 22


def _axes(ax: Any) -> Any:
    if ax is not None:
        if not hasattr(ax, "figure") or not hasattr(ax, "plot"):
            raise TypeError(f"The 'ax' parameter must be a matplotlib Axes. Got {ax!r} instead.")
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('A display needs matplotlib: pip install "sklyap[plot]".') from error
    return plt.subplots(layout="constrained")[1]


def check_array(
    values: Any, name: str, shape: Sequence[int | str], who: str, *, like: str = "", optional: bool = False
) -> Any:
    """Return real numbers as a float array of a shape, or raise.

    Parameters
    ----------
    values : array-like
        NaN and infinity are let pass: they are where there is nothing to draw.
    name : str
        Of the parameter.
    shape : sequence of int and str
        A length, or the name of one that is free.
    who : str
        Whose parameter it is.
    like : str, optional
        The parameter whose shape it must have.
    optional : bool, default=False
        Whether None is let pass.
    """
    if optional and values is None:
        return None
    check_dense(values, name, caller=who)
    wanted = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})" + (f", that of {like!r}" if like else "")
    try:
        array = np.asarray(values, dtype=float)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of different lengths, or a tensor that has a gradient
        raise ValueError(f"The {name!r} parameter of {who} must be an array of shape {wanted}. {error}") from error
    fits = array.ndim == len(shape) and all(
        n == m if isinstance(m, int) else n > 0 for n, m in zip(array.shape, shape, strict=True)
    )
    if not fits:
        got = f"Got shape {array.shape} instead."
        raise ValueError(f"The {name!r} parameter of {who} must have shape {wanted}. {got}")
    return array


def check_length(values: Any, name: str, n: int, who: str) -> None:
    """Raise ValueError unless `values` has `n` entries."""
    if len(values) != n:
        raise ValueError(f"The {name!r} parameter of {who} must have {n} entries. Got {len(values)} instead.")


def check_labels(labels: Any, n: int, who: str) -> list[str] | None:
    """Return labels as strings, one for each of `n` curves; None for none."""
    if labels is None:
        return None
    labels = check_names([labels] if isinstance(labels, str) else labels, "labels", who)
    check_length(labels, "labels", n, who)
    return labels


def check_names(values: Any, name: str, who: str) -> list[str]:
    """Return names, epochs or lengths as strings."""
    if isinstance(values, str):
        raise TypeError(f"The {name!r} parameter of {who} must be a sequence. Got {values!r} instead.")
    return [str(value) for value in check_instance(values, name, Iterable, caller=who)]


def ordered_colors(n: int) -> list[Any]:
    """Return `n` colours from dark to light, for curves that have an order."""
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](0.88 * i / max(1, n - 1)) for i in range(n)]


def band(ax: Any, x: Any, centre: Any, width: Any, color: Any) -> None:
    """Draw ``centre ± width``; where the width is not known there is no band."""
    width = np.where(np.isfinite(width), width, np.nan)
    ax.fill_between(x, centre - width, centre + width, color=color, alpha=0.2, linewidth=0)


def legend(ax: Any, *, outside: bool = False) -> None:
    """Draw a legend: of many entries beside the axes, in small columns, as it would hide the curves."""
    n = len(ax.get_legend_handles_labels()[1])
    if n <= _FEW_ENTRIES and not outside:
        ax.legend()
    else:
        columns = -(-n // _ENTRIES_A_COLUMN)
        size = "small" if columns == 1 else "xx-small"
        ax.legend(fontsize=size, loc="center left", bbox_to_anchor=(1, 0.5), ncols=columns)


def whole_ticks(*axes: Any) -> None:
    """Let an axis of steps, epochs or directions have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        axis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def plain_log(*axes: Any) -> None:
    """Write the numbers of a logarithmic axis as they are, without powers of ten; call it when all is drawn."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        between = (1.0, 2.0, 5.0) if high < 100 * low else (1.0,)  # more would overlap
        axis.set_major_locator(MaxNLocator(5) if high < 10 * low else LogLocator(subs=between))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def zero_line(ax: Any) -> None:
    """Draw where growth turns into decay."""
    ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")


def shade_warmup(ax: Any, warmup: int) -> None:
    """Shade steps 1 to `warmup`, which are not averaged."""
    if warmup:
        ax.axvspan(0.5, warmup + 0.5, color="0.9", zorder=0, label="warm-up", linewidth=0)


class Display:
    """A display knows its axes and figure once it has been plotted."""

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Any:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        self
            With `ax_` and `figure_`.
        """
        self.ax_ = _axes(ax)
        self.figure_ = self.ax_.figure
        self._draw(self.ax_)
        return self

    def _draw(self, ax: Any) -> None:
        raise NotImplementedError
