"""Blocks of steps between two factorisations: run fast or run with care, accepted or repeated.

A block is run in one of two ways:

- `qr_blocks` factors each block exactly, looks for graded rows and annihilated directions, and keeps Q and R;
- `growth_blocks` keeps growth only. It factors by the fastest kernel, checks many small blocks in one look, and leaves
  to `qr_blocks` those that do not hold.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import factor_for_growth, log_spread, orthonormalize, orthonormalize_graded
from sklyap.tangent.interval import BlockVerdict, IntervalController
from sklyap.tangent.jacobians import FoldedJacobians
from sklyap.tangent.resolution import all_resolved, resolution
from sklyap.tangent.small import is_small, small_growth

__all__ = [
    "Factoring",
    "Factors",
    "GrowthBlock",
    "OutOfDigits",
    "QRBlock",
    "check_finite",
    "growth_blocks",
    "qr_blocks",
]

_GRADED_SPREAD = 20.0
"""Minimum log spread of a single step for the second factorisation, which keeps the digits of graded rows, to pay."""
_CHECK_EACH_ENTRIES = 2**15
"""Minimum entries of the basis (all sequences) for checking each block as soon as it is factored: reading a number is
then cheap beside the block, and repeating a block is not. Smaller ones are checked a chunk at a time."""
_FEWEST_SMALL_BLOCKS = 2
"""Minimum blocks of a small system to run on Python's numbers."""


@dataclass(frozen=True)
class QRBlock:
    """Some steps between two orthonormalisations: ``J_{stop-1} … J_start Q_start = Q R``.

    Attributes
    ----------
    start, stop : int
        Steps covered, ``start <= t < stop``.
    Q : Tensor of shape (n_active, N, k)
        The orthonormal basis after the block. Sequences that have ended drop out at the end of the batch.
    R : Tensor of shape (n_active, k, k)
        Upper triangular.
    log_growth : Tensor of shape (n_active, k)
        ln diag R, in nats over the whole block; -inf where a direction is annihilated.
    log_spread : float
        The largest over sequences and resolved directions, see :func:`sklyap.orthonormalize.log_spread`.
    s : Tensor of shape (n_active, state_size) or None
        The state after the block where a chunk of steps ends, as it does at breakpoints and where a sequence ends.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.orthonormalize import random_bases
    >>> from sklyap.tangent import qr_iteration
    >>> cell, x = GRUCell(2, 4).double().requires_grad_(False), torch.randn(3, 10, 2, dtype=torch.float64)
    >>> block = next(iter(qr_iteration(cell, x, Q=random_bases(4, 2, 0, range(3)), qr_interval=1)))
    >>> block.start, block.stop, tuple(block.Q.shape)
    (0, 1, (3, 4, 2))
    """

    start: int
    stop: int
    Q: Tensor
    R: Tensor
    log_growth: Tensor
    log_spread: float
    s: Tensor | None = None


@dataclass(frozen=True)
class GrowthBlock:
    """Growth over some steps, relative to bases that need not be orthonormal in between.

    Attributes
    ----------
    start, stop : int
        Steps covered, ``start <= t < stop``.
    log_growth : Tensor of shape (n_active, k)
        In nats over the whole block, -inf where a direction is annihilated. Sums of it are exact from one step of
        `exact` (see :func:`sklyap.tangent.growth_iteration`) to the next.
    log_spread : float
        As in `QRBlock`.
    Q : Tensor of shape (n_active, N, k) or None
        The basis after the block where it is needed: to run the next blocks, and where a sequence ends.
    s : Tensor of shape (n_active, state_size) or None
        As in `QRBlock`.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.orthonormalize import random_bases
    >>> from sklyap.tangent import growth_iteration
    >>> cell, x = GRUCell(2, 4).double().requires_grad_(False), torch.randn(3, 10, 2, dtype=torch.float64)
    >>> block = next(iter(growth_iteration(cell, x, Q=random_bases(4, 2, 0, range(3)))))
    >>> tuple(block.log_growth.shape)
    (3, 2)
    """

    start: int
    stop: int
    log_growth: Tensor
    log_spread: float
    Q: Tensor | None = None
    s: Tensor | None = None


