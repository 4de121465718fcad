"""The long short-term memory with a projected hidden state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sklyap.cells.base import LeadingLinearization, Linearization
from sklyap.cells.gated import Coefficients, GatedLinearization
from sklyap.cells.lstm import LSTMCell
from sklyap.validation import check_int

__all__ = ["ProjectedLSTMCell"]


@dataclass(frozen=True)
class ProjectedLinearization(Linearization):
    """The derivative of an LSTM step after which the hidden state is projected.

    Attributes
    ----------
    inner : Linearization
        The derivative (2H, 2H) of the step without the projection, whose first H columns are P of the projected hidden
        state and zeros.
    weight : Tensor of shape (P, H)
        The projection.
    """

    inner: Linearization
    weight: Tensor

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        size, H = self.weight.shape
        Z = self.inner.push(_widened(Q, size, H, -2), P)
        return torch.cat([self.weight @ Z[..., :H, :], Z[..., H:, :]], -2)

    def dense(self) -> Tensor:
        size, H = self.weight.shape
        J = self.inner.dense()
        J = torch.cat([J[..., :size], J[..., H:]], -1)
        return torch.cat([self.weight @ J[..., :H, :], J[..., H:, :]], -2)

    def fold(self, k: int, *, inputs: bool = True) -> ProjectedLinearization:
        return replace(self, inner=self.inner.fold(k, inputs=inputs))

    def __getitem__(self, index: int | slice) -> ProjectedLinearization:
        return replace(self, inner=self.inner[index])


def _widened(s: Tensor, size: int, H: int, dim: int) -> Tensor:
    """Return states ``(h, c)`` with zeros between the P entries of h and those of c, so that each has H."""
    h, c = s.split([size, H], dim)
    padding = [0, 0] * (-1 - dim) + [0, H - size]
    return torch.cat([nn.functional.pad(h, padding), c], dim)


class ProjectedLSTMCell(LSTMCell):
    """LSTM cell whose hidden state is projected, the step of :class:`torch.nn.LSTM` with `proj_size` P.

    The state is ``(h, c)`` of P + H entries: the gates see h, and ``h' = W_hr (σ(o) ⊙ tanh(c'))``.

    Parameters
    ----------
    n_inputs, hidden_size : int
        Numbers of inputs and of units.
    proj_size : int
        P, at most `hidden_size`.
    bias : bool, default=True
        Whether the gates have biases.

    Attributes
    ----------
    weight_hh : Parameter of shape (4H, P)
        Recurrent weights, as torch lays them out.
    weight_hr : Parameter of shape (P, H)
        The projection.

    References
    ----------
    Sak, H., Senior, A. and Beaufays, F. (2014). Long short-term memory based recurrent neural network
    architectures for large vocabulary speech recognition. arXiv 1402.1128.

    Examples
    --------
    >>> from sklyap.cells import ProjectedLSTMCell
    >>> ProjectedLSTMCell(3, 8, proj_size=2).state_size
    10
    """

    def __init__(self, n_inputs: int, hidden_size: int, *, proj_size: int, bias: bool = True) -> None:
        check_int(hidden_size, "hidden_size", low=1, caller="ProjectedLSTMCell")
        self.proj_size = check_int(proj_size, "proj_size", low=1, high=hidden_size, caller="ProjectedLSTMCell")
        super().__init__(n_inputs, hidden_size, bias=bias)
        self.state_size, self.output_size = self.proj_size + self.hidden_size, self.proj_size
        self.weight_hr = nn.Parameter(torch.empty(self.proj_size, self.hidden_size))
        self.reset_parameters()

    @property
    def recurrent_columns(self) -> int:
        return self.proj_size

    def _wide(self, s: Tensor) -> Tensor:
        return _widened(s, self.proj_size, self.hidden_size, -1)

    def update(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Tensor:
        h, c = super().update(self._wide(s), x_gates, s_gates).chunk(2, -1)
        return torch.cat([nn.functional.linear(h, self.weight_hr), c], -1)

    def coefficients(self, s: Tensor, x_gates: Tensor, s_gates: Tensor) -> Coefficients:
        """Return those of the step without the projection."""
        return super().coefficients(self._wide(s), x_gates, s_gates)

    def linearize(self, s: Tensor, x: Tensor) -> Linearization:  # type: ignore[override]
        inner: GatedLinearization = self._gated_linearization(s, x)
        return ProjectedLinearization(inner, self.weight_hr)

    def hidden_linearization(self, s: Tensor, x: Tensor) -> Linearization:  # type: ignore[override]
        return LeadingLinearization(self.linearize(s, x), self.proj_size, self.state_size)
