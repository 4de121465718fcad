"""Dynamical systems whose Lyapunov spectra are known, as cells, to check a method or a setting against."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import digamma

from sklyap.cells import FlowCell, FunctionCell, GRUCell, LSTMCell, RecurrentCell
from sklyap.datasets.equations import (
    henon_step,
    ikeda_step,
    linear_step,
    lorenz_field,
    mean_field,
    product_step,
    rate_field,
    rossler_field,
    tanh_step,
)
from sklyap.validation import check_choice, check_int, check_real

__all__ = [
    "KnownSystem",
    "constant_gate_lstm",
    "gaussian_product",
    "henon",
    "ikeda",
    "known_systems",
    "linear_map",
    "lorenz",
    "orthogonal_map",
    "periodic_product",
    "rate_network",
    "rossler",
    "tanh_map",
    "zero_gru",
]


@dataclass(frozen=True)
class KnownSystem:
    """A system with known Lyapunov exponents.

    Attributes
    ----------
    name : str
    cell : RecurrentCell
    exponents : ndarray of shape (k,)
        The k leading ones that are known, usually all, descending, in nats per unit of time; -inf for annihilated
        directions.
    tolerance : float
        How far they may be from the truth, in the same unit; 0 where they are exact.
    source : str
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


# Products of matrices. Zero is a fixed point of every linear map, so the state stays there.


def linear_map(matrix: Any = None) -> KnownSystem:
    """``s' = A s``: the logarithms of the moduli of the eigenvalues.

    Parameters
    ----------
    matrix : array-like of shape (N, N), optional
        By default a non-normal one with eigenvalues 1.3, 0.8, -0.5 and 0.2.
    """
    if matrix is None:
        basis = np.random.default_rng(0).normal(size=(4, 4))
        matrix = basis @ np.diag([1.3, 0.8, -0.5, 0.2]) @ np.linalg.inv(basis)
    A = _square(matrix, "matrix", 2)
    return KnownSystem("linear map", _linear(A), _log_moduli(np.linalg.eigvals(A)), 0.0, "eigenvalues")


def orthogonal_map(n_units: int = 16, *, scale: float = 1.0, random_state: Any = 0) -> KnownSystem:
    """``s' = g O s`` with a random orthogonal O: all exponents ln g.

    Parameters
    ----------
    n_units : int, default=16
    scale : float, default=1.0
        g > 0.
    random_state : int or None, default=0
    """
    check_int(n_units, "n_units", low=1)
    check_real(scale, "scale", low=np.finfo(float).tiny)
    rotation = np.linalg.qr(np.random.default_rng(random_state).normal(size=(n_units, n_units)))[0]
    return KnownSystem(
        "orthogonal map", _linear(scale * rotation), np.full(n_units, math.log(scale)), 0.0, "closed form"
    )


def periodic_product(matrices: Any = None) -> KnownSystem:
    """``s' = A_t s`` with matrices that repeat: ln|eig(A_p … A_1)| / p.

    Of matrices that do not commute, it catches a wrong order and a transposed Jacobian.

    Parameters
    ----------
    matrices : array-like of shape (period, N, N), optional
        By default three random ones of 4 dimensions.
    """
    if matrices is None:
        matrices = np.random.default_rng(0).normal(size=(3, 4, 4))
    matrices = _square(matrices, "matrices", 3)
    product = np.linalg.multi_dot(matrices[::-1]) if len(matrices) > 1 else matrices[0]
    return KnownSystem(
        "periodic product",
        _driven_product(matrices.shape[-1]),
        _log_moduli(np.linalg.eigvals(product)) / len(matrices),
        0.0,
        "eigenvalues of the product",
        drive=partial(_repeat, matrices),
    )


def gaussian_product(n_units: int = 10, *, scale: float = 1.0) -> KnownSystem:
    """``s' = A_t s`` with independent A_t of independent N(0, σ²) entries.

    λ_i = ½ [ln 2σ² + ψ((N - i + 1) / 2)], see [1]_.

    Parameters
    ----------
    n_units : int, default=10
    scale : float, default=1.0
        σ > 0.

    References
    ----------
    .. [1] Newman, C. M. (1986). The distribution of Lyapunov exponents: exact results for random matrices.
       Communications in Mathematical Physics 103.
    """
    check_int(n_units, "n_units", low=1)
    check_real(scale, "scale", low=np.finfo(float).tiny)
    exponents = 0.5 * (math.log(2 * scale**2) + digamma(np.arange(n_units, 0, -1) / 2))
    cell = _driven_product(n_units)
    return KnownSystem(
        "Gaussian product", cell, exponents, 0.0, "Newman 1986", drive=partial(_normal, n_units**2, scale)
    )