@dataclass(frozen=True)
class Factors:
    """The factors of consecutive blocks: ``J … J Q[i] = Q[i + 1] R[i]``.

    Attributes
    ----------
    Q : list of Tensor of shape (n_sequences, N, k)
        L + 1 bases, the first one before the blocks.
    R : list of Tensor of shape (n_sequences, k, k)
        Factors.
    log_growth : list of Tensor of shape (n_sequences, k)
        Logarithms of the diagonal of R.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.orthonormalize import random_bases
    >>> from sklyap.tangent import Factors, qr_iteration
    >>> cell, x = GRUCell(2, 4).double().requires_grad_(False), torch.randn(3, 10, 2, dtype=torch.float64)
    >>> Q = random_bases(4, 2, 0, range(3))
    >>> factors = Factors.of(qr_iteration(cell, x, Q=Q, qr_interval=1), Q)
    >>> len(factors.Q), len(factors.R)
    (11, 10)
    """

    Q: list[Tensor]
    R: list[Tensor]
    log_growth: list[Tensor]

    @classmethod
    def of(cls, blocks: Iterable[QRBlock], Q: Tensor, warmup: int = 0) -> Factors:
        """Collect the factors of `blocks`, which start from Q; those of the first `warmup` steps are left out."""
        factors = cls([Q], [], [])
        for _ in factors.collecting(blocks, warmup):
            pass
        return factors

    def collecting(self, blocks: Iterable[QRBlock], warmup: int = 0) -> Iterator[QRBlock]:
        """Pass blocks on, and keep the factors of those after `warmup`."""
        for block in blocks:
            if block.stop <= warmup:
                self.Q[:] = [block.Q]
            else:
                self.Q.append(block.Q)
                self.R.append(block.R)
                self.log_growth.append(block.log_growth)
            yield block


class OutOfDigits(Exception):
    """A single step takes more digits than the dtype has: what follows has to be run in a wider one."""


@dataclass(frozen=True)
class Factoring:
    """By which kernel blocks are factored, and from which log spread of a single step on more carefully.

    Attributes
    ----------
    orthonormalizer : {"auto", "householder", "cholesky"}
    graded_spread : float
        Log spread above which rows are taken to be graded, so that they are sorted before they are factored.
    unresolved_spread : float
        Log spread above which rounding hides the smallest directions, so that some may be annihilated.
    """

    orthonormalizer: str
    graded_spread: float
    unresolved_spread: float

    @classmethod
    def of(cls, orthonormalizer: str, Q: Tensor) -> Factoring:
        """Return the thresholds for bases like Q (n_sequences, N, k)."""
        unresolved = -math.log(torch.finfo(Q.dtype).eps * Q.shape[-2])
        return cls(orthonormalizer, min(unresolved, _GRADED_SPREAD), unresolved)


def qr_blocks(
    along: FoldedJacobians,
    Q: Tensor,
    steps: range,
    factoring: Factoring,
    controller: IntervalController,
    *,
    assume_graded: bool = False,
) -> Iterator[QRBlock]:
    """Run `steps` of a chunk from the basis Q, block by block, with exact factors.

    Parameters
    ----------
    along : FoldedJacobians
    Q : Tensor of shape (n_sequences, N, k)
    steps : range
    factoring : Factoring
    controller : IntervalController
    assume_graded : bool, default=False
        Whether to factor single steps as graded ones at once, where a look at them has already said so.

    Raises
    ------
    DivergedError
        If a factor is not finite and fewer steps would not help.
    OutOfDigits
    """
    t = steps.start
    while t < steps.stop:
        span = range(t, min(t + controller.length, steps.stop))
        block, growth = _run_exactly(along, Q, span, factoring, controller, assume_graded)
        if _accepts(controller, len(span), block.log_spread, growth):
            yield block
            Q, t = block.Q, block.stop


