"""The derivative of growth along a product of Jacobians with respect to these Jacobians.

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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sklyap.cells import Linearization
from sklyap.lyapunov.blocks import counted_growth
from sklyap.runtime import flushed_denormals, transformed

__all__ = ["Growth", "PassPlan", "stacked"]


def stacked(tensors: list[Tensor]) -> Tensor:
    """Return ``torch.stack(tensors)``, of a single one without a copy."""
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)


@dataclass(frozen=True)
class PassPlan:
    """How `Growth` was computed: steps of each block, whether it is averaged, steps of a chunk.

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


class Growth(torch.autograd.Function):
    """Growth of a basis, and the basis at the end, as a function of the Jacobians or of what they make of tangents.

    Arguments after the plan: the basis Q (n, N, k) at the start; an anchor in the graph of the weights; for each chunk
    the Jacobians (width, n, N, N), or the pushed tangents (width, n, N, k), whose gradients are wanted; what every
    step pushes (or states and inputs, where Jacobians are not at hand); the bases before and after each block, its
    factor R and its growth.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: PassPlan, Q: Tensor, anchor: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        n_blocks = len(plan.lengths)
        return counted_growth(tensors[-n_blocks:], plan.counted), tensors[-2 * n_blocks - 1].clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.plan, ctx.n_tensors = inputs[0], len(inputs) - 3
        # The pushed tangents are only needed for their graph.
        ctx.save_for_backward(inputs[2], *inputs[3 if ctx.plan.again is None else 3 + ctx.plan.n_chunks :])

    @staticmethod
    def backward(ctx: Any, weights: Tensor, Q_bar: Tensor) -> tuple[Tensor | None, ...]:
        plan, (anchor, *saved) = ctx.plan, ctx.saved_tensors
        n_blocks = len(plan.lengths)
        given, blocks = saved[: -3 * n_blocks - 1], saved[-3 * n_blocks - 1 :]
        bases, factors, growth = blocks[: n_blocks + 1], blocks[n_blocks + 1 : -n_blocks], blocks[-n_blocks:]
        with torch.no_grad(), flushed_denormals():
            pull, collect, chunks = _transposed(plan, given)
            lost = [_annihilated(rates) for rates in growth]
            for mask in lost:
                weights = weights if mask is None else weights.masked_fill(mask, 0.0)
            t, Q_bar = plan.n_steps, Q_bar.clone()
            for i in reversed(range(n_blocks)):
                B = _through_qr(Q_bar, bases[i + 1], factors[i], weights if plan.counted[i] else None, lost[i])
                for _ in range(plan.lengths[i]):
                    t -= 1
                    collect(t, B)
                    B = pull(t, B)
                Q_bar = B
        once = [Q_bar, *chunks()]
        if torch.is_grad_enabled():  # the backward pass itself is recorded
            once = [_Once.apply(tensor, anchor) for tensor in once]
        return (None, once[0], None, *once[1:], *[None] * (ctx.n_tensors - plan.n_chunks))


def _annihilated(growth: Tensor) -> Tensor | None:
    """Return which directions (n, k) are annihilated, None if none is."""
    mask = growth == -math.inf
    return mask if transformed() or bool(mask.any()) else None


def _through_qr(Q_bar: Tensor, Q: Tensor, R: Tensor, weights: Tensor | None, lost: Tensor | None) -> Tensor:
    """Return ``∂L/∂Z`` (n, N, k) of ``Z = Q R`` from ``∂L/∂Q`` (overwritten) and the weights (n, k) of ln diag R."""
    along = torch.triu(Q.mT @ Q_bar)
    if weights is not None:
        along = along - torch.diag_embed(weights)
    Y = torch.baddbmm(Q_bar, Q, along, alpha=-1) if transformed() else Q_bar.baddbmm_(Q, along, alpha=-1)
    if lost is not None:
        # The gradient of an annihilated direction is set to zero.
        Y = Y.masked_fill(lost.unsqueeze(-2), 0.0)
        R = R.masked_fill(lost.unsqueeze(-1), 0.0) + torch.diag_embed(lost.to(R.dtype))
    return torch.linalg.solve_triangular(R.mT, Y, upper=False, left=False)


def _transposed(
    plan: PassPlan, given: list[Tensor]
) -> tuple[Callable[[int, Tensor], Tensor], Callable[[int, Tensor], None], Callable[[], list[Tensor]]]:
    """Return ``(t, B) -> J_tᵀ B``, what takes in the B of step t, the last first, and the gradients of all chunks."""
    starts = range(0, plan.n_steps, plan.width)
    made: dict[int, Tensor] = {}

    def all_chunks() -> list[Tensor]:
        return [stacked([made[t] for t in range(a, min(a + plan.width, plan.n_steps))]) for a in starts]

    if plan.again is not None:
        linearization = plan.again(*given, *[None] * (2 - len(given)))

        def pull_again(t: int, B: Tensor) -> Tensor:
            # A push is linear, so its derivative is the same at every point.
            return torch.func.vjp(linearization[t].push, torch.zeros_like(B))[1](B)[0]

        return pull_again, made.__setitem__, all_chunks

    jacobians, inputs = given[: plan.n_chunks], given[plan.n_chunks :]

    def pull(t: int, B: Tensor) -> Tensor:
        return jacobians[t // plan.width][t % plan.width].mT @ B

    if transformed():
        return pull, lambda t, B: made.__setitem__(t, B @ inputs[t].mT), all_chunks
    gradients = [torch.empty_like(J, memory_format=torch.contiguous_format) for J in jacobians]

    def collect(t: int, B: Tensor) -> None:
        torch.bmm(B, inputs[t].mT, out=gradients[t // plan.width][t % plan.width])

    return pull, collect, lambda: gradients


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
