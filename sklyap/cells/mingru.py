"""The minGRU, a gated unit whose gates see the input only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.cells.diagonal import DiagonalLinearization
from sklyap.cells.gated import sigmoid_slope
from sklyap.validation import check_bool, check_int

__all__ = ["MinGRUCell"]


class MinGRUCell(RecurrentCell):
    """minGRU, state ``h``, ``h' = (1 - z) ⊙ h + z ⊙ n`` with ``z = σ(W_z x + b_z)`` and ``n = W_n x + b_n`` [1]_.

    Units do not see one another: the exponents are the means of ln(1 - z) along the input.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    weight_ih, bias_ih : Parameter of shape (2H, n_inputs) and (2H,)
        W and b of z and n. There are no recurrent weights.

    References
    ----------
    .. [1] Feng, L., Tung, F., Ahmed, M. O., Bengio, Y. and Hajimirsadeghi, H. (2024). Were RNNs all we needed?
       arXiv 2410.01201.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import MinGRUCell
    >>> cell = MinGRUCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    n_inputs: int
    bias_ih: nn.Parameter | None

    def __init__(self, n_inputs: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__()
        check_bool(bias, "bias", caller="MinGRUCell")
        self.n_inputs = check_int(n_inputs, "n_inputs", low=1, caller="MinGRUCell")
        self.hidden_size = check_int(hidden_size, "hidden_size", low=1, caller="MinGRUCell")
        self.state_size = self.output_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(2 * hidden_size, n_inputs))
        self.register_parameter("bias_ih", nn.Parameter(torch.empty(2 * hidden_size)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw every parameter from U(-1/√n_inputs, 1/√n_inputs), as torch's linear layers do."""
        bound = self.n_inputs**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def step(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        z, n = nn.functional.linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        return torch.sigmoid(-z) * s + torch.sigmoid(z) * n

    def linearize(self, s: Tensor, x: Tensor) -> DiagonalLinearization:  # type: ignore[override]
        z, n = nn.functional.linear(x, self.weight_ih, self.bias_ih).chunk(2, -1)
        W_z, W_n = self.weight_ih.chunk(2)
        by_z, by_n = sigmoid_slope(z) * (n - s), torch.sigmoid(z)
        by_input = by_z.unsqueeze(-1) * W_z + by_n.unsqueeze(-1) * W_n
        return DiagonalLinearization({(0, 0): torch.sigmoid(-z)}, by_input)
