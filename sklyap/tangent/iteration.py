"""The QR iteration: a state and its tangent basis carried along sequences, chunk by chunk.

Everything that reads a network's dynamics consumes the blocks of one of two generators: :func:`qr_iteration` gives Q
and R of every block (covariant vectors, gradients), :func:`growth_iteration` gives growth alone (the spectrum).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from sklyap.cells import Linearization, RecurrentCell
from sklyap.cells.scalar import scalar_trajectory
from sklyap.orthonormalize import METHODS, factor_for_growth, log_range
from sklyap.tangent.blocks import Factoring, GrowthBlock, OutOfDigits, QRBlock, check_finite, growth_blocks, qr_blocks
from sklyap.tangent.interval import PLANNED_SHARE, IntervalController
from sklyap.tangent.jacobians import FoldedJacobians
from sklyap.validation import check_choice, check_int

__all__ = ["check_settings", "growth_iteration", "qr_iteration", "spread_budget", "tangent_size"]

_FIRST_CHUNK, _CHUNK_GROWTH = 8, 4
"""Steps of the first chunk, which often shows that blocks have to be planned anew, and how much longer than the last
each later one is."""
_CHUNK_STEPS = 64
"""Maximum steps of a chunk of a large system, which bounds memory."""
_LONGEST_CHUNK = 2**13
"""Maximum steps of any chunk."""
_CHUNK_ENTRIES = 2**16
"""Minimum entries of a chunk's Jacobians for its calls to cost little beside its work: small systems have longer chunks
than `_CHUNK_STEPS`."""
_UNRESOLVED_SPREAD = 9.0
"""Maximum log spread of a single step in float32 on a GPU; above it less than three digits of the smallest growth are
left."""
_WORTH_WRITING = 256
"""Minimum steps of a small autonomous system for its step to be written out on Python's numbers."""
Block = TypeVar("Block", QRBlock, GrowthBlock)


def tangent_size(cell: RecurrentCell, state: str) -> int:
    """Return the dimension of the tangent space that ``state="full"`` or ``state="hidden"`` looks at.

    Examples
    --------
    >>> from sklyap.cells import LSTMCell
    >>> from sklyap.tangent import tangent_size
    >>> tangent_size(LSTMCell(3, 8), "full"), tangent_size(LSTMCell(3, 8), "hidden")
    (16, 8)
    """
    return cell.state_size if state == "full" else cell.hidden_state_size


def check_settings(
    cell: RecurrentCell, n_exponents: int | None, qr_interval: int | str, orthonormalizer: str, state: str
) -> tuple[int, int]:
    """Return the number of exponents and the dimension of the tangent space, or raise.

    Examples
    --------
    >>> from sklyap.cells import LSTMCell
    >>> from sklyap.tangent import check_settings
    >>> check_settings(LSTMCell(3, 8), None, "auto", "auto", "full")
    (16, 16)
    """
    check_choice(state, "state", ["full", "hidden"])
    check_choice(orthonormalizer, "orthonormalizer", METHODS)
    if qr_interval != "auto":
        check_int(qr_interval, "qr_interval", low=1)
    N = tangent_size(cell, state)
    return (N if n_exponents is None else check_int(n_exponents, "n_exponents", low=1, high=N)), N


def spread_budget(dtype: torch.dtype) -> float:
    """Return the log spread up to which half the digits remain: ``½ ln(1/ε)``, 18 in float64 and 8 in float32.

    Examples
    --------
    >>> import torch
    >>> from sklyap.tangent import spread_budget
    >>> round(spread_budget(torch.float64), 2)
    18.02
    """
    return -0.5 * math.log(torch.finfo(dtype).eps)


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
) -> Iterator[QRBlock]:
    """Carry state and tangent basis along sequences and yield one block per QR factorisation.

    Parameters
    ----------
    cell : RecurrentCell
        The system.
    x : Tensor of shape (n_sequences, n_steps, n_inputs), or int
        Inputs, or the number of steps of an autonomous cell.
    Q : Tensor of shape (n_sequences, N, k)
        Orthonormal start of the basis; N is ``tangent_size(cell, state)``.
    s : Tensor of shape (n_sequences, state_size), optional
        Initial state; by default the cell's own.
    lengths : sequence of int, optional
        Steps of each sequence, in descending order, where `x` is padded.
    qr_interval : int or "auto"
        Steps between factorisations. "auto" plans every block from the log spread of those before it, and repeats in
        halves a block that turns out to have lost more than half of its digits.
    orthonormalizer : {"auto", "householder", "cholesky"}
        How bases are made orthonormal; see :func:`~sklyap.orthonormalize.orthonormalize`.
    state : {"full", "hidden"}
        The whole state, or with "hidden" the first block alone.
    breakpoints : iterable of int
        Steps at which a block must end.

    Yields
    ------
    QRBlock
        In order of time, covering all steps.

    Raises
    ------
    DivergedError
        If the trajectory or the basis is not finite, naming the sequence and the step.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.orthonormalize import random_bases
    >>> from sklyap.tangent import qr_iteration
    >>> cell, x = GRUCell(2, 4).double().requires_grad_(False), torch.randn(3, 10, 2, dtype=torch.float64)
    >>> blocks = list(qr_iteration(cell, x, Q=random_bases(4, 2, 0, range(3)), qr_interval=1))
    >>> len(blocks), tuple(blocks[0].R.shape)
    (10, (3, 2, 2))
    """
    course = _Course.of(cell, x, lengths, Q, state)
    controller = _controller(qr_interval, Q.dtype)
    factoring = Factoring.of(orthonormalizer, Q)

    def blocks(along: FoldedJacobians, Q: Tensor) -> Iterator[QRBlock]:
        return qr_blocks(along, Q, along.steps, factoring, controller)

    position = course.start(s, Q)
    yield from _carried(course.on_numbers(position.s), position, breakpoints, controller, blocks)


