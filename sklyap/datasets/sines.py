"""Sums of sines as targets of a generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from sklyap.validation import check_int, check_real, check_seed

__all__ = ["make_sine_targets"]


def make_sine_targets(
    n_samples: int = 1,
    n_steps: int = 1200,
    *,
    dt: float = 0.1,
    period: float = 120.0,
    amplitudes: Sequence[float] = (1.3 / 1.5, 0.65 / 1.5, 1.3 / 9.0, 1.3 / 4.5),
    noise: float = 0.0,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Make sums of harmonic sines, and the value that follows each.

    ``f(t) = Σ_j amplitudes[j] sin(2π (j + 1) t / period)``, by default the four superposed sines of [1]_. A network
    that predicts ``f(t + dt)`` from ``f(t)`` and is then fed with its own output generates the target.

    Parameters
    ----------
    n_samples : int, default=1
        Number of sequences. The first begins at t = 0; the others begin at random times within a period.
    n_steps : int, default=1200
        Steps of each sequence.
    dt : float, default=0.1
        Time between steps.
    period : float, default=120.0
        Period of the slowest sine, in the units of `dt`.
    amplitudes : sequence of float
        Amplitude of each harmonic, the slowest first.
    noise : float, default=0.0
        Standard deviation of Gaussian noise that is added to the inputs X, not to y.
    random_state : int, RandomState instance or None, default=None
        Draws the starting times and the noise.

    Returns
    -------
    X : ndarray of shape (n_samples, n_steps, 1), float32
        ``f(t)``.
    y : ndarray of shape (n_samples, n_steps, 1), float32
        ``f(t + dt)``. The variance of f is ``Σ amplitudes² / 2``, which is the mean squared error of the best
        constant over whole periods.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range.

    References
    ----------
    .. [1] Sussillo, D. and Abbott, L. F. (2009). Generating coherent patterns of activity from chaotic neural networks.
       Neuron 63.

    Examples
    --------
    >>> from sklyap.datasets import make_sine_targets
    >>> X, y = make_sine_targets(3, random_state=0)
    >>> X.shape, y.shape
    ((3, 1200, 1), (3, 1200, 1))
    >>> bool((X[:, 1:] == y[:, :-1]).all())
    True
    """
    caller = "make_sine_targets"
    check_int(n_samples, "n_samples", low=1, caller=caller)
    check_int(n_steps, "n_steps", low=1, caller=caller)
    for name, value in (("dt", dt), ("period", period)):
        if check_real(value, name, low=0.0, caller=caller) == 0:
            raise ValueError(f"The '{name}' parameter of {caller} must be positive. Got {value!r} instead.")
    check_real(noise, "noise", low=0.0, caller=caller)
    sizes = np.array([check_real(size, "amplitudes", caller=caller) for size in amplitudes])
    if not len(sizes):
        raise ValueError(f"The 'amplitudes' parameter of {caller} must not be empty. Got {amplitudes!r} instead.")
    rng = check_random_state(check_seed(random_state))
    starts = np.concatenate([[0.0], rng.uniform(0, period, n_samples - 1)])
    t = starts[:, None] + dt * np.arange(n_steps + 1)
    harmonics = np.arange(1, len(sizes) + 1)
    f = (np.sin(2 * np.pi / period * t[..., None] * harmonics) @ sizes)[..., None].astype(np.float32)
    X, y = f[:, :-1], f[:, 1:].copy()
    return X + rng.normal(0, noise, X.shape).astype(np.float32) if noise else X.copy(), y
