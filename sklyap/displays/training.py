"""The spectrum of a network through its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sklyap.displays.base import MARKERS, Display, band, check_array, legend, ordered_colors, whole_ticks, zero_line
from sklyap.displays.snapshots import networks_through
from sklyap.lyapunov import LyapunovResult
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.validation import check_instance, check_instances, check_real

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
        who = type(self).__name__
        self.epochs = check_array(epochs, "epochs", ("n_looks",), who)
        self.exponents = check_array(exponents, "exponents", (len(self.epochs), "k"), who)
        self.standard_error = check_array(
            standard_error, "standard_error", self.exponents.shape, who, like="exponents", optional=True
        )

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

    @classmethod
    def from_results(cls, results: Mapping[float, LyapunovResult], *, ax: Any = None) -> TrainingDisplay:
        """Draw the spectra of one network at several epochs.

        Parameters
        ----------
        results : mapping of epoch to LyapunovResult
            All in nats per step, with as many exponents.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        TrainingDisplay

        Raises
        ------
        ValueError
            If there is no result, or they have different units or numbers of exponents.
        """
        check_instance(results, "results", Mapping)
        found = check_instances(results.values(), "results", LyapunovResult)
        kinds = {(len(result.exponents), result.unit, result.per) for result in found}
        if len(kinds) != 1 or {(unit, per) for _, unit, per in kinds} != {("nats", "step")}:
            got = ", ".join(f"{k} in {unit} per {per}" for k, unit, per in sorted(kinds))
            raise ValueError(f"The 'results' parameter must hold as many exponents each, in nats per step. Got {got}.")
        epochs = [check_real(epoch, "results", low=0) for epoch in results]
        exponents, errors = ([getattr(r, name) for r in found] for name in ("exponents", "standard_error"))
        return cls(epochs, np.array(exponents), standard_error=np.array(errors)).plot(ax)

    @classmethod
    def from_population(
        cls, population: Any, transformer: Any, *, epochs: Any, index: int = 0, ax: Any = None
    ) -> TrainingDisplay:
        """Draw the spectrum of one network of a population at the epochs at which it was kept.

        Parameters
        ----------
        population : NetworkPopulation
            With snapshots at these epochs.
        transformer : LyapunovSpectrumTransformer
            Computes the spectra; its `n_exponents` are drawn.
        epochs : iterable of numbers
            When to look, 0 for the network before training.
        index : int, default=0
            Which network of the population.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        TrainingDisplay
        """
        check_instance(transformer, "transformer", LyapunovSpectrumTransformer)
        by_epoch = networks_through(population, epochs, index)
        return cls.from_results({epoch: transformer.analyze(network) for epoch, network in by_epoch.items()}, ax=ax)

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
        whole_ticks(ax.xaxis)
        legend(ax, outside=True)
