"""The long short-term memory."""

from __future__ import annotations

import torch
from torch import Tensor

from sklyap.cells.gated import Coefficients, GatedCell, sech2, sigmoid_slope

__all__ = ["LSTMCell"]


class LSTMCell(GatedCell):
    """LSTM cell, state ``(h, c)`` of 2H entries, the step of :class:`torch.nn.LSTM` (gates i, f, g, o).

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    Hochreiter, S. and Schmidhuber, J. (1997). Long short-term memory. Neural Computation 9.
    Mikhaeil, J., Monfared, Z. and Durstewitz, D. (2022). On the difficulty of learning chaotic
    dynamics with RNNs. NeurIPS (remark 3: the state is (h, c)).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LSTMCell
    >>> cell = LSTMCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (16, (5, 16))
    """

    n_gates = 4
    n_blocks = 2

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        i, f, g, o = (x_gates + s_gates).chunk(4, -1)
        c = torch.sigmoid(f) * s[..., self.hidden_size :] + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c], -1)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        i, f, g, o = (x_gates + s_gates).chunk(4, -1)
        c = s[..., self.hidden_size :]
        c_next = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        to_c = {
            0: sigmoid_slope(i) * torch.tanh(g),
            1: sigmoid_slope(f) * c,
            2: torch.sigmoid(i) * sech2(g),
        }
        h_of_c = torch.sigmoid(o) * sech2(c_next)
        gates = {(1, gate): a for gate, a in to_c.items()}
        gates |= {(0, gate): h_of_c * a for gate, a in to_c.items()}
        gates[0, 3] = sigmoid_slope(o) * torch.tanh(c_next)
        return Coefficients(gates, gates, {(0, 1): h_of_c * torch.sigmoid(f), (1, 1): torch.sigmoid(f)})
