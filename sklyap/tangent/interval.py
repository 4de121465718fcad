"""How many steps to take to the next factorisation: numbers in, numbers out."""

from __future__ import annotations

import math
from enum import Enum

__all__ = ["PLANNED_SHARE", "BlockVerdict", "IntervalController"]

_LONGEST_INTERVAL = 64
"""Maximum steps of a block; a longer one saves nothing measurable and costs more when it has to be repeated."""
_CAUTION_STEPS = 32
"""Blocks of a single step that follow one in which directions may have been annihilated."""
PLANNED_SHARE = 0.8
"""Share of the budget that a block is planned for; the rest is room for a block that is worse than the last ones."""
_FORGETTING = 0.97
"""Weight of the older blocks' load at each new block: the plan follows the run over some thirty blocks."""


class BlockVerdict(Enum):
    """What to do with a block that has run."""

    ACCEPTED = "the block kept its digits"
    TOO_LONG = "the block lost digits: repeat it with fewer steps"
    OUT_OF_DIGITS = "a single step takes more digits than the dtype has: repeat it in a wider one"


class IntervalController:
    """Plans how many steps lie between two factorisations, from what the blocks so far have lost.

    A block loses digits by its log spread (see :func:`sklyap.orthonormalize.log_spread`) and overflows by its growth.
    Both grow about linearly with the steps, so that their rate per step in recent blocks tells how long the next block
    may be.

    Parameters
    ----------
    interval : int or None
        Steps of every block; None for as many as the blocks suggest.
    spread_budget : float
        Maximum log spread of an accepted block of several steps, in nats.
    growth_budget : float
        Maximum growth or contraction in such a block, in nats.
    single_step_limit : float, default=inf
        Log spread of a single step above which the verdict is OUT_OF_DIGITS.
    planned_share : float, default=0.8
        Share of the budget that a block is planned for; the rest is room for a block that is worse than the last ones.

    Attributes
    ----------
    length : int
        Steps of the next block.
    fixed : bool
        Whether the interval was given. Every block is accepted then.
    caution_left : int
        How many of the next blocks are single steps that have to be factored with care.

    Examples
    --------
    >>> controller = IntervalController(None, spread_budget=18.0, growth_budget=350.0)
    >>> for _ in range(3):
    ...     verdict = controller.judge(controller.length, log_spread=2.0 * controller.length, growth=0.0)
    >>> controller.length  # 7 steps of 2 nats are 80 % of the budget
    7
    """

    def __init__(
        self,
        interval: int | None,
        *,
        spread_budget: float,
        growth_budget: float,
        single_step_limit: float = math.inf,
        planned_share: float = PLANNED_SHARE,
    ) -> None:
        self.fixed = interval is not None
        self.length = 1 if interval is None else interval
        self.caution_left = 0
        self._spread_budget = spread_budget
        self._growth_budget = growth_budget
        self._single_step_limit = single_step_limit
        self._planned_share = planned_share
        self._load_per_step = 0.0

    def judge(self, length: int, log_spread: float, growth: float) -> BlockVerdict:
        """Say whether a block of `length` steps kept its digits, and plan the next one."""
        self.caution_left = max(0, self.caution_left - 1)
        if self.fixed:
            return BlockVerdict.ACCEPTED
        if length == 1 and log_spread > self._single_step_limit:
            return BlockVerdict.OUT_OF_DIGITS
        load = max(log_spread / self._spread_budget, growth / self._growth_budget)
        if load > 1 and length > 1:
            if math.isfinite(load):
                self._load_per_step = max(self._load_per_step, load / length)
            self.length = length // 2
            return BlockVerdict.TOO_LONG
        # A block that was cut short (at a breakpoint) says little about a whole one.
        if length >= self.length:
            self._load_per_step = max(load / length, _FORGETTING * self._load_per_step)
            self.length = self._planned()
        return BlockVerdict.ACCEPTED

    def be_cautious(self) -> None:
        """Plan single steps for a while: over longer blocks, annihilated directions look like lost digits."""
        self.caution_left = _CAUTION_STEPS

    def _planned(self) -> int:
        steps = self._planned_share / self._load_per_step if self._load_per_step > 0 else math.inf
        # At most about twice the last length: blocks so far say little about much longer ones.
        longest = min(2 * self.length + 1, 1 if self.caution_left else _LONGEST_INTERVAL)
        return int(min(max(steps, 1), longest))
