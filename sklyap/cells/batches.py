"""Sequences as people have them: arrays, lists, padded arrays with lengths, packed sequences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from sklyap.validation import check_int

__all__ = ["ambiguous", "check_kind", "grouped", "one_by_one"]


def grouped(sequences: Any, lengths: Any = None, *, detach: bool = True) -> list[tuple[list[int], Tensor]]:
    """Return sequences in groups of one length, each an array with the places of its rows.

    Parameters
    ----------
    sequences : array-like (n_sequences, n_steps, ...), list of arrays (n_steps_i, ...), or PackedSequence
    lengths : sequence of int, optional
        How many steps of each sequence of an array count.
    detach : bool
        Whether to take tensors out of the graph that they come from.

    Raises
    ------
    TypeError
        For tables and dictionaries, whose axes would have to be guessed, and values that are no real numbers.
    ValueError
        For lengths that do not fit.
    """
    check_kind(sequences)
    if lengths is None and not isinstance(sequences, list | tuple):
        array = _tensor(sequences, detach)
        return [(list(range(len(array) if array.ndim else 0)), array)]
    rows = one_by_one(sequences, lengths, detach=detach)
    alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        alike[tuple(row.shape)].append(i)
    return [(indices, torch.stack([rows[i] for i in indices])) for indices in alike.values()]


def one_by_one(sequences: Any, lengths: Any = None, *, detach: bool = True) -> list[Tensor]:
    """Return each sequence as a tensor (n_steps_i, ...), what `lengths` leaves of it, packed ones unpacked."""
    check_kind(sequences)
    if isinstance(sequences, PackedSequence):
        if lengths is not None:
            raise ValueError("The 'lengths' parameter must be None for a PackedSequence, which knows its own.")
        padded, lengths = pad_packed_sequence(sequences, batch_first=True)
        return [row[:n] for row, n in zip(padded.detach() if detach else padded, lengths.tolist(), strict=True)]
    if isinstance(sequences, list | tuple):
        if not len(sequences):
            raise ValueError("The 'sequences' parameter must not be empty. Got an empty list.")
        rows = [_tensor(sequence, detach) for sequence in sequences]
    else:
        array = _tensor(sequences, detach)
        rows = list(array) if array.ndim else [array]
    if any(row.ndim == 0 or 0 in row.shape for row in rows):
        raise ValueError("The 'sequences' parameter must hold sequences of at least one step. Got an empty one.")
    return rows if lengths is None else [row[:n] for row, n in zip(rows, _checked(lengths, rows), strict=True)]


def ambiguous(n: int) -> ValueError:
    """Return the error for sequences of shape (n, 1) that can be read in two ways."""
    return ValueError(
        f"The 'sequences' parameter, of shape ({n}, 1), can be read as {n} sequences of one step or as one series of "
        f"{n} steps. Give it three dimensions: sequences.reshape(1, {n}, 1) is one series, "
        f"sequences.reshape({n}, 1, 1) is {n} sequences."
    )


def _checked(lengths: Any, rows: list[Tensor]) -> list[int]:
    values = lengths.tolist() if hasattr(lengths, "tolist") else list(lengths)
    if len(values) != len(rows):
        raise ValueError(
            f"The 'lengths' parameter must hold a number of steps for each of the {len(rows)} sequences. "
            f"Got {len(values)}."
        )
    return [check_int(n, "lengths", low=1, high=len(row)) for n, row in zip(values, rows, strict=True)]


def check_kind(sequences: Any) -> None:
    """Raise TypeError for tables and dictionaries, which do not tell what is a sequence and what a step."""
    if isinstance(sequences, Mapping):
        raise TypeError(
            "The 'sequences' parameter must be an array (n_sequences, n_steps, n_inputs) or a list of arrays. Got a "
            f"{type(sequences).__name__} with keys {', '.join(map(repr, list(sequences)[:5]))}: hand over the one that "
            "holds the sequences, and what else the network's forward takes as forward_kwargs."
        )
    if type(sequences).__module__.startswith(("pandas", "polars")):
        raise TypeError(
            "The 'sequences' parameter must be an array (n_sequences, n_steps, n_inputs) or a list of arrays. Got a "
            f"{type(sequences).__name__}, whose rows can be sequences or steps: hand over frame.to_numpy() with three "
            "dimensions, frame.to_numpy()[None] for one series whose columns are inputs."
        )


def _tensor(sequence: Any, detach: bool) -> Tensor:
    if isinstance(sequence, Tensor):
        return sequence.detach() if detach else sequence
    check_kind(sequence)
    try:
        array = np.asarray(sequence)
    except ValueError as error:
        raise ValueError(
            f"The 'sequences' parameter must be a rectangular array (n_sequences, n_steps, n_inputs), or a list of "
            f"arrays for sequences of unequal length: {error}"
        ) from error
    if array.dtype.kind not in "fiubc":
        raise TypeError(f"The 'sequences' parameter must hold real numbers. Got dtype {array.dtype} instead.")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
