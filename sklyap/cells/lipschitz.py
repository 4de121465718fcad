"""The Lipschitz network: a linear part plus a Lipschitz nonlinearity, both with a controlled spectrum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.gated import Coefficients, GatedCell, constant, sech2, skew
from sklyap.validation import check_real

__all__ = ["LipschitzCell"]


class LipschitzCell(GatedCell):
    """Lipschitz cell, state ``h``, by forward Euler.

    ``h' = h + ε (A h + tanh(U h + W x + b))`` with ``A`` and ``U`` of the form
    ``(1 - β)(M + Mᵀ) + β(M - Mᵀ) - γ I`` [1]_.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    epsilon : float, default=0.03
        ε, the step size.
    beta : float or (float, float), default=0.75
        β between 0 (symmetric) and 1 (skew) of A and of U; one number for both.
    gamma : float or (float, float), default=0.001
        γ of A and of U; one number for both.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    .. [1] Erichson, N. B., Azencot, O., Queiruga, A., Hodgkinson, L. and Mahoney, M. W. (2021). Lipschitz
       recurrent neural networks. ICLR.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import LipschitzCell
    >>> cell = LipschitzCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    n_recurrent_gates = 2
    bias_names = ("bias_ih",)

    def __init__(
        self,
        n_inputs: int,
        hidden_size: int,
        *,
        epsilon: float = 0.03,
        beta: float | tuple[float, float] = 0.75,
        gamma: float | tuple[float, float] = 0.001,
        bias: bool = True,
    ) -> None:
        self.epsilon = check_real(epsilon, "epsilon", low=0.0, caller="LipschitzCell")
        self.beta = _pair(beta, "beta", high=1.0)
        self.gamma = _pair(gamma, "gamma", high=None)
        super().__init__(n_inputs, hidden_size, bias=bias)

    def reset_parameters(self) -> None:
        """Draw M from N(0, 1/H), a scale that the authors tune; input weights are Xavier-normal and biases 0."""
        nn.init.normal_(self.weight_hh, std=self.hidden_size**-0.5)
        nn.init.xavier_normal_(self.weight_ih)
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)

    def recurrent_weights(self) -> Tensor:
        """Return A and U, (2, H, H), made from the two blocks of `weight_hh`."""
        M = super().recurrent_weights()
        beta, gamma = M.new_tensor([self.beta, self.gamma]).unsqueeze(-1).unsqueeze(-1)
        eye = torch.eye(self.hidden_size, dtype=M.dtype, device=M.device)
        return (1 - beta) * (M + M.mT) + beta * skew(M) - gamma * eye

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        linear, a = s_gates.chunk(2, -1)
        return s + self.epsilon * (linear + torch.tanh(a + x_gates))

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        slope = self.epsilon * sech2(s_gates.chunk(2, -1)[1] + x_gates)
        gates = {(0, 0): constant(self.epsilon, slope), (0, 1): slope}
        return Coefficients(gates, {(0, 0): slope}, {(0, 0): constant(1.0, slope)})


def _pair(value: float | tuple[float, float], name: str, *, high: float | None) -> tuple[float, float]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"The {name!r} parameter of LipschitzCell must be a float or two. Got {value!r} instead.")
    first, second = (check_real(v, name, low=0.0, high=high, caller="LipschitzCell") for v in pair)
    return first, second
