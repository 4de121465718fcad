"""Gradients carried back along a QR iteration: the recursion in R, step by step, within bounded memory.

See :mod:`sklyap.gradients` for the equations; this module runs them over stretches of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklyap.cells import RecurrentCell
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals, pushforward
from sklyap.tangent import Factors, qr_iteration, tangent_size
from sklyap.validation import check_int

__all__ = [
    "BackwardPass",
    "ParameterMap",
    "backpropagate",
    "backward_pass",
    "lifted",
    "shares",
    "state_gradients",
]

_STORED_BYTES = 2**30
"""Above this, ``checkpoint="auto"`` recomputes bases instead of storing them all."""


@dataclass(frozen=True)
class BackwardPass:
    """What comes out of :func:`backward_pass`, for m losses at once; per-step arrays are those of the first loss.

    Attributes
    ----------
    basis : Tensor of shape (n_sequences, T + 1, N, n_leading)
    r_factors : Tensor of shape (n_sequences, T, n_leading, n_leading)
    log_growth : Tensor of shape (n_sequences, T, k)
    coefficients : Tensor of shape (n_sequences, T, k)
    state_gradients : Tensor of shape (n_sequences, T + 1, state_size)
    parameters : dict of str to Tensor (m, ...)
    by_rank : dict of str to Tensor (n_cuts, ...)
        Parts of the first loss's gradient from directions between one cut and the next.
    energies : Tensor of shape (m, k)
        ``Σ c_i²`` over steps and sequences.
    norms : Tensor of shape (m,)
        ``Σ |g|²``.
    """

    basis: Tensor
    r_factors: Tensor
    log_growth: Tensor
    coefficients: Tensor
    state_gradients: Tensor
    parameters: dict[str, Tensor]
    by_rank: dict[str, Tensor]
    energies: Tensor
    norms: Tensor

    @property
    def energy(self) -> np.ndarray:
        """Share (m, k) of each loss's ``Σ |g|²`` inside the span of the first 1, 2, … k directions."""
        return np.minimum(shares(self.energies.cumsum(-1), self.norms.unsqueeze(-1)), 1.0)  # rounding aside


def backward_pass(
    cell: RecurrentCell,
    x: Tensor,
    states: Tensor,
    delta: Tensor,
    *,
    names: Sequence[str],
    rank: int | None = None,
    cuts: Sequence[int] = (),
    n_leading: int = 0,
    state: str = "full",
    orthonormalizer: str = "auto",
    checkpoint: int | str | None = "auto",
    batch_size: int | None = None,
    seed: int = 0,
) -> BackwardPass:
    """Carry a basis forward along sequences and the gradients of several losses back through its R factors.

    Parameters
    ----------
    cell : RecurrentCell
    x : Tensor of shape (n_sequences, T, n_inputs)
    states : Tensor of shape (n_sequences, T + 1, state_size)
        ``s_0 … s_T``.
    delta : Tensor of shape (n_sequences, T, state_size, m)
        ``δ_1 … δ_T`` of each loss.
    names : sequence of str
        Parameters of the cell to differentiate with respect to.
    rank : int, optional
        k, how many directions to carry; all by default.
    cuts : sequence of int
        Ascending ranks between which the first loss's gradient is split up, see `BackwardPass.by_rank`.
    n_leading : int, default=0
        How many columns of the bases to return.
    state, orthonormalizer, checkpoint, batch_size
        As in :func:`~sklyap.loss_gradient`.
    seed : int, default=0
        Of the initial basis.

    Returns
    -------
    BackwardPass
    """
    n, T = x.shape[:2]
    N = tangent_size(cell, state)
    k = N if rank is None else rank
    batch_size = n if batch_size is None else check_int(batch_size, "batch_size", low=1)
    spacing = _check_checkpoint(checkpoint, T, min(batch_size, n) * k * (N + k) * delta.element_size())
    part = slice(None) if state == "full" else cell.hidden_entries
    passes = []
    with torch.no_grad(), flushed_denormals():
        for rows in torch.arange(n).split(batch_size):
            Q = random_bases(N, k, seed, rows.tolist(), dtype=x.dtype, device=x.device)
            rows = rows.to(x.device)
            # Without a full basis of the full dynamics, Q and R do not determine the whole gradient.
            exact = None
            if k < cell.state_size:
                exact = state_gradients(cell, x[rows], states[rows, 0], delta[rows])[:, :, part]
            batch = _Batch(
                cell, x[rows], states[rows], delta[rows][:, :, part], exact, names, cuts, n_leading,
                {"qr_interval": 1, "state": state, "orthonormalizer": orthonormalizer},
            )  # fmt: skip
            passes.append(batch.run(Q, spacing))
    return _joined(passes, 0)


