"""One-step maps and velocities of the known systems, on states ``(*batch, N)``, and mean-field theory."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

__all__ = [
    "henon_step",
    "ikeda_step",
    "linear_step",
    "lorenz_field",
    "mean_field",
    "product_step",
    "rate_field",
    "rossler_field",
    "tanh_step",
]


def linear_step(A: Tensor, s: Tensor, x: Tensor | None) -> Tensor:
    """Return ``A s``."""
    return s @ A.to(s).T


def product_step(s: Tensor, x: Tensor | None) -> Tensor:
    """Return ``A s``; the input x (*batch, N²) is the matrix A, row by row."""
    assert x is not None
    n = s.shape[-1]
    return (x.unflatten(-1, (n, n)) @ s.unsqueeze(-1)).squeeze(-1)


def henon_step(s: Tensor, x: Tensor | None) -> Tensor:
    """Return ``(1 - 1.4 a² + b, 0.3 a)``."""
    a, b = s.unbind(-1)
    return torch.stack([1 - 1.4 * a * a + b, 0.3 * a], -1)


def ikeda_step(s: Tensor, x: Tensor | None) -> Tensor:
    """Return ``1 + 0.9 z exp(i (0.4 - 6 / (1 + |z|²)))`` with z = a + ib."""
    a, b = s.unbind(-1)
    angle = 0.4 - 6 / (1 + a * a + b * b)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([1 + 0.9 * (a * cos - b * sin), 0.9 * (a * sin + b * cos)], -1)


def lorenz_field(constants: tuple[float, float, float], s: Tensor, x: Tensor | None) -> Tensor:
    """Return the velocity ``(σ (b - a), a (ρ - c) - b, a b - β c)``."""
    sigma, rho, beta = constants
    a, b, c = s.unbind(-1)
    return torch.stack([sigma * (b - a), a * (rho - c) - b, a * b - beta * c], -1)


def rossler_field(constants: tuple[float, float, float], s: Tensor, x: Tensor | None) -> Tensor:
    """Return the velocity ``(-b - c, a + A b, B + c (a - C))``."""
    A, B, C = constants
    a, b, c = s.unbind(-1)
    return torch.stack([-b - c, a + A * b, B + c * (a - C)], -1)


def tanh_step(J: Tensor, s: Tensor, x: Tensor | None) -> Tensor:
    """Return ``J tanh s``."""
    return torch.tanh(s) @ J.to(s).T


def rate_field(J: Tensor, s: Tensor, x: Tensor | None) -> Tensor:
    """Return the velocity ``J tanh s - s``."""
    return torch.tanh(s) @ J.to(s).T - s


def mean_field(gain: float) -> tuple[float, float]:
    """Return the largest exponent and the mean of all of the random tanh map, for infinitely many units."""
    z = np.linspace(-12, 12, 20_001)  # the trapezoidal rule is exact to rounding for such integrands
    weights = np.exp(-(z**2) / 2)
    weights /= weights.sum()

    def surplus(variance: float) -> float:
        return float(gain**2 * weights @ np.tanh(math.sqrt(variance) * z) ** 2 - variance)

    variance = brentq(surplus, 1e-9, gain**2, xtol=1e-14) if gain > 1 else 0.0
    log_cosh = np.logaddexp(math.sqrt(variance) * z, -math.sqrt(variance) * z) - math.log(2)
    first = math.log(gain) + 0.5 * math.log(weights @ np.exp(-4 * log_cosh))
    return first, math.log(gain) - 0.5 - 2 * float(weights @ log_cosh)
