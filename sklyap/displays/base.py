"""What all displays share."""

from __future__ import annotations

from typing import Any

__all__ = ["Display", "check_length"]


def _axes(ax: Any) -> Any:
    if ax is not None:
        if not hasattr(ax, "figure") or not hasattr(ax, "plot"):
            raise TypeError(f"The 'ax' parameter must be a matplotlib Axes. Got {ax!r} instead.")
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def check_length(values: Any, name: str, n: int, who: str) -> None:
    """Raise ValueError unless `values` has `n` entries."""
    if len(values) != n:
        raise ValueError(f"The {name!r} parameter of {who} must have {n} entries. Got {len(values)} instead.")


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
