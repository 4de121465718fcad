"""The orthogonal network: an Elman network whose recurrent matrix is a rotation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sklyap.cells.gated import Coefficients, GatedCell, sech2, skew
from sklyap.validation import check_choice

__all__ = ["OrthogonalCell"]


class OrthogonalCell(GatedCell):
    """Orthogonal cell, state ``h``, ``h' = φ(exp(M - Mᵀ) h + W x + b)`` with the matrix exponential [1]_.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    nonlinearity : {"tanh", "relu", "modrelu", "identity"}, default="tanh"
        φ. "modrelu" is ``sign(a) max(|a| + b, 0)`` of ``a = exp(M - Mᵀ) h + W x`` [2]_. It annihilates a direction
        whenever a unit stays below its threshold, as "relu" does; the exponent is -inf then.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    .. [1] Lezcano-Casado, M. and Martínez-Rubio, D. (2019). Cheap orthogonal constraints in neural networks. ICML.
    .. [2] Helfrich, K., Willmott, D. and Ye, Q. (2018). Orthogonal recurrent neural networks with scaled Cayley
       transform. ICML.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import OrthogonalCell
    >>> cell = OrthogonalCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    bias_names = ("bias_ih",)

    def __init__(self, n_inputs: int, hidden_size: int, *, nonlinearity: str = "tanh", bias: bool = True) -> None:
        kinds = ["tanh", "relu", "modrelu", "identity"]
        self.nonlinearity = check_choice(nonlinearity, "nonlinearity", kinds, caller="OrthogonalCell")
        super().__init__(n_inputs, hidden_size, bias=bias)

    def reset_parameters(self) -> None:
        """Rotate disjoint pairs of units by angles from U(-π, π); Xavier-normal input weights, no bias."""
        nn.init.zeros_(self.weight_hh)
        with torch.no_grad():
            self.weight_hh.diagonal(1)[::2].uniform_(-math.pi, math.pi)
        nn.init.xavier_normal_(self.weight_ih)
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)

    def recurrent_weights(self) -> Tensor:
        return torch.matrix_exp(skew(self.weight_hh)).unsqueeze(0)

    def input_gates(self, x: Tensor) -> Tensor:
        b = None if self.nonlinearity == "modrelu" else self.bias_ih
        return nn.functional.linear(x, self.weight_ih, b)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        a = x_gates + s_gates
        match self.nonlinearity:
            case "tanh":
                return torch.tanh(a)
            case "relu":
                return torch.relu(a)
            case "modrelu":
                return a.sign() * torch.relu(self._magnitude(a))
        return a

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        a = x_gates + s_gates
        match self.nonlinearity:
            case "tanh":
                slope = sech2(a)
            case "relu":
                slope = (a > 0).to(a.dtype)
            case "modrelu":
                slope = ((self._magnitude(a) > 0) & (a != 0)).to(a.dtype)
            case _:
                slope = torch.ones_like(a)
        return Coefficients({(0, 0): slope}, {(0, 0): slope}, {})

    def _magnitude(self, a: Tensor) -> Tensor:
        """Return ``|a| + b``, whose positive part is what modReLU passes on."""
        return a.abs() if self.bias_ih is None else a.abs() + self.bias_ih
