"""Layers of cells, each driven by the output of the one below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.base import Linearization, RecurrentCell
from sklyap.validation import check_real

__all__ = ["StackedCell"]


@dataclass(frozen=True)
class StackedLinearization(Linearization):
    """Layers' derivatives; the new output tangent of a layer is the input tangent of the next."""

    layers: tuple[Linearization, ...]
    sizes: tuple[int, ...]
    output_sizes: tuple[int, ...]

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        pushed = []
        for layer, part, width in zip(self.layers, Q.split(self.sizes, -2), self.output_sizes, strict=True):
            Z = layer.push(part, P)
            pushed.append(Z)
            P = Z[..., :width, :]
        return torch.cat(pushed, -2)

    def fold(self, k: int, *, inputs: bool = True) -> StackedLinearization:
        layers = tuple(layer.fold(k, inputs=inputs or i > 0) for i, layer in enumerate(self.layers))
        return StackedLinearization(layers, self.sizes, self.output_sizes)

    def dense(self) -> Tensor:
        first = self.layers[0].dense()
        N = sum(self.sizes)
        eye = torch.eye(N, dtype=first.dtype, device=first.device)
        return self.push(eye.expand(*first.shape[:-2], N, N))

    def __getitem__(self, index: int | slice) -> StackedLinearization:
        return StackedLinearization(tuple(layer[index] for layer in self.layers), self.sizes, self.output_sizes)


class StackedCell(RecurrentCell):
    """A stack of cells as one cell; the state is the layers' states, concatenated.

    Parameters
    ----------
    cells : sequence of RecurrentCell
        From the bottom up; each but the first takes the output of the one below.
    dropout : float, default=0.0
        Between layers, in training mode only (as in torch); the spectrum never sees it.

    Examples
    --------
    >>> from sklyap.cells import GRUCell, LSTMCell, StackedCell
    >>> StackedCell([LSTMCell(3, 8), GRUCell(8, 5)]).state_size
    21
    """

    cells: Any  # nn.ModuleList of RecurrentCell

    def __init__(self, cells: Sequence[RecurrentCell], *, dropout: float = 0.0) -> None:
        super().__init__()
        check_real(dropout, "dropout", low=0.0, high=1.0, caller="StackedCell")
        is_list = isinstance(cells, Sequence | nn.ModuleList)
        if not is_list or not cells or not all(isinstance(cell, RecurrentCell) for cell in cells):
            raise TypeError(
                f"The 'cells' parameter of StackedCell must be a list of recurrent cells, and not empty. Got {cells!r}."
            )
        cells = [leaf for cell in cells for leaf in (cell.cells if isinstance(cell, StackedCell) else [cell])]
        for below, above in pairwise(cells):
            if above.n_inputs != below.output_size:
                raise ValueError(
                    f"The 'cells' parameter of StackedCell must chain: a cell with {below.output_size} outputs "
                    f"is followed by one with {above.n_inputs} inputs."
                )
        self.cells = nn.ModuleList(cells)
        self.dropout = nn.Dropout(dropout)
        self.n_inputs, self.output_size = cells[0].n_inputs, cells[-1].output_size
        self.sizes = tuple(cell.state_size for cell in cells)
        self.state_size = sum(self.sizes)

    def initial_state(self, n: int) -> Tensor:
        return torch.cat([cell.initial_state(n) for cell in self.cells], -1)

    def output(self, s: Tensor) -> Tensor:
        return self.cells[-1].output(s[..., self.state_size - self.sizes[-1] :])

    @property
    def hidden_entries(self) -> list[int]:
        starts = accumulate(self.sizes[:-1], initial=0)
        return [start + entry for start, cell in zip(starts, self.cells, strict=True) for entry in cell.hidden_entries]

    def step(self, s: Tensor, x: Tensor | None) -> Tensor:
        states = []
        for index, (cell, part) in enumerate(zip(self.cells, s.split(self.sizes, -1), strict=True)):
            states.append(cell.step(part, x if index == 0 else self.dropout(x)))
            x = cell.output(states[-1])
        return torch.cat(states, -1)

    def trajectory(self, s: Tensor, x: Tensor | int) -> Tensor:
        # Layer by layer, each over all steps at once.
        trajectories: list[Tensor] = []
        for cell, part in zip(self.cells, s.split(self.sizes, -1), strict=True):
            if trajectories:
                x = self.dropout(x)
            trajectories.append(cell.trajectory(part, x))
            x = cell.output(trajectories[-1][1:]).transpose(0, 1)
        return torch.cat(trajectories, -1)

    def _linearize(self, s: Tensor, x: Tensor | None, method: str, sizes: tuple[int, ...]) -> Linearization:
        layers = []
        for cell, part in zip(self.cells, s.split(self.sizes, -1), strict=True):
            layers.append(getattr(cell, method)(part, x))
            x = cell.output(cell.step(part, x))
        return StackedLinearization(tuple(layers), sizes, tuple(cell.output_size for cell in self.cells))

    def linearize(self, s: Tensor, x: Tensor | None) -> Linearization:
        return self._linearize(s, x, "linearize", self.sizes)

    def hidden_linearization(self, s: Tensor, x: Tensor | None) -> Linearization:
        sizes = tuple(cell.output_size for cell in self.cells)
        return self._linearize(s, x, "hidden_linearization", sizes)
