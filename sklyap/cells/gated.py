"""Cells whose step is elementwise functions of affine gates: one structure, one Jacobian action.

With the state split into R blocks of H entries, recurrent gates ``U_g s[:C]`` and input gates ``W_g x``, the
derivative of one step has the form

    δs'_r = Σ_g A_rg ⊙ (U_g δs[:C]) + Σ_g B_rg ⊙ (W_g δx) + Σ_c D_rc ⊙ δs_c

so an architecture only says what its step makes of the gates and what its coefficients A, B and D are.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sklyap.cells.base import DenseLinearization, Linearization, RecurrentCell, by_columns
from sklyap.runtime import transformed
from sklyap.validation import check_bool, check_int

__all__ = [
    "Coefficients",
    "FoldedLinearization",
    "GatedCell",
    "GatedLinearization",
    "constant",
    "sech2",
    "sigmoid_slope",
    "skew",
]

Blocks = Mapping[tuple[int, int], Tensor]

FOLD_FROM = 4
"""Minimum number of tangents for which one folded matrix per point costs less than a product per gate."""


def sech2(a: Tensor) -> Tensor:
    """Return the derivative of tanh at `a`, accurate where ``1 - tanh(a)**2`` would cancel to zero."""
    e = torch.exp(-2 * a.abs())
    return 4 * e / (1 + e) ** 2


def sigmoid_slope(a: Tensor) -> Tensor:
    """Return the derivative of the logistic function at `a`, accurate in both tails."""
    return torch.sigmoid(a) * torch.sigmoid(-a)


def skew(M: Tensor) -> Tensor:
    """Return ``M - Mᵀ``."""
    return M - M.mT


def constant(value: float, like: Tensor) -> Tensor:
    """Return `value` in the shape of `like`, without its memory."""
    return like.new_full((), value).expand_as(like)


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of a gated step; tensors are (*batch, H), absent pairs are zero.

    Attributes
    ----------
    recurrent : mapping (r, g) -> A_rg
        What the derivative multiplies the recurrent gates with, by (block of the new state, gate).
    inputs : mapping (r, g) -> B_rg
        The same of the input gates.
    diagonal : mapping (r, c) -> D_rc
        The same of the old state, by (new block, old block).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LSTMCell
    >>> cell, s, x = LSTMCell(3, 8), torch.zeros(1, 16), torch.zeros(1, 3)
    >>> found = cell.coefficients(s, cell.input_gates(x), cell.recurrent_gates(s, cell.weight_hh))
    >>> sorted(found.recurrent)  # which gates move which block of (h, c)
    [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
    """

    recurrent: Blocks
    inputs: Blocks
    diagonal: Blocks


def _take(blocks: Blocks, index: int | slice) -> Blocks:
    return {pair: value[index] for pair, value in blocks.items()}


def _add_diagonal(Z: Tensor, diagonal: Blocks, Q: Tensor) -> Tensor:
    """Add ``Σ_c D_rc ⊙ Q_c`` to the blocks of Z (*batch, N, k) in place."""
    for (r, c), d in diagonal.items():
        H = d.shape[-1]
        _add_product(Z[..., r * H : (r + 1) * H, :], d.unsqueeze(-1), Q[..., c * H : (c + 1) * H, :])
    return Z


def _add_product(target: Tensor, a: Tensor, b: Tensor) -> None:
    """Add ``a ⊙ b`` in place."""
    if transformed():
        # vmap has no rule for addcmul_: it would loop over the batch, and warn.
        target.copy_(torch.addcmul(target, a, b))
    else:
        target.addcmul_(a, b)


def _products(weights: Tensor, tangents: Tensor) -> Tensor:
    """Return all gates' products (*batch, G, H, k) of weights (G, H, C) with the first C rows of tangents."""
    G, H, C = weights.shape
    return (weights.reshape(G * H, C) @ tangents[..., :C, :]).unflatten(-2, (G, H))


def _mix(blocks: Blocks, products: Tensor, n_rows: int) -> Tensor:
    """Return the rows ``Σ_g blocks_rg ⊙ products_g``: (*batch, R·H, m) from products (*batch or 1, G, H, m)."""
    shape = next(iter(blocks.values())).shape[:-1]
    H, m = products.shape[-2:]
    if torch.is_grad_enabled() and {r for r, _ in blocks} == set(range(n_rows)):
        # What is written in place is copied again in the backward pass.
        rows: dict[int, Tensor] = {}
        for (r, g), a in blocks.items():
            scale, product = a.unsqueeze(-1), products[..., g, :, :]
            rows[r] = torch.addcmul(rows[r], scale, product) if r in rows else scale * product
        return rows[0] if n_rows == 1 else torch.cat([rows[r] for r in range(n_rows)], -2)
    mixed = products.new_zeros(*shape, n_rows * H, m)
    for (r, g), a in blocks.items():
        _add_product(mixed[..., r * H : (r + 1) * H, :], a.unsqueeze(-1), products[..., g, :, :])
    return mixed


