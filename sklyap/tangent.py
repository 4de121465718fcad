"""The QR iteration: a state and its tangent basis carried along sequences, block by block.

Everything that reads a network's dynamics (the spectrum, covariant vectors, gradients) consumes the
blocks of :func:`qr_iteration`.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from sklyap.blocks import Plan, QRBlock, Seen, strain_budget
from sklyap.cells import Linearization, RecurrentCell
from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import METHODS, orthonormalize, orthonormalize_graded, strain
from sklyap.validation import check_choice, check_int

__all__ = ["QRBlock", "check_settings", "flushed_denormals", "qr_iteration", "strain_budget", "tangent_size"]

_FIRST_CHUNK = 8
_CHUNK_STEPS = 64
_LONGEST_CHUNK = 1024
_CHUNK_NUMBERS = 2**16
"""Chunks of small systems are longer, up to so many entries of Jacobians: what they cost is calls, not work."""
_CHUNK_BYTES, _CHUNK_BYTES_GPU = 2**24, 2**29
"""Of Jacobians that are folded at a time: what a CPU's cache holds, and what makes a GPU's calls worth their start."""
_SMALL = 2**14
"""Up to how many entries of Jacobians at a step these are multiplied with one another, for many blocks in a call."""
_LARGE = 2**15
"""From how many numbers in a basis on every block is checked at once."""
_ONE_SIZE = 100.0
"""Rows that differ by less are not graded: sorting them would save no more than two digits."""
_ANNIHILATED = 4.0
"""Up to how many units of rounding growth is none at all, see `_resolution`."""


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
    exact: Iterable[int] = (),
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
    exact : iterable of int
        Without factors: steps from one of which to the next sums of growth must be exact, beside breakpoints and
        ends of sequences; a block that reaches beyond one counts before it.
    factors : bool, default=True
        Whether every block has an orthonormal Q and its R. Without them, for sums of growth, blocks cost
        less: they are checked many at a time, and by a faster orthonormalizer, as products of factors R
        telescope and a basis need not be orthonormal to the last digit. With "auto" intervals, a run in float32
        goes on in float64 where single steps take more digits than float32 has.

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
    plan = Plan(qr_interval, orthonormalizer, Q, may_widen=not factors)
    edges = sorted({*exact, *stops})
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
            along = _Folded(_linearize(cell, states[:-1], chunk, state), end - start, Q)
            steps = range(end - start)
            run = (
                _careful_blocks(along, Q, steps, start, plan)
                if factors
                else _blocks(along, Q, steps, start, plan, edges)
            )
            done = start
            for block in run:
                yield block
                Q, done = Q if block.Q is None else block.Q, block.stop
            if plan.outgrown:
                s, start = states[done - start], done
                wide = _widened(cell, s, None if inputs is None else inputs[:n, start])
                plan = Plan(qr_interval, orthonormalizer, Q if wide is None else Q.double())
                if wide is not None:
                    cell, Q, s, inputs = wide, Q.double(), s.double(), None if inputs is None else inputs.double()
                continue
            s, start, chunk_steps = states[-1], end, min(2 * chunk_steps, longest_chunk)


def _widened(cell: RecurrentCell, s: Tensor, x: Tensor | None) -> RecurrentCell | None:
    """Return the cell in float64, None where it has numbers of its own that stay in float32."""
    try:
        wide = copy.deepcopy(cell).double()
        return wide if wide.step(s.double(), None if x is None else x.double()).dtype == torch.float64 else None
    except Exception:  # of a step function that somebody has written for float32
        return None


def _linearize(cell: RecurrentCell, states: Tensor, x: Tensor | None, state: str) -> Linearization:
    method = cell.linearize if state == "full" else cell.hidden_linearization
    return method(states, None if x is None else x.transpose(0, 1))


class _Folded:
    """A linearization folded a few steps at a time, so that memory does not grow with the chunk."""

    def __init__(self, linearization: Linearization, n_steps: int, Q: Tensor) -> None:
        n, N, self._k = Q.shape
        self._n_steps = n_steps
        self._small = n * N * N <= _SMALL and 2 * self._k >= N
        self._linearization = linearization
        self._width = max(1, (_CHUNK_BYTES_GPU if Q.is_cuda else _CHUNK_BYTES) // (n * N * N * Q.element_size()))
        self._first = self._last = 0
        self._part = linearization
        self._products: dict[range, Tensor] = {}

    def __getitem__(self, t: int) -> Linearization:
        self._fold(t)
        return self._part[t - self._first]

    def push(self, Q: Tensor, steps: range) -> Tensor:
        """Carry the basis over `steps`."""
        self._fold(steps.start)
        if self._small and len(steps) > 1 and steps.stop <= self._last:
            if steps not in self._products:
                self._multiply(steps)
            return self._products[steps] @ Q
        for t in steps:
            Q = self[t].push(Q)
        return Q

    def _multiply(self, steps: range) -> None:
        """Multiply the Jacobians of `steps`, and of all blocks of their length that follow in this part."""
        length, J = len(steps), self._part.dense()[steps.start - self._first :]
        blocks = J[: len(J) // length * length].unflatten(0, (-1, length))
        products = blocks[:, 0]
        for i in range(1, length):
            products = blocks[:, i] @ products
        starts = range(steps.start, self._last, length)
        self._products = {range(t, t + length): P for t, P in zip(starts, products.unbind(0), strict=False)}

    def _fold(self, t: int) -> None:
        if not self._first <= t < self._last:
            self._first, self._last = t, min(t + self._width, self._n_steps)
            self._part = self._linearization[t : self._last].fold(self._k, inputs=False)
            self._products = {}


def _blocks(along: _Folded, Q: Tensor, steps: range, offset: int, plan: Plan, edges: list[int]) -> Iterator[QRBlock]:
    """Yield the blocks of one chunk, as cheap as they come: carefully only where checks say so."""
    while steps and not plan.outgrown:
        eager = _eager(Q)
        blocks: list[QRBlock] = []
        calm = False
        if eager or not plan.wary:
            blocks, calm = _swift_blocks(along, Q, steps, offset, plan, edges)
        if blocks:
            yield from blocks
            assert blocks[-1].Q is not None
            Q, steps = blocks[-1].Q, range(blocks[-1].stop - offset, steps.stop)
        if calm or plan.outgrown:
            continue
        # Where each block is checked at once, only this one needs care; else the rest, not to run it in vain again.
        care = _careful_blocks(along, Q, steps, offset, plan, doubt=eager and plan.length == 1)
        for block in islice(care, 1) if eager else care:
            yield block
            assert block.Q is not None
            Q, steps = block.Q, range(block.stop - offset, steps.stop)


def _eager(Q: Tensor) -> bool:
    """Tell whether blocks are checked one by one: a look costs nothing beside large matrices, a repetition much."""
    return Q.numel() >= _LARGE and not Q.is_cuda


def _swift_blocks(
    along: _Folded, Q: Tensor, steps: range, offset: int, plan: Plan, edges: list[int]
) -> tuple[list[QRBlock], bool]:
    """Run blocks without looking and check many at once; return those that hold and whether to go on like this."""
    eager = _eager(Q)
    done: list[QRBlock] = []
    unchecked: list[Seen] = []
    t = steps.start
    while t < steps.stop:
        block = range(t, min(t + plan.length, steps.stop))
        t = block.stop
        Z, before = along.push(Q, block), Q
        # Whether a step of `edges` lies in the block or at its end.
        Q, seen = plan.factor(Z, block, bisect(edges, offset + block.start) < bisect(edges, offset + t))
        unchecked.append(seen)
        if eager or t == steps.stop:
            look = partial(_resolved, along, block.start, before, Z, seen.diagonal) if eager else lambda: False
            held, calm = plan.check(unchecked, Q, offset, look)
            done += held
            if not held:
                return done, calm
            unchecked = []
    return done, True


def _careful_blocks(
    along: _Folded, Q: Tensor, steps: range, offset: int, plan: Plan, doubt: bool = False
) -> Iterator[QRBlock]:
    """Yield the blocks of one chunk one by one, with their factors; step t is ``offset + t`` of the sequence.

    With `doubt`, single steps are taken for ones with a large strain from the start.
    """
    t = steps.start
    while t < steps.stop and not plan.outgrown:
        length = min(plan.length, steps.stop - t)
        Z = along.push(Q, range(t, t + length))
        doubt = doubt and length == 1
        Q_next, R = orthonormalize_graded(Z) if doubt else orthonormalize(Z, plan.orthonormalizer)
        log_growth, spread = R.diagonal(dim1=-2, dim2=-1).log(), strain(R)
        if length == 1 and bool((spread > plan.graded).any()):
            if not doubt:
                graded = (spread > plan.graded).any(-1)
                Q_next[graded], R[graded] = orthonormalize_graded(Z[graded])
                log_growth = R.diagonal(dim1=-2, dim2=-1).log()
            if bool((spread > plan.suspicious).any()):
                annihilated, spread = _resolution(along[t], Q, Z, R)
                if bool(annihilated.any()):
                    plan.beware()
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


def _resolved(along: _Folded, t: int, Q: Tensor, Z: Tensor, diagonal: Tensor) -> bool:
    """Tell whether ``Z = J Q``, with a large strain, is worth no further care: no graded rows, nothing annihilated.

    Cheaper than `_resolution`: where rows are of one size it needs no second factorisation, and it looks only at
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


def _resolution(step: Linearization, Q: Tensor, Z: Tensor, R: Tensor) -> tuple[Tensor, Tensor]:
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


def _check_finite(values: Tensor, what: str, offset: int, hint: str = "") -> None:
    """Raise if values (n_steps, n_sequences, ...) are not finite, naming where."""
    if bool(torch.isfinite(values).all()):
        return
    finite = torch.isfinite(values).flatten(2).all(-1)
    step, sequence = (int(i) for i in (~finite).nonzero()[0])
    raise DivergedError(f"The {what} of sequence {sequence} is not finite at step {offset + step}{hint}.")
