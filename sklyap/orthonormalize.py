"""All QR factorisations: their kernels, which one is used when, and the monitor of what they resolve."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sklyap.validation import check_choice

__all__ = [
    "METHODS",
    "cholesky_qr2",
    "eliminate",
    "factor_for_growth",
    "gram_schmidt",
    "log_range",
    "log_spread",
    "orthonormalize",
    "orthonormalize_graded",
    "random_bases",
]

METHODS = ("auto", "householder", "cholesky")

_GRAM_SCHMIDT_COLUMNS, _GRAM_SCHMIDT_NUMBERS = 96, 384
"""Minimum columns, of one matrix and of the whole batch, for block Gram-Schmidt to be faster than Householder."""
_ELIMINATE_COLUMNS, _ELIMINATE_NUMBERS = 24, 48
"""Minimum columns, of one matrix and of the whole batch, for elimination to be faster than a QR."""
_PEAK_NUMBERS = 2**14
"""Minimum entries for two reductions to be cheaper than a copy of moduli and one."""

_PANELS = (32, 48)
"""Columns that block Gram-Schmidt factors at a time, of small and of large matrices: fewer make its products slow, more
leave more work to the factorisation within a panel; measured on two CPU cores."""
_OWN_CALL_COLUMNS = 256
"""Minimum columns of a matrix for a call of its own in block Gram-Schmidt; smaller ones share one."""

_CHOLESKY_PANEL = 128
"""Columns that CholeskyQR2 takes at a time: small factors have fast kernels on a GPU, large ones do not."""
_NOT_NEARLY_ORTHONORMAL = 0.5
"""Maximum distance (Frobenius) of the Gram matrix from the identity after one Cholesky pass for the second to be
exact."""


def orthonormalize(Z: Tensor, method: str = "auto") -> tuple[Tensor, Tensor]:
    """Factor ``Z = Q R`` with orthonormal columns Q and upper-triangular R, diag R >= 0.

    Parameters
    ----------
    Z : Tensor of shape (*batch, n, k)
        With k <= n.
    method : {"auto", "householder", "cholesky"}
        "cholesky" is CholeskyQR2 in float64 on columns scaled to unit length: two passes of Gram matrix, Cholesky
        factor and triangular solve, of more than 128 columns panel by panel; elements of the batch that are too
        ill-conditioned for it fall back to Householder. "auto" is Householder on the CPU and Cholesky on
        a GPU, where batched Householder QR is slow.

    Returns
    -------
    Q : Tensor of shape (*batch, n, k)
    R : Tensor of shape (*batch, k, k)

    References
    ----------
    Yamamoto, Y., Nakatsukasa, Y., Yanagisawa, Y. and Fukaya, T. (2015). Roundoff error analysis of the
    CholeskyQR2 algorithm. ETNA 44.

    Examples
    --------
    >>> import torch
    >>> Q, R = orthonormalize(torch.tensor([[3.0, 1.0], [4.0, 2.0]], dtype=torch.float64))
    >>> R
    tensor([[5.0000, 2.2000],
            [0.0000, 0.4000]], dtype=torch.float64)
    """
    check_choice(method, "orthonormalizer", METHODS)
    if Z.shape[-1] > Z.shape[-2]:
        raise ValueError(f"The 'Z' parameter must have no more columns than rows. Got shape {tuple(Z.shape)} instead.")
    if _by_cholesky(Z, method):
        return _cholesky_qr2(Z)
    return _householder(Z)


def _by_cholesky(Z: Tensor, method: str) -> bool:
    """Tell whether `method` means CholeskyQR2 for Z."""
    return method == "cholesky" or (method == "auto" and Z.is_cuda)


def orthonormalize_graded(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Factor ``Z = Q R`` of rows that differ by orders of magnitude, to the last digit of each.

    Householder reflections on rows sorted by size are stable row by row [1]_: saturated units, whose rows of the
    Jacobian are tiny, keep their share of R however tiny it is.

    Parameters
    ----------
    Z : Tensor of shape (*batch, n, k)
        Columns to factor.

    Returns
    -------
    Q : Tensor of shape (*batch, n, k)
    R : Tensor of shape (*batch, k, k)

    References
    ----------
    .. [1] Cox, A. J. and Higham, N. J. (1998). Stability of Householder QR factorization for weighted least squares
       problems. Numerical Analysis 1997, Pitman Research Notes in Mathematics 380.

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import orthonormalize_graded
    >>> Z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> Q, R = orthonormalize_graded(Z)
    >>> bool(torch.allclose(Q @ R, Z))
    True
    """
    order = Z.abs().amax(-1).argsort(-1, descending=True).unsqueeze(-1).expand_as(Z)
    Q, R = _householder(Z.gather(-2, order))
    return torch.empty_like(Q).scatter_(-2, order, Q), R


