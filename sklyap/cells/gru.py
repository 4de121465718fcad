"""The gated recurrent unit, in torch's variant."""

from __future__ import annotations

import torch
from torch import Tensor

from sklyap.cells.gated import Coefficients, GatedCell, sech2, sigmoid_slope

__all__ = ["GRUCell"]


class GRUCell(GatedCell):
    """GRU cell, state ``h``, the step of :class:`torch.nn.GRU` (gates r, z, n).

    ``n = tanh(W_n x + b_in + r ⊙ (U_n h + b_hn))``, ``h' = (1 - z) ⊙ n + z ⊙ h``.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    Cho, K. et al. (2014). Learning phrase representations using RNN encoder-decoder. EMNLP.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> cell = GRUCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    n_gates = 3

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        (xr, xz, xn), (hr, hz, hn) = x_gates.chunk(3, -1), s_gates.chunk(3, -1)
        z = torch.sigmoid(xz + hz)
        n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
        return n + z * (s - n)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        (xr, xz, xn), (hr, hz, hn) = x_gates.chunk(3, -1), s_gates.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        a_n = xn + r * hn
        by_n = torch.sigmoid(-(xz + hz)) * sech2(a_n)  # 1 - z without cancellation
        by_r = by_n * hn * sigmoid_slope(xr + hr)
        by_z = (s - torch.tanh(a_n)) * sigmoid_slope(xz + hz)
        gates = {(0, 0): by_r, (0, 1): by_z}
        return Coefficients({**gates, (0, 2): by_n * r}, {**gates, (0, 2): by_n}, {(0, 0): z})
