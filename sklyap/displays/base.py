"""What all displays share: axes, colours with an order, markers, bands, steps counted from 1."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "MARKERS",
    "UNITS",
    "Display",
    "band",
    "check_labels",
    "check_length",
    "ordered_colors",
    "shade_warmup",
    "zero_line",
]

MARKERS = "os^Dv<>pP*X"
"""Tell lines and groups apart where colours cannot be."""
UNITS = ("nats", "bits")


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


def check_length(values: Any, name: str, n: int, who: str) -> None:
    """Raise ValueError unless `values` has `n` entries."""
    if len(values) != n:
        raise ValueError(f"The {name!r} parameter of {who} must have {n} entries. Got {len(values)} instead.")


def check_labels(labels: Any, n: int, who: str) -> list[str] | None:
    """Return labels as strings, one for each of `n` curves; None for none."""
    if labels is None:
        return None
    labels = [str(label) for label in ([labels] if isinstance(labels, str) else labels)]
    check_length(labels, "labels", n, who)
    return labels


def ordered_colors(n: int) -> list[Any]:
    """Return `n` colours from dark to light, for curves that have an order."""
    import matplotlib as mpl

    return [mpl.colormaps["viridis"](0.88 * i / max(1, n - 1)) for i in range(n)]


def band(ax: Any, x: Any, centre: Any, width: Any, color: Any) -> None:
    """Draw ``centre ± width``; widths that are not finite are left out."""
    width = np.where(np.isfinite(width), width, 0.0)
    ax.fill_between(x, centre - width, centre + width, color=color, alpha=0.2, linewidth=0)


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
