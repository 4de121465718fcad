"""What drives a cell: sequences at the network's input, of equal or unequal length, or a number of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells.base import RecurrentCell
from sklyap.cells.batches import ambiguous, check_kind, grouped
from sklyap.cells.conversion import adopt, check_standing
from sklyap.cells.encoder import LayerInput
from sklyap.cells.probe import probe
from sklyap.cells.rows import RowsCell
from sklyap.validation import check_dense, check_int, check_sequences

__all__ = ["Drive", "check_finite", "with_arguments"]


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
    def of(
        cls,
        cell: RecurrentCell,
        sequences: Any,
        *,
        lengths: Any = None,
        forward_kwargs: Mapping[str, Any] | None = None,
        attached: bool = False,
    ) -> Drive:
        """Validate `sequences`, and run them through the network around the cell, if there is one.

        The network is seen at work here: the cell, which is changed in place, gets the weights that were used, and a
        network whose recurrent layer is not its step is refused.

        Parameters
        ----------
        cell : RecurrentCell
        sequences : array-like, list of arrays, PackedSequence, or int
            See :func:`~sklyap.lyapunov_spectrum`.
        lengths : sequence of int, optional
            How many steps of each sequence of a padded array count.
        forward_kwargs : mapping, optional
            Further arguments of the network's `forward`.
        attached : bool
            Whether inputs stay in the graph that they come from.
        """
        if isinstance(sequences, Drive):
            return sequences
        if not isinstance(sequences, int | float | str | np.number | PackedSequence | None):
            check_kind(sequences)
            check_dense(sequences, "sequences", real=False)
        if isinstance(cell, RowsCell) and cell.n_noise:
            if not isinstance(sequences, int | np.integer):
                noisy = {
                    i: x for indices, part in grouped(sequences, lengths) for i, x in zip(indices, part, strict=True)
                }
                sequences, lengths = [noisy[i] for i in sorted(noisy)], None
            sequences = cell.with_noise(sequences)
        if isinstance(cell, RowsCell) and cell.n_inputs is None and not isinstance(sequences, int | np.integer):
            cell.infer_inputs(sequences, lengths)
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
        encoder = cell.encoder
        if forward_kwargs:
            encoder = with_arguments(encoder, forward_kwargs)
        groups = grouped(sequences, lengths, detach=not attached)
        if forward_kwargs and len(groups) > 1:
            raise ValueError(
                "The 'forward_kwargs' parameter needs sequences of one length. Got several: give a padded array, and "
                "their lengths among forward_kwargs if the network's forward takes them."
            )
        inputs: dict[int, Tensor] = {}
        starts: dict[int, Tensor] = {}
        for indices, part in groups:
            rows, start = _driven(
                cell, encoder, check_finite(part), listed=isinstance(sequences, list | tuple), detach=not attached
            )
            # Rows are not always the network's sequences: it may fold other axes into them.
            keys = indices if len(rows) == len(indices) else range(len(inputs), len(inputs) + len(rows))
            inputs.update(zip(keys, rows, strict=True))
            starts.update({} if start is None else dict(zip(keys, start, strict=True)))
        ordered = [inputs[i] for i in sorted(inputs)]
        first = torch.stack([starts[i] for i in sorted(starts)]) if starts else None
        return cls(ordered, first, [len(x) for x in ordered])

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

    def transient_steps(self, steps: int | str, name: str = "warmup", *, reserved: int = 0) -> int:
        """Return how many first steps of every sequence are transient, beside `reserved` others.

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

    def padded(
        self, cell: RecurrentCell, indices: list[int], *, ends_are_seen: bool = False
    ) -> tuple[Tensor | int, Tensor, list[int]]:
        """Return inputs (n, longest, n_inputs) or the number of steps, initial states, and lengths.

        A step from outside this package is looked at, less far where the ends of the run are looked at after it.
        """
        lengths = [self.lengths[i] for i in indices]
        s = cell.initial_state(self.n_sequences) if self.starts is None else self.starts
        if self.inputs is None:
            x: Tensor | int = lengths[0]
        else:
            x = torch.nn.utils.rnn.pad_sequence([self.inputs[i] for i in indices], batch_first=True)
        probe(cell, s[indices], x, before=not ends_are_seen)
        return x, s[indices], lengths


def _driven(
    cell: RecurrentCell, encoder: Any, part: Tensor, *, listed: bool, detach: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Return what drives a cell, a tensor (n_steps_i, n_inputs) for each row, and where it starts."""
    if encoder is None:
        return list(check_sequences(_as_series(part, cell), n_inputs=cell.n_inputs, detach=detach)), None
    if not isinstance(encoder, LayerInput):
        x, start = encoder(part)
        return list(check_sequences(x, n_inputs=cell.n_inputs, detach=detach)), start
    if listed and part.ndim == 2 and part.is_floating_point():
        part = part.unsqueeze(-1)  # items of a list are sequences, of one input per step
    seen = encoder.observe(part)
    if encoder.differentiable:
        check_standing(encoder, seen)
    else:
        adopt(cell, encoder, seen)
    x = check_sequences(seen.x, n_inputs=cell.n_inputs, detach=detach)
    return [row[:length] for row, length in zip(x, seen.lengths, strict=True)], seen.start


def _as_series(part: Tensor, cell: RecurrentCell) -> Tensor:
    """Return a single series (n_steps, n_inputs) as one sequence, where two dimensions cannot be anything else."""
    if part.ndim != 2 or part.shape[1] != cell.n_inputs:
        return part
    n = part.shape[0]
    if cell.n_inputs == 1 and n > 1:
        raise ambiguous(n)
    return part.unsqueeze(0)


def with_arguments(encoder: Any, arguments: Mapping[str, Any]) -> LayerInput:
    """Return an encoder that hands further arguments to the network, numbers in its dtype."""
    if not isinstance(encoder, LayerInput):
        raise ValueError(
            "The 'forward_kwargs' parameter is for a network with a forward of its own. Got a bare recurrent layer or "
            "cell; wrap it in a module whose forward takes them."
        )
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"The 'forward_kwargs' parameter must be a dict of arguments of forward. Got {arguments!r:.80} instead."
        )
    like = next((p for p in encoder.module.parameters() if p.is_floating_point()), torch.empty(0))

    def cast(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().to(like)
        return type(value)(map(cast, value)) if type(value) in (tuple, list) else value

    return replace(encoder, arguments={name: cast(value) for name, value in arguments.items()})


def check_finite(sequences: Any) -> Tensor:
    """Return sequences as a tensor of finite real numbers, floating or integer, of two dimensions or more."""
    tensor = sequences if isinstance(sequences, Tensor) else torch.as_tensor(np.asarray(sequences))
    if tensor.is_complex():
        raise TypeError(
            f"The 'sequences' parameter must hold real numbers. Got dtype {tensor.dtype} instead; "
            "torch.view_as_real gives real and imaginary parts as inputs."
        )
    if 0 in tensor.shape or tensor.ndim < 2:
        raise ValueError(
            "The 'sequences' parameter must have shape (n_sequences, n_steps, ...) and not be empty. "
            f"Got shape {tuple(tensor.shape)} instead."
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        where = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
        raise ValueError(f"The 'sequences' parameter must be finite. Got {float(tensor[where])} at index {where}.")
    return tensor
