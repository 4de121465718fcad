"""Derivatives of cells without recurrent weights, in which every unit stays by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sklyap.cells.base import Linearization

__all__ = ["DiagonalLinearization"]


@dataclass(frozen=True)
class DiagonalLinearization(Linearization):
    """Diagonal blocks of the state, and matrices for the input.

    Attributes
    ----------
    blocks : mapping (r, c) -> Tensor of shape (*batch, H)
        The diagonals of the blocks; absent ones are zero.
    by_input : Tensor of shape (*batch, N, n_inputs)
    """

    blocks: Mapping[tuple[int, int], Tensor]
    by_input: Tensor

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        H = next(iter(self.blocks.values())).shape[-1]
        parts = Q.split(H, -2)
        rows: list[Tensor | None] = [None] * len(parts)
        for (r, c), d in self.blocks.items():
            term, before = d.unsqueeze(-1) * parts[c], rows[r]
            rows[r] = term if before is None else before + term
        Z = torch.cat([torch.zeros_like(parts[0]) if row is None else row for row in rows], -2)
        return Z if P is None else Z + self.by_input @ P

    def dense(self) -> Tensor:
        N = self.by_input.shape[-2]
        eye = torch.eye(N, dtype=self.by_input.dtype, device=self.by_input.device)
        return self.push(eye.expand(*self.by_input.shape[:-2], N, N))

    def __getitem__(self, index: int | slice) -> DiagonalLinearization:
        return DiagonalLinearization({key: d[index] for key, d in self.blocks.items()}, self.by_input[index])