def backpropagate(stretch: Factors, delta: Tensor, end: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Carry gradients back through the factors of a stretch of L steps.

    Parameters
    ----------
    stretch : Factors
        Of L consecutive steps.
    delta : Tensor of shape (n_sequences, L, N, m)
        δ after each step; the last one is not looked at.
    end : Tensor of shape (n_sequences, N, m)
        g after the last step.

    Returns
    -------
    c : Tensor of shape (n_sequences, L, k, m)
        Coordinates after each step.
    g : Tensor of shape (n_sequences, L, N, m)
        Gradients after each step.
    first : Tensor of shape (n_sequences, N, m)
        Gradient where the stretch starts, without the δ there.
    """
    Q, R = stretch.Q, stretch.R
    c = [Q[-1].mT @ end]
    for j in range(len(R) - 1, 0, -1):
        c.append(R[j].mT @ c[-1] + Q[j].mT @ delta[:, j - 1])
    c.reverse()
    g = [basis @ coordinates for basis, coordinates in zip(Q[1:], c, strict=True)]
    return torch.stack(c, 1), torch.stack(g, 1), Q[0] @ (R[0].mT @ c[0])


@dataclass(frozen=True)
class _Batch:
    """Sequences that are carried at once, and what to keep of them; arguments as in :func:`backward_pass`."""

    cell: RecurrentCell
    x: Tensor
    states: Tensor
    delta: Tensor
    exact: Tensor | None
    names: Sequence[str]
    cuts: Sequence[int]
    n_leading: int
    options: dict[str, Any]

    def run(self, Q: Tensor, spacing: int) -> BackwardPass:
        """Go forward storing every `spacing`-th basis, then back over the stretches between them."""
        marks = self._marks(Q, spacing)
        end, parts = self.delta[:, -1], []
        while marks:
            start, Q = marks.pop()
            part, end = self._back(start, Q, spacing, end)
            parts.append(part)
        return _joined(parts[::-1], 1)

    def _marks(self, Q: Tensor, spacing: int) -> list[tuple[int, Tensor]]:
        marks, last = [(0, Q)], (self.x.shape[1] - 1) // spacing * spacing
        if last:
            for block in qr_iteration(self.cell, self.x[:, :last], Q=Q, s=self.states[:, 0], **self.options):
                if block.stop % spacing == 0:
                    marks.append((block.stop, block.Q))
        return marks

    def _back(self, start: int, Q: Tensor, spacing: int, end: Tensor) -> tuple[BackwardPass, Tensor]:
        """Return what is kept of a stretch and the gradient at its start.

        From stretch to stretch the gradient goes as itself, not as coordinates: computed again, the columns of a basis
        that belong to annihilated directions may come out otherwise.
        """
        x = self.x[:, start : start + spacing]
        stretch = Factors.of(qr_iteration(self.cell, x, Q=Q, s=self.states[:, start], **self.options), Q)
        steps = slice(start, start + len(stretch.R))
        c, g, first = backpropagate(stretch, self.delta[:, steps], end)
        return self._kept(stretch, steps, c, g, first), first + self.delta[:, start - 1]

    def _kept(self, stretch: Factors, steps: slice, c: Tensor, g: Tensor, first: Tensor) -> BackwardPass:
        cell, names, q = self.cell, self.names, self.n_leading
        by_state = ParameterMap(cell, names, self.states[:, steps], self.x[:, steps])
        pulled = [by_state.pull(lifted(loss, cell)) for loss in g.unbind(-1)]
        by_rank = [by_state.pull(lifted(part, cell)) for part in _split_by_rank(stretch.Q[1:], c[..., 0], self.cuts)]
        squares, whole = c.square().sum((0, 1)), g
        if self.exact is not None:
            whole = self.exact[:, steps]
            inside = [(basis.mT @ whole[:, j]).square().sum(0) for j, basis in enumerate(stretch.Q[1:])]
            squares = torch.stack(inside).sum(0)
        return BackwardPass(
            # Copies, because views would keep the whole bases in memory.
            basis=torch.stack([basis[..., :q] for basis in stretch.Q], 1),
            r_factors=torch.stack([R[:, :q, :q] for R in stretch.R], 1),
            log_growth=torch.stack(stretch.log_growth, 1),
            coefficients=c[..., 0].clone(),
            state_gradients=lifted(torch.cat([first.unsqueeze(1), g], 1)[..., 0], cell).clone(),
            parameters={name: torch.stack([p[name] for p in pulled]) for name in names},
            by_rank={name: torch.stack([p[name] for p in by_rank]) for name in names} if by_rank else {},
            energies=squares.mT,
            norms=whole.square().sum((0, 1, 2)),
        )


def _split_by_rank(bases: Sequence[Tensor], c: Tensor, cuts: Sequence[int]) -> Iterator[Tensor]:
    """Yield the parts (n_sequences, L, N) of ``Q c`` that come from columns between one cut and the next."""
    if not cuts:
        return
    columns = torch.arange(c.shape[-1], device=c.device).unsqueeze(-1)
    high = torch.tensor(cuts, device=c.device)
    low = torch.tensor([0, *cuts[:-1]], device=c.device)
    member = ((columns >= low) & (columns < high)).to(c)  # (k, n_cuts)
    parts = [(basis * c[:, j].unsqueeze(-2)) @ member for j, basis in enumerate(bases)]
    yield from torch.stack(parts, 1).unbind(-1)


_ALSO_AT_THE_START = ("basis", "state_gradients")
_PER_STEP = ("r_factors", "log_growth", "coefficients")


def _joined(passes: Sequence[BackwardPass], dim: int) -> BackwardPass:
    """Join batches of sequences (`dim` 0), or stretches of time (1), which share a state at each seam."""
    if len(passes) == 1:
        return passes[0]
    joined: dict[str, Any] = {}
    for name in (*_ALSO_AT_THE_START, *_PER_STEP):
        values = [getattr(p, name) for p in passes]
        if dim == 1 and name in _ALSO_AT_THE_START:
            values[1:] = [value[:, 1:] for value in values[1:]]
        joined[name] = torch.cat(values, dim)
    for name in ("parameters", "by_rank"):
        values = [getattr(p, name) for p in passes]
        joined[name] = {key: sum(value[key] for value in values) for key in values[0]}
    for name in ("energies", "norms"):
        joined[name] = sum(getattr(p, name) for p in passes)
    return BackwardPass(**joined)


class ParameterMap:
    """``∂f/∂θ`` of many steps at once: how they depend on the cell's parameters, each step with its state held fixed.

    Parameters
    ----------
    cell : RecurrentCell
    names : sequence of str
        Its parameters θ.
    before : Tensor of shape (n_sequences, L, state_size)
        Where the steps start.
    x : Tensor of shape (n_sequences, L, n_inputs) or None
    """

    def __init__(self, cell: RecurrentCell, names: Sequence[str], before: Tensor, x: Tensor | None) -> None:
        step = _Step(cell)
        known = dict(cell.named_parameters())
        self._parameters = {f"cell.{name}": known[name].detach() for name in names}
        self._run = lambda parameters: torch.func.functional_call(step, parameters, (before, x))
        self._vjp: Any = None

    def pull(self, g: Tensor) -> dict[str, Tensor]:
        """Return ``Σ (∂f/∂θ)ᵀ g`` over steps and sequences for g (n_sequences, L, state_size)."""
        if self._vjp is None:
            self._vjp = torch.func.vjp(self._run, self._parameters)[1]
        return {name.removeprefix("cell."): value for name, value in self._vjp(g)[0].items()}

    def push(self, change: dict[str, Tensor]) -> Tensor:
        """Return ``(∂f/∂θ) change`` (n_sequences, L, state_size), what a change of parameters does to each step."""
        tangents = {f"cell.{name}": value for name, value in change.items()}
        return pushforward(self._run, (self._parameters,), (tangents,))


class _Step(nn.Module):
    """A cell's step as a module's `forward`, which is what torch.func substitutes parameters in."""

    def __init__(self, cell: RecurrentCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, s: Tensor, x: Tensor | None) -> Tensor:
        return self.cell.step(s, x)


def state_gradients(cell: RecurrentCell, x: Tensor, s: Tensor, delta: Tensor) -> Tensor:
    """Return ``g_1 … g_T`` of m losses by automatic differentiation, one pass back for each.

    Parameters
    ----------
    cell : RecurrentCell
        The system.
    x : Tensor of shape (n_sequences, T, n_inputs)
        Inputs.
    s : Tensor of shape (n_sequences, state_size)
        States.
    delta : Tensor of shape (n_sequences, T, state_size, m)
        Derivative of the loss by each state, later ones held fixed.

    Returns
    -------
    Tensor of shape (n_sequences, T, state_size, m)

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import ElmanCell
    >>> from sklyap.gradients import state_gradients
    >>> x, delta = torch.zeros(2, 5, 3), torch.zeros(2, 5, 4, 1)
    >>> delta[:, -1] = 1.0  # a loss at the last step
    >>> tuple(state_gradients(ElmanCell(3, 4), x, torch.zeros(2, 4), delta).shape)
    (2, 5, 4, 1)
    """
    # The gradient with respect to a state is the gradient with respect to a perturbation added to it.
    perturbations = torch.zeros(*delta.shape[:3], dtype=x.dtype, device=x.device, requires_grad=True)
    with torch.enable_grad():
        after = []
        for t, x_t in enumerate(x.unbind(1)):
            s = cell.step(s, x_t) + perturbations[:, t]
            after.append(s)
        states = torch.stack(after, 1)
        grads = [torch.autograd.grad(states, perturbations, d, retain_graph=True)[0] for d in delta.unbind(-1)]
    return torch.stack(grads, -1)


def lifted(g: Tensor, cell: RecurrentCell) -> Tensor:
    """Return gradients (..., N) as gradients of the whole state, zero where it is frozen."""
    if g.shape[-1] == cell.state_size:
        return g
    whole = g.new_zeros(*g.shape[:-1], cell.state_size)
    whole[..., cell.hidden_entries] = g
    return whole


def _check_checkpoint(checkpoint: int | str | None, T: int, bytes_per_step: int) -> int:
    """Return every how many steps a basis is stored."""
    if checkpoint is None:
        return T
    if checkpoint == "auto":
        return T if T * bytes_per_step <= _STORED_BYTES else math.isqrt(T - 1) + 1
    return min(T, check_int(checkpoint, "checkpoint", low=1))


def shares(parts: Tensor, whole: Tensor) -> np.ndarray:
    """Return parts / whole, 0 where the whole is 0."""
    quotient = torch.where(whole > 0, parts / torch.where(whole > 0, whole, 1.0), 0.0)
    return quotient.detach().cpu().numpy()
