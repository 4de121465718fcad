"""The loss gradient in the spectrum's own Q and R.

With ``J_t Q_t = Q_{t+1} R_{t+1}`` and Q_t square, ``J_t = Q_{t+1} R_{t+1} Q_tᵀ``. Backpropagation,
``g_t = J_tᵀ g_{t+1} + δ_t`` with ``g_t = ∂L/∂s_t`` and ``δ_t`` the same with later states held fixed, becomes in the
coordinates ``c_t = Q_tᵀ g_t``

    c_t = R_{t+1}ᵀ c_{t+1} + Q_tᵀ δ_t

where no Jacobian is left. R is upper triangular, so the first q coordinates obey a recursion of their own:
truncation to rank q, ``Q_t[:, :q] c_t[:q]``, is the orthogonal projection of the exact gradient on the first q
directions. R is multiplied by and never inverted, so annihilated directions do no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells import RecurrentCell, as_recurrent_cell
from sklyap.gradients.adjoint import ParameterMap, backpropagate, backward_pass, lifted, shares
from sklyap.gradients.criterion import Loss
from sklyap.gradients.groups import by_length, check_no_ranks
from sklyap.gradients.objective import Objective
from sklyap.orthonormalize import METHODS
from sklyap.runtime import flushed_denormals, outside_inference_mode
from sklyap.tangent import Factors, tangent_size
from sklyap.validation import check_choice, check_dense, check_dtype, check_int, resolve_device, seed_from

__all__ = ["LossGradient", "default_ranks", "gradient_from_qr", "loss_gradient", "parameter_names"]

_N_RANKS = 32
"""How many ranks ``ranks="auto"`` looks at."""


@dataclass(frozen=True)
class LossGradient:
    """A loss gradient put together from Q and R.

    Attributes
    ----------
    loss : float or None
        Mean over the sequences.
    state_gradients : ndarray of shape (n_sequences, T + 1, state_size)
        ``g_t = ∂L/∂s_t``, t = 0 … T.
    coefficients : ndarray of shape (n_sequences, T, k)
        ``c_t = Q_tᵀ g_t``, t = 1 … T.
    energy : ndarray of shape (k,) or None
        Share of ``Σ |g_t|²`` (t = 1 … T, all sequences) inside the span of the first 1, 2, … k directions. None
        where k < N leaves the whole unknown.
    parameters : dict of str to ndarray
        ``∂L/∂θ`` by the names of the cell's parameters.
    log_growth : ndarray of shape (n_sequences, T, k)
        ln R_ii of each step, in nats; -inf where a direction is annihilated, NaN after the end of a sequence.
    tangent_size : int
        N, the dimension of the tangent space.
    ranks : ndarray of shape (n_ranks,) or None
        Ranks q to which the gradient of the parameters was truncated.
    relative_error, cosine : ndarray of shape (n_ranks,) or None
        ``‖G_q - G‖ / ‖G‖`` and the cosine between G_q and G, where G_q is the truncated gradient of all
        `parameters` together and G the same by automatic differentiation.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> from sklyap import loss_gradient
    >>> gradient = loss_gradient(network, X[:10], y[:10])
    >>> gradient.parameters["weight_hh"].shape, round(float(gradient.energy[-1]), 6)
    ((6, 6), 1.0)
    """

    loss: float | None
    state_gradients: np.ndarray
    coefficients: np.ndarray
    energy: np.ndarray | None
    parameters: dict[str, np.ndarray]
    log_growth: np.ndarray
    tangent_size: int
    ranks: np.ndarray | None = None
    relative_error: np.ndarray | None = None
    cosine: np.ndarray | None = None


@outside_inference_mode
def gradient_from_qr(
    Q: Any,
    R: Any,
    delta: Any,
    *,
    rank: int | None = None,
    cell: Any = None,
    states: Any = None,
    inputs: Any = None,
    parameters: str | Sequence[str] = "recurrent",
) -> LossGradient:
    """Compute the loss gradient from the factors of a QR iteration with one factorisation per step.

    Parameters
    ----------
    Q : array-like of shape (n_sequences, T + 1, N, k)
        Tangent bases ``Q_0 … Q_T``, as in `LyapunovResult.basis`. With k = N the result is exact, with fewer
        directions it is the projection of the exact one.
    R : array-like of shape (n_sequences, T, k, k)
        ``R_1 … R_T``, as in `LyapunovResult.r_factors`.
    delta : array-like of shape (n_sequences, T, N) or (n_sequences, N)
        ``δ_τ = ∂L/∂s_τ``, τ = 1 … T, with the other states held fixed; of two dimensions, that of the last step.
    rank : int, optional
        How many of the k directions to use; all by default.
    cell : RecurrentCell or network, optional
        Where given, the gradient of the recurrent layer's parameters is computed too.
    states : array-like of shape (n_sequences, T or T + 1, state_size)
        ``s_0 … s_{T-1}``, where the steps start; needed with `cell`.
    inputs : array-like of shape (n_sequences, T, n_inputs), optional
        What drove the cell.
    parameters : "recurrent", "all", or sequence of str, default="recurrent"
        Which parameters of the cell: those called ``weight_hh``, all, or those named.

    Returns
    -------
    LossGradient

    Raises
    ------
    ValueError
        If shapes do not fit each other, or a name is not one of the cell's parameters.

    Notes
    -----
    O(T·N·k) time and memory per sequence. :func:`loss_gradient` does the whole with less memory.

    Examples
    --------
    >>> import torch
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.gradients import gradient_from_qr
    >>> _ = torch.manual_seed(0)
    >>> layer, X = torch.nn.GRU(3, 5).double(), torch.randn(4, 12, 3, dtype=torch.float64)
    >>> result = lyapunov_spectrum(layer, X, warmup=0, qr_interval=1, return_basis=True)
    >>> delta = torch.ones(4, 5)  # of the loss Σ h_T
    >>> from_qr = gradient_from_qr(result.basis, result.r_factors, delta).state_gradients[:, 0]
    >>> start = torch.zeros(1, 4, 5, dtype=torch.float64, requires_grad=True)
    >>> layer(X.transpose(0, 1), start)[1].sum().backward()
    >>> bool(abs(from_qr - start.grad[0].numpy()).max() < 1e-14)
    True
    """
    Q, R = _tensor(Q, "Q", 4), _tensor(R, "R", 4)
    n, T, k = R.shape[:3]
    if Q.shape[:2] != (n, T + 1) or Q.shape[3] != k or R.shape[3] != k:
        raise ValueError(
            "The 'Q' and 'R' parameters must have shapes (n_sequences, T + 1, N, k) and (n_sequences, T, k, k). "
            f"Got {tuple(Q.shape)} and {tuple(R.shape)} instead."
        )
    rank = k if rank is None else check_int(rank, "rank", low=1, high=k)
    stretch = Factors(list(Q[..., :rank].unbind(1)), list(R[..., :rank, :rank].unbind(1)), [])
    delta = _every_step(delta, Q)
    with flushed_denormals():
        c, g, first = backpropagate(stretch, delta, delta[:, -1])
        gradients = {}
        if cell is not None:
            cell = as_recurrent_cell(cell).to(Q)
            names = parameter_names(cell, parameters)
            before = _tensor(states, "states", 3)[:, :T].to(Q)
            x = None if inputs is None else _tensor(inputs, "inputs", 3).to(Q)
            gradients = ParameterMap(cell, names, before, x).pull(lifted(g[..., 0], cell))
    energy = c[..., 0].square().sum((0, 1))
    return LossGradient(
        loss=None,
        state_gradients=_numpy(torch.cat([first.unsqueeze(1), g], 1)[..., 0]),
        coefficients=_numpy(c[..., 0]),
        energy=shares(energy.cumsum(0), energy.sum()) if rank == Q.shape[2] else None,
        parameters={name: _numpy(value) for name, value in gradients.items()},
        log_growth=_numpy(R[..., :rank, :rank].diagonal(dim1=-2, dim2=-1).log()),
        tangent_size=Q.shape[2],
    )


@outside_inference_mode
def loss_gradient(
    network: Any,
    sequences: Any,
    targets: Any,
    *,
    loss: str | Loss = "auto",
    rank: int | None = None,
    ranks: Sequence[int] | str | None = None,
    parameters: str | Sequence[str] = "recurrent",
    state: str = "full",
    orthonormalizer: str = "auto",
    checkpoint: int | str | None = "auto",
    batch_size: int | None = None,
    layer: str | None = None,
    lengths: Any = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "auto",
    random_state: Any = None,
) -> LossGradient:
    """Compute the gradient of a network's loss from the QR iteration along its own trajectory.

    Parameters
    ----------
    network : torch module, fitted skorch net or fitted sklyap estimator
        With one recurrent layer and a readout. It is not changed.
    sequences : array-like of shape (n_sequences, T, n_inputs), tokens (n_sequences, T), list or PackedSequence
        A list holds sequences of unequal length; the loss is the mean over sequences of the loss of each.
    targets : array-like of shape (n_sequences, ...), or list
        What the network should answer.
    loss : "auto", "cross_entropy", "mse", or callable ``(outputs, targets) -> loss``, default="auto"
        "auto" is the network's own criterion, or by the type of the targets where it has none. The mean over
        sequences is differentiated.
    rank : int, optional
        How many directions to carry. By default all N, for the exact gradient.
    ranks : sequence of int or "auto", optional
        Ranks at which to compare the truncated gradient of the parameters with the exact one; "auto" is every rank,
        or 32 of them.
    parameters : "recurrent", "all", or sequence of str, default="recurrent"
        Which parameters of the recurrent layer, by their names in the cell.
    state : {"full", "hidden"}, default="full"
        With "hidden" (all but the hidden state frozen) nothing is exact: `relative_error` tells how far off.
    orthonormalizer : {"auto", "householder", "cholesky"}, default="auto"
        How bases are made orthonormal; see :func:`~sklyap.orthonormalize.orthonormalize`.
    checkpoint : int, "auto" or None, default="auto"
        Store every c-th basis only and compute those between again, which divides the memory of O(T·N·k) numbers
        per sequence by up to √T/2 and doubles the time. "auto" does so with c = √T where they exceed a gigabyte.
    batch_size : int, optional
        How many sequences to carry at once, another bound on memory; all by default.
    layer : str, optional
        The name of the recurrent submodule where there are several.
    lengths : sequence of int, optional
        How many steps of each sequence of a padded array count, and of targets at every step.
    forward_kwargs : dict, optional
        Further arguments of the network's `forward` (a hidden state, lengths that it packs sequences to).
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation.
    device : str, default="auto"
        Where it runs; "auto" takes a GPU if there is one.
    random_state : int, numpy random generator or None
        Seeds the tangent basis; at full rank the gradient does not depend on it.

    Returns
    -------
    LossGradient

    Raises
    ------
    ValueError, TypeError
        If the network has no readout, the loss is not differentiable, or targets do not fit.
    DivergedError
        If the loss or the trajectory is not finite.

    References
    ----------
    Linking finite-time Lyapunov exponents to RNN gradient subspaces and input sensitivity (2024). Submission
    UHZVrhQuO1 to ICLR.

    Examples
    --------
    >>> import torch
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import load_sequential_digits
    >>> from sklyap.gradients import loss_gradient
    >>> X, y = load_sequential_digits(return_X_y=True)
    >>> network = RNNClassifier("gru", 12, max_epochs=1, random_state=0).fit(X[:200], y[:200])
    >>> gradient = loss_gradient(network, X[:20], y[:20], ranks=[1, 6, 12])
    >>> gradient.parameters["weight_hh"].shape
    (36, 12)
    >>> bool(gradient.relative_error[-1] < 1e-12)
    True
    """
    dtype, device = check_dtype(dtype), resolve_device(device)
    check_choice(state, "state", ["full", "hidden"])
    check_choice(orthonormalizer, "orthonormalizer", METHODS)
    if lengths is not None or isinstance(sequences, list | tuple | PackedSequence):
        groups = by_length(sequences, targets, lengths)
        if len(groups) > 1:
            check_no_ranks(ranks, forward_kwargs)
            settings: dict[str, Any] = {
                "loss": loss, "rank": rank, "parameters": parameters, "state": state, "checkpoint": checkpoint,
                "orthonormalizer": orthonormalizer, "batch_size": batch_size, "layer": layer, "dtype": dtype,
                "device": device, "random_state": random_state,
            }  # fmt: skip
            return _joined([(rows, loss_gradient(network, x, y, **settings)) for rows, x, y in groups])
        ((_, sequences, targets),) = groups
    objective = Objective(
        network, sequences, targets, loss=loss, layer=layer, forward_kwargs=forward_kwargs, dtype=dtype, device=device
    )
    cell = objective.cell
    N = tangent_size(cell, state)
    rank = N if rank is None else check_int(rank, "rank", low=1, high=N)
    names = parameter_names(cell, parameters)
    objective.check_used_once(names)
    cuts = _check_ranks(ranks, rank)
    value, delta = objective.delta(objective.states)
    found = backward_pass(
        cell, objective.x, objective.trajectory, delta.unsqueeze(-1), names=names, rank=rank, cuts=cuts, state=state,
        orthonormalizer=orthonormalizer, checkpoint=checkpoint, batch_size=batch_size, seed=seed_from(random_state),
    )  # fmt: skip
    error, cosine = None, None
    if cuts:
        exact = _flat(objective.gradient_by_autograd(names)[1], 0)
        error, cosine = _compared(_flat(found.by_rank, 1).cumsum(0), exact)
    return LossGradient(
        loss=float(value),
        state_gradients=_numpy(found.state_gradients),
        coefficients=_numpy(found.coefficients),
        energy=found.energy[0],
        parameters={name: _numpy(value[0]) for name, value in found.parameters.items()},
        log_growth=_until(_numpy(found.log_growth), objective.lengths),
        tangent_size=N,
        ranks=np.asarray(cuts) if cuts else None,
        relative_error=error,
        cosine=cosine,
    )


def _until(values: np.ndarray, lengths: list[int]) -> np.ndarray:
    """Return values (n_sequences, T, k) with NaN after the end of each sequence."""
    past = np.arange(values.shape[1]) >= np.asarray(lengths)[:, None]
    return np.where(past[..., None], np.nan, values)


def _joined(parts: list[tuple[list[int], LossGradient]]) -> LossGradient:
    """Return the gradient of the mean loss over sequences in groups of one length, whose rows are given."""
    n = sum(len(rows) for rows, _ in parts)
    weights = [len(rows) / n for rows, _ in parts]
    T = max(part.coefficients.shape[1] for _, part in parts)

    def gathered(name: str, n_steps: int, fill: float, weighted: bool) -> np.ndarray:
        first = getattr(parts[0][1], name)
        whole = np.full((n, n_steps, first.shape[2]), fill, dtype=first.dtype)
        for (rows, part), weight in zip(parts, weights, strict=True):
            values = getattr(part, name)
            whole[rows, : values.shape[1]] = weight * values if weighted else values
        return whole

    g, c = gathered("state_gradients", T + 1, 0.0, True), gathered("coefficients", T, 0.0, True)
    first = parts[0][1]
    energy = torch.from_numpy((c**2).sum((0, 1)))
    return LossGradient(
        loss=sum(weight * (part.loss or 0.0) for (_, part), weight in zip(parts, weights, strict=True)),
        state_gradients=g,
        coefficients=c,
        energy=None if first.energy is None else shares(energy.cumsum(0), torch.tensor((g[:, 1:] ** 2).sum())),
        parameters={
            name: np.sum([weight * part.parameters[name] for (_, part), weight in zip(parts, weights, strict=True)], 0)
            for name in first.parameters
        },
        log_growth=gathered("log_growth", T, np.nan, False),
        tangent_size=first.tangent_size,
    )


def parameter_names(cell: RecurrentCell, parameters: str | Sequence[str] = "recurrent") -> list[str]:
    """Return the names of a cell's parameters that `parameters` means, in the cell's order.

    Raises
    ------
    ValueError
        If there are none, or one that is named is not there.

    Examples
    --------
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.gradients import parameter_names
    >>> parameter_names(GRUCell(3, 8))
    ['weight_hh']
    """
    known = [name for name, _ in cell.named_parameters()]
    if parameters == "all":
        chosen = known
    elif parameters == "recurrent":
        chosen = [name for name in known if name.rpartition(".")[2].startswith("weight_hh")]
    else:
        chosen = [parameters] if isinstance(parameters, str) else list(parameters)
    missing = [name for name in chosen if name not in known]
    if missing or not chosen:
        raise ValueError(
            f"The 'parameters' parameter must be 'recurrent' (weight_hh), 'all', or names out of "
            f"{', '.join(known) or 'none, as the cell has no parameters'}. Got {parameters!r} instead."
        )
    return chosen


def _every_step(delta: Any, Q: Tensor) -> Tensor:
    """Return δ as (n_sequences, T, N, 1); of the last step alone, the others are zero."""
    n, T, N = Q.shape[0], Q.shape[1] - 1, Q.shape[2]
    delta = torch.as_tensor(check_dense(delta, "delta", filled=True)).detach().to(Q)
    if tuple(delta.shape) == (n, N):
        last, delta = delta, delta.new_zeros(n, T, N)
        delta[:, -1] = last
    if tuple(delta.shape) != (n, T, N):
        raise ValueError(
            f"The 'delta' parameter must have shape {(n, T, N)}, or {(n, N)} for a loss at the last step. "
            f"Got shape {tuple(delta.shape)} instead."
        )
    return delta.unsqueeze(-1)


def default_ranks(k: int) -> list[int]:
    """Return the ranks 1 … k, or 32 of them, dense where they are small.

    Examples
    --------
    >>> from sklyap.gradients import default_ranks
    >>> default_ranks(5)
    [1, 2, 3, 4, 5]
    """
    if k <= _N_RANKS:
        return list(range(1, k + 1))
    return sorted({max(1, round(k * (i / _N_RANKS) ** 2)) for i in range(1, _N_RANKS + 1)})


def _check_ranks(ranks: Sequence[int] | str | None, k: int) -> list[int]:
    if ranks is None:
        return []
    if isinstance(ranks, str):
        check_choice(ranks, "ranks", ["auto"])
        return default_ranks(k)
    return sorted({check_int(q, "ranks", low=1, high=k) for q in ranks})


def _compared(truncated: Tensor, exact: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return relative error and cosine of rows (n_ranks, p) against `exact` (p,)."""
    norm, norms = torch.linalg.vector_norm(exact), torch.linalg.vector_norm(truncated, dim=1)
    error = torch.linalg.vector_norm(truncated - exact, dim=1)
    return shares(error, norm), shares(truncated @ exact, norm * norms)


def _flat(parameters: dict[str, Tensor], dim: int) -> Tensor:
    return torch.cat([value.flatten(dim) for value in parameters.values()], dim)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _tensor(value: Any, name: str, ndim: int) -> Tensor:
    tensor = torch.as_tensor(check_dense(value, name, filled=True)).detach()
    if tensor.ndim != ndim or not tensor.is_floating_point():
        raise ValueError(
            f"The {name!r} parameter must be a floating array of {ndim} dimensions. "
            f"Got shape {tuple(tensor.shape)} of {tensor.dtype} instead."
        )
    return tensor
