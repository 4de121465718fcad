"""The spectrum of a network through its training."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklyap.displays.base import Display

__all__ = ["TrainingDisplay"]


class TrainingDisplay(Display):
    """Lyapunov exponents against epochs, each with a band of two standard errors.

    Parameters
    ----------
    epochs : array-like of shape (n_looks,)
    exponents : array-like of shape (n_looks, k)
        In nats per step.
    standard_error : array-like of shape (n_looks, k), optional
    """

    def __init__(self, epochs: Any, exponents: Any, *, standard_error: Any = None) -> None:
        self.epochs = np.asarray(epochs, dtype=float)
        self.exponents = np.asarray(exponents, dtype=float)
        self.standard_error = None if standard_error is None else np.asarray(standard_error, dtype=float)

    @classmethod
    def from_monitor(cls, monitor: Any, *, ax: Any = None) -> TrainingDisplay:
        """Draw what a :class:`~sklyap.training.LyapunovMonitor` has seen."""
        if not getattr(monitor, "spectra_", None):
            raise ValueError("The 'monitor' parameter must have seen a network. Got one that was never trained with.")
        columns = zip(*((s.epoch, s.exponents, s.standard_error) for s in monitor.spectra_), strict=True)
        epochs, exponents, errors = map(np.array, columns)
        return cls(epochs, exponents, standard_error=errors).plot(ax)

    def _draw(self, ax: Any) -> None:
        for i, exponent in enumerate(self.exponents.T):
            shown = np.where(np.isfinite(exponent), exponent, np.nan)
            (line,) = ax.plot(self.epochs, shown, marker=".", linewidth=1)
            if self.standard_error is not None:
                width = 2 * np.nan_to_num(self.standard_error[:, i], posinf=0.0)
                ax.fill_between(
                    self.epochs, shown - width, shown + width, color=line.get_color(), alpha=0.2, linewidth=0
                )
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(xlabel="epochs", ylabel="Lyapunov exponent (nats per step)")
