"""The Elman network, ``h' = φ(W x + U h + b)``."""

from __future__ import annotations

import torch
from torch import Tensor

from sklyap.cells.gated import Coefficients, GatedCell, sech2
from sklyap.validation import check_choice

__all__ = ["ElmanCell"]


class ElmanCell(GatedCell):
    """Elman cell, state ``h``, the step of :class:`torch.nn.RNN`.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    nonlinearity : {"tanh", "relu"}, default="tanh"
        Of the units.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    Elman, J. L. (1990). Finding structure in time. Cognitive Science 14.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import ElmanCell
    >>> cell = ElmanCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    def __init__(self, n_inputs: int, hidden_size: int, *, nonlinearity: str = "tanh", bias: bool = True) -> None:
        self.nonlinearity = check_choice(nonlinearity, "nonlinearity", ["tanh", "relu"], caller="ElmanCell")
        super().__init__(n_inputs, hidden_size, bias=bias)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        a = x_gates + s_gates
        return torch.tanh(a) if self.nonlinearity == "tanh" else torch.relu(a)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        a = x_gates + s_gates
        slope = sech2(a) if self.nonlinearity == "tanh" else (a > 0).to(a.dtype)
        return Coefficients({(0, 0): slope}, {(0, 0): slope}, {})
