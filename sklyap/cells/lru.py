"""The linear recurrent unit, a diagonal state-space layer with complex eigenvalues."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.cells.diagonal import DiagonalLinearization
from sklyap.validation import check_int, check_real

__all__ = ["LRUCell"]


class LRUCell(RecurrentCell):
    """Linear recurrent unit, ``h' = λ ⊙ h + γ ⊙ (B x)`` with H complex units, state ``(Re h, Im h)`` [1]_.

    ``λ = exp(-exp(ν) + i exp(θ))`` lies inside the unit circle. Whatever drives it, each exponent
    ``ln|λ_j| = -exp(ν_j)`` comes twice. A linear readout sees both parts.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    min_radius, max_radius : float, default=0.5 and 0.99
        ``|λ|`` is drawn uniformly from the ring between them.
    max_phase : float, default=2π
        arg λ is drawn from U(0, max_phase).

    Attributes
    ----------
    nu, theta, log_gamma : Parameter of shape (H,)
        Logarithms of decay, phase and gain.
    weight_ih : Parameter of shape (2H, n_inputs)
        Re B and Im B. There are no recurrent weights.

    References
    ----------
    .. [1] Orvieto, A., Smith, S. L., Gu, A., Fernando, A., Gulcehre, C., Pascanu, R. and De, S. (2023). Resurrecting
       recurrent neural networks for long sequences. ICML.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LRUCell
    >>> cell = LRUCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (16, (5, 16))
    """

    n_inputs: int
    nu: nn.Parameter
    theta: nn.Parameter
    log_gamma: nn.Parameter

    def __init__(
        self,
        n_inputs: int,
        hidden_size: int,
        *,
        min_radius: float = 0.5,
        max_radius: float = 0.99,
        max_phase: float = 2 * math.pi,
    ) -> None:
        super().__init__()
        self.n_inputs = check_int(n_inputs, "n_inputs", low=1, caller="LRUCell")
        self.hidden_size = check_int(hidden_size, "hidden_size", low=1, caller="LRUCell")
        self.state_size = self.output_size = 2 * hidden_size
        self.min_radius = check_real(min_radius, "min_radius", low=1e-6, high=1 - 1e-6, caller="LRUCell")
        self.max_radius = check_real(max_radius, "max_radius", low=min_radius, high=1 - 1e-6, caller="LRUCell")
        self.max_phase = check_real(max_phase, "max_phase", low=1e-6, high=2 * math.pi, caller="LRUCell")
        for name in ("nu", "theta", "log_gamma"):
            self.register_parameter(name, nn.Parameter(torch.empty(hidden_size)))
        self.weight_ih = nn.Parameter(torch.empty(2 * hidden_size, n_inputs))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw λ from the ring, B from N(0, 1/(2 n_inputs)), and set ``γ² = 1 - |λ|²``."""
        low, high = self.min_radius**2, self.max_radius**2
        square = low + (high - low) * torch.rand_like(self.nu)
        self.nu.copy_((-0.5 * square.log()).log())
        self.theta.copy_((self.max_phase * torch.rand_like(self.theta)).clamp(min=1e-6).log())
        self.log_gamma.copy_(0.5 * (1 - square).log())
        nn.init.normal_(self.weight_ih, std=(2 * self.n_inputs) ** -0.5)

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """Return Re λ and Im λ, each (H,)."""
        radius, phase = torch.exp(-self.nu.exp()), self.theta.exp()
        return radius * torch.cos(phase), radius * torch.sin(phase)

    def _weights(self) -> Tensor:
        return self.log_gamma.exp().repeat(2).unsqueeze(-1) * self.weight_ih

    def step(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        a, b = self.eigenvalues()
        re, im = s.chunk(2, -1)
        return torch.cat([a * re - b * im, b * re + a * im], -1) + nn.functional.linear(x, self._weights())

    def linearize(self, s: Tensor, x: Tensor) -> DiagonalLinearization:  # type: ignore[override]
        shape = (*s.shape[:-1], self.hidden_size)
        a, b = (part.expand(shape) for part in self.eigenvalues())
        weights = self._weights().expand(*s.shape[:-1], -1, -1)
        return DiagonalLinearization({(0, 0): a, (0, 1): -b, (1, 0): b, (1, 1): a}, weights)