@dataclass(frozen=True)
class GatedLinearization(Linearization):
    """The structured derivative; `push` multiplies by all gates' weights at once.

    Attributes
    ----------
    coefficients : Coefficients
    U : Tensor of shape (G, H, C)
        Recurrent weights, acting on the first C entries of the state.
    W : Tensor of shape (G', H, n_inputs)
        Input weights.
    n_rows : int
        R, the number of blocks of the state.
    """

    coefficients: Coefficients
    U: Tensor
    W: Tensor
    n_rows: int

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        Z = _mix(self.coefficients.recurrent, _products(self.U, Q), self.n_rows)
        if P is not None:
            Z += _mix(self.coefficients.inputs, _products(self.W, P), self.n_rows)
        return _add_diagonal(Z, self.coefficients.diagonal, Q)

    def fold(self, k: int, *, inputs: bool = True) -> Linearization:
        """Multiply coefficients into the weights: one (N, C) matrix per point instead of G products."""
        if k < FOLD_FROM:
            return self
        M = _mix(self.coefficients.recurrent, self.U, self.n_rows)
        H, C = self.U.shape[1:]
        Mx = _mix(self.coefficients.inputs, self.W, self.n_rows) if inputs else None
        if self.n_rows * H == C:
            for (r, c), d in self.coefficients.diagonal.items():
                M[..., r * H : (r + 1) * H, c * H : (c + 1) * H].diagonal(dim1=-2, dim2=-1).add_(d)
            return DenseLinearization(M, Mx)
        return FoldedLinearization(M, Mx, self.coefficients.diagonal)

    def dense(self) -> Tensor:
        return self.fold(FOLD_FROM, inputs=False).dense()

    def hidden(self) -> GatedLinearization:
        """Return the derivative of block 0 with respect to block 0, the other blocks frozen."""

        def first(blocks: Blocks) -> Blocks:
            return {pair: value for pair, value in blocks.items() if pair[0] == 0}

        diagonal = {pair: d for pair, d in self.coefficients.diagonal.items() if pair == (0, 0)}
        kept = Coefficients(first(self.coefficients.recurrent), first(self.coefficients.inputs), diagonal)
        return GatedLinearization(kept, self.U[:, :, : self.U.shape[1]], self.W, 1)

    def __getitem__(self, index: int | slice) -> GatedLinearization:
        c = self.coefficients
        kept = Coefficients(_take(c.recurrent, index), _take(c.inputs, index), _take(c.diagonal, index))
        return GatedLinearization(kept, self.U, self.W, self.n_rows)


@dataclass(frozen=True)
class FoldedLinearization(Linearization):
    """Per-point matrices `M` (*batch, N, C) on the first C entries, `Mx` (*batch, N, n_inputs), and diagonals."""

    M: Tensor
    Mx: Tensor | None
    diagonal: Blocks

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        C = self.M.shape[-1]
        Z = by_columns(self.M, Q[..., :C, :])
        if P is not None:
            assert self.Mx is not None, "folded without inputs"
            Z += self.Mx @ P
        return _add_diagonal(Z, self.diagonal, Q)

    def dense(self) -> Tensor:
        N, C = self.M.shape[-2:]
        J = nn.functional.pad(self.M, (0, N - C))
        for (r, c), d in self.diagonal.items():
            H = d.shape[-1]
            J[..., r * H : (r + 1) * H, c * H : (c + 1) * H].diagonal(dim1=-2, dim2=-1).add_(d)
        return J

    def __getitem__(self, index: int | slice) -> FoldedLinearization:
        Mx = None if self.Mx is None else self.Mx[index]
        return FoldedLinearization(self.M[index], Mx, _take(self.diagonal, index))


