"""The continuous-time rate network, by Euler steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.gated import sech2
from sklyap.cells.synaptic import SynapticCell
from sklyap.validation import check_bool, check_choice, check_real

__all__ = ["RateCell"]


class RateCell(SynapticCell):
    """Rate network, state ``h``, ``τ dh/dt = -h + U φ(h) + W x + b`` by Euler steps of `dt` τ [1]_.

    ``h' = (1 - dt) h + dt (U φ(h) + W x + b)``; exponents per τ are ``result.per_time(cell.dt)``. Of a random U
    with entries N(0, g²/H) and without input, the network is chaotic for g > 1 [1]_.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    dt : float, default=0.1
        Length of a step in units of τ; 1 is the map ``h' = U φ(h) + W x + b``.
    nonlinearity : {"tanh", "relu"}, default="tanh"
        φ.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    .. [1] Sompolinsky, H., Crisanti, A. and Sommers, H. J. (1988). Chaos in random neural networks. Physical Review
       Letters 61.
    .. [2] Engelken, R., Wolf, F. and Abbott, L. F. (2023). Lyapunov spectra of chaotic recurrent neural networks.
       Physical Review Research 5, 043044.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import RateCell
    >>> cell = RateCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    def __init__(
        self, n_inputs: int, hidden_size: int, *, dt: float = 0.1, nonlinearity: str = "tanh", bias: bool = True
    ) -> None:
        check_bool(bias, "bias", caller="RateCell")
        super().__init__(n_inputs, hidden_size, bias=bias)
        self.dt = check_real(dt, "dt", low=torch.finfo(torch.float64).tiny, high=1.0, caller="RateCell")
        self.nonlinearity = check_choice(nonlinearity, "nonlinearity", ["tanh", "relu"], caller="RateCell")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw U from N(0, 1/H), the onset of chaos, and W from N(0, 1/n_inputs); no bias."""
        nn.init.normal_(self.weight_hh, std=self.hidden_size**-0.5)
        nn.init.normal_(self.weight_ih, std=self.n_inputs**-0.5)
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)

    def terms(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        a = self.weight_hh.new_full((self.hidden_size,), 1 - self.dt)
        b = None if self.bias_ih is None else self.dt * self.bias_ih
        return a, self.dt * self.weight_hh, self.dt * self.weight_ih, b

    def rates(self, s: Tensor) -> Tensor:
        return torch.tanh(s) if self.nonlinearity == "tanh" else torch.relu(s)

    def slopes(self, s: Tensor) -> Tensor:
        return sech2(s) if self.nonlinearity == "tanh" else (s > 0).to(s.dtype)
