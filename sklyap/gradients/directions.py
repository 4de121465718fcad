"""Cosines and principal angles between directions, and their values by chance.

Points are the steps of all sequences, (n_sequences, T); a vector of zeros has no direction and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sklyap.orthonormalize import orthonormalize

__all__ = ["cosines", "expected_cosine", "principal_angles", "under_chance", "unit", "weights_of_points"]


def unit(vectors: Tensor) -> Tensor:
    """Return vectors (..., N, m) scaled to unit length; zeros stay zeros."""
    return torch.nn.functional.normalize(vectors, dim=-2, eps=torch.finfo(vectors.dtype).tiny)


def cosines(Q: Tensor, vectors: Tensor) -> Tensor:
    """Return |cos| (..., q, m) between columns of Q (..., N, q) and vectors (..., N, m), 0 for vectors of zeros."""
    return (Q.mT @ unit(vectors)).abs().clamp(max=1)


def weights_of_points(vectors: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return weights (n, T, 1, m) with which a sum over `dim` is the mean over points where vectors (n, T, N, m) act.

    A vector of zeros does not count; where none is left the weights are 0, and so is the mean.
    """
    acting = (vectors.abs().amax(-2, keepdim=True) > 0).to(vectors.dtype)
    return acting / acting.sum(dim, keepdim=True).clamp(min=1)


def principal_angles(Q: Tensor, vectors: Tensor) -> Tensor:
    """Return the angles (..., min(q, m)) between the spans of Q (..., N, q) and of vectors (..., N, m).

    In radians, ascending, from 0 (a common direction) to π/2. Q has orthonormal columns; vectors that depend on each
    other, or are zero, span less, and the angles that are missing are π/2.

    References
    ----------
    Björck, Å. and Golub, G. H. (1973). Numerical methods for computing angles between linear subspaces. Mathematics
    of Computation 27.
    """
    U, sizes, _ = torch.linalg.svd(unit(vectors), full_matrices=False)
    spanning = sizes > sizes[..., :1] * vectors.shape[-2] * torch.finfo(vectors.dtype).eps
    overlap = torch.linalg.svdvals(Q.mT @ (U * spanning.unsqueeze(-2)))
    return overlap.clamp(max=1).acos()


def expected_cosine(N: int) -> float:
    """Return the mean of |cos| between a fixed and a uniformly random direction in N dimensions.

    It is ``Γ(N/2) / (√π Γ((N + 1)/2))``, about ``√(2/πN)``; the root mean square is ``1/√N``.
    """
    return math.exp(math.lgamma(N / 2) - math.lgamma((N + 1) / 2)) / math.sqrt(math.pi)


def _random_rotation(N: int, generator: np.random.Generator, like: Tensor) -> Tensor:
    """Return an orthogonal matrix (N, N), uniformly distributed."""
    return orthonormalize(torch.from_numpy(generator.standard_normal((N, N))).to(like))[0]


def under_chance(statistic: Callable[[Tensor], Tensor], N: int, n_draws: int, seed: int, *, like: Tensor) -> Tensor:
    """Return the central 95 % of a statistic of directions when they have nothing to do with each other.

    One rotation, drawn anew each time, turns all the vectors of one side, at every step of every sequence alike.
    That undoes their relation to the other side and nothing else: what is alike between neighbouring steps and
    between sequences stays so, and the interval is as wide as it should be.

    Parameters
    ----------
    statistic : callable
        Takes a rotation (N, N) and returns a tensor.
    N, n_draws, seed : int
    like : Tensor
        Tells dtype and device.

    Returns
    -------
    Tensor of shape (2, ...)
        Quantiles 2.5 % and 97.5 %.
    """
    # Not the seeds of the tangent bases, which are random rotations as well.
    generator = np.random.default_rng(np.random.SeedSequence((seed, n_draws)))
    draws = torch.stack([statistic(_random_rotation(N, generator, like)) for _ in range(n_draws)])
    return torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype, device=draws.device), dim=0)
