"""A dynamical system whose Lyapunov exponents are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sklyap.cells import RecurrentCell
from sklyap.validation import check_int

__all__ = ["KnownSystem", "starts"]


@dataclass(frozen=True)
class KnownSystem:
    """A system with known Lyapunov exponents.

    Attributes
    ----------
    name : str
        In words.
    cell : RecurrentCell
        The system.
    exponents : ndarray of shape (k,)
        The k leading ones that are known, usually all, descending, in nats per unit of time; -inf for annihilated
        directions.
    tolerance : float
        How far they may be from the truth, in the same unit; 0 where they are exact.
    source : str
        Where the numbers are from.
    time_step : float
        Units of time that one step of the cell takes.
    statistics : mapping of str to float
        What else is known, by the names of :class:`~sklyap.SpectrumStatistics`, per unit of time.
    drive : callable or None
        Makes inputs: ``drive(n_steps, n_sequences, generator)``; None for an autonomous system.

    Examples
    --------
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.datasets import systems
    >>> system = systems.periodic_product([[[0.0, 2.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 1.0]]])
    >>> result = lyapunov_spectrum(system.cell, system.sequences(2000))
    >>> print(abs(result.exponents - system.per_step).max() < 1e-9)
    True
    """

    name: str
    cell: RecurrentCell
    exponents: np.ndarray
    tolerance: float
    source: str
    time_step: float = 1.0
    statistics: Mapping[str, float] = field(default_factory=dict)
    drive: Callable[[int, int, np.random.Generator], np.ndarray] | None = None

    @property
    def per_step(self) -> np.ndarray:
        """The exponents in nats per step, as :func:`~sklyap.lyapunov_spectrum` gives them."""
        return self.exponents * self.time_step

    def sequences(self, n_steps: int, n_sequences: int = 1, random_state: Any = 0) -> np.ndarray | int:
        """Return what drives the cell.

        Parameters
        ----------
        n_steps : int
            How many steps.
        n_sequences : int, default=1
            An autonomous system has as many sequences as initial states (`n_starts`).
        random_state : int or None, default=0
            Draws the inputs where they are random.

        Returns
        -------
        ndarray of shape (n_sequences, n_steps, n_inputs), or int for an autonomous system
        """
        check_int(n_steps, "n_steps", low=1)
        check_int(n_sequences, "n_sequences", low=1, high=None if self.drive else 1)
        if self.drive is None:
            return n_steps
        return self.drive(n_steps, n_sequences, np.random.default_rng(random_state))


def starts(center: Any, spread: float, n: int, size: int | None = None) -> np.ndarray:
    """Return n pseudo-random points around `center`; the first does not depend on n."""
    check_int(n, "n_starts", low=1)
    center = np.asarray(center, dtype=float)
    return center + spread * np.random.default_rng(0).uniform(-1, 1, (n, size or len(center)))
