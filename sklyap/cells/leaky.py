"""The leaky network, and echo states: its recurrent weights drawn once and left as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.cells.gated import Coefficients, GatedCell, constant, sech2
from sklyap.runtime import undrawn
from sklyap.validation import check_choice, check_dense, check_real

__all__ = ["LeakyCell"]


class LeakyCell(GatedCell):
    """Leaky cell, state ``h``, ``h' = (1 - α) h + α φ(U h + W x + b)`` [1]_.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    leak : float, default=0.5
        α in [0, 1]; 1 is the Elman network.
    nonlinearity : {"tanh", "identity"}, default="tanh"
        φ. With "identity", the exponents are ln|1 - α + α u| for the eigenvalues u of U.
    bias : bool, default=True
        Whether the gates have biases.

    References
    ----------
    .. [1] Jaeger, H., Lukoševičius, M., Popovici, D. and Siewert, U. (2007). Optimization and applications of echo
       state networks with leaky-integrator neurons. Neural Networks 20.

    Examples
    --------
    An echo state network, from its matrices:

    >>> import numpy as np
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.cells import LeakyCell
    >>> rng = np.random.default_rng(0)
    >>> W, W_in = 0.09 * rng.normal(size=(100, 100)), rng.normal(size=(100, 1))
    >>> reservoir = LeakyCell.from_weights(W, W_in, leak=0.3)
    >>> bool(lyapunov_spectrum(reservoir, rng.normal(size=(4, 200, 1)), n_exponents=3).exponents[0] < 0)
    True
    """

    bias_names = ("bias_ih",)

    def __init__(
        self, n_inputs: int, hidden_size: int, *, leak: float = 0.5, nonlinearity: str = "tanh", bias: bool = True
    ) -> None:
        self.leak = check_real(leak, "leak", low=0.0, high=1.0, caller="LeakyCell")
        self.nonlinearity = check_choice(nonlinearity, "nonlinearity", ["tanh", "identity"], caller="LeakyCell")
        super().__init__(n_inputs, hidden_size, bias=bias)

    @classmethod
    def from_weights(
        cls, W: Any, W_in: Any, *, leak: float = 1.0, bias: Any = None, nonlinearity: str = "tanh"
    ) -> LeakyCell:
        """Return a reservoir in float64 from its matrices.

        Parameters
        ----------
        W : array-like or sparse array of shape (n_units, n_units)
            Recurrent weights, ``h' = (1 - leak) h + leak φ(W h + W_in x + bias)``.
        W_in : array-like or sparse array of shape (n_units, n_inputs)
            Input weights.
        leak : float, default=1.0
            Share of the state that a step replaces.
        bias : array-like of shape (n_units,), optional
            A bias for each unit; none by default.
        nonlinearity : {"tanh", "identity"}, default="tanh"
            Of the units.

        Raises
        ------
        ValueError
            If the shapes do not fit or an entry is not finite.
        """
        recurrent, inputs = _dense(W, "W"), _dense(W_in, "W_in")
        n = recurrent.shape[0] if recurrent.ndim == 2 else 0
        b = np.zeros(n) if bias is None else np.asarray(check_dense(bias, "bias"), dtype=float).reshape(-1)
        if n == 0 or recurrent.shape != (n, n) or inputs.ndim != 2 or len(inputs) != n or b.shape != (n,):
            raise ValueError(
                "The 'W', 'W_in' and 'bias' parameters of LeakyCell.from_weights must have shapes (n_units, n_units), "
                f"(n_units, n_inputs) and (n_units,). Got {recurrent.shape}, {inputs.shape} and {b.shape} instead."
            )
        for name, values in (("W", recurrent), ("W_in", inputs), ("bias", b)):
            if not np.isfinite(values).all():
                raise ValueError(f"The {name!r} parameter of LeakyCell.from_weights must be finite.")
        with undrawn():
            cell = cls(inputs.shape[1], n, leak=leak, nonlinearity=nonlinearity).double()
        weights = {"weight_hh": recurrent, "weight_ih": inputs, "bias_ih": b}
        cell.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
        return cell.eval().requires_grad_(False)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        a = x_gates + s_gates
        return (1 - self.leak) * s + self.leak * (torch.tanh(a) if self.nonlinearity == "tanh" else a)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        a = x_gates + s_gates
        slope = self.leak * sech2(a) if self.nonlinearity == "tanh" else constant(self.leak, a)
        return Coefficients({(0, 0): slope}, {(0, 0): slope}, {(0, 0): constant(1 - self.leak, s)})


def _dense(matrix: Any, name: str) -> np.ndarray:
    matrix = matrix.toarray() if hasattr(matrix, "toarray") else matrix
    return np.asarray(check_dense(matrix, name, caller="LeakyCell.from_weights"), dtype=float)
