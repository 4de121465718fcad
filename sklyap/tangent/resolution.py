"""Which directions of a step are zero to rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from sklyap.cells import Linearization
from sklyap.orthonormalize import orthonormalize, strain
from sklyap.tangent.jacobians import FoldedJacobians

__all__ = ["resolution", "resolved"]

_ONE_SIZE = 100.0
"""Rows that differ by less are not graded: sorting them would save no more than two digits."""
_ANNIHILATED = 4.0
"""Up to how many units of rounding growth is none at all, see `_resolution`."""


def resolved(along: FoldedJacobians, t: int, Q: Tensor, Z: Tensor, diagonal: Tensor) -> bool:
    """Tell whether ``Z = J Q``, with a large strain, is worth no further care: no graded rows, nothing annihilated.

    Cheaper than `resolution`: where rows are of one size it needs no second factorisation, and it looks only at
    directions that a bound for all of them leaves in doubt.
    """
    rows = Z.abs().amax(-1)
    if bool((rows.amin(-1) * _ONE_SIZE < rows.amax(-1)).any()):
        return False
    J = along[t].dense().abs()
    eps = torch.finfo(Q.dtype).eps
    doubtful = (diagonal <= _ANNIHILATED * eps * torch.linalg.matrix_norm(J).unsqueeze(-1)).any(0)
    rounding = eps * torch.linalg.vector_norm(J @ Q[..., doubtful].abs(), dim=-2)
    return not bool((diagonal[..., doubtful] <= _ANNIHILATED * rounding).any())


def resolution(step: Linearization, Q: Tensor, Z: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
    """Return which directions of ``Z = J Q`` are annihilated to rounding, and the strain of the others, (n, k) each.

    R is the factor of Z.

    Seen with the rows of J scaled to one size: how they differ costs no digits, see
    :func:`~sklyap.orthonormalize.orthonormalize_graded`. Growth below the rounding error of the columns is none at
    all. Measured on rank-deficient products of 8 to 512 dimensions, the diagonal of an annihilated direction
    has a median of 1 and a maximum near 100 units of ε ‖|J| |q_i|‖, while directions that are merely
    contracting stay above 80 units in float32. At 4 units a direction annihilated at every step is found
    within a few steps and a contracting one is left alone.
    """
    J = step.dense().abs()
    scale = J.amax(-1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1.0)
    if bool((scale.amin(-2) * _ONE_SIZE < scale.amax(-2)).any()):
        R = orthonormalize(Z / scale, "householder")[1]
    else:
        scale = torch.ones_like(scale)
    rounding = torch.finfo(Q.dtype).eps * torch.linalg.vector_norm((J / scale) @ Q.abs(), dim=-2)
    annihilated = R.diagonal(dim1=-2, dim2=-1) <= _ANNIHILATED * rounding
    return annihilated, strain(R).masked_fill(annihilated, 0.0)
