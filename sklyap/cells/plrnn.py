"""The piecewise linear network of nonlinear dynamics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sklyap.cells.synaptic import SynapticCell
from sklyap.validation import check_bool, check_int

__all__ = ["PLRNNCell"]


class PLRNNCell(SynapticCell):
    """Piecewise linear network, state ``z``, ``z' = A z + W φ(z) + C x + h`` [1]_.

    A is diagonal, W has no diagonal, and φ is relu; with dendritic bases [2]_ it is
    ``φ(z) = Σ_b α_b max(0, z - θ_b)``. Within a region where no unit crosses a threshold the map is linear, with
    the exponents ln|eig(A + W D)|.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    n_bases : int, default=0
        B, the number of dendritic bases; 0 is relu.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    decay : Parameter of shape (H,)
        The diagonal of A.
    weight_hh, weight_ih, bias_ih : Parameter of shape (H, H), (H, n_inputs) and (H,)
        W, whose diagonal is ignored, C and h.
    basis_slopes, basis_thresholds : Parameter of shape (B,) and (H, B), or None
        α and θ.

    References
    ----------
    .. [1] Durstewitz, D. (2017). A state space approach for piecewise-linear recurrent neural networks for identifying
       computational dynamics from neural measurements. PLOS Computational Biology 13.
    .. [2] Brenner, M., Hess, F., Mikhaeil, J. M., Bereska, L. F., Monfared, Z., Kuo, P.-C. and Durstewitz, D. (2022).
       Tractable dendritic RNNs for reconstructing nonlinear dynamical systems. ICML.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import PLRNNCell
    >>> cell = PLRNNCell(3, 8)
    >>> s = cell.initial_state(5)  # five sequences
    >>> cell.state_size, tuple(cell.step(s, torch.ones(5, 3)).shape)
    (8, (5, 8))
    """

    basis_slopes: nn.Parameter | None
    basis_thresholds: nn.Parameter | None

    def __init__(self, n_inputs: int, hidden_size: int, *, n_bases: int = 0, bias: bool = True) -> None:
        check_bool(bias, "bias", caller="PLRNNCell")
        super().__init__(n_inputs, hidden_size, bias=bias)
        self.n_bases = check_int(n_bases, "n_bases", low=0, caller="PLRNNCell")
        self.decay = nn.Parameter(torch.empty(hidden_size))
        shapes = {"basis_slopes": (n_bases,), "basis_thresholds": (hidden_size, n_bases)}
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(*shape)) if n_bases else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A from U(0.5, 0.9), W and C from U(-1/√H, 1/√H), α from N(0, 1/B) and θ from N(0, 1); no bias."""
        nn.init.uniform_(self.decay, 0.5, 0.9)
        bound = self.hidden_size**-0.5
        nn.init.uniform_(self.weight_hh, -bound, bound)
        nn.init.uniform_(self.weight_ih, -bound, bound)
        if self.bias_ih is not None:
            nn.init.zeros_(self.bias_ih)
        if self.basis_slopes is not None and self.basis_thresholds is not None:
            nn.init.normal_(self.basis_slopes, std=self.n_bases**-0.5)
            nn.init.normal_(self.basis_thresholds)

    def terms(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        W = self.weight_hh - torch.diag(self.weight_hh.diagonal())
        return self.decay, W, self.weight_ih, self.bias_ih

    def rates(self, s: Tensor) -> Tensor:
        if self.basis_slopes is None or self.basis_thresholds is None:
            return torch.relu(s)
        return torch.relu(s.unsqueeze(-1) - self.basis_thresholds) @ self.basis_slopes

    def slopes(self, s: Tensor) -> Tensor:
        if self.basis_slopes is None or self.basis_thresholds is None:
            return (s > 0).to(s.dtype)
        return (s.unsqueeze(-1) > self.basis_thresholds).to(s.dtype) @ self.basis_slopes