def growth_iteration(
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
) -> Iterator[GrowthBlock]:
    """Carry state and tangent basis along sequences and yield growth alone, which costs less than factors.

    Small blocks are checked many at a time. Large ones are factored by elimination: the products of the factors
    telescope, so that a basis need not be orthonormal between two steps at which growth must be exact. With "auto"
    intervals, the first step of a run in float32 is run in float64. The run goes on in float64 if that step takes more
    digits than float32 has, and otherwise from the first later step that does.

    Parameters
    ----------
    cell, x, Q, s, lengths, qr_interval, orthonormalizer, state, breakpoints
        As for :func:`qr_iteration`.
    exact : iterable of int
        Steps, beside breakpoints and ends of sequences, at which accumulated growth must be exact. A block that
        crosses one counts before it.

    Yields
    ------
    GrowthBlock
        In order of time, covering all steps.

    Raises
    ------
    DivergedError
        As :func:`qr_iteration`.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.orthonormalize import random_bases
    >>> from sklyap.tangent import growth_iteration
    >>> cell, x = GRUCell(2, 4).double().requires_grad_(False), torch.randn(3, 10, 2, dtype=torch.float64)
    >>> blocks = list(growth_iteration(cell, x, Q=random_bases(4, 2, 0, range(3))))
    >>> blocks[-1].stop
    10
    """
    course = _Course.of(cell, x, lengths, Q, state)
    edges = sorted({*exact, *course.stops(breakpoints)})
    limit = _single_step_limit(Q) if qr_interval == "auto" else math.inf

    def carried(
        course: _Course, start: _Position, limit: float = math.inf, until: int | None = None
    ) -> Generator[GrowthBlock, None, _Position]:
        controller = _controller(qr_interval, start.Q.dtype, limit)
        factoring = Factoring.of(orthonormalizer, start.Q)
        blocks = partial(growth_blocks, factoring=factoring, controller=controller, exact=edges)
        return _carried(course, start, breakpoints, controller, blocks, until)

    position = course.start(s, Q)
    course = course.on_numbers(position.s)
    wide = course.in_float64(position) if limit < math.inf else None
    if wide is not None:
        block = next(carried(*wide, until=1))
        if block.log_spread <= limit:
            block = _in_float32(block, orthonormalizer)
        yield block
        position = _Position(1, *_known(block.s, block.Q))
        if block.log_spread > limit:
            yield from carried(wide[0], position)
            return
    reached = yield from carried(course, position, limit)
    if reached.step < course.n_steps:
        # A cell whose step computes in float32 alone goes on as it is.
        yield from carried(*(course.in_float64(reached) or (course, reached)))


def _in_float32(block: GrowthBlock, orthonormalizer: str) -> GrowthBlock:
    """Return a block of float64 with state and orthonormal basis in float32."""
    s, Q = _known(block.s, block.Q)
    basis, diagonal, _ = factor_for_growth(Q, orthonormalizer, exact=True)
    return replace(block, log_growth=block.log_growth + diagonal.log(), Q=basis.float(), s=s.float())


