"""Sequences that a callback looks at: given ones, or those that the net is trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data

from sklyap.networks import weights

__all__ = ["first_batch", "inputs_of", "some"]


def some(sequences: Any, n: int) -> Any:
    """Return the first `n` sequences, a number of steps as it is."""
    return sequences if isinstance(sequences, int | np.integer) else sequences[:n]


def inputs_of(batch: Any, caller: str) -> Any:
    """Return the sequences in a batch of a skorch net."""
    X = weights.inputs_of(unpack_data(batch)[0])
    if not isinstance(X, torch.Tensor | np.ndarray | list):
        raise TypeError(
            f"{caller} needs batches whose input is an array or a tensor, or the 'sequences' parameter. "
            f"Got a {type(X).__name__} as input."
        )
    return X


def first_batch(net: NeuralNet, X: Any, y: Any, caller: str) -> Any:
    """Return the sequences of the first batch of the training data, unshuffled: no random numbers are drawn."""
    dataset = net.get_dataset(X, y)
    return inputs_of(next(iter(net.get_iterator(dataset, training=False))), caller)


def leading_steps(sequences: Any, n: int) -> Any:
    """Return the first `n` steps of sequences, or the smaller number of steps."""
    if isinstance(sequences, int | np.integer):
        return min(int(sequences), n)
    if isinstance(sequences, list | tuple):
        return [sequence[:n] for sequence in sequences]
    return sequences[:, :n]
