"""Cells whose units pass on a function of their own state: ``s' = a ⊙ s + U φ(s) + W x + b``."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sklyap.cells.base import Linearization, RecurrentCell
from sklyap.validation import check_int

__all__ = ["SynapticCell", "SynapticLinearization"]


@dataclass(frozen=True)
class SynapticLinearization(Linearization):
    """The derivative ``diag(a) + U diag(slope)``.

    Attributes
    ----------
    a : Tensor of shape (H,)
    U : Tensor of shape (H, H)
    W : Tensor of shape (H, n_inputs)
    slope : Tensor of shape (*batch, H)
    """

    a: Tensor
    U: Tensor
    W: Tensor
    slope: Tensor

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        Z = self.a.unsqueeze(-1) * Q + self.U @ (self.slope.unsqueeze(-1) * Q)
        return Z if P is None else Z + self.W @ P

    def dense(self) -> Tensor:
        return self.U * self.slope.unsqueeze(-2) + torch.diag(self.a)

    def __getitem__(self, index: int | slice) -> SynapticLinearization:
        return replace(self, slope=self.slope[index])


class SynapticCell(RecurrentCell):
    """Base of cells with ``s' = a ⊙ s + U φ(s) + W x + b``.

    Subclasses implement `terms`, `rates` and `slopes`.

    Parameters
    ----------
    n_inputs, hidden_size : int
    bias : bool, default=True

    Attributes
    ----------
    weight_hh, weight_ih, bias_ih : Parameter of shape (H, H), (H, n_inputs) and (H,)
    """

    n_inputs: int
    bias_ih: nn.Parameter | None

    def __init__(self, n_inputs: int, hidden_size: int, *, bias: bool = True) -> None:
        super().__init__()
        caller = type(self).__name__
        self.n_inputs = check_int(n_inputs, "n_inputs", low=1, caller=caller)
        self.hidden_size = check_int(hidden_size, "hidden_size", low=1, caller=caller)
        self.state_size = self.output_size = hidden_size
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, n_inputs))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.register_parameter("bias_ih", nn.Parameter(torch.empty(hidden_size)) if bias else None)

    @abc.abstractmethod
    def terms(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return a (H,), U (H, H), W (H, n_inputs) and b (H,) or None as they act."""

    @abc.abstractmethod
    def rates(self, s: Tensor) -> Tensor:
        """Return φ(s)."""

    @abc.abstractmethod
    def slopes(self, s: Tensor) -> Tensor:
        """Return φ'(s)."""

    def step(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        a, U, W, b = self.terms()
        return a * s + nn.functional.linear(self.rates(s), U) + nn.functional.linear(x, W, b)

    def trajectory(self, s: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        # Weights are made, and inputs weighted, once for all steps.
        a, U, W, b = self.terms()
        states = [s]
        for drive in nn.functional.linear(x, W, b).unbind(1):
            s = a * s + nn.functional.linear(self.rates(s), U) + drive
            states.append(s)
        return torch.stack(states)

    def linearize(self, s: Tensor, x: Tensor) -> SynapticLinearization:  # type: ignore[override]
        a, U, W, _ = self.terms()
        return SynapticLinearization(a, U, W, self.slopes(s))
