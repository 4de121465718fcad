"""Covariant Lyapunov vectors: directions that grow at the rates of the exponents, forward and backward in time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.cells.conversion import opened
from sklyap.cells.drive import Drive
from sklyap.exceptions import DegenerateSpectrumWarning
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals, outside_inference_mode
from sklyap.tangent import Factors, check_settings, qr_iteration
from sklyap.validation import check_dense, check_dtype, check_int, resolve_device, seed_from

__all__ = ["CovariantVectors", "covariant_from_qr", "covariant_lyapunov_vectors"]


@dataclass(frozen=True)
class CovariantVectors:
    """Covariant Lyapunov vectors along trajectories.

    Attributes
    ----------
    vectors : ndarray of shape (n_sequences, n_steps + 1, N, k)
        Unit vectors, ``J_t vectors[:, t, :, i] = exp(growth[:, t, i]) vectors[:, t + 1, :, i]``, in the order of
        the QR iteration: that of the exponents but for ties.
    growth : ndarray of shape (n_sequences, n_steps, k)
        Local growth in nats per step; -inf where a direction is annihilated.
    exponents : ndarray of shape (k,)
        Means of `growth` over steps and sequences, in the order of `vectors`.
    warmup, cooldown : int
        Steps left out at the start and at the end.

    Examples
    --------
    >>> from sklyap import covariant_lyapunov_vectors
    >>> from sklyap.datasets import systems
    >>> vectors = covariant_lyapunov_vectors(systems.henon().cell, 400, random_state=0)
    >>> vectors.exponents.shape
    (2,)
    """

    vectors: np.ndarray
    growth: np.ndarray
    exponents: np.ndarray
    warmup: int
    cooldown: int

    def angles(self) -> np.ndarray:
        """Return the angles between all pairs of vectors at every step.

        Returns
        -------
        ndarray of shape (n_sequences, n_steps + 1, k, k)
            In radians, from 0 (tangency) to π/2.
        """
        return _angle(np.swapaxes(self.vectors, -1, -2) @ self.vectors)

    def splitting_angles(self, n_leading: int) -> np.ndarray:
        """Return the smallest angle between the span of the leading vectors and that of the others.

        Angles that stay away from zero between the expanding and the contracting vectors tell a hyperbolic system.

        Parameters
        ----------
        n_leading : int
            How many vectors the first subspace has, from 1 to k - 1.

        Returns
        -------
        ndarray of shape (n_sequences, n_steps + 1)
            In radians, from 0 to π/2.
        """
        k = self.vectors.shape[-1]
        check_int(n_leading, "n_leading", low=1, high=k - 1, caller="CovariantVectors.splitting_angles")
        first, second = (np.linalg.qr(part)[0] for part in np.split(self.vectors, [n_leading], axis=-1))
        return _angle(np.linalg.svd(np.swapaxes(first, -1, -2) @ second, compute_uv=False)[..., 0])

    def __repr__(self) -> str:
        n, steps, N, k = self.vectors.shape
        shown = ", ".join(f"{rate:.4g}" for rate in self.exponents[:4])
        more = f", … {self.exponents[-1]:.4g}" if k > 4 else ""
        return (
            f"CovariantVectors: {k} vectors of {N} entries along {n} sequence(s) of {steps - 1} steps\n"
            f"  growing by {shown}{more} nats per step; {self.warmup} steps of warm-up, {self.cooldown} of cooldown"
        )


def covariant_from_qr(Q: Any, R: Any) -> tuple[Tensor, Tensor]:
    """Return covariant Lyapunov vectors from the stored factors of a QR iteration.

    With ``J_t Q_t = Q_{t+1} R_{t+1}``, vectors ``V_t = Q_t C_t`` are covariant if ``R_{t+1} C_t = C_{t+1} D_t`` with
    D diagonal: an upper-triangular C, carried backward in time by the inverse factors, converges to them as the
    basis Q converges forward in time [1]_.

    Parameters
    ----------
    Q : Tensor or ndarray of shape (n_sequences, T + 1, N, k)
        Tangent bases, as in `LyapunovResult.basis`.
    R : Tensor or ndarray of shape (n_sequences, T, k, k)
        Upper-triangular factors, as in `LyapunovResult.r_factors`. A zero on the diagonal is an annihilated
        direction; its vector lies in the kernel of the Jacobian.

    Returns
    -------
    vectors : Tensor of shape (n_sequences, T + 1, N, k)
        Unit vectors. The first have not converged unless the basis had converged before, the last are the basis
        itself: leave out both ends.
    growth : Tensor of shape (n_sequences, T, k)
        ln of the factor by which the Jacobians stretch each vector, in nats.

    Raises
    ------
    ValueError
        If the shapes do not belong together.

    References
    ----------
    .. [1] Ginelli, F. et al. (2007). Characterizing dynamics with covariant Lyapunov vectors. Physical Review
       Letters 99, 130601.

    Examples
    --------
    >>> import torch
    >>> from sklyap.covariant import covariant_from_qr
    >>> Q, R = torch.linalg.qr(torch.randn(1, 31, 3, 3, generator=torch.Generator().manual_seed(0)))
    >>> vectors, growth = covariant_from_qr(Q, R[:, 1:])
    >>> vectors.shape, growth.shape
    (torch.Size([1, 31, 3, 3]), torch.Size([1, 30, 3]))
    """
    Q, R = (torch.as_tensor(check_dense(v, name, filled=True)) for v, name in ((Q, "Q"), (R, "R")))
    if Q.ndim != 4 or R.ndim != 4 or R.shape != (*Q.shape[:1], Q.shape[1] - 1, Q.shape[3], Q.shape[3]):
        raise ValueError(
            "The 'Q' and 'R' parameters must have shapes (n_sequences, T + 1, N, k) and (n_sequences, T, k, k). "
            f"Got {tuple(Q.shape)} and {tuple(R.shape)} instead."
        )
    n, n_steps, k = R.shape[:3]
    vectors, growth = torch.empty_like(Q), R.new_empty(n, n_steps, k)
    C = torch.eye(k, dtype=R.dtype, device=R.device).expand(n, k, k)
    vectors[:, -1] = Q[:, -1]
    for t in range(n_steps - 1, -1, -1):
        C, growth[:, t] = _backward(R[:, t], C)
        vectors[:, t] = Q[:, t] @ C
    return vectors, growth


def _backward(R: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``R⁻¹ C`` (n, k, k) with columns of unit length, and the ln of how much R stretches them (n, k)."""
    diagonal = R.diagonal(dim1=-2, dim2=-1)
    annihilated = diagonal == 0
    # An annihilated direction gets a diagonal at rounding level: its inverse then outweighs all else, and the vector
    # turns into the kernel of R.
    peak = R.abs().amax((-2, -1)).unsqueeze(-1)
    least = torch.where(peak > 0, torch.finfo(R.dtype).eps * peak, 1.0)
    diagonal = torch.where(annihilated, least, diagonal)
    # Rows of R differ by orders of magnitude, and so do those of its inverse: scaled, neither overflows.
    rhs = C / diagonal.unsqueeze(-1)
    scale = rhs.abs().amax(-2, keepdim=True)
    X = torch.linalg.solve_triangular(R / diagonal.unsqueeze(-1), rhs / scale, upper=True, unitriangular=True)
    length = torch.linalg.vector_norm(X, dim=-2, keepdim=True)
    growth = -(length.log() + scale.log()).squeeze(-2)
    return X / length, growth.masked_fill(annihilated, -math.inf)


