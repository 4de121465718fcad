"""Low-dimensional chaotic systems. Starts lie in the basin of the attractor."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from sklyap.cells import FlowCell, FunctionCell
from sklyap.datasets.systems.equations import henon_step, ikeda_step, lorenz_field, rossler_field
from sklyap.datasets.systems.known_system import KnownSystem, starts
from sklyap.validation import check_choice, check_real

__all__ = ["henon", "ikeda", "lorenz", "rossler"]

_LORENZ = {
    "sprott": ((10.0, 28.0, 8 / 3), (0.906, 0.0, -14.572), 1e-3, "Sprott 2003"),
    "wolf": ((16.0, 45.92, 4.0), (1.50, 0.0, -22.50), 1e-2, "Wolf et al. 1985; the last from the exact sum"),
}


def henon(*, n_starts: int = 1) -> KnownSystem:
    """The Hénon map with a = 1.4, b = 0.3; the sum is ln 0.3 exactly.

    Parameters
    ----------
    n_starts : int, default=1
        How many initial states, each a sequence of its own.

    References
    ----------
    Hénon, M. (1976). A two-dimensional mapping with a strange attractor. Communications in Mathematical Physics 50.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.henon()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.4192, 2)
    """
    first = 0.41918
    return KnownSystem(
        "Hénon",
        FunctionCell(henon_step, 2, initial_state=starts([0.0, 0.0], 0.1, n_starts)),
        np.array([first, math.log(0.3) - first]),
        1e-4,
        "long runs; Sprott (2003), Chaos and Time-Series Analysis: 0.41922",
    )


def ikeda(*, n_starts: int = 1) -> KnownSystem:
    """The Ikeda map with u = 0.9; the sum is 2 ln 0.9 exactly, and the transposed Jacobian gives 0.28.

    Parameters
    ----------
    n_starts : int, default=1
        How many random starts, one sequence each.

    References
    ----------
    Hammel, S. M., Jones, C. K. R. T. and Moloney, J. V. (1985). Global dynamical behavior of the optical field in a
    ring cavity. JOSA B 2.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.ikeda()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.5075, 2)
    """
    first = 0.5075
    return KnownSystem(
        "Ikeda",
        FunctionCell(ikeda_step, 2, initial_state=starts([0.1, 0.1], 0.1, n_starts)),
        np.array([first, 2 * math.log(0.9) - first]),
        2e-4,
        "long runs",
    )


def lorenz(parameters: str = "sprott", *, time_step: float = 0.01, n_starts: int = 1) -> KnownSystem:
    """The Lorenz system, integrated by one Runge-Kutta step of fourth order per step of the cell.

    Parameters
    ----------
    parameters : {"sprott", "wolf"}, default="sprott"
        (σ, ρ, β) = (10, 28, 8/3) with exponents 0.906, 0 and -14.572 [1]_, or (16, 45.92, 4) with 1.50, 0 and
        -22.50, per unit of time; the sum is -(σ + 1 + β). (The -22.46 of [2]_ is not quite what its sum of -21 leaves.)
    time_step : float, default=0.01
        The sum is met to fourth order in it.
    n_starts : int, default=1
        How many random starts, one sequence each.

    References
    ----------
    .. [1] Sprott, J. C. (2003). Chaos and Time-Series Analysis. Oxford University Press.
    .. [2] Wolf, A., Swift, J. B., Swinney, H. L. and Vastano, J. A. (1985). Determining Lyapunov exponents from a
       time series. Physica D 16.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.lorenz()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.906, 3)
    """
    check_choice(parameters, "parameters", _LORENZ)
    check_real(time_step, "time_step", low=np.finfo(float).tiny, high=0.1)
    constants, exponents, tolerance, source = _LORENZ[parameters]
    return KnownSystem(
        f"Lorenz ({parameters})",
        FlowCell(
            partial(lorenz_field, constants),
            3,
            dt=time_step,
            initial_state=starts([1.0, 1.0, constants[1] - 1], 1.0, n_starts),
        ),
        np.array(exponents),
        tolerance,
        source,
        time_step,
        {"sum": -(constants[0] + 1 + constants[2])},
    )


def rossler(*, time_step: float = 0.02, n_starts: int = 1) -> KnownSystem:
    """The Rössler system with a = b = 0.2 and c = 5.7, by Runge-Kutta steps of fourth order.

    Parameters
    ----------
    time_step : float, default=0.02
        Where the orbit leaves the plane, steps of 0.05 take 0.006 off the smallest exponent.
    n_starts : int, default=1
        How many random starts, one sequence each.

    References
    ----------
    Rössler, O. E. (1976). An equation for continuous chaos. Physics Letters A 57.
    Sprott, J. C. (2003). Chaos and Time-Series Analysis. Oxford University Press.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.rossler()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.0714, 3)
    """
    check_real(time_step, "time_step", low=np.finfo(float).tiny, high=0.1)
    return KnownSystem(
        "Rössler",
        FlowCell(
            partial(rossler_field, (0.2, 0.2, 5.7)),
            3,
            dt=time_step,
            initial_state=starts([1.0, 1.0, 0.0], 1.0, n_starts),
        ),
        np.array([0.0714, 0.0, -5.3943]),
        2e-3,
        "Sprott 2003",
        time_step,
    )
