"""What one worker does for a search: train a candidate from where it stands to the next rung."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor

from sklyap.exceptions import reason_of
from sklyap.networks.continuation import can_continue, export_optimizer, own_callbacks, restore_optimizer
from sklyap.population.records import NetworkRecord, Snapshot, copies, epoch_key
from sklyap.population.snapshots import history_columns
from sklyap.runtime import kept_rng, one_thread, watch_parent

__all__ = ["Result", "Segment", "run_segment"]

State = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Segment:
    """A candidate to train up to some epoch, without the data.

    Attributes
    ----------
    estimator : estimator
        The prototype.
    index, params, seed
        As in NetworkRecord.
    until : int
        The epoch that training goes on to.
    start : NetworkRecord or None
        The candidate where it stands; None for a new one.
    optimizer : tuple or None
        The optimizer's state there.
    """

    estimator: BaseEstimator
    index: int
    params: dict[str, Any]
    seed: int
    until: int
    start: NetworkRecord | None = None
    optimizer: State | None = None


@dataclass(frozen=True)
class Result:
    """A candidate after a segment of training.

    Attributes
    ----------
    record : NetworkRecord
        History and snapshots from the first epoch on; `duration` is that of all segments.
    optimizer : tuple or None
        The optimizer's state; None where training can't go on from it.
    n_epochs : int
        Epochs trained in this segment.
    """

    record: NetworkRecord
    optimizer: State | None
    n_epochs: int

    @property
    def index(self) -> int:
        """The candidate's number."""
        return self.record.index


class _KeepBest(Callback):
    """Keep the state of an estimator at the epoch of its lowest loss so far, and at the end.

    Parameters
    ----------
    estimator : estimator
        The one being fitted.
    """

    def __init__(self, estimator: BaseEstimator) -> None:
        self.estimator = estimator
        self.snapshots_: dict[str, Snapshot] = {}

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        losses = [_loss(row) for row in net.history]
        if losses[-1] <= min(losses):
            self.snapshots_["best"] = self._snapshot(net)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        best = self.snapshots_.get("best")
        last = best if best is not None and best.epoch == len(net.history) else self._snapshot(net)
        self.snapshots_ |= {epoch_key(len(net.history)): last, "last": last}

    def _snapshot(self, net: NeuralNet) -> Snapshot:
        tensors, attributes = self.estimator.export_state()
        # Seconds are not part of the state, which is the same whenever a network is trained.
        attributes["history"] = [
            {name: value for name, value in row.items() if name != "dur"} for row in attributes["history"]
        ]
        row = net.history[-1] if len(net.history) else {}
        state = tensors, attributes
        return Snapshot(float(len(net.history)), row.get("train_loss"), row.get("valid_loss"), state=state)


def run_segment(segment: Segment, X: Any, y: Any, X_val: Any, y_val: Any) -> Result:
    """Train a candidate on.

    Returns
    -------
    Result
        With the reason in its record, if training raised an exception.
    """
    watch_parent()
    # torch's random generator belongs to the process: two networks trained in two threads would share it.
    with kept_rng(), one_thread():
        return _train(segment, X, y, X_val, y_val)


def _train(segment: Segment, X: Any, y: Any, X_val: Any, y_val: Any) -> Result:
    begin = time.perf_counter()
    estimator = clone(segment.estimator)
    start = segment.start
    reason, keeper, n_before, optimizer = None, _KeepBest(estimator), 0, None
    try:
        estimator.set_params(**copies(segment.params), random_state=segment.seed)
        own = list(estimator.callbacks or [])
        goes_on = can_continue(estimator)
        stoppers = own_callbacks(estimator)
        # First, because an early stop leaves the callbacks after it uncalled.
        estimator.set_params(callbacks=[("search_keep_best", keeper), *own])
        if start is not None and segment.optimizer is not None:
            n_before = _restore(estimator, start, segment.optimizer)
        else:
            start = None
        estimator.set_params(warm_start=start is not None, max_epochs=segment.until - n_before)
        estimator.fit(X, y, X_val, y_val)
        # Without an optimizer it is trained from the start if it is promoted, and stopped where it was.
        goes_on = goes_on and all(getattr(callback, "stopped_epoch_", None) is None for callback in stoppers)
        if len(estimator.history_) < segment.until and goes_on:  # Ctrl-C, which skorch takes for a wish to stop
            raise KeyboardInterrupt
        optimizer = export_optimizer(estimator) if goes_on else None
    except Exception as error:
        reason = reason_of(error)
    net = getattr(estimator, "net_", None)
    record = NetworkRecord(
        index=segment.index,
        params=segment.params,
        seed=segment.seed,
        duration=time.perf_counter() - begin + (0.0 if start is None else start.duration),
        history={} if net is None else history_columns(net.history),
        snapshots=({} if start is None else start.snapshots) | keeper.snapshots_,
        reason=reason,
    )
    return Result(record, optimizer, len(record.losses) - n_before)


def _restore(estimator: BaseEstimator, start: NetworkRecord, optimizer: State) -> int:
    tensors, attributes = start.snapshots["last"].load()
    rows = zip(attributes["history"], start.history.get("dur", ()), strict=False)
    history = [{**row, "dur": float(seconds)} for row, seconds in rows]
    estimator.restore_state(tensors, {**attributes, "history": history})
    restore_optimizer(estimator, *optimizer)
    return len(history)


def _loss(row: dict[str, Any]) -> float:
    return float(row.get("valid_loss", row.get("train_loss", np.inf)))
