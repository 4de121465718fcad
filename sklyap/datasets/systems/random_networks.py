"""Random chaotic networks, whose exponents are known from theory or from long runs."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from sklyap.cells import FlowCell, FunctionCell
from sklyap.datasets.systems.equations import mean_field, rate_field, tanh_step
from sklyap.datasets.systems.known_system import KnownSystem, starts
from sklyap.validation import check_int, check_real

__all__ = ["rate_network", "tanh_map"]


def tanh_map(n_units: int = 400, gain: float = 2.0, *, random_state: Any = 0, n_starts: int = 1) -> KnownSystem:
    """``x' = J tanh x`` with J ~ N(0, g²/N): mean-field values of the largest exponent and of the mean.

    With the variance Δ of x that solves Δ = g² ⟨tanh² x⟩, λ_1 = ½ ln(g² ⟨sech⁴ x⟩), and the mean of all exponents
    is ln g - ½ + ⟨ln sech² x⟩, exact for large N [1]_; only λ_1 is given as an exponent.

    Parameters
    ----------
    n_units : int, default=400
        Number of units.
    gain : float, default=2.0
        Above 1, where the dynamics is chaotic.
    random_state : int or None, default=0
        Seeds what is random; the same seed gives the same numbers.
    n_starts : int, default=1
        How many random starts, one sequence each.

    References
    ----------
    .. [1] Molgedey, L., Schuchhardt, J. and Schuster, H. G. (1992). Suppressing chaos in neural networks by noise.
       Physical Review Letters 69.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.tanh_map()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.1547, 1)
    """
    check_int(n_units, "n_units", low=1)
    check_real(gain, "gain", low=1.0)
    J = gain / math.sqrt(n_units) * np.random.default_rng(random_state).normal(size=(n_units, n_units))
    first, mean = mean_field(gain)
    return KnownSystem(
        "random tanh map",
        FunctionCell(
            partial(tanh_step, torch.from_numpy(J)), n_units, initial_state=starts([0.0], 1.0, n_starts, n_units)
        ),
        np.array([first]),
        14 / n_units,  # largest deviation of a dozen networks of 100 to 400 units, gains 1.5 to 3
        "mean-field theory, for large N",
        statistics={"max": first, "mean": mean},
    )


def rate_network(*, n_starts: int = 1) -> KnownSystem:
    """A chaotic rate network, ``τ dh/dt = -h + J tanh h``: 100 units, g = 4, steps of 0.1 τ, no autapses.

    The weights are those of the published program [1]_ with its seeds; a single run of it, of 1000 τ, gives 0.1634,
    0.0898, 0.0164, 0.0013 and a Kaplan-Yorke dimension of 6.35, within the scatter of such runs (0.01 and 0.2).

    Parameters
    ----------
    n_starts : int, default=1
        How many random starts, one sequence each.

    References
    ----------
    .. [1] Engelken, R., Wolf, F. and Abbott, L. F. (2023). Lyapunov spectra of chaotic recurrent neural networks.
       Physical Review Research 5, 043044.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.rate_network()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.1696, 4)
    """
    n_units, gain, time_step = 100, 4.0, 0.1
    J = gain / math.sqrt(n_units) * np.random.RandomState(1).randn(n_units, n_units)
    np.fill_diagonal(J, 0.0)
    return KnownSystem(
        "rate network",
        FlowCell(
            partial(rate_field, torch.from_numpy(J)),
            n_units,
            dt=time_step,
            method="euler",
            initial_state=starts([0.0], gain - 1, n_starts, n_units),
        ),
        np.array([0.1696, 0.0742, 0.0041, -0.0100]),
        0.004,
        "16 runs of 2000 τ of a plain QR loop; Engelken, Wolf and Abbott 2023",
        time_step,
        {"kaplan_yorke_dimension": 6.05},
    )
