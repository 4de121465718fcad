"""The spectrum of a network through its training."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklyap.displays.base import MARKERS, Display, band, ordered_colors, zero_line

__all__ = ["TrainingDisplay"]


class TrainingDisplay(Display):
    """Lyapunov exponents against epochs, each with a band of two standard errors.

    Parameters
    ----------
    epochs : array-like of shape (n_looks,)
        When the network was looked at; 0 is before training.
    exponents : array-like of shape (n_looks, k)
        In nats per step.
    standard_error : array-like of shape (n_looks, k), optional
        Of the exponents.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.displays import TrainingDisplay
    >>> from sklyap.training import LyapunovMonitor
    >>> X, y = make_recall(64, n_steps=10, random_state=0)
    >>> monitor = LyapunovMonitor(n_exponents=2)
    >>> network = RNNClassifier("gru", 4, max_epochs=3, callbacks=[monitor], random_state=0).fit(X, y)
    >>> TrainingDisplay.from_monitor(monitor).exponents.shape
    (4, 2)
    """

    def __init__(self, epochs: Any, exponents: Any, *, standard_error: Any = None) -> None:
        self.epochs = np.asarray(epochs, dtype=float)
        self.exponents = np.asarray(exponents, dtype=float)
        self.standard_error = None if standard_error is None else np.asarray(standard_error, dtype=float)

    @classmethod
    def from_monitor(cls, monitor: Any, *, ax: Any = None) -> TrainingDisplay:
        """Draw what a callback has seen.

        Parameters
        ----------
        monitor : LyapunovMonitor
            After training.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        TrainingDisplay

        Raises
        ------
        ValueError
            If the monitor has seen no network.
        """
        if not getattr(monitor, "spectra_", None):
            raise ValueError("The 'monitor' parameter must have seen a network. Got one that was never trained with.")
        columns = zip(*((s.epoch, s.exponents, s.standard_error) for s in monitor.spectra_), strict=True)
        epochs, exponents, errors = map(np.array, columns)
        return cls(epochs, exponents, standard_error=errors).plot(ax)

    def _draw(self, ax: Any) -> None:
        for i, (exponent, color) in enumerate(
            zip(self.exponents.T, ordered_colors(self.exponents.shape[1]), strict=True)
        ):
            shown = np.where(np.isfinite(exponent), exponent, np.nan)
            marker = MARKERS[i % len(MARKERS)]
            label = f"$\\lambda_{{{i + 1}}}$"
            ax.plot(self.epochs, shown, marker=marker, markersize=4, linewidth=1, color=color, label=label)
            if self.standard_error is not None:
                band(ax, self.epochs, shown, 2 * self.standard_error[:, i], color)
        zero_line(ax)
        ax.set(xlabel="epochs trained", ylabel="Lyapunov exponent (nats per step)")
        ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
