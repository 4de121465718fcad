"""What the callbacks that compute exponents share: their checks, the sequences they look at, and a warning."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import unpack_data

from sklyap.cells import as_recurrent_cell
from sklyap.exceptions import SklyapWarning
from sklyap.networks import weights
from sklyap.networks.padding import counted
from sklyap.validation import check_choice, check_int

__all__ = ["check_read", "check_rhythm", "check_size", "inputs_of", "leading_steps", "probe_of", "some", "warn_of"]


def check_rhythm(every: Any, unit: Any, caller: str) -> None:
    """Check a callback's `every` and `unit`."""
    check_int(every, "every", low=1, caller=caller)
    check_choice(unit, "unit", ["batch", "epoch"], caller=caller)


def check_size(net: NeuralNet, layer: str | None, n_exponents: int | None, caller: str) -> int:
    """Return how many exponents are computed: `n_exponents`, or all that the recurrent layer of `net` has."""
    size = as_recurrent_cell(net, layer=layer).state_size
    return size if n_exponents is None else check_int(n_exponents, "n_exponents", low=1, high=size, caller=caller)


def warn_of(what: str, error: Exception) -> None:
    """Warn that `what` was left because of `error`."""
    warnings.warn(f"{what}: {error} Training goes on.", SklyapWarning, stacklevel=3)


def some(sequences: Any, n: int) -> Any:
    """Return the first `n` sequences, a number of steps as it is."""
    return sequences if isinstance(sequences, int | np.integer) else sequences[:n]


def inputs_of(batch: Any, caller: str) -> Any:
    """Return the sequences in a batch of a skorch net."""
    X = weights.inputs_of(unpack_data(batch)[0])
    if isinstance(X, torch.Tensor | np.ndarray) and X.ndim in (2, 3):
        return _unpadded(X)
    if not isinstance(X, torch.Tensor | np.ndarray | list):
        raise TypeError(
            f"{caller} needs batches whose input is an array or a tensor, or the 'sequences' parameter. "
            f"Got a {type(X).__name__} as input."
        )
    return X


def _unpadded(X: Any) -> Any:
    """Return sequences, as a list without their padding where there is some."""
    values = torch.as_tensor(X)
    if values.is_floating_point() and values.ndim == 2:
        return X
    there = counted(values)
    trails = bool((there[:, :-1] >= there[:, 1:]).all())  # what is no padding is left to the checks of the network
    if bool(there.all()) or not trails:
        return X
    return [row[:n] for row, n in zip(X, there.sum(1).tolist(), strict=True)]


def check_read(n_read: int, sequences: Any, caller: str) -> None:
    """Raise ValueError where a network reads `sequences` as another number of sequences than they seem to be."""
    if not isinstance(sequences, int | np.integer) and n_read != len(sequences):
        raise ValueError(
            f"The 'sequences' parameter of {caller} must have shape (n_sequences, n_steps, n_inputs). "
            f"Got {len(sequences)} that the network reads as {n_read}: add an axis in front of a single sequence."
        )


def probe_of(sequences: Any, net: NeuralNet, X: Any, y: Any, caller: str) -> Any:
    """Return `sequences`, or those of the first batch of the training data, unshuffled: no random numbers are drawn."""
    if sequences is not None:
        return sequences
    dataset = net.get_dataset(X, y)
    return inputs_of(next(iter(net.get_iterator(dataset, training=False))), caller)


def leading_steps(sequences: Any, n: int) -> Any:
    """Return the first `n` steps of sequences, or the smaller number of steps."""
    if isinstance(sequences, int | np.integer):
        return min(int(sequences), n)
    if isinstance(sequences, list | tuple):
        return [sequence[:n] for sequence in sequences]
    return sequences[:, :n]
