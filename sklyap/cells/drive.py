"""What drives a cell: sequences at the network's input, of equal or unequal length, or a number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.cells.base import RecurrentCell
from sklyap.cells.probe import probe
from sklyap.cells.rows import RowsCell
from sklyap.validation import check_int, check_sequences

__all__ = ["Drive", "check_finite"]


@dataclass(frozen=True)
class Drive:
    """What drives a cell: input sequences of any lengths, or a number of steps.

    Attributes
    ----------
    inputs : list of Tensor (n_steps_i, n_inputs), or None for an autonomous cell
    starts : Tensor of shape (n_sequences, state_size) or None
    lengths : list of int
    """

    inputs: list[Tensor] | None
    starts: Tensor | None
    lengths: list[int]

    @classmethod
    def of(cls, cell: RecurrentCell, sequences: Any, *, attached: bool = False) -> Drive:
        """Validate `sequences` and run them through the encoder of the cell, if it has one.

        With `attached`, inputs stay in the graph that they come from.
        """
        if isinstance(sequences, Drive):
            return sequences
        if isinstance(cell, RowsCell) and cell.n_noise:
            sequences = cell.with_noise(sequences)
        if cell.n_inputs is None:
            if isinstance(sequences, bool) or not isinstance(sequences, int | np.integer):
                raise TypeError(
                    f"The 'sequences' parameter must be a number of steps for an autonomous system. Got "
                    f"{type(sequences).__name__} instead. If the step of the {type(cell).__name__} takes inputs, say "
                    "how many with n_inputs=...."
                )
            return cls(None, None, [check_int(sequences, "sequences", low=1)] * cell.n_starts)
        if isinstance(sequences, int | float | str | np.number) or sequences is None:
            raise TypeError(
                "The 'sequences' parameter must be an array (n_sequences, n_steps, n_inputs), as the network takes "
                f"{cell.n_inputs} inputs per step. Got {sequences!r} instead."
            )
        inputs: list[Tensor] = []
        starts: list[Tensor] = []
        for part in _one_length_each(sequences):
            x, start = (part, None) if cell.encoder is None else cell.encoder(check_finite(part))
            if cell.encoder is not None and isinstance(sequences, list | tuple) and len(x) != len(part):
                # Items of a list are sequences, also for a network that takes time first.
                x, start = cell.encoder(check_finite(part).transpose(0, 1))
            x = check_sequences(x, n_inputs=cell.n_inputs, detach=not attached)
            inputs.extend(x)
            starts.extend([] if start is None else start)
        return cls(inputs, torch.stack(starts) if starts else None, [len(x) for x in inputs])

    @property
    def n_sequences(self) -> int:
        return len(self.lengths)

    def to(self, dtype: torch.dtype, device: torch.device) -> Drive:
        """Return the drive in another dtype, on another device."""
        inputs = None if self.inputs is None else [x.to(device=device, dtype=dtype) for x in self.inputs]
        starts = None if self.starts is None else self.starts.to(device=device, dtype=dtype)
        return Drive(inputs, starts, self.lengths)

    def between(self, start: int, stop: int) -> Drive:
        """Return the drive over steps ``start <= t < stop`` of sequences that all have them."""
        inputs = None if self.inputs is None else [x[start:stop] for x in self.inputs]
        return Drive(inputs, self.starts, [stop - start] * self.n_sequences)

    def settling(self, steps: int | str, name: str = "warmup", *, reserved: int = 0) -> int:
        """Return how many steps of every sequence to leave for settling, beside `reserved` others.

        "auto" is a tenth of the shortest sequence, and of short ones up to a quarter to reach ten steps:
        that is what a state and its tangent basis need to forget their start, however long they run.
        """
        shortest = min(self.lengths)
        if steps == "auto":
            return min(max(shortest // 10, min(10, shortest // 4)), shortest - 1 - reserved)
        return check_int(steps, name, low=0, high=shortest - 1 - reserved)

    def batches(self, size: int) -> list[list[int]]:
        """Return the indices of the sequences in batches, the longest first (padding then only trails)."""
        order = sorted(range(self.n_sequences), key=lambda i: -self.lengths[i])
        return [order[i : i + size] for i in range(0, len(order), size)]

    def padded(self, cell: RecurrentCell, indices: list[int]) -> tuple[Tensor | int, Tensor, list[int]]:
        """Return inputs (n, longest, n_inputs) or the number of steps, initial states, and lengths."""
        lengths = [self.lengths[i] for i in indices]
        s = cell.initial_state(self.n_sequences) if self.starts is None else self.starts
        if self.inputs is None:
            x: Tensor | int = lengths[0]
        else:
            x = torch.nn.utils.rnn.pad_sequence([self.inputs[i] for i in indices], batch_first=True)
        probe(cell, s[indices], x)
        return x, s[indices], lengths


def check_finite(sequences: Any) -> Tensor:
    """Return sequences as a tensor of finite numbers, floating or integer, of any shape."""
    tensor = sequences if isinstance(sequences, Tensor) else torch.as_tensor(np.asarray(sequences))
    if 0 in tensor.shape or tensor.ndim < 2:
        raise ValueError(
            "The 'sequences' parameter must be a non-empty array (n_sequences, n_steps, ...). "
            f"Got shape {tuple(tensor.shape)} instead."
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        where = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
        raise ValueError(f"The 'sequences' parameter must be finite. Got {float(tensor[where])} at index {where}.")
    return tensor


def _one_length_each(sequences: Any) -> list[Any]:
    """Return arrays of equal-length sequences: all at once, or one by one where a list has several lengths."""
    if not isinstance(sequences, list | tuple):
        return [sequences]
    if not len(sequences):
        raise ValueError("The 'sequences' parameter must not be empty. Got an empty list.")
    sequences = [s if isinstance(s, Tensor) else np.asarray(s) for s in sequences]
    if len({tuple(s.shape) for s in sequences}) > 1:
        return [s[None] for s in sequences]
    stack = torch.stack if isinstance(sequences[0], Tensor) else np.stack
    return [stack(sequences)]
