"""The long expressive memory: two coupled states with learned time steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sklyap.cells.base import LeadingLinearization, Linearization
from sklyap.cells.gated import Coefficients, GatedCell, GatedLinearization, sech2, sigmoid_slope
from sklyap.validation import check_real

__all__ = ["LEMCell"]


@dataclass(frozen=True)
class NestedLinearization(Linearization):
    """A derivative whose second block enters the first once more, ``Z_0 += slope ⊙ (U Z_1 + W P)``.

    Attributes
    ----------
    first : Linearization
        Of everything but the nested gate.
    slope : Tensor of shape (*batch, H)
    U : Tensor of shape (H, H)
    W : Tensor of shape (H, n_inputs)
    """

    first: Linearization
    slope: Tensor
    U: Tensor
    W: Tensor

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        Z = self.first.push(Q, P)
        H = self.slope.shape[-1]
        nested = self.U @ Z[..., H:, :]
        if P is not None:
            nested = nested + self.W @ P
        return torch.cat([Z[..., :H, :] + self.slope.unsqueeze(-1) * nested, Z[..., H:, :]], -2)

    def dense(self) -> Tensor:
        J, H = self.first.dense(), self.slope.shape[-1]
        return torch.cat([J[..., :H, :] + self.slope.unsqueeze(-1) * (self.U @ J[..., H:, :]), J[..., H:, :]], -2)

    def fold(self, k: int, *, inputs: bool = True) -> NestedLinearization:
        # Folding the nested product as well would cost as much as pushing H tangents.
        return replace(self, first=self.first.fold(k, inputs=inputs))

    def __getitem__(self, index: int | slice) -> NestedLinearization:
        return replace(self, first=self.first[index], slope=self.slope[index])


class LEMCell(GatedCell):
    """Long expressive memory cell, state ``(y, z)`` of 2H entries, output ``y``.

    ``z' = z + τ ⊙ (tanh(U_z y + W_z x + b_z) - z)`` and ``y' = y + θ ⊙ (tanh(V z' + W_y x + b_y) - y)``, with
    learned time steps ``τ = Δt σ(U_τ y + W_τ x + b_τ)`` and ``θ = Δt σ(U_θ y + W_θ x + b_θ)`` [1]_.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    dt : float, default=1.0
        Δt, the longest time step.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    weight_ih, bias_ih : Parameter of shape (4H, n_inputs) and (4H,)
        W and b of τ, θ, z and y.
    weight_hh : Parameter of shape (3H, H)
        U of τ, θ and z.
    weight_hh_z : Parameter of shape (H, H)
        V.

    References
    ----------
    .. [1] Rusch, T. K., Mishra, S., Erichson, N. B. and Mahoney, M. W. (2022). Long expressive memory for
       sequence modeling. ICLR (equation 3).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LEMCell
    >>> cell = LEMCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (16, (5, 16))
    """

    n_gates = 4
    n_recurrent_gates = 3
    n_blocks = 2
    bias_names = ("bias_ih",)

    def __init__(self, n_inputs: int, hidden_size: int, *, dt: float = 1.0, bias: bool = True) -> None:
        self.dt = check_real(dt, "dt", low=0.0, caller="LEMCell")
        super().__init__(n_inputs, hidden_size, bias=bias)
        self.weight_hh_z = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.reset_parameters()

    def _gates(self, x_gates: Tensor, s_gates: Tensor) -> tuple[Tensor, ...]:
        """Return the gates τ, θ and z, and the input to y."""
        H = self.hidden_size
        return (*(x_gates[..., : 3 * H] + s_gates).chunk(3, -1), x_gates[..., 3 * H :])

    def _by_z(self, z: Tensor) -> Tensor:
        return nn.functional.linear(z, self.weight_hh_z)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        y, z = s.chunk(2, -1)
        tau, theta, a_z, x_y = self._gates(x_gates, s_gates)
        z = z + self.dt * torch.sigmoid(tau) * (torch.tanh(a_z) - z)
        y = y + self.dt * torch.sigmoid(theta) * (torch.tanh(self._by_z(z) + x_y) - y)
        return torch.cat([y, z], -1)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        """Return those of everything but the gate of y, which is nested."""
        return self._coefficients(s, x_gates, s_gates)[0]

    def _coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> tuple[Coefficients, Tensor]:
        """Return the coefficients and the slope of the gate of y."""
        y, z = s.chunk(2, -1)
        tau, theta, a_z, x_y = self._gates(x_gates, s_gates)
        by_tau, by_theta = self.dt * torch.sigmoid(tau), self.dt * torch.sigmoid(theta)
        a_y = self._by_z(z + by_tau * (torch.tanh(a_z) - z)) + x_y
        gates = {
            (0, 1): self.dt * sigmoid_slope(theta) * (torch.tanh(a_y) - y),
            (1, 0): self.dt * sigmoid_slope(tau) * (torch.tanh(a_z) - z),
            (1, 2): by_tau * sech2(a_z),
        }
        # 1 - Δt σ, without cancellation
        kept = {
            (0, 0): 1 - self.dt + self.dt * torch.sigmoid(-theta),
            (1, 1): 1 - self.dt + self.dt * torch.sigmoid(-tau),
        }
        return Coefficients(gates, gates, kept), by_theta * sech2(a_y)

    def linearize(self, s: Tensor, x: Tensor) -> NestedLinearization:  # type: ignore[override]
        U, W = self.recurrent_weights(), self.input_weights()
        coefficients, slope = self._coefficients(s, self.input_gates(x), self.recurrent_gates(s, U.flatten(0, 1)))
        first = GatedLinearization(coefficients, U, W, self.n_blocks)
        return NestedLinearization(first, slope, self.weight_hh_z, W[3])

    def hidden_linearization(self, s: Tensor, x: Tensor) -> Linearization:  # type: ignore[override]
        return LeadingLinearization(self.linearize(s, x), self.hidden_size, self.state_size)