# Networks whose Jacobians are constant.


def zero_gru(n_inputs: int = 3, hidden_size: int = 8) -> KnownSystem:
    """A GRU with all weights zero, whatever drives it: every exponent is ln ½.

    Parameters
    ----------
    n_inputs, hidden_size : int
    """
    cell = _with_weights(GRUCell(n_inputs, hidden_size))
    return KnownSystem(
        "zero GRU",
        cell,
        np.full(hidden_size, math.log(0.5)),
        0.0,
        "closed form",
        drive=partial(_normal, n_inputs, 1.0),
    )


def constant_gate_lstm(n_inputs: int = 3, forget_bias: Any = None) -> KnownSystem:
    """An LSTM whose gates are biases only: exponents ln σ(b_f), and as many of -inf.

    The cell state decays on its own, and the hidden state is a function of it: half of all directions are
    annihilated at every step.

    Parameters
    ----------
    n_inputs : int, default=3
    forget_bias : array-like of shape (hidden_size,), optional
        By default six values from -2 to 2.
    """
    bias = np.linspace(-2, 2, 6) if forget_bias is None else np.asarray(forget_bias, dtype=float)
    H = len(bias)
    cell = _with_weights(LSTMCell(n_inputs, H), bias_ih=np.concatenate([np.full(H, 0.3), bias, np.full(2 * H, 0.5)]))
    decay = -np.log1p(np.exp(-np.sort(bias)[::-1]))
    return KnownSystem(
        "constant-gate LSTM",
        cell,
        np.concatenate([decay, np.full(H, -np.inf)]),
        0.0,
        "closed form",
        drive=partial(_normal, n_inputs, 1.0),
    )


# Low-dimensional chaos. Starts lie in the basin of the attractor.


def henon(*, n_starts: int = 1) -> KnownSystem:
    """The Hénon map with a = 1.4, b = 0.3; the sum is ln 0.3 exactly.

    Parameters
    ----------
    n_starts : int, default=1
        How many initial states, each a sequence of its own.

    References
    ----------
    Hénon, M. (1976). A two-dimensional mapping with a strange attractor. Communications in Mathematical Physics 50.
    """
    first = 0.41918
    return KnownSystem(
        "Hénon",
        FunctionCell(henon_step, 2, initial_state=_starts([0.0, 0.0], 0.1, n_starts)),
        np.array([first, math.log(0.3) - first]),
        1e-4,
        "long runs; Sprott (2003), Chaos and Time-Series Analysis: 0.41922",
    )


