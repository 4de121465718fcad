"""A block of steps between two factorisations: what it holds, how it is factored, how long the next may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sklyap.orthonormalize import log_range

__all__ = ["Plan", "QRBlock", "Seen", "strain_budget"]

_LONGEST_INTERVAL = 64
_GRADED = 20.0
"""Strain of a single step from which on it is worth a factorisation that keeps the digits of graded rows."""
_WARY = 32
"""How many steps are taken one by one after one in which directions may have been annihilated."""
_AIM = 0.8
"""Share of the strain budget that the next block is planned for; the rest is room for a worse block."""
_UNRESOLVED = 9.0
"""Strain of a single step that leaves float32 three digits of the smallest growth."""
_SMALL = 384
"""Up to this many dimensions float64, where elimination and longer blocks hold, is the faster on a CPU."""


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
        ln diag R, in nats over the whole block; -inf where a direction is annihilated. Where factors were not asked
        for, the basis may be skew in between and growth relative to it: sums are exact from one step of `exact` to
        the next.
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


def strain_budget(dtype: torch.dtype) -> float:
    """Return the strain up to which half the digits remain: ``½ ln(1/ε)``, 18 in float64 and 8 in float32."""
    return -0.5 * math.log(torch.finfo(dtype).eps)


class Plan:
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
    outgrown : bool
        Whether a single step took more digits than there are: to be repeated in float64.
    """

    def __init__(self, qr_interval: int | str, orthonormalizer: str, Q: Tensor, may_widen: bool = False) -> None:
        self.fixed = qr_interval != "auto"
        self.length = int(qr_interval) if self.fixed else 1
        self.orthonormalizer = orthonormalizer
        self.suspicious = -math.log(torch.finfo(Q.dtype).eps * Q.shape[-2])
        self.graded = min(self.suspicious, _GRADED)
        self.wary = 0
        self.outgrown = False
        self._budget = strain_budget(Q.dtype)
        self._limit = math.inf
        if may_widen and not self.fixed and Q.dtype == torch.float32:
            small = Q.shape[-2] <= _SMALL and not Q.is_cuda
            self._limit = _AIM * self._budget / 2 if small else _UNRESOLVED
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
        if length == 1 and block_strain > self._limit:
            self.outgrown = True
            return False
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

    def check(
        self, seen: list[Seen], Q: Tensor, offset: int, resolved: Callable[[], bool] = lambda: False
    ) -> tuple[list[QRBlock], bool]:
        """Return blocks run without looking if all of them hold, and whether to go on without care.

        Only the last of them has its basis, Q. `resolved` looks closer at a single step with a large strain.
        """
        log_growth = torch.stack([block.diagonal for block in seen]).log()
        worst = (torch.stack([block.peak for block in seen]).log() - log_growth.amin(-1)).amax(-1)
        # One transfer from the device for all.
        growth, *strains = torch.cat([log_growth.abs().amax()[None], worst]).tolist()
        longest = max(len(block.steps) for block in seen)
        finite = math.isfinite(growth)
        calm = max(strains) < self.graded or (longest > 1 if self.fixed else longest == 1 and resolved())
        if not (finite and calm):
            return [], False
        if not self.accepts(longest, max(strains), growth):
            return [], False
        bases = [None] * (len(seen) - 1) + [Q]
        spans = [(offset + block.steps.start, offset + block.steps.stop) for block in seen]
        rows = zip(spans, bases, log_growth, strains, strict=True)
        return [QRBlock(*span, Q, None, rates, spread) for span, Q, rates, spread in rows], True


@dataclass(frozen=True)
class Seen:
    """A block that has run but has not been checked: its steps, |diag R| and the largest entry."""

    steps: range
    diagonal: Tensor
    peak: Tensor
