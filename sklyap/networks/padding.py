"""Sequences of unequal length in one array: trailing steps that are none are NaN, or -1 among tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells.batches import one_by_one

__all__ = ["IGNORED", "counted", "filled", "is_ragged", "lengths_of", "pad", "rows_of", "trimmed", "without_padding"]

IGNORED = -100
"""The class index of a step that is none, which torch's cross-entropy leaves out too."""


def is_ragged(X: Any) -> bool:
    """Tell whether X is a list of sequences of unequal length, or packed sequences."""
    if isinstance(X, PackedSequence):
        return True
    if not isinstance(X, list | tuple) or not X or not all(np.ndim(x) or hasattr(x, "__len__") for x in X):
        return False
    return not any(isinstance(x, str | bytes) for x in X) and len({len(x) for x in X}) > 1


def rows_of(X: Any, name: str, caller: str) -> list[NDArray]:
    """Return the sequences of a ragged list (n_steps_i,) or (n_steps_i, n) as arrays of two dimensions."""
    if isinstance(X, PackedSequence):
        X = one_by_one(X)
    rows = [x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x) for x in X]
    if any(row.ndim not in (1, 2) or 0 in row.shape for row in rows):
        shapes = sorted({row.shape for row in rows if row.ndim not in (1, 2) or 0 in row.shape})
        raise ValueError(
            f"The {name!r} parameter of {caller} must be a list of sequences (n_steps_i, n) of at least one step. "
            f"Got one of shape {shapes[0]}."
        )
    rows = [row[:, np.newaxis] if row.ndim == 1 else row for row in rows]
    if len({row.shape[1] for row in rows}) > 1:
        raise ValueError(
            f"The {name!r} parameter of {caller} must be a list of sequences of one width. "
            f"Got widths {', '.join(map(str, sorted({row.shape[1] for row in rows})))}."
        )
    return rows


def pad(rows: list[NDArray], value: Any) -> NDArray:
    """Return sequences as one array (n_sequences, longest, n), with `value` after their ends."""
    padded = np.full((len(rows), max(map(len, rows)), *rows[0].shape[1:]), value, dtype=np.result_type(*rows))
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def counted(X: Tensor) -> Tensor:
    """Return which steps (n_sequences, n_steps) of values (n_sequences, n_steps, n) or tokens are there."""
    return ~X[..., 0].isnan() if X.is_floating_point() else X >= 0


def lengths_of(X: NDArray) -> list[int] | None:
    """Return the lengths of padded sequences; None if all are as long as the array."""
    lengths = counted(torch.from_numpy(X)).sum(1).tolist()
    return None if min(lengths) == X.shape[1] else lengths


def filled(X: Tensor) -> Tensor:
    """Return values or tokens with zeros for padding."""
    return X.nan_to_num() if X.is_floating_point() else X.clamp(min=0)


def without_padding(X: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return a batch with zeros for padding, cut to its longest sequence, and the lengths; None if there is none."""
    # Padding trails: a sequence that is shorter than the array lacks the last step.
    if bool(counted(X[:, -1:]).all()):
        return X, None
    lengths = counted(X).sum(1)
    return filled(X[:, : int(lengths.max())]), lengths


def trimmed(values: NDArray, lengths: list[int] | None) -> NDArray | list[NDArray]:
    """Return values at every step (n_sequences, n_steps, ...), as a list where sequences have lengths."""
    return values if lengths is None else [row[:n] for row, n in zip(values, lengths, strict=True)]
