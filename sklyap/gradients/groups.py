"""Sequences of unequal length and their targets, in groups of one length."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.cells.batches import grouped, one_by_one

__all__ = ["by_length", "check_no_ranks"]


def by_length(sequences: Any, targets: Any, lengths: Any) -> list[tuple[list[int], Tensor, Any]]:
    """Return rows, sequences and targets of each length.

    Parameters
    ----------
    sequences : array-like, list or PackedSequence
    targets : array-like of shape (n_sequences, ...) or list
        A list, or a padded array, of targets at every step is cut to the lengths of the sequences.
    lengths : sequence of int or None

    Raises
    ------
    ValueError
        If there are not as many targets as sequences.
    """
    rows = one_by_one(sequences, lengths)
    if targets is None or not hasattr(targets, "__len__"):
        raise ValueError(f"The 'targets' parameter must hold a target for each sequence. Got {targets!r}.")
    if len(targets) != len(rows):
        raise ValueError(
            f"The 'targets' parameter must hold one target for each of the {len(rows)} sequences. Got {len(targets)}."
        )
    longest = max(map(len, rows))
    padded = lengths is not None and np.ndim(targets) > 1 and np.shape(targets)[1] >= longest
    groups = []
    for indices, x in grouped(sequences, lengths):
        if isinstance(targets, list | tuple):
            y: Any = torch.stack([torch.as_tensor(targets[i]) for i in indices])
        else:
            y = targets[indices]
        groups.append((indices, x, y[:, : x.shape[1]] if padded else y))
    return groups


def check_no_ranks(ranks: Any, forward_kwargs: Any) -> None:
    """Raise ValueError for what a gradient over sequences of several lengths cannot have."""
    if ranks is not None:
        raise ValueError("The 'ranks' parameter needs sequences of one length. Got several lengths.")
    if forward_kwargs:
        raise ValueError(
            "The 'forward_kwargs' parameter needs sequences of one length. Got several: give a padded array, and their "
            "lengths among forward_kwargs if the network's forward takes them."
        )
