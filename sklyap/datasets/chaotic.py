"""Series of chaotic systems in continuous time, and the value that follows each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from sklearn.utils import check_random_state

from sklyap.validation import check_bool, check_choice, check_int, check_real, check_seed

__all__ = ["make_chaotic_series"]

Array = NDArray[np.floating[Any]]

_TIME_STEP = {"lorenz": 0.02, "mackey_glass": 1.0}
_TRANSIENT = {"lorenz": 30.0, "mackey_glass": 500.0}
"""Time after which a trajectory is on the attractor."""
_TOLERANCE = {"method": "DOP853", "rtol": 1e-9, "atol": 1e-9}


def make_chaotic_series(
    system: str = "lorenz",
    n_samples: int = 1,
    n_steps: int = 2000,
    *,
    dt: float | None = None,
    tau: float = 17.0,
    standardize: bool = True,
    noise: float = 0.0,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make series of a chaotic system, and the value that follows each.

    A network that predicts the next value from those so far, and is then fed with its own output, is a model of the
    system: :func:`~sklyap.closed_loop` has its spectrum.

    Parameters
    ----------
    system : {"lorenz", "mackey_glass"}, default="lorenz"
        Lorenz' equations [1]_ with σ = 10, ρ = 28, β = 8/3, three numbers per step; or the delay equation
        ``dx/dt = 0.2 x(t - τ) / (1 + x(t - τ)¹⁰) - 0.1 x`` of Mackey and Glass [2]_, one number.
    n_samples : int, default=1
        Number of series, each from initial values of its own, after a transient.
    n_steps : int, default=2000
        Steps of each series.
    dt : float, optional
        Time between steps; by default 0.02 for Lorenz and 1 for Mackey-Glass.
    tau : float, default=17.0
        The delay τ of Mackey-Glass; from about 16.8 on it is chaotic.
    standardize : bool, default=True
        Whether to give each variable mean zero and variance one over all series. Exponents do not change.
    noise : float, default=0.0
        Standard deviation of Gaussian noise that is added to the inputs X, not to y.
    random_state : int, RandomState instance or None, default=None
        Draws initial values and noise.

    Returns
    -------
    X, y : ndarray of shape (n_samples, n_steps, 3 or 1), float32
        Values at times t, and at t + dt.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    Notes
    -----
    Per unit of time Lorenz has the exponents 0.906, 0 and -14.572. They are per step times `dt`.

    References
    ----------
    .. [1] Lorenz, E. N. (1963). Deterministic nonperiodic flow. Journal of the Atmospheric Sciences 20.
    .. [2] Mackey, M. C. and Glass, L. (1977). Oscillation and chaos in physiological control systems. Science 197.

    Examples
    --------
    >>> from sklyap.datasets import make_chaotic_series
    >>> X, y = make_chaotic_series("mackey_glass", 2, 100, random_state=0)
    >>> X.shape, bool((X[:, 1:] == y[:, :-1]).all())
    ((2, 100, 1), True)
    """
    caller = "make_chaotic_series"
    check_choice(system, "system", _TIME_STEP, caller=caller)
    check_int(n_samples, "n_samples", low=1, caller=caller)
    check_int(n_steps, "n_steps", low=1, caller=caller)
    dt = _TIME_STEP[system] if dt is None else check_real(dt, "dt", low=0.0, caller=caller)
    tau = check_real(tau, "tau", low=0.0, caller=caller)
    noise = check_real(noise, "noise", low=0.0, caller=caller)
    if dt == 0 or tau == 0:
        raise ValueError(f"The 'dt' and 'tau' parameters of {caller} must be positive. Got dt={dt} and tau={tau}.")
    check_bool(standardize, "standardize", caller=caller)
    generator = check_random_state(check_seed(random_state, caller=caller))
    times = _TRANSIENT[system] + dt * np.arange(n_steps + 1)
    values = (
        _lorenz(times, n_samples, generator) if system == "lorenz" else _mackey_glass(times, n_samples, tau, generator)
    )
    if standardize:
        values = (values - values.mean((0, 1))) / values.std((0, 1))
    X = values[:, :-1] + (noise * generator.normal(size=values[:, :-1].shape) if noise else 0.0)
    return X.astype(np.float32), values[:, 1:].astype(np.float32)


def _lorenz(times: Array, n: int, generator: np.random.RandomState) -> Array:
    """Return n trajectories (n, n_times, 3)."""

    def velocity(t: float, flat: Array) -> Array:
        a, b, c = flat.reshape(3, n)
        return np.concatenate([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])

    start = generator.normal(size=(3, n)) + np.array([[0.0], [0.0], [25.0]])
    found = solve_ivp(velocity, (0, times[-1]), start.ravel(), t_eval=times, **_TOLERANCE)
    return found.y.reshape(3, n, len(times)).transpose(1, 2, 0)


def _mackey_glass(times: Array, n: int, tau: float, generator: np.random.RandomState) -> Array:
    """Return n trajectories (n, n_times, 1), by the method of steps: on an interval of length τ the delay is known."""
    past: Callable[[float], Array] = _constant(0.5 + generator.uniform(size=n))
    value, found, start = past(0.0), [], 0.0
    while start < times[-1]:

        def velocity(t: float, x: Array, past: Callable[[float], Array] = past) -> Array:
            delayed = past(t - tau)
            return 0.2 * delayed / (1 + delayed**10) - 0.1 * x

        inside = times[(times >= start) & (times < start + tau)]
        solution = solve_ivp(velocity, (start, start + tau), value, dense_output=True, **_TOLERANCE)
        found.append(solution.sol(inside) if len(inside) else np.empty((n, 0)))
        past, value, start = solution.sol, solution.y[:, -1], start + tau
    values = np.concatenate(found, 1)
    if values.shape[1] < len(times):  # the last time is the end of an interval
        values = np.concatenate([values, value[:, None]], 1)
    return values[:, : len(times), None]


def _constant(value: Array) -> Callable[[float], Array]:
    return lambda t: value