def growth_blocks(
    along: FoldedJacobians,
    Q: Tensor,
    factoring: Factoring,
    controller: IntervalController,
    exact: Sequence[int],
) -> Iterator[GrowthBlock]:
    """Run a chunk from the basis Q, for growth alone: fast where that holds, else by `qr_blocks`.

    Parameters
    ----------
    along : FoldedJacobians
    Q : Tensor of shape (n_sequences, N, k)
    factoring : Factoring
    controller : IntervalController
    exact : sequence of int
        Steps, ascending, at which accumulated growth must be exact. A block that crosses one ends in an orthonormal
        basis and counts before it.

    Raises
    ------
    DivergedError, OutOfDigits
        As `qr_blocks`.
    """
    steps, each = along.steps, _checks_each(Q)
    while steps:
        if each or not controller.caution_left:
            for fast in _fast_blocks(along, Q, steps, factoring, controller, exact):
                yield fast
                if fast.Q is not None:
                    Q, steps = fast.Q, range(fast.stop, steps.stop)
        if not steps:
            return
        # What is left did not hold. Where each block is checked, only the next one needs care; otherwise the rest of
        # the chunk, which would else run in vain again.
        careful = qr_blocks(along, Q, steps, factoring, controller, assume_graded=each and controller.length == 1)
        for block in islice(careful, 1 if each else None):
            yield GrowthBlock(block.start, block.stop, block.log_growth, block.log_spread, block.Q)
            Q, steps = block.Q, range(block.stop, steps.stop)


def _accepts(controller: IntervalController, length: int, log_spread: float, growth: float) -> bool:
    verdict = controller.judge(length, log_spread, growth)
    if verdict is BlockVerdict.OUT_OF_DIGITS:
        raise OutOfDigits
    return verdict is BlockVerdict.ACCEPTED


# Exact blocks


def _run_exactly(
    along: FoldedJacobians,
    Q: Tensor,
    span: range,
    factoring: Factoring,
    controller: IntervalController,
    assume_graded: bool,
) -> tuple[QRBlock, float]:
    """Run one block and return it with its largest growth or contraction, annihilated directions aside.

    Its log spread is infinite where it overflows and fewer steps may help.
    """
    Z, single = along.push(Q, span), len(span) == 1
    if single and assume_graded:
        Q_next, R = orthonormalize_graded(Z)
    else:
        Q_next, R = orthonormalize(Z, factoring.orthonormalizer)
    spread = log_spread(R)
    annihilated = torch.zeros_like(spread, dtype=torch.bool)
    if single and bool((spread > factoring.graded_spread).any()):
        if not assume_graded:
            graded = (spread > factoring.graded_spread).any(-1)
            Q_next[graded], R[graded] = orthonormalize_graded(Z[graded])
        if bool((spread > factoring.unresolved_spread).any()):
            annihilated, spread = resolution(along[span.start], Q, Z, R)
            if bool(annihilated.any()):
                controller.be_cautious()
    log_growth = R.diagonal(dim1=-2, dim2=-1).log().masked_fill(annihilated, -math.inf)
    worst = float(spread.max())
    growth = float(log_growth.masked_fill(log_growth == -math.inf, 0.0).abs().max())
    if not (math.isfinite(worst) and math.isfinite(growth)) and not bool(torch.isfinite(R).all()):
        if controller.fixed or single:
            hint = f" after {len(span)} steps without factorisation; lower qr_interval" if len(span) > 1 else ""
            check_finite(R.unsqueeze(0), "tangent basis", span.start, hint)
        worst = math.inf
    return QRBlock(span.start, span.stop, Q_next, R, log_growth, worst), growth


def check_finite(values: Tensor, what: str, offset: int, hint: str = "") -> None:
    """Raise DivergedError if values (n_steps, n_sequences, ...) are not finite, naming sequence and step."""
    if bool(torch.isfinite(values).all()):
        return
    finite = torch.isfinite(values).flatten(2).all(-1)
    step, sequence = (int(i) for i in (~finite).nonzero()[0])
    raise DivergedError(f"The {what} of sequence {sequence} is not finite at step {offset + step}{hint}.")


# Fast blocks


