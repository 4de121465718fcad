"""The antisymmetric network, a discretised differential equation at the edge of stability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.gated import Coefficients, GatedCell, constant, sech2, sigmoid_slope, skew
from sklyap.validation import check_bool, check_real

__all__ = ["AntisymmetricCell"]


class AntisymmetricCell(GatedCell):
    """Antisymmetric cell, state ``h``.

    With ``A = M - Mᵀ - γ I``, ``h' = h + ε tanh(A h + W x + b)``; with gating [1]_,
    ``h' = h + ε σ(A h + W_z x + b_z) ⊙ tanh(A h + W_h x + b_h)``.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    gating : bool, default=True
        Whether an input gate, which shares the recurrent weights, multiplies the change.
    epsilon : float, default=0.1
        ε, the step size.
    gamma : float, default=0.01
        γ, the diffusion that keeps the discretisation stable.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    .. [1] Chang, B., Chen, M., Haber, E. and Chi, E. H. (2019). AntisymmetricRNN: a dynamical system view on
       recurrent neural networks. ICLR.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import AntisymmetricCell
    >>> cell = AntisymmetricCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    n_recurrent_gates = 1
    bias_names = ("bias_ih",)

    def __init__(
        self,
        n_inputs: int,
        hidden_size: int,
        *,
        gating: bool = True,
        epsilon: float = 0.1,
        gamma: float = 0.01,
        bias: bool = True,
    ) -> None:
        self.gating = check_bool(gating, "gating", caller="AntisymmetricCell")
        self.n_gates = 2 if gating else 1
        self.epsilon = check_real(epsilon, "epsilon", low=0.0, caller="AntisymmetricCell")
        self.gamma = check_real(gamma, "gamma", low=0.0, caller="AntisymmetricCell")
        super().__init__(n_inputs, hidden_size, bias=bias)

    def reset_parameters(self) -> None:
        """Draw M from N(0, 1/H) and W from N(0, 1/n_inputs); biases are 0, those of the gates 1, so that they open."""
        nn.init.normal_(self.weight_hh, std=self.hidden_size**-0.5)
        nn.init.normal_(self.weight_ih, std=self.n_inputs**-0.5)
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)
            nn.init.ones_(self.bias_ih[self.hidden_size :])

    def recurrent_weights(self) -> Tensor:
        M = self.weight_hh
        return (skew(M) - self.gamma * torch.eye(len(M), dtype=M.dtype, device=M.device)).unsqueeze(0)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        if not self.gating:
            return s + self.epsilon * torch.tanh(s_gates + x_gates)
        x_h, x_z = x_gates.chunk(2, -1)
        return s + self.epsilon * torch.sigmoid(s_gates + x_z) * torch.tanh(s_gates + x_h)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        one = {(0, 0): constant(1.0, s)}
        if not self.gating:
            slope = self.epsilon * sech2(s_gates + x_gates)
            return Coefficients({(0, 0): slope}, {(0, 0): slope}, one)
        x_h, x_z = x_gates.chunk(2, -1)
        by_h = self.epsilon * torch.sigmoid(s_gates + x_z) * sech2(s_gates + x_h)
        by_z = self.epsilon * sigmoid_slope(s_gates + x_z) * torch.tanh(s_gates + x_h)
        return Coefficients({(0, 0): by_h + by_z}, {(0, 0): by_h, (0, 1): by_z}, one)
