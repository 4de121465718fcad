"""The coupled oscillatory network: damped, driven oscillators as units."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.gated import Coefficients, GatedCell, constant, sech2
from sklyap.validation import check_choice, check_real

__all__ = ["CoRNNCell"]


class CoRNNCell(GatedCell):
    """Coupled oscillatory cell, state ``(y, z)`` of 2H entries: positions, which are its output, and velocities.

    ``z' = z + Δt (tanh(U_y y + U_z z + W x + b) - γ y - ε z̄)`` and ``y' = y + Δt z'``, with ``z̄ = z``
    (explicit damping, the authors' code) or ``z̄ = z'`` (implicit) [1]_.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    dt : float, default=0.042
        Δt, the time step; the defaults are the paper's for pixels of sequential MNIST.
    gamma : float, default=2.7
        γ, the squared frequency.
    epsilon : float, default=4.7
        ε, the damping.
    damping : {"explicit", "implicit"}, default="explicit"
        Whether damping acts on the old velocities ("explicit") or the new ones ("implicit").
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    .. [1] Rusch, T. K. and Mishra, S. (2021). Coupled oscillatory recurrent neural network (coRNN): an accurate
       and (gradient) stable architecture for learning long time dependencies. ICLR (equation 3).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import CoRNNCell
    >>> cell = CoRNNCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (16, (5, 16))
    """

    n_blocks = 2
    bias_names = ("bias_ih",)

    def __init__(
        self,
        n_inputs: int,
        hidden_size: int,
        *,
        dt: float = 0.042,
        gamma: float = 2.7,
        epsilon: float = 4.7,
        damping: str = "explicit",
        bias: bool = True,
    ) -> None:
        self.dt = check_real(dt, "dt", low=0.0, caller="CoRNNCell")
        self.gamma = check_real(gamma, "gamma", low=0.0, caller="CoRNNCell")
        self.epsilon = check_real(epsilon, "epsilon", low=0.0, caller="CoRNNCell")
        self.damping = check_choice(damping, "damping", ["explicit", "implicit"], caller="CoRNNCell")
        super().__init__(n_inputs, hidden_size, bias=bias)

    @property
    def recurrent_columns(self) -> int:
        return 2 * self.hidden_size

    def reset_parameters(self) -> None:
        """Draw every parameter from U(-1/√m, 1/√m), m the 2H + n_inputs entries that a unit sums over."""
        bound = (2 * self.hidden_size + self.n_inputs) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def _rates(self) -> tuple[float, float, float]:
        """Return what tanh, y and z are multiplied by in z'."""
        if self.damping == "explicit":
            return self.dt, -self.dt * self.gamma, 1 - self.dt * self.epsilon
        shrink = 1 / (1 + self.dt * self.epsilon)
        return shrink * self.dt, -shrink * self.dt * self.gamma, shrink

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        y, z = s.chunk(2, -1)
        by_tanh, by_y, by_z = self._rates()
        z = by_tanh * torch.tanh(x_gates + s_gates) + by_y * y + by_z * z
        return torch.cat([y + self.dt * z, z], -1)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        by_tanh, by_y, by_z = self._rates()
        slope = by_tanh * sech2(x_gates + s_gates)
        gates = {(0, 0): self.dt * slope, (1, 0): slope}
        diagonal = {
            (0, 0): constant(1 + self.dt * by_y, slope),
            (0, 1): constant(self.dt * by_z, slope),
            (1, 0): constant(by_y, slope),
            (1, 1): constant(by_z, slope),
        }
        return Coefficients(gates, gates, diagonal)