def _known(s: Tensor | None, Q: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the state and basis of a block that ends a chunk, which has both."""
    assert s is not None and Q is not None
    return s, Q


def _controller(qr_interval: int | str, dtype: torch.dtype, single_step_limit: float = math.inf) -> IntervalController:
    return IntervalController(
        None if qr_interval == "auto" else int(qr_interval),
        spread_budget=spread_budget(dtype),
        growth_budget=log_range(dtype),
        single_step_limit=single_step_limit,
    )


def _single_step_limit(Q: Tensor) -> float:
    """Return the log spread of a single step above which a run goes over to float64.

    On a CPU, where the budget of float32 allows single steps only: float64 then has longer blocks and elimination, and
    was as fast or faster (Elman and LSTM layers of 64 to 768 units, two cores), with twice the digits.
    """
    if Q.dtype != torch.float32:
        return math.inf
    return _UNRESOLVED_SPREAD if Q.is_cuda else PLANNED_SHARE * spread_budget(Q.dtype) / 2


@dataclass(frozen=True)
class _Position:
    """Where an iteration is."""

    step: int
    s: Tensor  # (n_active, state_size)
    Q: Tensor  # (n_active, N, k)
    chunk_steps: int = _FIRST_CHUNK  # about how many steps the next chunk has

    def active(self, n: int) -> _Position:
        return replace(self, s=self.s[:n], Q=self.Q[:n])


@dataclass(frozen=True)
class _Course:
    """What an iteration runs along: a cell, what drives it, and how long each sequence is."""

    cell: RecurrentCell
    inputs: Tensor | None
    lengths: Sequence[int]
    n_steps: int
    state: str
    advance: Callable[[Tensor, Any], Tensor]

    @classmethod
    def of(cls, cell: RecurrentCell, x: Tensor | int, lengths: Sequence[int] | None, Q: Tensor, state: str) -> _Course:
        inputs, n_steps = (None, x) if isinstance(x, int) else (x, x.shape[1])
        lengths = [n_steps] * Q.shape[0] if lengths is None else lengths
        return cls(cell, inputs, lengths, n_steps, state, cell.trajectory)

    def on_numbers(self, s: Tensor) -> _Course:
        """Return the course with the trajectory on Python's numbers, where that is faster."""
        fast = None
        if self.inputs is None and self.n_steps >= _WORTH_WRITING and not torch.is_grad_enabled():
            fast = scalar_trajectory(self.cell, s)
        return self if fast is None else replace(self, advance=fast)

    def start(self, s: Tensor | None, Q: Tensor) -> _Position:
        return _Position(0, self.cell.initial_state(Q.shape[0]) if s is None else s, Q)

    def stops(self, breakpoints: Iterable[int]) -> list[int]:
        """Return the steps at which a chunk must end."""
        return sorted({t for t in (*breakpoints, *self.lengths) if 0 < t <= self.n_steps})

    def n_active(self, step: int) -> int:
        return sum(length > step for length in self.lengths)

    def chunk(self, position: _Position, end: int) -> tuple[Tensor, FoldedJacobians]:
        """Return the states from `position` to step `end`, and the Jacobians along them."""
        start, s, Q = position.step, position.s, position.Q
        x = None if self.inputs is None else self.inputs[: len(s), start:end]
        states = self.advance(s, end - start if x is None else x)
        check_finite(states, "state", start)
        return states, FoldedJacobians(self._linearize(states[:-1], x), range(start, end), Q)

    def _linearize(self, states: Tensor, x: Tensor | None) -> Linearization:
        method = self.cell.linearize if self.state == "full" else self.cell.hidden_linearization
        return method(states, None if x is None else x.transpose(0, 1))

    def in_float64(self, position: _Position) -> tuple[_Course, _Position] | None:
        """Return what goes on in float64 from `position`, None for a cell whose step computes in float32 alone."""
        s = position.s.double()
        inputs = None if self.inputs is None else self.inputs.double()
        try:
            wide = copy.deepcopy(self.cell).double()
            x = None if inputs is None else inputs[: len(s), position.step]
            computes = wide.step(s, x).dtype == torch.float64
        except Exception:  # whatever a step function raises that somebody has written for float32
            computes = False
        if not computes:
            return None
        return replace(self, cell=wide, inputs=inputs, advance=wide.trajectory), replace(
            position, s=s, Q=position.Q.double()
        )


def _carried(
    course: _Course,
    position: _Position,
    breakpoints: Iterable[int],
    controller: IntervalController,
    blocks: Callable[[FoldedJacobians, Tensor], Iterator[Block]],
    until: int | None = None,
) -> Generator[Block, None, _Position]:
    """Yield the blocks of one chunk after the other, up to step `until`; return where they end."""
    n, N = len(course.lengths), position.Q.shape[1]
    longest = max(_CHUNK_STEPS, min(_LONGEST_CHUNK, _CHUNK_ENTRIES // (n * N**2)))
    last = course.n_steps if until is None else until
    for stop in course.stops([*breakpoints, last]):
        while position.step < min(stop, last):
            position = position.active(course.n_active(position.step))
            # A whole number of blocks, so that the end of a chunk does not cut one short.
            n_steps = controller.length * max(1, position.chunk_steps // controller.length)
            states, along = course.chunk(position, min(position.step + n_steps, stop))
            start, done, Q = along.steps.start, along.steps.start, position.Q
            try:
                for block in blocks(along, Q):
                    yield replace(block, s=states[-1]) if block.stop == along.steps.stop else block
                    done, Q = block.stop, Q if block.Q is None else block.Q
            except OutOfDigits:
                return replace(position, step=done, s=states[done - start], Q=Q)
            position = _Position(done, states[-1], Q, min(_CHUNK_GROWTH * position.chunk_steps, longest))
    return position
