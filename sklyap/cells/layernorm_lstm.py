"""The long short-term memory with layer normalisation inside the loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.validation import check_bool, check_int, check_real

__all__ = ["LayerNormLSTMCell"]


class LayerNormLSTMCell(RecurrentCell):
    """LSTM with layer normalisation, state ``(h, c)`` of 2H entries [1]_.

    ``(i, f, g, o) = N(W x) + N(U h) + b``, ``c' = σ(f) ⊙ c + σ(i) ⊙ tanh(g)``, ``h' = σ(o) ⊙ tanh(N(c'))``,
    where each N subtracts the mean of its argument, divides by its standard deviation and has a gain and, for c, a
    shift of its own. The derivative is taken automatically, a pass per tangent.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    bias : bool, default=True
        Whether the gates have biases.
    eps : float, default=1e-5
        Added to the variance. At h = 0 the derivative of N is as large as ``eps ** -0.5``.

    Attributes
    ----------
    weight_ih, weight_hh, bias_ih : Parameter of shape (4H, n_inputs), (4H, H) and (4H,)
        Weights and biases of the gates.
    gain_ih, gain_hh, gain_c, shift_c : Parameter of shape (4H,), (4H,), (H,) and (H,)
        Of the normalisations.

    References
    ----------
    .. [1] Ba, J. L., Kiros, J. R. and Hinton, G. E. (2016). Layer normalization. arXiv 1607.06450 (equations 20 to
       22).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LayerNormLSTMCell
    >>> cell = LayerNormLSTMCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (16, (5, 16))
    """

    n_inputs: int
    bias_ih: nn.Parameter | None
    gain_ih: nn.Parameter
    gain_hh: nn.Parameter
    gain_c: nn.Parameter
    shift_c: nn.Parameter

    def __init__(self, n_inputs: int, hidden_size: int, *, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        check_bool(bias, "bias", caller="LayerNormLSTMCell")
        self.n_inputs = check_int(n_inputs, "n_inputs", low=1, caller="LayerNormLSTMCell")
        self.hidden_size = self.output_size = check_int(hidden_size, "hidden_size", low=1, caller="LayerNormLSTMCell")
        self.state_size = 2 * hidden_size
        self.eps = check_real(eps, "eps", low=0.0, caller="LayerNormLSTMCell")
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, n_inputs))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.register_parameter("bias_ih", nn.Parameter(torch.empty(4 * hidden_size)) if bias else None)
        for name, size in (("gain_ih", 4), ("gain_hh", 4), ("gain_c", 1), ("shift_c", 1)):
            self.register_parameter(name, nn.Parameter(torch.empty(size * hidden_size)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases from U(-1/√H, 1/√H); gains are 1 and shifts 0."""
        bound = self.hidden_size**-0.5
        for name, parameter in self.named_parameters():
            if name.startswith("gain"):
                nn.init.ones_(parameter)
            elif name.startswith("shift"):
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -bound, bound)

    def step(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        h, c = s.chunk(2, -1)
        gates = self._normal(nn.functional.linear(x, self.weight_ih), self.gain_ih, self.bias_ih)
        gates = gates + self._normal(nn.functional.linear(h, self.weight_hh), self.gain_hh)
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(self._normal(c, self.gain_c, self.shift_c)), c], -1)

    def _normal(self, a: Tensor, gain: Tensor, shift: Tensor | None = None) -> Tensor:
        centered = a - a.mean(-1, keepdim=True)
        scaled = gain * centered / torch.sqrt(centered.square().mean(-1, keepdim=True) + self.eps)
        return scaled if shift is None else scaled + shift
