"""The minimal gated unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sklyap.cells.base import Linearization
from sklyap.cells.gated import Coefficients, GatedCell, GatedLinearization, sech2, sigmoid_slope

__all__ = ["MGUCell"]


@dataclass(frozen=True)
class MGULinearization(Linearization):
    """The derivative: that through the gate and the kept state, and that of the candidate, whose argument is gated.

    Attributes
    ----------
    first : Linearization
        Of everything but the candidate.
    f, by_gate, slope : Tensor of shape (*batch, H)
        The gate, ``h ⊙ σ'`` and ``f ⊙ tanh'``.
    U_f, U_n : Tensor of shape (H, H)
    W_f, W_n : Tensor of shape (H, n_inputs)
    """

    first: Linearization
    f: Tensor
    by_gate: Tensor
    slope: Tensor
    U_f: Tensor
    U_n: Tensor
    W_f: Tensor
    W_n: Tensor

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        gate = self.U_f @ Q if P is None else self.U_f @ Q + self.W_f @ P
        candidate = self.U_n @ (self.f.unsqueeze(-1) * Q + self.by_gate.unsqueeze(-1) * gate)
        if P is not None:
            candidate = candidate + self.W_n @ P
        return self.first.push(Q, P) + self.slope.unsqueeze(-1) * candidate

    def dense(self) -> Tensor:
        inner = torch.diag_embed(self.f) + self.by_gate.unsqueeze(-1) * self.U_f
        return self.first.dense() + self.slope.unsqueeze(-1) * (self.U_n @ inner)

    def __getitem__(self, index: int | slice) -> MGULinearization:
        return replace(
            self, first=self.first[index], f=self.f[index], by_gate=self.by_gate[index], slope=self.slope[index]
        )


class MGUCell(GatedCell):
    """Minimal gated unit, state ``h`` [1]_.

    ``f = σ(U_f h + W_f x + b_f)``, ``n = tanh(U_n (f ⊙ h) + W_n x + b_n)``, ``h' = (1 - f) ⊙ h + f ⊙ n``.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    weight_ih, bias_ih : Parameter of shape (2H, n_inputs) and (2H,)
        W and b of f and n.
    weight_hh, weight_hh_n : Parameter of shape (H, H)
        U_f and U_n.

    References
    ----------
    .. [1] Zhou, G.-B., Wu, J., Zhang, C.-L. and Zhou, Z.-H. (2016). Minimal gated unit for recurrent neural networks.
       International Journal of Automation and Computing 13.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import MGUCell
    >>> cell = MGUCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    n_gates = 2
    n_recurrent_gates = 1
    bias_names = ("bias_ih",)

    def __init__(self, n_inputs: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__(n_inputs, hidden_size, bias=bias)
        self.weight_hh_n = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.reset_parameters()

    def _parts(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the arguments of f and n."""
        x_f, x_n = x_gates.chunk(2, -1)
        a_f = x_f + s_gates
        return a_f, x_n + nn.functional.linear(torch.sigmoid(a_f) * s, self.weight_hh_n)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        a_f, a_n = self._parts(s, x_gates, s_gates)
        return torch.sigmoid(-a_f) * s + torch.sigmoid(a_f) * torch.tanh(a_n)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        """Return those of everything but the candidate, which is nested."""
        a_f, a_n = self._parts(s, x_gates, s_gates)
        by_f = {(0, 0): sigmoid_slope(a_f) * (torch.tanh(a_n) - s)}
        return Coefficients(by_f, by_f, {(0, 0): torch.sigmoid(-a_f)})

    def linearize(self, s: Tensor, x: Tensor) -> MGULinearization:  # type: ignore[override]
        U, W = self.recurrent_weights(), self.input_weights()
        x_gates, s_gates = self.input_gates(x), self.recurrent_gates(s, U.flatten(0, 1))
        a_f, a_n = self._parts(s, x_gates, s_gates)
        f = torch.sigmoid(a_f)
        first = GatedLinearization(self.coefficients(s, x_gates, s_gates), U, W, self.n_blocks)
        return MGULinearization(first, f, s * sigmoid_slope(a_f), f * sech2(a_n), U[0], self.weight_hh_n, W[0], W[1])

    def hidden_linearization(self, s: Tensor, x: Tensor) -> MGULinearization:  # type: ignore[override]
        return self.linearize(s, x)
