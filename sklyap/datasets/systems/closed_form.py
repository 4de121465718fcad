"""Systems whose exponents are known in closed form: products of matrices, networks with constant Jacobians."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import digamma

from sklyap.cells import FunctionCell, GRUCell, LSTMCell, RecurrentCell
from sklyap.datasets.systems.equations import linear_step, product_step
from sklyap.datasets.systems.known_system import KnownSystem
from sklyap.validation import check_int, check_real

__all__ = ["constant_gate_lstm", "gaussian_product", "linear_map", "orthogonal_map", "periodic_product", "zero_gru"]

# Products of matrices. Zero is a fixed point of every linear map, so the state stays there.


def linear_map(matrix: Any = None) -> KnownSystem:
    """``s' = A s``: the logarithms of the moduli of the eigenvalues.

    Parameters
    ----------
    matrix : array-like of shape (N, N), optional
        By default a non-normal one with eigenvalues 1.3, 0.8, -0.5 and 0.2.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.linear_map()
    >>> len(system.exponents) == system.cell.state_size
    True
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
        Number of units.
    scale : float, default=1.0
        g > 0.
    random_state : int or None, default=0
        Seeds what is random; the same seed gives the same numbers.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.orthogonal_map()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (0.0, 16)
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

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.periodic_product()
    >>> len(system.exponents) == system.cell.state_size
    True
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
        Number of units.
    scale : float, default=1.0
        σ > 0.

    References
    ----------
    .. [1] Newman, C. M. (1986). The distribution of Lyapunov exponents: exact results for random matrices.
       Communications in Mathematical Physics 103.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.gaussian_product()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (1.0996, 10)
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
        Numbers of inputs and of units.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.zero_gru()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (-0.6931, 8)
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
        Number of inputs.
    forget_bias : array-like of shape (hidden_size,), optional
        By default six values from -2 to 2.

    Examples
    --------
    >>> from sklyap.datasets import systems
    >>> system = systems.constant_gate_lstm()
    >>> round(float(system.exponents[0]), 4), len(system.exponents)
    (-0.1269, 12)
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


def _linear(A: np.ndarray) -> FunctionCell:
    return FunctionCell(partial(linear_step, torch.tensor(A)), len(A), initial_state=np.zeros(len(A)))


def _driven_product(n: int) -> FunctionCell:
    """Return ``s' = A s`` whose input at each step is the matrix A itself, row by row."""
    return FunctionCell(product_step, n, n_inputs=n * n)


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
