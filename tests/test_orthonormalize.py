"""The QR factorisation under LAPACK's own measure: residuals in units of size times machine precision.

Ratios below 30 pass in LAPACK's test suite (LAWN 41); ours are columnwise, which graded matrices need.
"""

import math

import numpy as np
import pytest
import torch

from sklyap.orthonormalize import (
    METHODS,
    cholesky_qr2,
    eliminate,
    gram_schmidt,
    log_range,
    log_spread,
    orthonormalize,
    orthonormalize_graded,
    random_bases,
)

THRESHOLD = 30
SHAPES = [
    (1, 1),
    (2, 1),
    (2, 2),
    (3, 2),
    (5, 5),
    (17, 4),
    (32, 32),
    (64, 33),
    (100, 100),
    (256, 8),
    (256, 256),
    (300, 270),
]
DTYPES = [torch.float64, torch.float32]


def gaussian(shape, dtype, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def with_singular_values(n, k, condition, dtype, batch=()):
    """Random matrices (*batch, n, k) with singular values spaced geometrically from 1 to 1 / condition."""
    left = torch.linalg.qr(gaussian((*batch, n, k), torch.float64, 1))[0]
    right = torch.linalg.qr(gaussian((*batch, k, k), torch.float64, 2))[0]
    values = torch.logspace(0, -math.log10(condition), k, dtype=torch.float64)
    return ((left * values) @ right).to(dtype)


def ratios(Z, Q, R):
    """Return the residual of every column and the departure from orthonormality, in units of n ε."""
    unit = Z.shape[-2] * torch.finfo(Z.dtype).eps
    Z, Q, R = Z.double(), Q.double(), R.double()
    norms = torch.linalg.vector_norm(Z, dim=-2)
    residual = torch.linalg.vector_norm(Z - Q @ R, dim=-2) / torch.where(norms > 0, norms, 1.0)
    departure = torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(Q.shape[-1], dtype=torch.float64))
    return float(residual.max() / unit), float(departure.max() / unit)


def check(Z, method):
    given = Z.clone()
    Q, R = orthonormalize(Z, method)
    assert torch.equal(Z, given), "Z was written to"
    assert Q.shape == Z.shape and R.shape == (*Z.shape[:-2], Z.shape[-1], Z.shape[-1])
    assert Q.dtype == R.dtype == Z.dtype
    residual, departure = ratios(Z, Q, R)
    assert residual < THRESHOLD and departure < THRESHOLD
    assert torch.equal(R, R.triu())
    assert bool((R.diagonal(dim1=-2, dim2=-1) >= 0).all())
    return Q, R


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n,k", SHAPES)
def test_residuals(n, k, dtype, method):
    for batch in [(), (1,), (3,), (2, 2)]:
        check(gaussian((*batch, n, k), dtype), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e7, 1e10, 1e14])
