"""Trained networks as a list that builds each when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, TypeVar, overload

import numpy as np
from sklearn.base import BaseEstimator

from sklyap.population.records import NetworkRecord

__all__ = ["NetworkSequence", "take"]

Item = TypeVar("Item")


class NetworkSequence(Sequence):
    """Trained networks that are built when they are indexed: a list of estimators that takes no memory.

    It is indexed as a list or as a 1-D array, so that scikit-learn's searches and splitters cut it without
    loading anything. Each access builds a new estimator.

    Parameters
    ----------
    items : sequence of tuple (NetworkRecord, epoch)
        The networks, and when.

    Attributes
    ----------
    shape : tuple (n_networks,)
        The number of networks, as an array says it.

    Examples
    --------
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(60, n_steps=5, random_state=0)
    >>> grid = {"lr": [0.01, 0.03, 0.1]}
    >>> population = train_population(RNNClassifier("gru", 4, max_epochs=2), grid, X, y, random_state=0, verbose=0)
    >>> networks = population.networks(epoch=1)
    >>> networks.shape, type(networks[0]).__name__
    ((3,), 'RNNClassifier')
    """

    def __init__(self, items: Sequence[tuple[NetworkRecord, Any]]) -> None:
        self._items = list(items)

    @property
    def shape(self) -> tuple[int]:
        return (len(self._items),)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> BaseEstimator: ...
    @overload
    def __getitem__(self, index: slice) -> NetworkSequence: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Integral):
            record, epoch = self._items[index]
            return record.network(epoch)
        return NetworkSequence(take(self._items, index))

    def __add__(self, other: Sequence[BaseEstimator]) -> Sequence[BaseEstimator]:
        if isinstance(other, NetworkSequence):
            return NetworkSequence(self._items + other._items)
        return [*self, *other]

    def __radd__(self, other: Sequence[BaseEstimator]) -> Sequence[BaseEstimator]:
        return [*other, *self]

    def __repr__(self) -> str:
        epochs = ", ".join(dict.fromkeys(str(epoch) for _, epoch in self._items))
        return f"<{len(self)} trained networks, epoch {epochs}>"


def take(items: Sequence[Item], index: Any) -> list[Item]:
    """Return the items at a slice, a boolean mask or an array of indices."""
    if isinstance(index, tuple):  # scikit-learn indexes rows as array[rows, ...]
        index = index[0]
    if isinstance(index, slice):
        return list(items[index])
    index = np.asarray(index)
    if index.dtype == bool and len(index) != len(items):
        raise IndexError(f"A mask of {len(items)} networks must have this length. Got {len(index)} instead.")
    if index.size == 0:
        return []
    if index.ndim != 1 or index.dtype.kind not in "bi":
        raise IndexError(f"Networks are indexed by an int, a slice, a mask or a list of ints. Got {index!r} instead.")
    return [items[i] for i in np.arange(len(items))[index]]