def _householder(Z: Tensor) -> tuple[Tensor, Tensor]:
    Q, R = torch.linalg.qr(Z)
    sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Z.dtype)
    return Q * sign.unsqueeze(-2), R * sign.unsqueeze(-1)


def _cholesky_qr2(Z: Tensor) -> tuple[Tensor, Tensor]:
    Q, R, fine = cholesky_qr2(Z)
    bad = ~fine
    if bool(bad.any()):
        Q[bad], R[bad] = _householder(Z[bad])
    return Q, R


def cholesky_qr2(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Factor ``Z = Q R`` by CholeskyQR2 where the condition of Z allows, without waiting for a GPU to know where.

    Of many columns a panel at a time, the panels before it projected out before and after [1]_: nearly all of the
    work is products of large matrices, and a panel's condition is what counts.

    Parameters
    ----------
    Z : Tensor of shape (*batch, n, k)
        Columns to factor.

    Returns
    -------
    Q : Tensor of shape (*batch, n, k)
    R : Tensor of shape (*batch, k, k)
    fine : bool Tensor of shape (*batch,)
        Which elements of the batch hold; the others are garbage.

    References
    ----------
    .. [1] Barlow, J. L. and Smoktunowicz, A. (2013). Reorthogonalized block classical Gram-Schmidt. Numerische
       Mathematik 123.

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import cholesky_qr2
    >>> Z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> Q, R, failed = cholesky_qr2(Z)
    >>> bool(torch.allclose(Q @ R, Z))
    True
    """
    if Z.dtype == torch.float32:
        # The Gram matrix squares the condition, for which float32 has no digits.
        Q, R, fine = cholesky_qr2(Z.double())
        return Q.float(), R.float(), fine
    if Z.shape[-1] <= _CHOLESKY_PANEL:
        return _two_passes(Z)
    Q, R = torch.empty_like(Z), Z.new_zeros(*Z.shape[:-2], *Z.shape[-1:] * 2)
    held = []
    for first in range(0, Z.shape[-1], _CHOLESKY_PANEL):
        columns = slice(first, first + _CHOLESKY_PANEL)
        done = Q[..., :first]
        overlap = done.mT @ Z[..., columns]
        panel, factor, holds = _two_passes(Z[..., columns] - done @ overlap)
        again = done.mT @ panel
        panel = panel - done @ again
        Q[..., columns], last, holds_again = _cholesky_pass(panel, panel.mT @ panel)
        R[..., :first, columns] = overlap + again @ factor
        R[..., columns, columns] = last @ factor
        held += [holds, holds_again, torch.linalg.matrix_norm(again) < _NOT_NEARLY_ORTHONORMAL]
    return Q, R, torch.stack(held).all(0)


def _two_passes(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Columns of Z are graded over many orders of magnitude; scaled to unit length, Cholesky does not mind.
    scale = torch.linalg.vector_norm(Z, dim=-2)
    usable = torch.isfinite(scale) & (scale > 0)
    Q = Z / torch.where(usable, scale, 1.0).unsqueeze(-2)
    Q, R1, fine1 = _cholesky_pass(Q, Q.mT @ Q)
    gram = Q.mT @ Q
    distance = gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    fine2 = torch.linalg.matrix_norm(distance, ord="fro") < _NOT_NEARLY_ORTHONORMAL
    Q, R2, fine3 = _cholesky_pass(Q, gram)
    R = (R2 @ R1) * scale.unsqueeze(-2)
    return Q, R, usable.all(-1) & fine1 & fine2 & fine3


def _cholesky_pass(Z: Tensor, gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q, R and whether the factorisation went through, per element of the batch."""
    L, info = torch.linalg.cholesky_ex(gram)
    R = L.mT
    return torch.linalg.solve_triangular(R, Z, upper=True, left=False), R, info == 0


def gram_schmidt(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Factor ``Z = Q R`` by modified Gram-Schmidt on blocks of columns [1]_, with a plain QR within a block.

    Nearly all of its work is matrix products. Q is orthonormal up to rounding times the condition of Z, so
    use it where Z has kept its digits, which `log_spread` tells.

    Parameters
    ----------
    Z : Tensor of shape (n_sequences, n, k)
        Columns to factor.

    Returns
    -------
    Q : Tensor of shape (n_sequences, n, k)
    diagonal : Tensor of shape (n_sequences, k)
        ``|diag R|``.

    References
    ----------
    .. [1] Jalby, W. and Philippe, B. (1991). Stability analysis and improvement of the block Gram-Schmidt
       algorithm. SIAM Journal on Scientific and Statistical Computing 12.
    .. [2] Yamazaki, I., Tomov, S. and Dongarra, J. (2015). Mixed-precision Cholesky QR factorization and its case
       studies on multicore CPU with multiple GPUs. SIAM Journal on Scientific Computing 37.

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import gram_schmidt
    >>> Z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> basis, diagonal = gram_schmidt(Z)
    >>> tuple(basis.shape), tuple(diagonal.shape)
    ((2, 6, 3), (2, 3))
    """
    # Rows of Y are columns of Z, so that a block of them is contiguous.
    Y = Z.mT.clone(memory_format=torch.contiguous_format)
    diagonals = []
    large = Y.shape[-2] >= _OWN_CALL_COLUMNS
    width = _PANELS[large]
    for first in range(0, Y.shape[-2], width):
        panel, rest = Y[:, first : first + width], Y[:, first + width :]
        diagonals.append(_orthonormalize_rows(panel))
        if large:
            for row, unit in zip(rest, panel, strict=True):  # a batched product would copy the slices first
                row.addmm_(row @ unit.mT, unit, alpha=-1)
        else:
            rest.baddbmm_(rest @ panel.mT, panel, alpha=-1)
    return Y.mT, torch.cat(diagonals, -1)


def _orthonormalize_rows(panel: Tensor) -> Tensor:
    """Orthonormalise a few rows in place and return ``|diag R|`` (n_sequences, rows).

    In float32 by the Cholesky factor of the Gram matrix in float64 ([2]_ of `gram_schmidt`), which squares a
    condition that it has the digits for.
    """
    if panel.dtype == torch.float32:
        wide = panel.double()
        L, info = torch.linalg.cholesky_ex(wide @ wide.mT)
        if not bool(info.any()):
            inverse = torch.linalg.solve_triangular(L, torch.eye(len(L[0]), dtype=L.dtype).expand_as(L), upper=False)
            panel.copy_(inverse @ wide)
            return L.diagonal(dim1=-2, dim2=-1).to(panel.dtype)
    Q, R = torch.linalg.qr(panel.mT)
    panel.copy_(Q.mT)
    return R.diagonal(dim1=-2, dim2=-1).abs()


def eliminate(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Factor ``Z = B U`` by Gaussian elimination with partial pivoting: a quarter of the work of a QR.

    B is a row permutation of a unit lower-triangular matrix with entries up to one. It spans in its leading
    columns what Z spans, and is well conditioned in practice (about as many as it has columns, see [1]_) but not
    orthonormal: the growth ``|diag U|`` of one block is relative to B, and growth along several blocks, with
    orthonormal bases before the first and after the last, is exact.

    Parameters
    ----------
    Z : Tensor of shape (n_sequences, n, k)
        Columns to factor.
        Finite; on the CPU.

    Returns
    -------
    B : Tensor of shape (n_sequences, n, k)
    diagonal : Tensor of shape (n_sequences, k)
        ``|diag U|``.

    References
    ----------
    .. [1] Trefethen, L. N. and Schreiber, R. S. (1990). Average-case stability of Gaussian elimination. SIAM Journal
       on Matrix Analysis and Applications 11. (Iterations with it are Bauer's Treppeniteration, 1957.)

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import eliminate
    >>> Z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> basis, diagonal = eliminate(Z)
    >>> tuple(basis.shape), tuple(diagonal.shape)
    ((2, 6, 3), (2, 3))
    """
    n, k = Z.shape[-2:]
    # Batches on several threads come back with pivots of other matrices from some builds of torch.
    safe = len(Z) == 1 or torch.get_num_threads() == 1
    parts = [Z] if safe else list(Z.split(1))
    factors = [torch.linalg.lu_factor_ex(part) for part in parts]
    packed = torch.cat([part[0].mT for part in factors]) if len(factors) > 1 else factors[0][0].mT
    diagonal = packed.diagonal(dim1=-2, dim2=-1).abs()
    places = []
    for pivots in (row for part in factors for row in part[1].tolist()):
        place = list(range(n))
        for i in range(k - 1, -1, -1):  # in reverse: where each row has come from
            j = pivots[i] - 1
            place[i], place[j] = place[j], place[i]
        places.append(place)
    # Rows of the transpose are columns of B, and contiguous.
    columns = packed.triu_(1)
    columns.diagonal(dim1=-2, dim2=-1).fill_(1)
    rows = torch.from_numpy(np.array(places)).unsqueeze(-2).expand(columns.shape)
    return columns.gather(-1, rows).mT, diagonal


def factor_for_growth(Z: Tensor, method: str, *, exact: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Factor Z by the fastest kernel that keeps what sums of growth need, without waiting for a GPU.

    Parameters
    ----------
    Z : Tensor of shape (n_sequences, n, k)
        Columns to factor.
    method : {"auto", "householder", "cholesky"}
        With "auto", large matrices on the CPU are factored by elimination (float64, unless `exact`) or block
        Gram-Schmidt, small ones by Householder reflections; on a GPU by CholeskyQR2.
    exact : bool
        Whether the basis has to be orthonormal, so that growth up to here is exact.

    Returns
    -------
    basis : Tensor of shape (n_sequences, n, k)
        It spans in its leading columns what Z spans. Orthonormal, but after elimination.
    diagonal : Tensor of shape (n_sequences, k)
        ``|diag R|``; NaN where CholeskyQR2 does not hold.
    peak : Tensor of shape (n_sequences,)
        The largest modulus of an entry of Z or R, which agree to within a factor of sqrt(n).

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import factor_for_growth
    >>> Z = torch.randn(2, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    >>> basis, diagonal, peak = factor_for_growth(Z, "householder", exact=True)
    >>> tuple(basis.shape), tuple(diagonal.shape)
    ((2, 6, 3), (2, 3))
    """
    k = Z.shape[-1]
    if method == "auto" and not Z.is_cuda and len(Z) * k >= _ELIMINATE_NUMBERS:
        # float64 has digits to spare for a condition of some hundreds.
        if not exact and Z.dtype == torch.float64 and k >= _ELIMINATE_COLUMNS:
            peak = _peak(Z)
            if bool(torch.isfinite(peak).all()):
                return *eliminate(Z), peak
        if k >= _GRAM_SCHMIDT_COLUMNS and len(Z) * k >= _GRAM_SCHMIDT_NUMBERS:
            return *gram_schmidt(Z), _peak(Z)
    if _by_cholesky(Z, method):
        Q, R, fine = cholesky_qr2(Z)
        return Q, R.diagonal(dim1=-2, dim2=-1).masked_fill(~fine.unsqueeze(-1), math.nan), _peak(R)
    if method == "auto":
        # Signs of R do not matter here, and setting them costs as much as factoring a small matrix.
        Q, R = torch.linalg.qr(Z)
    else:
        Q, R = orthonormalize(Z, method)
    return Q, R.diagonal(dim1=-2, dim2=-1).abs(), _peak(R)


def _peak(values: Tensor) -> Tensor:
    """Return the largest modulus in each matrix, of large ones without a copy."""
    if values.numel() < _PEAK_NUMBERS:
        return values.abs().amax((-2, -1))
    return torch.maximum(values.amax((-2, -1)), -values.amin((-2, -1)))


def log_spread(R: Tensor) -> Tensor:
    """Return how much the factor spreads, ``ln max|R| - ln R_ii`` (*batch, k), in nats.

    Multiplied up over steps, column i of the tangent basis keeps about ``exp(-log_spread_i)`` of itself
    against the leading directions, so that R_ii carries a relative error of about ``ε exp(log_spread_i)``.
    Infinite where R_ii is zero.

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import log_spread
    >>> log_spread(torch.eye(3))
    tensor([0., 0., 0.])
    """
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    spread = R.abs().amax((-2, -1)).log().unsqueeze(-1) - diagonal.log()
    return spread.masked_fill(diagonal <= 0, math.inf)


def random_bases(
    n: int,
    k: int,
    seed: int,
    indices: Sequence[int],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return k orthonormal columns for each sequence of `indices`, uniformly distributed (len(indices), n, k).

    A basis depends on `seed` and the sequence's own index, not on its batch or dtype nor, but for rounding, on the
    device; its first columns do not depend on k, so a truncated basis is the leading part of the full one.

    Examples
    --------
    >>> from sklyap.orthonormalize import random_bases
    >>> tuple(random_bases(6, 3, 0, range(2)).shape)  # (n_sequences, n, k)
    (2, 6, 3)
    """
    columns = torch.stack([_random_columns(n, k, seed, index) for index in indices])
    return orthonormalize(columns.to(device))[0].to(dtype)


def _random_columns(n: int, k: int, seed: int, index: int) -> Tensor:
    # numpy draws numbers one after the other; torch.randn draws other leading ones where the size differs.
    generator = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(index,)))
    return torch.from_numpy(generator.standard_normal((k, n))).mT


def log_range(dtype: torch.dtype) -> float:
    """Return how far (in nats) a product may grow or shrink without overflow or underflow, with room to spare.

    Examples
    --------
    >>> import torch
    >>> from sklyap.orthonormalize import log_range
    >>> round(log_range(torch.float64), 2)
    354.89
    """
    return math.log(torch.finfo(dtype).max) / 2