@dataclass(frozen=True)
class _Unchecked:
    """Blocks that have run but have not been looked at: their steps, |diag R| and the largest entry of Z or R."""

    steps: list[range]
    diagonal: Tensor  # (n_blocks, n, k)
    peak: Tensor  # (n_blocks, n)


def _checks_each(Q: Tensor) -> bool:
    """Tell whether blocks are checked one by one; on a GPU never, as a look waits for all work before it."""
    return Q.numel() >= _CHECK_EACH_ENTRIES and not Q.is_cuda


def _fast_blocks(
    along: FoldedJacobians,
    Q: Tensor,
    steps: range,
    factoring: Factoring,
    controller: IntervalController,
    exact: Sequence[int],
) -> Iterator[GrowthBlock]:
    """Run blocks by the fastest kernel, up to the end of `steps` or the first check that they do not pass.

    Of the blocks that are checked together, only the last has its basis.
    """
    each, small = _checks_each(Q), is_small(Q)
    unchecked: list[_Unchecked] = []
    t = steps.start
    while t < steps.stop:
        span = range(t, min(t + controller.length, steps.stop))
        several = _small_blocks(along, Q, span, _next_edge(exact, t, steps.stop)) if small else None
        if several is not None:
            Q, blocks = several
            t = blocks.steps[-1].stop
            unchecked.append(blocks)
        else:
            Z, before, t = along.push(Q, span), Q, span.stop
            crosses = bisect(exact, span.start) < bisect(exact, t)
            Q, diagonal, peak = factor_for_growth(Z, factoring.orthonormalizer, exact=crosses)
            unchecked.append(_Unchecked([span], diagonal.unsqueeze(0), peak.unsqueeze(0)))
        if not each and t < steps.stop:
            continue
        spans = [block for blocks in unchecked for block in blocks.steps]
        log_growth, spreads, growth = _measure(unchecked)
        worst, longest = max(spreads), max(map(len, spans))
        if longest > 1:
            safe = worst < factoring.graded_spread or controller.fixed
        else:
            safe = worst < factoring.graded_spread or (
                each and not controller.fixed and all_resolved(along, span.start, before, Z, diagonal)
            )
        if not (safe and math.isfinite(growth) and _accepts(controller, longest, worst, growth)):
            return
        bases = [None] * (len(spans) - 1) + [Q]
        for block, rates, spread, basis in zip(spans, log_growth.unbind(0), spreads, bases, strict=True):
            yield GrowthBlock(block.start, block.stop, rates, spread, basis)
        unchecked = []


def _next_edge(exact: Sequence[int], t: int, stop: int) -> int:
    """Return the first step after `t` at which growth must be exact, or `stop`."""
    i = bisect(exact, t)
    return min(exact[i], stop) if i < len(exact) else stop


def _small_blocks(along: FoldedJacobians, Q: Tensor, first: range, edge: int) -> tuple[Tensor, _Unchecked] | None:
    """Run blocks as long as the first that end before `edge`, of a small system; None if there are no two of them."""
    length = len(first)
    n_blocks = (edge - 1 - first.start) // length
    if n_blocks < _FEWEST_SMALL_BLOCKS:
        return None
    products = along.products(first.start, length, n_blocks)
    found = small_growth(products, Q) if len(products) else None
    if found is None:
        return None
    Q, diagonal, peak = found
    starts = range(first.start, first.start + len(products) * length, length)
    return Q, _Unchecked([range(t, t + length) for t in starts], diagonal, peak)


def _measure(unchecked: list[_Unchecked]) -> tuple[Tensor, list[float], float]:
    """Return growth (n_blocks, n, k), the log spread of each block, and the largest growth or contraction."""
    log_growth = torch.cat([blocks.diagonal for blocks in unchecked]).log()
    spreads = (torch.cat([blocks.peak for blocks in unchecked]).log() - log_growth.amin(-1)).amax(-1)
    # One transfer from the device for all numbers.
    growth, *numbers = torch.cat([log_growth.abs().amax()[None], spreads]).tolist()
    return log_growth, numbers, growth
