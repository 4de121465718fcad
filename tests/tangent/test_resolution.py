"""Which directions of a step are zero to rounding."""

from __future__ import annotations

import pytest
import torch

from sklyap.cells import DenseLinearization
from sklyap.orthonormalize import orthonormalize
from sklyap.tangent.jacobians import FoldedJacobians
from sklyap.tangent.resolution import all_resolved, resolution

GENERATOR = torch.Generator().manual_seed(0)
MIXED = torch.randn(4, 4, generator=GENERATOR, dtype=torch.float64)
BASIS = torch.eye(4, dtype=torch.float64)[None]


def step(J):
    """Return what carries a basis over one step with the Jacobian J, and what comes out of the identity."""
    along = FoldedJacobians(DenseLinearization(J[None, None]), range(1), BASIS)
    Z = along.push(BASIS, range(1))
    return along, Z, orthonormalize(Z)[1]


@pytest.mark.parametrize("small", [1e-3, 1e-17, 1e-30])
def test_a_direction_that_contracts_is_resolved_however_small_it_is(small):
    """Its column of J is small as a whole, so that it has all its digits."""
    along, Z, R = step(MIXED * torch.tensor([1, 1, 1, small], dtype=torch.float64))
    assert all_resolved(along, 0, BASIS, Z, R.diagonal(dim1=-2, dim2=-1))
    assert not resolution(along[0], BASIS, Z, R)[0].any()


def test_a_direction_that_cancels_is_annihilated():
    J = MIXED.clone()
    J[:, 3] = J[:, :3] @ torch.tensor([0.3, -1.2, 0.7], dtype=torch.float64)
    along, Z, R = step(J)
    assert not all_resolved(along, 0, BASIS, Z, R.diagonal(dim1=-2, dim2=-1))
    annihilated, spread = resolution(along[0], BASIS, Z, R)
    assert annihilated.tolist() == [[False, False, False, True]] and spread[0, 3] == 0


def test_rows_of_unequal_size_want_care():
    along, Z, R = step(MIXED * torch.tensor([1, 1, 1, 1e-9], dtype=torch.float64)[:, None])
    assert not all_resolved(along, 0, BASIS, Z, R.diagonal(dim1=-2, dim2=-1))
    assert not resolution(along[0], BASIS, Z, R)[0].any()
