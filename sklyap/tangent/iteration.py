"""The QR iteration: a state and its tangent basis carried along sequences, block by block.

Everything that reads a network's dynamics (the spectrum, covariant vectors, gradients) consumes the
blocks of :func:`qr_iteration`.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from sklyap.cells import Linearization, RecurrentCell
from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import METHODS, factor_for_growth, orthonormalize, orthonormalize_graded, strain
from sklyap.tangent.blocks import Plan, QRBlock, Seen, strain_budget
from sklyap.tangent.jacobians import FoldedJacobians
from sklyap.tangent.resolution import resolution, resolved
from sklyap.validation import check_choice, check_int

__all__ = ["QRBlock", "check_settings", "qr_iteration", "strain_budget", "tangent_size"]

_FIRST_CHUNK = 8
_CHUNK_STEPS = 64
_LONGEST_CHUNK = 1024
_CHUNK_NUMBERS = 2**16
"""Chunks of small systems are longer, up to so many entries of Jacobians: what they cost is calls, not work."""
_LARGE = 2**15
"""From how many numbers in a basis on every block is checked at once."""


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
            along = FoldedJacobians(_linearize(cell, states[:-1], chunk, state), end - start, Q)
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


def _blocks(
    along: FoldedJacobians, Q: Tensor, steps: range, offset: int, plan: Plan, edges: list[int]
) -> Iterator[QRBlock]:
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
    along: FoldedJacobians, Q: Tensor, steps: range, offset: int, plan: Plan, edges: list[int]
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
        exact = bisect(edges, offset + block.start) < bisect(edges, offset + t)
        Q, diagonal, peak = factor_for_growth(Z, plan.orthonormalizer, exact=exact)
        unchecked.append(Seen(block, diagonal, peak))
        if eager or t == steps.stop:
            look = partial(resolved, along, block.start, before, Z, diagonal) if eager else lambda: False
            held, calm = plan.check(unchecked, Q, offset, look)
            done += held
            if not held:
                return done, calm
            unchecked = []
    return done, True


def _careful_blocks(
    along: FoldedJacobians, Q: Tensor, steps: range, offset: int, plan: Plan, doubt: bool = False
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
                annihilated, spread = resolution(along[t], Q, Z, R)
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


def _check_finite(values: Tensor, what: str, offset: int, hint: str = "") -> None:
    """Raise if values (n_steps, n_sequences, ...) are not finite, naming where."""
    if bool(torch.isfinite(values).all()):
        return
    finite = torch.isfinite(values).flatten(2).all(-1)
    step, sequence = (int(i) for i in (~finite).nonzero()[0])
    raise DivergedError(f"The {what} of sequence {sequence} is not finite at step {offset + step}{hint}.")
