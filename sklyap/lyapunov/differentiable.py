"""Lyapunov exponents as a torch function of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sklyap.cells import DenseLinearization, Linearization, RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.cells.live import LiveCell, live_cell
from sklyap.cells.probe import probe
from sklyap.exceptions import DivergedError
from sklyap.lyapunov.blocks import counted_growth, iterate
from sklyap.lyapunov.derivative import Growth, PassPlan, stacked
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals, transformed
from sklyap.tangent import check_settings
from sklyap.validation import check_dtype, seed_from

__all__ = ["finite_time_exponents"]

_SEGMENT_STEPS = 128
"""Steps whose intermediate results are kept; longer sequences are recomputed segment by segment."""
_SEGMENT_BYTES = 2**29
_CHUNK_NUMBERS = 2**18
"""Entries of Jacobians, or of tangents, that are made in one call: what a cache holds."""


def finite_time_exponents(
    network: Any,
    sequences: Any,
    *,
    n_exponents: int | None = None,
    warmup: int | str = 0,
    state: str = "full",
    dtype: str | torch.dtype = "float64",
    layer: str | None = None,
    random_state: Any = None,
) -> Tensor:
    """Compute finite-time Lyapunov exponents that can be differentiated with respect to the weights.

    They are what :func:`~sklyap.lyapunov_spectrum` calls `per_sequence`, from the same initial bases. Gradients arrive
    in the parameters of `network` itself (also those before the recurrent layer, and a learnt initial state), in
    tensors that a step function refers to, and in `sequences`.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
        See :func:`~sklyap.as_recurrent_cell`. It is read as in evaluation mode, whatever its mode, and not changed.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list of arrays (n_steps_i, n_inputs), or int
        What drives the network, at the network's input; a number of steps for an autonomous system.
    n_exponents : int, optional
        How many leading exponents, k; the whole spectrum by default.
    warmup : int or "auto", default=0
        First steps of the transient of state and basis; they are not averaged, but are differentiated through.
    state : {"full", "hidden"}, default="full"
        See :func:`~sklyap.lyapunov_spectrum`.
    dtype : {"float64", "float32"}, default="float64"
        In what precision to compute, whatever that of the weights.
    layer : str, optional
        The name of the recurrent submodule to take where there are several, see :func:`~sklyap.as_recurrent_cell`.
    random_state : int, numpy random generator or None
        Seeds the tangent basis. None is 0, as in :func:`~sklyap.lyapunov_spectrum`.

    Returns
    -------
    Tensor of shape (n_sequences, k)
        In nats per step; columns are in the order of their means over sequences, descending. Annihilated directions
        are -inf and have no gradient.

    Raises
    ------
    ValueError, TypeError
        For a network or sequences that cannot be analysed, or a parameter out of range, before any work.
    DivergedError
        If the trajectory is not finite.
    RuntimeError
        On differentiating twice, which is not implemented.

    Notes
    -----
    From 128 steps on memory grows with the square root of their number: only the states and bases between segments are
    kept, and segments are recomputed in the backward pass. Under :func:`torch.func.vmap` and :func:`torch.func.grad`
    every step is factored and everything is kept; networks with layers before the recurrent one cannot be mapped.

    The derivative is exact also where exponents are equal: Q is never differentiated. Along a kink (a ReLU at zero) it
    is that of one side.

    References
    ----------
    Engelken, R. (2023). Gradient flossing: improving gradient descent through dynamic control of Jacobians. NeurIPS.

    Examples
    --------
    The exponents of a rotation, scaled by g, are ln g, and their derivatives 1/g.

    >>> import torch
    >>> from sklyap import finite_time_exponents
    >>> from sklyap.cells import FunctionCell
    >>> rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    >>> g = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> exponents = finite_time_exponents(FunctionCell(lambda s, x: g * s @ rotation.mT, 3), 20)
    >>> exponents[0, 0].backward()
    >>> print(f"{g.grad:.4f}")
    2.0000
    """
    live = live_cell(network, layer)
    k, N = check_settings(live.cell, n_exponents, 1, "auto", state)
    place: dict[str, Any] = {"dtype": check_dtype(dtype), "device": _device(live, sequences)}
    seed = seed_from(random_state)
    live = live.to(**place)
    drive = _drive(live.cell, sequences).to(**place)
    warmup = drive.transient_steps(warmup)
    s = live.run(lambda cell: cell.initial_state(drive.n_sequences)) if drive.starts is None else drive.starts
    parts, order = [], []
    for indices in _equal_lengths(drive):
        x = drive.lengths[indices[0]] if drive.inputs is None else torch.stack([drive.inputs[i] for i in indices])
        if not transformed():
            live.run(probe, s[indices].detach(), x if isinstance(x, int) else x.detach())
        Q = _bases(N, k, seed, tuple(indices), place["dtype"], place["device"])
        parts.append(_along(live, x, s[indices], Q, warmup, state))
        order += indices
    exponents = torch.cat(parts)
    if order != sorted(order):
        exponents = exponents[torch.as_tensor(order, device=exponents.device).argsort()]
    rank = torch.argsort(-exponents.detach().mean(0), stable=True)
    return exponents.index_select(1, rank)


@lru_cache(maxsize=4)
def _bases(n: int, k: int, seed: int, indices: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Kept, because an optimizer asks for the same bases at every step.
    with torch.inference_mode(False):  # a tensor that is made in that mode cannot be kept for a gradient later
        return random_bases(n, k, seed, indices, dtype=dtype, device=device)


def _device(live: LiveCell, sequences: Any) -> torch.device:
    parameters = [live.weights[name] for name, _ in live.cell.named_parameters()]
    tensors = [*parameters[:1], *([sequences] if isinstance(sequences, Tensor) else []), *live.weights.values()]
    return tensors[0].device if tensors else torch.device("cpu")


def _drive(cell: RecurrentCell, sequences: Any) -> Drive:
    if transformed() and isinstance(sequences, Tensor) and cell.encoder is None:
        return Drive(list(sequences.unbind(0)), None, [sequences.shape[1]] * len(sequences))
    return Drive.of(cell, sequences, attached=True)


def _equal_lengths(drive: Drive) -> Iterator[list[int]]:
    for length in sorted(set(drive.lengths), reverse=True):
        yield [i for i, n in enumerate(drive.lengths) if n == length]


def _along(live: LiveCell, x: Tensor | int, s: Tensor, Q: Tensor, warmup: int, state: str) -> Tensor:
    """Return the exponents (n, k) of sequences of one length, in the order of the basis."""
    n_steps = x if isinstance(x, int) else x.shape[1]
    size = _segment_steps(n_steps, Q)
    total = None
    for start in range(0, n_steps, size):
        stop = min(start + size, n_steps)
        segment = _Segment(live, stop - start, state, transient=max(0, warmup - start), offset=start)
        part = None if isinstance(x, int) else x[:, start:stop]
        # The backward pass begins with the last segment, so that one is kept and not recomputed.
        if stop < n_steps and torch.is_grad_enabled() and not transformed():
            growth, s, Q = checkpoint(segment, part, s, Q, use_reentrant=False, preserve_rng_state=False)
        else:
            growth, s, Q = segment(part, s, Q)
        total = growth if total is None else total + growth
    assert total is not None
    annihilated = total.detach() == -math.inf
    return torch.where(annihilated, -math.inf, total / (n_steps - warmup))


def _segment_steps(n_steps: int, Q: Tensor) -> int:
    # Each step keeps about five tensors of the size of the basis.
    affordable = _SEGMENT_BYTES // (5 * Q.numel() * Q.element_size())
    return max(math.isqrt(n_steps - 1) + 1, min(_SEGMENT_STEPS, affordable))


@dataclass(frozen=True)
class _Segment:
    """Some steps of a sequence; `transient` of them are not averaged."""

    live: LiveCell
    n_steps: int
    state: str
    transient: int
    offset: int

    def __call__(self, x: Tensor | None, s: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the growth (n, k) of the averaged steps, and state and basis at the end."""
        return self.live.run(self._run, x, s, Q)

    def _run(self, cell: RecurrentCell, x: Tensor | None, s: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states = cell.trajectory(s, self.n_steps if x is None else x)
        _check_finite(states, self.offset)
        # One matrix per step costs less than a product per gate, unless there are few tangents to push.
        dense = transformed() or 2 * Q.shape[-1] >= Q.shape[-2]
        numbers = Q.numel() // Q.shape[-1] * (Q.shape[-2] if dense else Q.shape[-1])
        width = max(1, _CHUNK_NUMBERS // numbers)
        chunks = [
            self._linearize(cell, states[t : min(t + width, self.n_steps)], None if x is None else x[:, t : t + width])
            for t in range(0, self.n_steps, width)
        ]
        jacobians = [chunk.dense() for chunk in chunks] if dense else []
        with torch.no_grad(), flushed_denormals():
            steps: list[Linearization] = [DenseLinearization(J) for J in jacobians] if dense else chunks
            done = iterate(steps, width, Q.detach(), self.n_steps, self.transient)
        if not torch.is_grad_enabled():
            return counted_growth(done.growth, done.counted), states[-1], done.bases[-1]
        starts = range(0, self.n_steps, width)
        tail = (*done.bases, *done.R, *done.growth)
        if dense:
            plan = PassPlan(tuple(done.lengths), tuple(done.counted), width, None)
            growth, basis = Growth.apply(plan, Q, jacobians[-1].sum(), *jacobians, *done.inputs, *tail)
            return growth, states[-1], basis
        pushed = [c.push(stacked(done.inputs[t : t + width])) for t, c in zip(starts, chunks, strict=True)]

        def again(states: Tensor, x: Tensor | None) -> Linearization:
            return self.live.run(self._linearize, states, x)

        plan = PassPlan(tuple(done.lengths), tuple(done.counted), width, again)
        inputs = [states[:-1].detach(), *([] if x is None else [x.detach()])]
        growth, basis = Growth.apply(plan, Q, pushed[-1].sum(), *pushed, *inputs, *tail)
        return growth, states[-1], basis

    def _linearize(self, cell: RecurrentCell, states: Tensor, x: Tensor | None) -> Linearization:
        method = cell.linearize if self.state == "full" else cell.hidden_linearization
        return method(states, None if x is None else x.transpose(0, 1))


def _check_finite(states: Tensor, offset: int) -> None:
    if transformed() or bool(torch.isfinite(states).all()):
        return
    step, sequence = (int(i) for i in (~torch.isfinite(states)).any(-1).nonzero()[0])
    raise DivergedError(f"The state of sequence {sequence} is not finite at step {offset + step}.")