class GatedCell(RecurrentCell):
    """A cell whose step and derivative are elementwise in its gates; weights are laid out as in torch.

    Subclasses set `n_gates` and `n_blocks` and implement `update` and `coefficients`. They may set
    `n_recurrent_gates` where gates share recurrent weights or have none, `bias_names`, `recurrent_columns`,
    and, where the weights that act are made from parameters, override `recurrent_weights`.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    weight_ih : Parameter of shape (n_gates · H, n_inputs)
        Input weights, as torch lays them out.
    weight_hh : Parameter of shape (n_recurrent_gates · H, C)
        Recurrent weights, as torch lays them out.
    bias_ih, bias_hh : Parameter of shape (n_gates · H,) and (n_recurrent_gates · H,), or None
        Biases.

    Examples
    --------
    The LSTM is one, with two blocks of state and four gates:

    >>> from sklyap.cells import GatedCell, LSTMCell
    >>> issubclass(LSTMCell, GatedCell), tuple(LSTMCell(3, 8).weight_hh.shape)
    (True, (32, 8))
    """

    n_inputs: int
    bias_ih: nn.Parameter | None
    bias_hh: nn.Parameter | None
    n_gates = 1
    n_recurrent_gates: int | None = None
    n_blocks = 1
    bias_names: tuple[str, ...] = ("bias_ih", "bias_hh")

    def __init__(self, n_inputs: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__()
        caller = type(self).__name__
        self.n_inputs = check_int(n_inputs, "n_inputs", low=1, caller=caller)
        self.hidden_size = self.output_size = check_int(hidden_size, "hidden_size", low=1, caller=caller)
        check_bool(bias, "bias", caller=caller)
        self.state_size = self.n_blocks * hidden_size
        rows = {
            "ih": self.n_gates * hidden_size,
            "hh": (self.n_recurrent_gates or self.n_gates) * hidden_size,
        }
        self.weight_ih = nn.Parameter(torch.empty(rows["ih"], n_inputs))
        self.weight_hh = nn.Parameter(torch.empty(rows["hh"], self.recurrent_columns))
        for name in ("bias_ih", "bias_hh"):
            has = bias and name in self.bias_names
            self.register_parameter(name, nn.Parameter(torch.empty(rows[name[-2:]])) if has else None)
        self.reset_parameters()

    @property
    def recurrent_columns(self) -> int:
        """C, how many leading entries of the state the recurrent weights act on."""
        return self.hidden_size

    def reset_parameters(self) -> None:
        """Draw every parameter from U(-1/√H, 1/√H), as torch's layers do."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def recurrent_weights(self) -> Tensor:
        """Return U, the recurrent weights as they act, of shape (G, H, C)."""
        return self.weight_hh.unflatten(0, (-1, self.hidden_size))

    def input_weights(self) -> Tensor:
        """Return W of shape (n_gates, H, n_inputs)."""
        return self.weight_ih.unflatten(0, (-1, self.hidden_size))

    def input_gates(self, x: Tensor) -> Tensor:
        """Return ``W x + b_ih`` (*batch, n_gates · H)."""
        return nn.functional.linear(x, self.weight_ih, self.bias_ih)

    def recurrent_gates(self, s: Tensor, U: Tensor) -> Tensor:
        """Return ``U s[:C] + b_hh`` (*batch, G · H), with U (G · H, C)."""
        return nn.functional.linear(s[..., : U.shape[-1]], U, self.bias_hh)

    @abc.abstractmethod
    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        """Return the next state (*batch, N).

        Parameters
        ----------
        s : Tensor of shape (*batch, N)
            States.
        x_gates : Tensor of shape (*batch, n_gates · H)
            What `input_gates` returns.
        s_gates : Tensor of shape (*batch, G · H)
            What `recurrent_gates` returns.
        """

    @abc.abstractmethod
    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        """Return the coefficients of the derivative of `update` and of the gates in it."""

    def step(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.update(s, self.input_gates(x), self.recurrent_gates(s, self.recurrent_weights().flatten(0, 1)))

    def trajectory(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        # The input gates of all steps are one product; weights made from parameters are made once.
        U = self.recurrent_weights().flatten(0, 1)
        bias, update, whole = self.bias_hh, self.update, U.shape[-1] == s.shape[-1]
        states = [s]
        for x_gates in self.input_gates(x).unbind(1):
            s = update(s, x_gates, nn.functional.linear(s if whole else s[..., : U.shape[-1]], U, bias))
            states.append(s)
        return torch.stack(states)

    def linearize(self, s: Tensor, x: Tensor) -> Linearization:  # type: ignore[override]
        return self._gated_linearization(s, x)

    def hidden_linearization(self, s: Tensor, x: Tensor) -> Linearization:  # type: ignore[override]
        return self._gated_linearization(s, x).hidden()

    def _gated_linearization(self, s: Tensor, x: Tensor) -> GatedLinearization:
        U = self.recurrent_weights()
        coefficients = self.coefficients(s, self.input_gates(x), self.recurrent_gates(s, U.flatten(0, 1)))
        return GatedLinearization(coefficients, U, self.input_weights(), self.n_blocks)
