"""The skorch callback that keeps a network at chosen moments of its training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.dataset import unpack_data

from sklyap.networks.weights import inputs_of
from sklyap.population.records import Snapshot, epoch_key
from sklyap.runtime import isolated_rng

__all__ = ["SnapshotCallback", "history_columns"]


class SnapshotCallback(Callback):
    """Export the state of an estimator at chosen epochs, and its loss there.

    Training is the same with and without it.

    Parameters
    ----------
    estimator : estimator
        The one being fitted.
    epochs : sequence of float
        Epochs, 0 for the untrained network; between two integers, after that share of the batches.

    Attributes
    ----------
    snapshots_ : dict of str to Snapshot
    """

    def __init__(self, estimator: BaseEstimator, epochs: Sequence[float]) -> None:
        self.estimator = estimator
        self.epochs = epochs
        self.snapshots_: dict[str, Snapshot] = {}

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        """Keep the untrained network, and look up after which batches of this epoch there is one to keep."""
        done = len(net.history) - 1  # the row of this epoch is open already
        self._data = dataset_train if dataset_valid is None else dataset_valid
        self._has_validation = dataset_valid is not None
        if done == 0 and 0 in self.epochs:
            self._measure(net, 0.0)
        n_batches = len(net.get_iterator(dataset_train, training=True))
        inside = [epoch for epoch in self.epochs if done < epoch < done + 1]
        self._due: dict[int, list[float]] = {}
        for epoch in inside:
            batches = round((epoch - done) * n_batches, 6)  # 0.1 of 30 batches is 3, whatever floats make of it
            self._due.setdefault(max(1, math.ceil(batches)), []).append(epoch)
        self._batch = 0

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Keep the network in the middle of an epoch."""
        if training:
            self._batch += 1
            for epoch in self._due.get(self._batch, ()):
                self._measure(net, epoch)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the network after an epoch, with the losses that training has recorded."""
        if len(net.history) in self.epochs:
            self.snapshots_[epoch_key(len(net.history))] = self._snapshot(net)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Keep the network at the end, also for the epochs that it did not reach because it stopped early."""
        epoch = len(net.history)
        last = self.snapshots_.get(epoch_key(epoch)) or self._snapshot(net)
        for key in [*(epoch_key(e) for e in self.epochs if e > epoch), "last"]:
            self.snapshots_[key] = last

    def _snapshot(self, net: NeuralNet) -> Snapshot:
        """Return the network after an epoch."""
        row, epoch = net.history[-1], len(net.history)
        return Snapshot(float(epoch), row.get("train_loss"), row.get("valid_loss"), state=self._state(epoch))

    def _state(self, n_epochs: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the estimator's state after `n_epochs` whole epochs, the same whenever it is trained."""
        tensors, attributes = self.estimator.export_state()
        rows = attributes["history"][:n_epochs]  # there may be one of an epoch under way
        attributes["history"] = [{name: value for name, value in row.items() if name != "dur"} for row in rows]
        return tensors, attributes

    def _measure(self, net: NeuralNet, epoch: float) -> None:
        """Keep the network where training has recorded no loss yet."""
        loss = _loss(net, self._data, as_training=not self._has_validation)
        train_loss, valid_loss = (None, loss) if self._has_validation else (loss, None)
        self.snapshots_[epoch_key(epoch)] = Snapshot(epoch, train_loss, valid_loss, state=self._state(int(epoch)))


def _loss(net: NeuralNet, dataset: Any, *, as_training: bool) -> float:
    """Return the mean loss over `dataset`, as skorch averages it, and leave no trace in the net.

    The loss that is trained on has the weights of classes, that of validation data has none.
    """
    training = net.module_.training
    with isolated_rng(torch.device(net.device), 0):  # a loader draws a seed even when it does not shuffle
        batches = [
            (_loss_of(net, batch, training=as_training), len(inputs_of(batch[0])))
            for batch in net.get_iterator(dataset, training=False)
        ]
    net._set_training(training)
    losses, sizes = np.array(batches).T
    return float(np.average(losses, weights=sizes))


def _loss_of(net: NeuralNet, batch: Any, *, training: bool) -> float:
    X, y = unpack_data(batch)
    with torch.no_grad():
        outputs = net.evaluation_step(batch, training=False)
        return float(net.get_loss(outputs, y, X=X, training=training))


def history_columns(history: Any) -> dict[str, np.ndarray]:
    """Return the numbers of a skorch history by name, one entry per epoch: losses, metrics, seconds."""
    rows = [row for row in history if "train_loss" in row]  # an epoch that failed has no loss
    names = [
        name
        for name, value in (rows[0] if rows else {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.endswith("_batch_count")
    ]
    return {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in names}
