"""The QR iteration: a state and its tangent basis carried along sequences, block by block.

Everything that reads a network's dynamics (the spectrum, covariant vectors, gradients) consumes the
blocks of :func:`qr_iteration`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sklyap.cells import DenseLinearization, Linearization, RecurrentCell
from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import (
    METHODS,
    gram_schmidt,
    log_range,
    orthonormalize,
    orthonormalize_graded,
    strain,
)
from sklyap.validation import check_choice, check_int

__all__ = ["QRBlock", "check_settings", "flushed_denormals", "qr_iteration", "strain_budget", "tangent_size"]

_FIRST_CHUNK = 8
_CHUNK_STEPS = 64
_LONGEST_CHUNK = 1024
_CHUNK_NUMBERS = 2**16
"""Chunks of small systems are longer, up to so many entries of Jacobians: what they cost is calls, not work."""
_CHUNK_BYTES = 16 * 2**20
_SMALL = 8
"""Up to this many dimensions Jacobians are multiplied with one another rather than each with the basis."""
_LONGEST_INTERVAL = 64
_GRAM_SCHMIDT_FROM = 96
"""From how many directions on block Gram-Schmidt is faster than Householder reflections."""
_LARGE = 2**15
"""From how many numbers in a basis on every block is checked at once."""
_GRADED = 20.0
"""Strain of a single step from which on it is worth a factorisation that keeps the digits of graded rows."""
_WARY = 32
"""How many steps are taken one by one after one in which directions may have been annihilated."""
_AIM = 0.8
"""Share of the strain budget that the next block is planned for; the rest is room for a worse block."""


@dataclass(frozen=True)
class QRBlock:
    """Some steps between two orthonormalisations: ``J_{stop-1} … J_start Q_start = Q R``.

    Attributes
    ----------
    start, stop : int
        Steps covered, ``start <= t < stop``.
    Q : Tensor of shape (n_active, state_size, k) or None
        The basis after the block. Sequences that have ended drop out at the end of the batch.
    R : Tensor of shape (n_active, k, k) or None
        Upper triangular. Where factors were not asked for, R is None and Q given now and then only.
    log_growth : Tensor of shape (n_active, k)
        ln diag R, in nats over the whole block; -inf where a direction is annihilated.
    strain : float
        The largest spread of R over sequences and resolved directions, see
        :func:`sklyap.orthonormalize.strain`.
    """

    start: int
    stop: int
    Q: Tensor | None
    R: Tensor | None
    log_growth: Tensor
    strain: float


def tangent_size(cell: RecurrentCell, state: str) -> int:
    """Return the dimension of the tangent space that ``state="full"`` or ``state="hidden"`` looks at."""
    return cell.state_size if state == "full" else cell.hidden_state_size


def check_settings(
    cell: RecurrentCell, n_exponents: int | None, qr_interval: int | str, orthonormalizer: str, state: str
) -> tuple[int, int]:
    """Return the number of exponents and the dimension of the tangent space, or raise."""
    check_choice(state, "state", ["full", "hidden"])
    check_choice(orthonormalizer, "orthonormalizer", METHODS)
    if qr_interval != "auto":
        check_int(qr_interval, "qr_interval", low=1)
    N = tangent_size(cell, state)
    return (N if n_exponents is None else check_int(n_exponents, "n_exponents", low=1, high=N)), N


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero, which contracting networks fill their basis with and CPUs are slow on."""
    tiny = torch.tensor([torch.finfo(torch.float64).tiny], dtype=torch.float64)
    before = bool((tiny / 4 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def strain_budget(dtype: torch.dtype) -> float:
    """Return the strain up to which half the digits remain: ``½ ln(1/ε)``, 18 in float64 and 8 in float32."""
    return -0.5 * math.log(torch.finfo(dtype).eps)


class _Plan:
    """How to factor the next block, and after how many steps: as asked for, or as the blocks so far suggest.

    Attributes
    ----------
    length : int
        Steps of the next block.
    fixed : bool
        Whether the interval was asked for.
    graded, suspicious : float
        Strain of a single step from which on rows are taken to be graded, and directions perhaps annihilated.
    wary : int
        How many more blocks are single steps, to be factored with care.
    """

    def __init__(self, qr_interval: int | str, orthonormalizer: str, Q: Tensor) -> None:
        self.fixed = qr_interval != "auto"
        self.length = int(qr_interval) if self.fixed else 1
        self.orthonormalizer = orthonormalizer
        self.suspicious = -math.log(torch.finfo(Q.dtype).eps * Q.shape[-2])
        self.graded = min(self.suspicious, _GRADED)
        self.wary = 0
        self._budget = strain_budget(Q.dtype)
        self._range = log_range(Q.dtype)
        self._rate = 0.0

    def beware(self) -> None:
        """Plan single steps for a while: over longer blocks, annihilated directions look like lost digits."""
        self.wary = _WARY

    def accepts(self, length: int, block_strain: float, growth: float) -> bool:
        """Tell whether a block of `length` steps kept its digits; plan the next one."""
        self.wary = max(0, self.wary - 1)
        if self.fixed:
            return True
        load = max(block_strain / self._budget, growth / self._range)
        if load > 1 and length > 1:
            if math.isfinite(load):
                self._rate = max(self._rate, load / length)
            self.length = length // 2
            return False
        if length < self.length:
            return True  # cut short, which says little about a whole one
        # Recent blocks count most: the plan follows the run, and a plan too long is redone in halves.
        self._rate = max(load / length, 0.97 * self._rate)
        planned = _AIM / self._rate if self._rate > 0 else math.inf
        self.length = int(min(max(planned, 1), 2 * length + 1, 1 if self.wary else _LONGEST_INTERVAL))
        return True

    def factor(self, Z: Tensor, steps: range) -> _Seen:
        """Factor what `steps` have made of the basis, for its growth only."""
        if self.orthonormalizer == "auto" and not Z.is_cuda:
            if Z.shape[-1] >= _GRAM_SCHMIDT_FROM:
                Q, diagonal, peak = gram_schmidt(Z)
                return _Seen(steps, diagonal, peak, Q)
            # Signs of R do not matter here, and setting them costs as much as factoring a small matrix.
            Q, R = torch.linalg.qr(Z)
        else:
            Q, R = orthonormalize(Z, self.orthonormalizer)
        low, high = R.flatten(-2).aminmax(dim=-1)
        return _Seen(steps, R.diagonal(dim1=-2, dim2=-1).abs(), torch.maximum(high, -low), Q)

    def check(self, seen: list[_Seen], offset: int) -> tuple[list[QRBlock], bool]:
        """Return blocks run without looking if all of them hold, and whether to go on without care.

        Only the last of them has its basis.
        """
        log_growth = torch.stack([block.diagonal for block in seen]).log()
        worst = (torch.stack([block.peak for block in seen]).log() - log_growth.amin(-1)).amax(-1)
        # One transfer from the device for all.
        growth, *strains = torch.cat([log_growth.abs().amax()[None], worst]).tolist()
        longest = max(len(block.steps) for block in seen)
        finite = math.isfinite(growth)
        if not (finite and max(strains) < self.graded) and not (finite and self.fixed and longest > 1):
            return [], False
        if not self.accepts(longest, max(strains), growth):
            return [], False
        bases = [None] * (len(seen) - 1) + [seen[-1].Q]
        spans = [(offset + block.steps.start, offset + block.steps.stop) for block in seen]
        rows = zip(spans, bases, log_growth, strains, strict=True)
        return [QRBlock(*span, Q, None, rates, spread) for span, Q, rates, spread in rows], True


@dataclass(frozen=True)
class _Seen:
    """A block that has run but has not been checked: its steps, |diag R| and the largest entry of R, its basis."""

    steps: range
    diagonal: Tensor
    peak: Tensor
    Q: Tensor | None


def qr_iteration(
    cell: RecurrentCell,
    x: Tensor | int,
    *,
    Q: Tensor,
    s: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    qr_interval: int | str = "auto",
    orthonormalizer: str = "auto",
    state: str = "full",
    breakpoints: Iterable[int] = (),
    factors: bool = True,
) -> Iterator[QRBlock]:
    """Carry state and tangent basis along sequences and yield one block per QR factorisation.

    Parameters
    ----------
    cell : RecurrentCell
    x : Tensor of shape (n_sequences, n_steps, n_inputs), or int
        Inputs, or the number of steps of an autonomous cell.
    Q : Tensor of shape (n_sequences, N, k)
        Orthonormal start of the basis; N is ``tangent_size(cell, state)``.
    s : Tensor of shape (n_sequences, state_size), optional
        Initial state; by default the cell's own.
    lengths : sequence of int, optional
        Steps of each sequence, in descending order, where `x` is padded.
    qr_interval : int or "auto"
        Steps between factorisations. "auto" plans every block from the strain measured so far and
        repeats in halves a block that turns out to have lost more than half of its digits.
    orthonormalizer : {"auto", "householder", "cholesky"}
    state : {"full", "hidden"}
    breakpoints : iterable of int
        Steps at which a block must end.
    factors : bool, default=True
        Whether every block has an orthonormal Q and its R. Without them, for sums of growth, blocks cost
        less: they are checked many at a time, and by a faster orthonormalizer, as products of factors R
        telescope and a basis need not be orthonormal to the last digit.

    Yields
    ------
    QRBlock
        In order of time, covering all steps.

    Raises
    ------
    DivergedError
        If the trajectory or the basis is not finite, naming the sequence and the step.
    """
    n_steps = x if isinstance(x, int) else x.shape[1]
    inputs = None if isinstance(x, int) else x
    s = cell.initial_state(Q.shape[0]) if s is None else s
    lengths = [n_steps] * Q.shape[0] if lengths is None else lengths
    stops = sorted({t for t in (*breakpoints, *lengths) if 0 < t <= n_steps})
    plan = _Plan(qr_interval, orthonormalizer, Q)
    longest_chunk = max(_CHUNK_STEPS, min(_LONGEST_CHUNK, _CHUNK_NUMBERS // (Q.shape[0] * Q.shape[1] ** 2)))
    start, chunk_steps = 0, _FIRST_CHUNK
    for stop in stops:
        while start < stop:
            n = sum(length > start for length in lengths)
            Q, s = Q[:n], s[:n]
            # A whole number of blocks, so that the end of a chunk does not cut one short.
            end = min(stop, start + plan.length * max(1, chunk_steps // plan.length))
            chunk = None if inputs is None else inputs[:n, start:end]
            states = cell.trajectory(s, end - start if chunk is None else chunk)
            _check_finite(states, "state", start)
            along = _Folded(_linearize(cell, states[:-1], chunk, state), Q)
            blocks = _careful_blocks if factors else _blocks
            for block in blocks(along, Q, range(end - start), start, plan):
                yield block
                Q = Q if block.Q is None else block.Q
            s, start, chunk_steps = states[-1], end, min(2 * chunk_steps, longest_chunk)


def _linearize(cell: RecurrentCell, states: Tensor, x: Tensor | None, state: str) -> Linearization:
    method = cell.linearize if state == "full" else cell.hidden_linearization
    return method(states, None if x is None else x.transpose(0, 1))


class _Folded:
    """A linearization folded a few steps at a time, so that memory does not grow with the chunk."""

    def __init__(self, linearization: Linearization, Q: Tensor) -> None:
        n, N, self._k = Q.shape
        self._small = N <= _SMALL and 2 * self._k >= N
        self._linearization = linearization
        self._width = max(1, _CHUNK_BYTES // (n * N * N * Q.element_size()))
        self._first = self._last = 0
        self._part = linearization

    def __getitem__(self, t: int) -> Linearization:
        self._fold(t)
        return self._part[t - self._first]

    def push(self, Q: Tensor, steps: range) -> Tensor:
        """Carry the basis over `steps`."""
        self._fold(steps.start)
        if self._small and steps.stop <= self._last and isinstance(self._part, DenseLinearization):
            return _product(self._part.jacobian[steps.start - self._first : steps.stop - self._first]) @ Q
        for t in steps:
            Q = self[t].push(Q)
        return Q

    def _fold(self, t: int) -> None:
        if not self._first <= t < self._last:
            self._first, self._last = t, t + self._width
            self._part = self._linearization[t : t + self._width].fold(self._k, inputs=False)


def _product(J: Tensor) -> Tensor:
    """Return ``J_m … J_1`` (n, N, N) for J (m, n, N, N), pair by pair."""
    while len(J) > 1:
        pairs = J[1::2] @ J[: len(J) // 2 * 2 : 2]
        J = torch.cat([pairs, J[-1:]]) if len(J) % 2 else pairs
    return J[0]


def _blocks(along: _Folded, Q: Tensor, steps: range, offset: int, plan: _Plan) -> Iterator[QRBlock]:
    """Yield the blocks of one chunk, as cheap as they come: carefully only where checks say so."""
    while steps and not plan.wary:
        blocks, calm = _swift_blocks(along, Q, steps, offset, plan)
        yield from blocks
        if blocks:
            assert blocks[-1].Q is not None
            Q, steps = blocks[-1].Q, range(blocks[-1].stop - offset, steps.stop)
        if not calm:
            break
    yield from _careful_blocks(along, Q, steps, offset, plan)


def _swift_blocks(along: _Folded, Q: Tensor, steps: range, offset: int, plan: _Plan) -> tuple[list[QRBlock], bool]:
    """Run blocks without looking and check many at once; return those that hold and whether to go on like this.

    Large matrices are checked block by block: a look costs nothing beside them, a repetition much.
    """
    eager = Q.numel() >= _LARGE and not Q.is_cuda
    done: list[QRBlock] = []
    unchecked: list[_Seen] = []
    t = steps.start
    while t < steps.stop:
        block = range(t, min(t + plan.length, steps.stop))
        t = block.stop
        seen = plan.factor(along.push(Q, block), block)
        unchecked.append(seen)
        assert seen.Q is not None
        Q = seen.Q
        if len(unchecked) > 1:
            unchecked[-2] = replace(unchecked[-2], Q=None)  # a GPU's memory would not hold them all
        if eager or t == steps.stop:
            held, calm = plan.check(unchecked, offset)
            done += held
            if not held:
                return done, calm
            unchecked = []
    return done, True


def _careful_blocks(along: _Folded, Q: Tensor, steps: range, offset: int, plan: _Plan) -> Iterator[QRBlock]:
    """Yield the blocks of one chunk one by one, with their factors; step t is ``offset + t`` of the sequence."""
    t = steps.start
    while t < steps.stop:
        length = min(plan.length, steps.stop - t)
        Z = along.push(Q, range(t, t + length))
        Q_next, R = orthonormalize(Z, plan.orthonormalizer)
        log_growth, spread = R.diagonal(dim1=-2, dim2=-1).log(), strain(R)
        if length == 1 and bool((spread > plan.graded).any()):
            Q_next, R = orthonormalize_graded(Z)
            log_growth = R.diagonal(dim1=-2, dim2=-1).log()
            if bool((spread > plan.suspicious).any()):
                plan.beware()
                annihilated, spread = _resolution(along[t], Q, Z)
                log_growth = log_growth.masked_fill(annihilated, -math.inf)
        worst = float(spread.max())
        growth = float(log_growth.masked_fill(log_growth == -math.inf, 0.0).abs().max())
        if not (math.isfinite(worst) and math.isfinite(growth)) and not bool(torch.isfinite(R).all()):
            if plan.fixed or length == 1:
                hint = f" after {length} steps without factorisation; lower qr_interval" if length > 1 else ""
                _check_finite(R.unsqueeze(0), "tangent basis", offset + t, hint)
            worst = math.inf  # overflow within the block: a shorter one may do
        if not plan.accepts(length, worst, growth):
            continue
        yield QRBlock(offset + t, offset + t + length, Q_next, R, log_growth, worst)
        Q, t = Q_next, t + length


def _resolution(step: Linearization, Q: Tensor, Z: Tensor) -> tuple[Tensor, Tensor]:
    """Return which directions of ``Z = J Q`` are annihilated to rounding, and the strain of the others, (n, k) each.

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
    R = orthonormalize(Z / scale, "householder")[1]
    rounding = torch.finfo(Q.dtype).eps * torch.linalg.vector_norm((J / scale) @ Q.abs(), dim=-2)
    annihilated = R.diagonal(dim1=-2, dim2=-1) <= 4 * rounding
    return annihilated, strain(R).masked_fill(annihilated, 0.0)


def _check_finite(values: Tensor, what: str, offset: int, hint: str = "") -> None:
    """Raise if values (n_steps, n_sequences, ...) are not finite, naming where."""
    if bool(torch.isfinite(values).all()):
        return
    finite = torch.isfinite(values).flatten(2).all(-1)
    step, sequence = (int(i) for i in (~finite).nonzero()[0])
    raise DivergedError(f"The {what} of sequence {sequence} is not finite at step {offset + step}{hint}.")
