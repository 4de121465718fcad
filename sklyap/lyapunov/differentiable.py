"""Lyapunov exponents as a torch function of the weights.

Exponents are the growth of a basis under a product of Jacobians, ``J_T … J_1 Q_0 = Q_T R_T … R_1``, and their
derivative is that of the Jacobians seen from the two ends. With ``B_t = ∂L/∂(J_t Q_{t-1})``, shape (n, N, k),

    ∂L/∂J_t = B_t Q_{t-1}ᵀ ,      B_{t-1} = P(J_tᵀ B_t) R_{t-1}^{-T}

where P sets the components of column j along ``q_1 … q_{j-1}`` to zero and that along ``q_j`` to the weight of
exponent j in L. Both hold exactly; rounding errors in these components would be multiplied from step to step by
``R_ii / R_jj``, all others shrink. So the recursion is as stable as the QR iteration, and exponents that are equal, or
nearly, are harmless: the derivative of Q is large there, that of ``ln R_ii`` is not, and Q is not differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sklyap.cells import DenseLinearization, Linearization, RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.cells.live import LiveCell, live_cell, transformed
from sklyap.cells.probe import probe
from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import log_spread, orthonormalize, orthonormalize_graded, random_bases
from sklyap.runtime import flushed_denormals
from sklyap.tangent import check_settings
from sklyap.tangent.resolution import resolution
from sklyap.validation import check_dtype, seed_from

__all__ = ["finite_time_exponents"]

_SEGMENT_STEPS = 128
"""Steps whose intermediate results are kept; longer sequences are recomputed segment by segment."""
_SEGMENT_BYTES = 2**29
_CHUNK_NUMBERS = 2**18
"""Entries of Jacobians, or of tangents, that are made in one call: what a cache holds."""
_LONGEST_BLOCK = 64
_DIGITS_LOST = 0.25
"""Share of the digits that a block of steps between two factorisations may cost: four of float64's sixteen."""
_AIM = 0.8
_GRADED = 20.0
"""Log spread of a single step, in nats, from which on its rows are factored with care."""
_WARY = 32
"""Single steps after one in which a direction was annihilated."""


