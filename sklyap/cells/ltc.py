"""The liquid time-constant network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.gated import Coefficients, GatedCell, sigmoid_slope
from sklyap.validation import check_real

__all__ = ["LTCCell"]


class LTCCell(GatedCell):
    """Liquid time-constant cell, state ``h``, ``dh/dt = -(1/τ + f) ⊙ h + f ⊙ A`` with ``f = σ(U h + W x + b)`` [1]_.

    A step of the authors' solver, stable for every `dt`: ``h' = (h + dt f ⊙ A) / (1 + dt (1/τ + f))``, with f at the
    state before it. Exponents per unit of time are ``result.per_time(cell.dt)``.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    dt : float, default=0.5
        Time that a step takes.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    log_tau, target : Parameter of shape (H,)
        ln τ and A.

    References
    ----------
    .. [1] Hasani, R., Lechner, M., Amini, A., Rus, D. and Grosu, R. (2021). Liquid time-constant networks. AAAI
       (algorithm 1).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LTCCell
    >>> cell = LTCCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    bias_names = ("bias_ih",)

    def __init__(self, n_inputs: int, hidden_size: int, *, dt: float = 0.5, bias: bool = True) -> None:
        self.dt = check_real(dt, "dt", low=torch.finfo(torch.float64).tiny, caller="LTCCell")
        super().__init__(n_inputs, hidden_size, bias=bias)
        self.log_tau = nn.Parameter(torch.empty(hidden_size))
        self.target = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw U from N(0, 1/H), W from N(0, 1/n_inputs) and A from N(0, 1); no bias, and τ is 1."""
        nn.init.normal_(self.weight_hh, std=self.hidden_size**-0.5)
        nn.init.normal_(self.weight_ih, std=self.n_inputs**-0.5)
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)
        if hasattr(self, "target"):
            nn.init.zeros_(self.log_tau)
            nn.init.normal_(self.target)

    def _gate(self, x_gates: Tensor, s_gates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the argument of f, and the denominator."""
        a = x_gates + s_gates
        return a, 1 + self.dt * (torch.exp(-self.log_tau) + torch.sigmoid(a))

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        a, below = self._gate(x_gates, s_gates)
        return (s + self.dt * torch.sigmoid(a) * self.target) / below

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        a, below = self._gate(x_gates, s_gates)
        s_next = (s + self.dt * torch.sigmoid(a) * self.target) / below
        slope = {(0, 0): self.dt * sigmoid_slope(a) * (self.target - s_next) / below}
        return Coefficients(slope, slope, {(0, 0): 1 / below})