def ikeda(*, n_starts: int = 1) -> KnownSystem:
    """The Ikeda map with u = 0.9; the sum is 2 ln 0.9 exactly, and the transposed Jacobian gives 0.28.

    Parameters
    ----------
    n_starts : int, default=1

    References
    ----------
    Hammel, S. M., Jones, C. K. R. T. and Moloney, J. V. (1985). Global dynamical behavior of the optical field in a
    ring cavity. JOSA B 2.
    """
    first = 0.5075
    return KnownSystem(
        "Ikeda",
        FunctionCell(ikeda_step, 2, initial_state=_starts([0.1, 0.1], 0.1, n_starts)),
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

    References
    ----------
    .. [1] Sprott, J. C. (2003). Chaos and Time-Series Analysis. Oxford University Press.
    .. [2] Wolf, A., Swift, J. B., Swinney, H. L. and Vastano, J. A. (1985). Determining Lyapunov exponents from a
       time series. Physica D 16.
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
            initial_state=_starts([1.0, 1.0, constants[1] - 1], 1.0, n_starts),
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

    References
    ----------
    Rössler, O. E. (1976). An equation for continuous chaos. Physics Letters A 57.
    Sprott, J. C. (2003). Chaos and Time-Series Analysis. Oxford University Press.
    """
    check_real(time_step, "time_step", low=np.finfo(float).tiny, high=0.1)
    return KnownSystem(
        "Rössler",
        FlowCell(
            partial(rossler_field, (0.2, 0.2, 5.7)),
            3,
            dt=time_step,
            initial_state=_starts([1.0, 1.0, 0.0], 1.0, n_starts),
        ),
        np.array([0.0714, 0.0, -5.3943]),
        2e-3,
        "Sprott 2003",
        time_step,
    )


_LORENZ = {
    "sprott": ((10.0, 28.0, 8 / 3), (0.906, 0.0, -14.572), 1e-3, "Sprott 2003"),
    "wolf": ((16.0, 45.92, 4.0), (1.50, 0.0, -22.50), 1e-2, "Wolf et al. 1985; the last from the exact sum"),
}


# Random networks.


def tanh_map(n_units: int = 400, gain: float = 2.0, *, random_state: Any = 0, n_starts: int = 1) -> KnownSystem:
    """``x' = J tanh x`` with J ~ N(0, g²/N): mean-field values of the largest exponent and of the mean.

    With the variance Δ of x that solves Δ = g² ⟨tanh² x⟩, λ_1 = ½ ln(g² ⟨sech⁴ x⟩), and the mean of all exponents
    is ln g - ½ + ⟨ln sech² x⟩, exact for large N [1]_; only λ_1 is given as an exponent.

    Parameters
    ----------
    n_units : int, default=400
    gain : float, default=2.0
        Above 1, where the dynamics is chaotic.
    random_state : int or None, default=0
    n_starts : int, default=1

    References
    ----------
    .. [1] Molgedey, L., Schuchhardt, J. and Schuster, H. G. (1992). Suppressing chaos in neural networks by noise.
       Physical Review Letters 69.
    """
    check_int(n_units, "n_units", low=1)
    check_real(gain, "gain", low=1.0)
    J = gain / math.sqrt(n_units) * np.random.default_rng(random_state).normal(size=(n_units, n_units))
    first, mean = mean_field(gain)
    return KnownSystem(
        "random tanh map",
        FunctionCell(
            partial(tanh_step, torch.from_numpy(J)), n_units, initial_state=_starts([0.0], 1.0, n_starts, n_units)
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

    References
    ----------
    .. [1] Engelken, R., Wolf, F. and Abbott, L. F. (2023). Lyapunov spectra of chaotic recurrent neural networks.
       Physical Review Research 5, 043044.
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
            initial_state=_starts([0.0], gain - 1, n_starts, n_units),
        ),
        np.array([0.1696, 0.0742, 0.0041, -0.0100]),
        0.004,
        "16 runs of 2000 τ of a plain QR loop; Engelken, Wolf and Abbott 2023",
        time_step,
        {"kaplan_yorke_dimension": 6.05},
    )


def known_systems() -> list[KnownSystem]:
    """Return every system of this module with its default parameters, Lorenz with both sets."""
    return [
        linear_map(),
        orthogonal_map(),
        orthogonal_map(scale=0.7),
        periodic_product(),
        gaussian_product(),
        zero_gru(),
        constant_gate_lstm(),
        henon(),
        ikeda(),
        lorenz("sprott"),
        lorenz("wolf"),
        rossler(),
        tanh_map(),
        rate_network(),
    ]


def _linear(A: np.ndarray) -> FunctionCell:
    return FunctionCell(partial(linear_step, torch.tensor(A)), len(A), initial_state=np.zeros(len(A)))


def _driven_product(n: int) -> FunctionCell:
    """Return ``s' = A s`` whose input at each step is the matrix A itself, row by row."""
    return FunctionCell(product_step, n, n_inputs=n * n)


def _starts(center: Any, spread: float, n: int, size: int | None = None) -> np.ndarray:
    """Return n pseudo-random points around `center`; the first does not depend on n."""
    check_int(n, "n_starts", low=1)
    center = np.asarray(center, dtype=float)
    return center + spread * np.random.default_rng(0).uniform(-1, 1, (n, size or len(center)))


def _repeat(matrices: np.ndarray, n_steps: int, n_sequences: int, generator: np.random.Generator) -> np.ndarray:
    one = matrices[np.arange(n_steps) % len(matrices)].reshape(n_steps, -1)
    return np.tile(one, (n_sequences, 1, 1))


def _normal(n_inputs: int, scale: float, n_steps: int, n_sequences: int, generator: np.random.Generator) -> np.ndarray:
    return scale * generator.normal(size=(n_sequences, n_steps, n_inputs))


def _with_weights(cell: RecurrentCell, **weights: np.ndarray) -> RecurrentCell:
    """Return the cell in float64 with all parameters zero but those given."""
    cell = cell.double().requires_grad_(False)
    for name, parameter in cell.named_parameters():
        parameter.copy_(torch.as_tensor(weights.get(name, 0.0)))
    return cell


def _square(matrix: Any, name: str, ndim: int) -> np.ndarray:
    matrix = np.asarray(matrix, dtype=float)
    if matrix.ndim != ndim or matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape:
        shape = "(N, N)" if ndim == 2 else "(period, N, N)"
        raise ValueError(f"The {name!r} parameter must have shape {shape}. Got shape {matrix.shape} instead.")
    return matrix


def _log_moduli(eigenvalues: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.sort(np.log(np.abs(eigenvalues)))[::-1]