def finite_time_exponents(
    network: Any,
    sequences: Any,
    *,
    n_exponents: int | None = None,
    warmup: int | str = 0,
    state: str = "full",
    dtype: str | torch.dtype = "float64",
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
        First steps in which state and basis settle; they are not averaged, but are differentiated through.
    state : {"full", "hidden"}, default="full"
        See :func:`~sklyap.lyapunov_spectrum`.
    dtype : {"float64", "float32"}, default="float64"
        In what precision to compute, whatever that of the weights.
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

    The derivative is exact also where exponents are equal: see the head of this module. Along a kink (a ReLU at zero)
    it is that of one side.

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
    live = live_cell(network)
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
        Q = random_bases(N, k, seed, indices, **place)
        parts.append(_along(live, x, s[indices], Q, warmup, state))
        order += indices
    exponents = torch.cat(parts)
    if order != sorted(order):
        exponents = exponents[torch.as_tensor(order, device=exponents.device).argsort()]
    rank = torch.argsort(-exponents.detach().mean(0), stable=True)
    return exponents.index_select(1, rank)


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
        segment = _Segment(live, stop - start, state, settle=max(0, warmup - start), offset=start)
        part = None if isinstance(x, int) else x[:, start:stop]
        # The last segment is the first that the backward pass needs: it is kept.
        if stop < n_steps and torch.is_grad_enabled() and not transformed():
            growth, s, Q = checkpoint(segment, part, s, Q, use_reentrant=False, preserve_rng_state=False)
        else:
            growth, s, Q = segment(part, s, Q)
        total = growth if total is None else total + growth
    assert total is not None
    annihilated = total.detach() == -math.inf
    return torch.where(annihilated, -math.inf, total / (n_steps - warmup))


def _segment_steps(n_steps: int, Q: Tensor) -> int:
    # Kept at each step are about five tensors of the size of the basis.
    affordable = _SEGMENT_BYTES // (5 * Q.numel() * Q.element_size())
    return max(math.isqrt(n_steps - 1) + 1, min(_SEGMENT_STEPS, affordable))


@dataclass(frozen=True)
class _Segment:
    """Some steps of a sequence; `settle` of them are not averaged."""

    live: LiveCell
    n_steps: int
    state: str
    settle: int
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
            done = _iterate(steps, width, Q.detach(), self.n_steps, self.settle)
        if not torch.is_grad_enabled():
            return _counted_growth(done.growth, done.counted), states[-1], done.bases[-1]
        starts = range(0, self.n_steps, width)
        tail = (*done.bases, *done.R, *done.growth)
        if dense:
            plan = _Plan(tuple(done.lengths), tuple(done.counted), width, None)
            growth, basis = _Growth.apply(plan, Q, jacobians[-1].sum(), *jacobians, *done.inputs, *tail)
            return growth, states[-1], basis
        pushed = [c.push(_stacked(done.inputs[t : t + width])) for t, c in zip(starts, chunks, strict=True)]

        def again(states: Tensor, x: Tensor | None) -> Linearization:
            return self.live.run(self._linearize, states, x)

        plan = _Plan(tuple(done.lengths), tuple(done.counted), width, again)
        inputs = [states[:-1].detach(), *([] if x is None else [x.detach()])]
        growth, basis = _Growth.apply(plan, Q, pushed[-1].sum(), *pushed, *inputs, *tail)
        return growth, states[-1], basis

    def _linearize(self, cell: RecurrentCell, states: Tensor, x: Tensor | None) -> Linearization:
        method = cell.linearize if self.state == "full" else cell.hidden_linearization
        return method(states, None if x is None else x.transpose(0, 1))


def _check_finite(states: Tensor, offset: int) -> None:
    if transformed() or bool(torch.isfinite(states).all()):
        return
    step, sequence = (int(i) for i in (~torch.isfinite(states)).any(-1).nonzero()[0])
    raise DivergedError(f"The state of sequence {sequence} is not finite at step {offset + step}.")


class _Done:
    """What a pass over some steps leaves; block i carries ``bases[i]`` to ``bases[i + 1]``.

    Attributes
    ----------
    inputs : list of Tensor (n, N, k)
        What each step pushes.
    bases, R, growth : lists of Tensor (n, N, k), (n, k, k) and (n, k)
    lengths, counted : list of int, list of bool
        Steps of each block, and whether it is averaged.
    """

    def __init__(self, Q: Tensor) -> None:
        self.inputs: list[Tensor] = []
        self.bases, self.R, self.growth = [Q], list[Tensor](), list[Tensor]()
        self.lengths, self.counted = list[int](), list[bool]()

    def add(self, inputs: list[Tensor], Q: Tensor, R: Tensor, growth: Tensor, counted: bool) -> None:
        self.inputs += inputs
        self.bases.append(Q)
        self.R.append(R)
        self.growth.append(growth)
        self.lengths.append(len(inputs))
        self.counted.append(counted)


def _counted_growth(growth: Sequence[Tensor], counted: Sequence[bool]) -> Tensor:
    averaged = [rates for rates, yes in zip(growth, counted, strict=True) if yes]
    return torch.stack(averaged).sum(0) if averaged else torch.zeros_like(growth[0])


def _stacked(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)  # without a copy


def _iterate(chunks: Sequence[Linearization], width: int, Q: Tensor, n_steps: int, settle: int) -> _Done:
    """Carry a basis along, with a factorisation as often as its digits need.

    `chunks` are the linearizations of `width` steps each.
    """
    done = _Done(Q)
    budget = -_DIGITS_LOST * math.log(torch.finfo(Q.dtype).eps)
    t, length, rate, wary = 0, 1, 0.0, 0
    while t < n_steps:
        stop = min(t + length, settle if t < settle else n_steps, n_steps)
        inputs = [Q]
        for u in range(t, stop):
            inputs.append(chunks[u // width][u % width].push(inputs[-1]))
        Z = inputs.pop()
        if transformed():
            Q, R, growth = _plain_qr(Z)
        else:
            Q_next, R, growth, spread = _factor(Z, chunks[t // width][t % width], Q, single=stop == t + 1)
            taken = stop - t
            if taken > 1 and not spread <= budget:
                length = max(1, taken // 2)
                rate = max(rate, spread / taken) if math.isfinite(spread) else rate
                continue
            _check_resolved(R, t)
            wary = _WARY if bool((growth == -math.inf).any()) else max(0, wary - 1)
            rate = max(spread / taken, 0.97 * rate)
            planned = _AIM * budget / rate if rate > 0 else math.inf
            length = 1 if wary else int(min(max(planned, 1), 2 * taken + 1, _LONGEST_BLOCK))
            Q = Q_next
        done.add(inputs, Q, R, growth, counted=t >= settle)
        t = stop
    return done


def _plain_qr(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    Q, R = torch.linalg.qr(Z)
    sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Z.dtype)
    R = R * sign.unsqueeze(-1)
    return Q * sign.unsqueeze(-2), R, R.diagonal(dim1=-2, dim2=-1).log()


def _factor(Z: Tensor, step: Linearization, before: Tensor, *, single: bool) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return Q, R, ln diag R (-inf where annihilated) and the largest log spread; a `single` step gets care."""
    Q, R = orthonormalize(Z)
    spread = log_spread(R)
    suspicious = -math.log(torch.finfo(Z.dtype).eps * Z.shape[-2])
    if single and bool((spread > min(_GRADED, suspicious)).any()) and bool(torch.isfinite(Z).all()):
        Q, R = orthonormalize_graded(Z)
        growth = R.diagonal(dim1=-2, dim2=-1).log()
        if bool((spread > suspicious).any()):
            annihilated, spread = resolution(step, before, Z, R)
            growth = growth.masked_fill(annihilated, -math.inf)
    else:
        growth = R.diagonal(dim1=-2, dim2=-1).log()
    return Q, R, growth, float(spread.max())


def _check_resolved(R: Tensor, step: int) -> None:
    if not bool(torch.isfinite(R).all()):
        raise DivergedError(f"The tangent basis is not finite after step {step} of its segment.")


@dataclass(frozen=True)
class _Plan:
    """How `_Growth` was computed: steps of each block, whether it is averaged, steps of a chunk.

    With `again`, which makes a linearization from states and inputs, few tangents were pushed; without it Jacobians
    are at hand.
    """

    lengths: tuple[int, ...]
    counted: tuple[bool, ...]
    width: int
    again: Callable[..., Linearization] | None

    @property
    def n_steps(self) -> int:
        return sum(self.lengths)

    @property
    def n_chunks(self) -> int:
        return -(-self.n_steps // self.width)


class _Growth(torch.autograd.Function):
    """Growth of a basis, and the basis at the end, as a function of the Jacobians or of what they make of tangents.

    Arguments after the plan: the basis Q (n, N, k) at the start; an anchor in the graph of the weights; for each chunk
    the Jacobians (width, n, N, N), or the pushed tangents (width, n, N, k), whose gradients are wanted; what every
    step pushes (or states and inputs, where Jacobians are not at hand); the bases before and after each block, its
    factor R and its growth.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: _Plan, Q: Tensor, anchor: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        n_blocks = len(plan.lengths)
        return _counted_growth(tensors[-n_blocks:], plan.counted), tensors[-2 * n_blocks - 1].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.plan, ctx.n_tensors = inputs[0], len(inputs) - 3
        # What was pushed is there for its graph alone.
        ctx.save_for_backward(inputs[2], *inputs[3 if ctx.plan.again is None else 3 + ctx.plan.n_chunks :])

    @staticmethod
    def backward(ctx: Any, weights: Tensor, Q_bar: Tensor) -> tuple[Tensor | None, ...]:
        plan, (anchor, *saved) = ctx.plan, ctx.saved_tensors
        n_blocks = len(plan.lengths)
        given, blocks = saved[: -3 * n_blocks - 1], saved[-3 * n_blocks - 1 :]
        bases, factors, growth = blocks[: n_blocks + 1], blocks[n_blocks + 1 : -n_blocks], blocks[-n_blocks:]
        with torch.no_grad(), flushed_denormals():
            pull, gradient = _transposed(plan, given)
            lost = [_annihilated(rates) for rates in growth]
            for mask in lost:
                weights = weights if mask is None else weights.masked_fill(mask, 0.0)
            t, pending, chunks = plan.n_steps, list[Tensor](), list[Tensor]()
            for i in reversed(range(n_blocks)):
                B = _through_qr(Q_bar, bases[i + 1], factors[i], weights if plan.counted[i] else None, lost[i])
                for _ in range(plan.lengths[i]):
                    t -= 1
                    pending.append(B)
                    if t % plan.width == 0:
                        chunks.append(gradient(t, pending[::-1]))
                        pending.clear()
                    B = pull(t, B)
                Q_bar = B
        once = [_Once.apply(tensor, anchor) for tensor in (Q_bar, *chunks[::-1])]
        return (None, once[0], None, *once[1:], *[None] * (ctx.n_tensors - plan.n_chunks))


def _annihilated(growth: Tensor) -> Tensor | None:
    """Return which directions (n, k) are annihilated, None if none is."""
    mask = growth == -math.inf
    return mask if transformed() or bool(mask.any()) else None


def _through_qr(Q_bar: Tensor, Q: Tensor, R: Tensor, weights: Tensor | None, lost: Tensor | None) -> Tensor:
    """Return ``∂L/∂Z`` (n, N, k) of ``Z = Q R`` from ``∂L/∂Q``, and the weights (n, k) of ln diag R in L."""
    along = torch.triu(Q.mT @ Q_bar)
    if weights is not None:
        along = along - torch.diag_embed(weights)
    Y = torch.baddbmm(Q_bar, Q, along, alpha=-1)
    if lost is not None:
        # An annihilated direction passes nothing on.
        Y = Y.masked_fill(lost.unsqueeze(-2), 0.0)
        R = R.masked_fill(lost.unsqueeze(-1), 0.0) + torch.diag_embed(lost.to(R.dtype))
    return torch.linalg.solve_triangular(R.mT, Y, upper=False, left=False)


def _transposed(
    plan: _Plan, given: list[Tensor]
) -> tuple[Callable[[int, Tensor], Tensor], Callable[[int, list[Tensor]], Tensor]]:
    """Return ``(t, B) -> J_tᵀ B``, and what makes the gradient of the chunk from step t on of its B."""
    if plan.again is None:
        jacobians, inputs = given[: plan.n_chunks], given[plan.n_chunks :]

        def pull(t: int, B: Tensor) -> Tensor:
            return jacobians[t // plan.width][t % plan.width].mT @ B

        def gradient(t: int, Bs: list[Tensor]) -> Tensor:
            return _stacked(Bs) @ _stacked(inputs[t : t + len(Bs)]).mT

        return pull, gradient
    linearization = plan.again(*given, *[None] * (2 - len(given)))

    def pull_again(t: int, B: Tensor) -> Tensor:
        # A push is linear, so that the point at which it is differentiated does not matter.
        return torch.func.vjp(linearization[t].push, torch.zeros_like(B))[1](B)[0]

    return pull_again, lambda t, Bs: _stacked(Bs)


class _Once(torch.autograd.Function):
    """A gradient as it is, which refuses to be differentiated again: it takes bases and Jacobians for constants."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, anchor: Tensor) -> Tensor:
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError("Lyapunov exponents can be differentiated once; their second derivative is not implemented.")