@outside_inference_mode
def covariant_lyapunov_vectors(
    network: Any,
    sequences: Any,
    *,
    n_exponents: int | None = None,
    warmup: int | str = "auto",
    cooldown: int | str = "auto",
    orthonormalizer: str = "auto",
    state: str = "full",
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "auto",
    batch_size: int | None = None,
    layer: str | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    random_state: Any = None,
) -> CovariantVectors:
    """Compute the covariant Lyapunov vectors of a network along sequences [1]_.

    Columns of the QR basis say how volumes grow; only the first is a direction that the dynamics carry into
    itself. Covariant vectors all are: vector i grows on average at rate λ_i.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
        See :func:`~sklyap.as_recurrent_cell`. It is not changed.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), or int
        What drives the network, at the network's input, of one length; a number of steps for an autonomous system.
    n_exponents : int, optional
        How many leading vectors k; all by default. Vector i depends on the first i of them only.
    warmup : int or "auto", default="auto"
        First steps, the transient of state and basis, as in :func:`~sklyap.lyapunov_spectrum`.
    cooldown : int or "auto", default="auto"
        Last steps, the transient of the vectors, which converge backward in time; "auto" is as many as for `warmup`.
    orthonormalizer : {"auto", "householder", "cholesky"}, default="auto"
        How bases are made orthonormal; see :func:`~sklyap.orthonormalize.orthonormalize`.
    state : {"full", "hidden"}, default="full"
        The whole state, or with "hidden" the first block alone.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation.
    device : str, default="auto"
        Where it runs; "auto" takes a GPU if there is one.
    batch_size : int, optional
        How many sequences to carry at once; all by default.
    layer : str, optional
        The name of the recurrent submodule to take where there are several.
    forward_kwargs : dict, optional
        Further arguments of the network's `forward`.
    random_state : int, numpy random generator or None
        Seeds the tangent basis; None is 0.

    Returns
    -------
    CovariantVectors

    Raises
    ------
    ValueError, TypeError
        For a network or sequences that cannot be analysed, or a parameter out of range, before any work.
    DivergedError
        If the trajectory is not finite.

    Warns
    -----
    DegenerateSpectrumWarning
        If directions are annihilated.

    Notes
    -----
    Basis and factor of every step are stored, O(n_steps · N · k) numbers per sequence. Where exponents coincide,
    the vectors that belong to them are defined as a subspace only.

    References
    ----------
    .. [1] Ginelli, F. et al. (2007). Characterizing dynamics with covariant Lyapunov vectors. Physical Review
       Letters 99, 130601.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import FunctionCell
    >>> from sklyap.covariant import covariant_lyapunov_vectors
    >>> A = torch.tensor([[2.0, 1.0], [0.0, 0.5]], dtype=torch.float64)
    >>> linear = FunctionCell(lambda s, x: s @ A.T, 2, initial_state=[0.0, 0.0])
    >>> result = covariant_lyapunov_vectors(linear, 200)
    >>> print(abs(result.vectors[0, 0]).round(4))  # eigenvectors (1, 0) and (-2, 3) / √13
    [[1.     0.5547]
     [0.     0.8321]]
    """
    cell = opened(network, layer=layer)
    k, N = check_settings(cell, n_exponents, 1, orthonormalizer, state)
    dtype, device, seed = check_dtype(dtype), resolve_device(device), seed_from(random_state)
    drive = Drive.of(cell, sequences, forward_kwargs=forward_kwargs).to(dtype, device)
    if len(set(drive.lengths)) > 1:
        raise ValueError("The 'sequences' parameter must have sequences of one length. Got a list of several.")
    warmup = drive.transient_steps(warmup)
    cooldown = drive.transient_steps(cooldown, "cooldown", reserved=warmup)
    if batch_size is not None:
        check_int(batch_size, "batch_size", low=1)
    cell = cell.to(device=device, dtype=dtype)

    vectors, growth = [], []
    with torch.no_grad(), flushed_denormals():
        for indices in drive.batches(batch_size or drive.n_sequences):
            x, s, _ = drive.padded(cell, indices)
            Q = random_bases(N, k, seed, indices, dtype=dtype, device=device)
            blocks = qr_iteration(cell, x, Q=Q, s=s, qr_interval=1, orthonormalizer=orthonormalizer, state=state)
            factors = Factors.of(blocks, Q, warmup)
            # A direction that is annihilated to rounding gets a zero on the diagonal.
            R = [
                R.masked_fill(torch.diag_embed(log_growth == -math.inf), 0.0)
                for R, log_growth in zip(factors.R, factors.log_growth, strict=True)
            ]
            V, D = covariant_from_qr(torch.stack(factors.Q, 1), torch.stack(R, 1))
            kept = V.shape[1] - cooldown
            vectors.append(V[:, :kept].cpu().numpy())
            growth.append(D[:, : kept - 1].cpu().numpy())
    rates = np.concatenate(growth)
    exponents = rates.mean((0, 1))
    _warn_of_degenerate(int(np.isneginf(exponents).sum()), k)
    return CovariantVectors(np.concatenate(vectors), rates, exponents, warmup, cooldown)


def _warn_of_degenerate(n_degenerate: int, k: int) -> None:
    if n_degenerate:
        warnings.warn(
            f"{n_degenerate} of {k} directions are annihilated to rounding; their vectors lie in the kernel of the "
            "Jacobian where that happens, and their growth is -inf.",
            DegenerateSpectrumWarning,
            stacklevel=3,
        )


def _angle(cosine: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