@pytest.mark.parametrize("n,k", [(6, 6), (40, 25), (128, 128), (200, 180)])
def test_residuals_of_ill_conditioned_matrices(n, k, condition, dtype, method):
    check(with_singular_values(n, k, condition, dtype, batch=(3,)), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype,decades", [(torch.float64, 120), (torch.float32, 12)])
@pytest.mark.parametrize("side", ["columns", "rows"])
def test_residuals_of_graded_matrices(side, dtype, decades, method):
    # Columns of a tangent basis grow and shrink by orders of magnitude between factorisations.
    Z = gaussian((2, 60, 40), dtype)
    grades = torch.logspace(decades / 2, -decades / 2, Z.shape[-1 if side == "columns" else -2], dtype=torch.float64)
    check(Z * (grades if side == "columns" else grades.unsqueeze(-1)).to(dtype), method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rank_deficient_matrices_still_give_an_orthonormal_basis(dtype, method):
    Z = gaussian((5, 12, 6), dtype)
    Z[0, :, 3] = 0  # a zero column
    Z[1, :, 4] = Z[1, :, 1]  # two equal ones
    Z[2] = 0
    Z[3, :5] = 0
    Z[4, :, 2:] = Z[4, :, :1]
    Q, R = check(Z, method)
    tiny = 100 * torch.finfo(dtype).eps
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    assert float(diagonal[0, 3]) == 0 and float(diagonal[2].max()) == 0
    assert float(diagonal[1, 4]) < tiny and float(diagonal[4, 2:].max()) < tiny
    assert bool(torch.isfinite(Q).all())


def test_cholesky_says_which_elements_hold_and_panels_share_the_condition_out():
    easy, hard = (with_singular_values(128, 128, condition, torch.float64) for condition in (1e3, 1e11))
    assert cholesky_qr2(torch.stack([easy, hard, easy]))[2].tolist() == [True, False, True]
    Q, R, fine = cholesky_qr2(with_singular_values(256, 256, 1e11, torch.float64, batch=(2,)))
    assert fine.tolist() == [True, True]
    Z = with_singular_values(256, 256, 1e11, torch.float64, batch=(2,))
    assert max(ratios(Z, Q, R)) < THRESHOLD


@pytest.mark.parametrize("condition", [3e8, 1e9, 3e9, 1e10])
def test_cholesky_holds_only_where_its_basis_is_orthonormal(condition):
    # Near 1e9 the first Cholesky factor of some matrices goes through by luck of rounding. Its basis is then too far
    # from orthonormal for the second pass to mend it.
    Z = with_singular_values(12, 8, condition, torch.float64, batch=(400,))
    Q, R, fine = cholesky_qr2(Z)
    for i in fine.nonzero().flatten().tolist():
        assert max(ratios(Z[i], Q[i], R[i])) < 2


def test_methods_agree_and_an_ill_conditioned_element_leaves_the_others_alone():
    Z = gaussian((4, 20, 8), torch.float64)
    one_bad = Z.clone()
    one_bad[2] = with_singular_values(20, 8, 1e13, torch.float64)
    by_cholesky, by_householder = orthonormalize(one_bad, "cholesky"), orthonormalize(one_bad, "householder")
    for a, b in zip(by_cholesky, by_householder, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)
    # The bad one falls back to Householder to the last bit, the good ones come from products of matrices.
    assert torch.equal(by_cholesky[1][2], orthonormalize(one_bad[2], "householder")[1])
    for i in (0, 1, 3):
        assert torch.equal(by_cholesky[1][i], orthonormalize(Z, "cholesky")[1][i])


@pytest.mark.parametrize("method", METHODS)
def test_the_factorisation_is_the_unique_one_with_positive_diagonal(method):
    Q = orthonormalize(gaussian((3, 9, 5), torch.float64), "householder")[0]
    R = gaussian((3, 5, 5), torch.float64, 3).triu()
    R.diagonal(dim1=-2, dim2=-1).abs_().add_(0.5)
    for found, true in zip(orthonormalize(Q @ R, method), (Q, R), strict=True):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_leading_columns_do_not_see_the_others(method):
    Z = gaussian((2, 30, 12), torch.float64)
    Q, R = orthonormalize(Z, method)
    Q5, R5 = orthonormalize(Z[..., :5], method)
    torch.testing.assert_close(Q[..., :5], Q5, rtol=0, atol=1e-14)
    torch.testing.assert_close(R[..., :5, :5], R5, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype,decades", [(torch.float64, 250), (torch.float32, 24)])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_graded_rows_keep_their_digits(batch, dtype, decades):
    # Rows from 10^125 to 10^-125, in any order: every one is recovered to rounding of its own size, times the growth
    # that column pivoting would prevent.
    n = 40
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    grades = torch.logspace(decades / 2, -decades / 2, n, dtype=torch.float64)[order].unsqueeze(-1)
    given = (gaussian((*batch, n, n), torch.float64) * grades).to(dtype)
    Z = given.clone()
    Q, R = orthonormalize_graded(Z)
    unit = n * torch.finfo(dtype).eps
    assert torch.equal(Z, given)
    assert torch.equal(R, R.triu()) and bool((R.diagonal(dim1=-2, dim2=-1) > 0).all())
    assert float(torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(n, dtype=dtype)).max()) < THRESHOLD * unit
    residual = (Q.double() @ R.double() - Z.double()).abs() / grades
    assert float(residual.max()) < 30 * THRESHOLD * unit
    # So that the diagonal multiplies up to the determinant, which a plain factorisation gets wrong.
    log_det = torch.linalg.slogdet(Z.double())[1]
    torch.testing.assert_close(R.double().diagonal(dim1=-2, dim2=-1).log().sum(-1), log_det, rtol=0, atol=1e4 * unit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n,k", SHAPES)
def test_gram_schmidt(n, k, dtype):
    Z = with_singular_values(n, k, 1e3, dtype, batch=(3,))
    given = Z.clone()
    Q, diagonal = gram_schmidt(Z)
    assert torch.equal(Z, given), "Z was written to"
    unit = n * torch.finfo(dtype).eps
    assert float(torch.linalg.matrix_norm(Q.mT @ Q - torch.eye(k, dtype=dtype)).max()) < THRESHOLD * unit * 1e3
    R = orthonormalize(Z, "householder")[1]
    torch.testing.assert_close(diagonal, R.diagonal(dim1=-2, dim2=-1), rtol=THRESHOLD * unit * 1e3, atol=0)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("n,k", SHAPES)
def test_elimination_telescopes(n, k, n_threads):
    """A skew basis in between changes nothing about the growth from one orthonormal basis to another."""
    steps = [with_singular_values(n, n, 1e3, torch.float64, batch=(3,)) for _ in range(3)]
    Z = steps[0][..., :k]
    before, threads = Z.clone(), torch.get_num_threads()
    torch.set_num_threads(n_threads)  # batches on several threads are wrong in some builds of torch
    try:
        B, diagonal = eliminate(Z)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(Z, before), "Z was written to"
    assert float(B.abs().max()) == 1
    Q, R = orthonormalize(Z)
    total = diagonal.log()
    torch.testing.assert_close(Q @ (Q.mT @ B), B, rtol=0, atol=1e-8)  # spans the same
    for J in steps[1:]:
        B, diagonal = eliminate(J @ B)
        total += diagonal.log()
        Q, factor = orthonormalize(J @ Q)
        R = factor @ R
    total += orthonormalize(B)[1].diagonal(dim1=-2, dim2=-1).log()
    expected = R.diagonal(dim1=-2, dim2=-1).log()
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match=r"'orthonormalizer' parameter must be one of .* Got 'gram' instead"):
        orthonormalize(torch.eye(2), "gram")
    with pytest.raises(ValueError, match=r"no more columns than rows. Got shape \(2, 3\) instead"):
        orthonormalize(torch.ones(2, 3))


def test_log_spread_tells_the_relative_error_of_the_diagonal():
    R = torch.tensor([[[8.0, 4.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    expected = torch.tensor([[0.0, math.log(4)], [0.0, math.inf]], dtype=torch.float64)
    torch.testing.assert_close(log_spread(R), expected)
    # Push an orthonormal basis through a known product and compare R with exact arithmetic.
    for growth in (2.0, 8.0, 14.0):
        A = with_singular_values(6, 6, math.exp(growth), torch.float32)
        Z = A @ torch.linalg.qr(gaussian((6, 6), torch.float32))[0]
        R = orthonormalize(Z)[1]
        exact = orthonormalize(Z.double())[1]
        error = (R.diagonal().double() / exact.diagonal() - 1).abs()
        assert bool((error < 30 * 1.2e-7 * log_spread(R).double().exp()).all())


def test_log_range_leaves_room():
    for dtype in DTYPES:
        top = math.exp(log_range(dtype))
        assert top**2 < torch.finfo(dtype).max * 1.01 and top > 1e15


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_bases(dtype):
    Q = random_bases(7, 7, seed=3, indices=[0, 1, 5], dtype=dtype)
    assert Q.shape == (3, 7, 7) and Q.dtype == dtype
    assert ratios(Q, Q, torch.eye(7).expand(3, 7, 7))[1] < THRESHOLD
    # A basis depends on seed and index alone; fewer columns are the leading ones.
    assert torch.equal(random_bases(7, 7, seed=3, indices=[5], dtype=dtype)[0], Q[2])
    torch.testing.assert_close(
        random_bases(7, 2, seed=3, indices=[0, 1, 5], dtype=dtype), Q[..., :2], rtol=0, atol=1e-6
    )
    assert not torch.equal(random_bases(7, 7, seed=4, indices=[0], dtype=dtype)[0], Q[0])
    assert not torch.equal(Q[0], Q[1])


def test_random_bases_are_uniform():
    # Under Haar measure every entry has mean 0, variance 1/n and kurtosis 3n / (n + 2).
    n, count = 5, 2000
    entries = random_bases(n, n, seed=0, indices=range(count)).numpy().reshape(count, -1) * math.sqrt(n)
    assert np.abs(entries.mean(0)).max() < 4 / math.sqrt(count)
    assert np.abs((entries**2).mean(0) - 1).max() < 4 * math.sqrt((3 * n / (n + 2) - 1) / count)
