"""A pass of the tangent basis over some steps, with a factorisation as often as its digits need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sklyap.cells import Linearization
from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import log_range, log_spread, orthonormalize, orthonormalize_graded
from sklyap.runtime import transformed
from sklyap.tangent.blocks import Factoring
from sklyap.tangent.interval import BlockVerdict, IntervalController
from sklyap.tangent.resolution import resolution

__all__ = ["Blocks", "counted_growth", "iterate"]

_DIGITS_LOST = 0.25
"""Maximum share of the digits that a block of steps may cost: four of the sixteen of float64."""
_PLANNED_SHARE = 0.95
"""Share of the budget that a block is planned for: the budget is small, so that a repeated block costs little."""


class Blocks:
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


def counted_growth(growth: Sequence[Tensor], counted: Sequence[bool]) -> Tensor:
    """Return the sum (n, k) of the growth of the blocks that are averaged."""
    averaged = [rates for rates, yes in zip(growth, counted, strict=True) if yes]
    return torch.stack(averaged).sum(0) if averaged else torch.zeros_like(growth[0])


def iterate(chunks: Sequence[Linearization], width: int, Q: Tensor, n_steps: int, transient: int) -> Blocks:
    """Carry a basis along, with a factorisation as often as its digits need.

    `chunks` are the linearizations of `width` steps each.
    """
    done = Blocks(Q)
    controller = IntervalController(
        None,
        spread_budget=-_DIGITS_LOST * math.log(torch.finfo(Q.dtype).eps),
        growth_budget=log_range(Q.dtype),
        planned_share=_PLANNED_SHARE,
    )
    factoring = Factoring.of("auto", Q)
    t = 0
    while t < n_steps:
        stop = min(t + controller.length, transient if t < transient else n_steps, n_steps)
        inputs = [Q]
        for u in range(t, stop):
            inputs.append(chunks[u // width][u % width].push(inputs[-1]))
        Z = inputs.pop()
        if transformed():
            Q, R, growth = _plain_qr(Z)
        else:
            step, single = chunks[t // width][t % width], stop == t + 1
            Q_next, R, growth, spread = _factor(Z, step, Q, factoring, single=single)
            annihilated = growth == -math.inf
            if not math.isfinite(spread):
                if single:
                    _check_resolved(R, t)
                spread = math.inf  # a NaN would pass for a small one
            if single and bool(annihilated.any()):
                controller.be_cautious()
            most = float(growth.masked_fill(annihilated, 0.0).abs().max())
            if controller.judge(stop - t, spread, most) is not BlockVerdict.ACCEPTED:
                continue
            Q = Q_next
        done.add(inputs, Q, R, growth, counted=t >= transient)
        t = stop
    return done


def _plain_qr(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    Q, R = torch.linalg.qr(Z)
    sign = torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Z.dtype)
    R = R * sign.unsqueeze(-1)
    return Q * sign.unsqueeze(-2), R, R.diagonal(dim1=-2, dim2=-1).log()


def _factor(
    Z: Tensor, step: Linearization, before: Tensor, factoring: Factoring, *, single: bool
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return Q, R, ln diag R (-inf where annihilated) and the largest log spread; a `single` step gets care."""
    Q, R = orthonormalize(Z, factoring.orthonormalizer)
    spread = log_spread(R)
    if single and bool((spread > factoring.graded_spread).any()) and bool(torch.isfinite(Z).all()):
        Q, R = orthonormalize_graded(Z)
        growth = R.diagonal(dim1=-2, dim2=-1).log()
        if bool((spread > factoring.unresolved_spread).any()):
            annihilated, spread = resolution(step, before, Z, R)
            growth = growth.masked_fill(annihilated, -math.inf)
    else:
        growth = R.diagonal(dim1=-2, dim2=-1).log()
    return Q, R, growth, float(spread.max())


def _check_resolved(R: Tensor, step: int) -> None:
    if not bool(torch.isfinite(R).all()):
        raise DivergedError(f"The tangent basis is not finite after step {step} of its segment.")
