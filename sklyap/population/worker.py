"""What one worker does: train one network, with one thread, and put it where it is safe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sklearn.base import BaseEstimator, clone

from sklyap.exceptions import reason_of
from sklyap.population.claims import ForeignDirectoryError
from sklyap.population.directory import PopulationDirectory
from sklyap.population.records import NetworkRecord, copies
from sklyap.population.snapshots import SnapshotCallback, history_columns
from sklyap.runtime import kept_rng, one_thread, watch_parent

__all__ = ["TrainingTask", "fail", "run_task"]


@dataclass(frozen=True)
class TrainingTask:
    """One network to train, without the data.

    Attributes
    ----------
    estimator : estimator
        The prototype.
    index, params, seed
        As in NetworkRecord.
    epochs : tuple of float
        When to keep the network besides the end.
    directory, call : str or None, str
        Where finished networks go, and the identity of the call.
    """

    estimator: BaseEstimator
    index: int
    params: dict[str, Any]
    seed: int
    epochs: tuple[float, ...]
    directory: str | None
    call: str


def run_task(task: TrainingTask, X: Any, y: Any, X_val: Any, y_val: Any) -> NetworkRecord:
    """Train a network and write it to the directory, if this process sees it.

    Returns
    -------
    NetworkRecord
        Its snapshots hold files where they were written, weights otherwise. A network that raised an
        exception has its `reason`.
    """
    watch_parent()
    directory = None
    if task.directory is not None:
        directory = PopulationDirectory(task.directory)
        if not directory.belongs_to(task.call):
            directory = None
    if directory is not None:
        # A scheduler that lost a worker runs its tasks again, the finished ones too.
        try:
            return directory.take(task.call, task)
        except (OSError, ValueError):
            pass
    # The callbacks of a network may draw from torch's generator, which belongs to the process.
    with kept_rng(), one_thread():
        record = _train(task, X, y, X_val, y_val)
    if directory is None:
        return record
    try:
        return directory.write(task.call, record)
    except ForeignDirectoryError:  # the caller, who holds the claim, is to say so
        return record


def fail(task: TrainingTask, reason: str) -> NetworkRecord:
    """Return the record of a network that could not be trained."""
    return NetworkRecord(task.index, task.params, task.seed, 0.0, history={}, snapshots={}, reason=reason)


def _train(task: TrainingTask, X: Any, y: Any, X_val: Any, y_val: Any) -> NetworkRecord:
    start = time.perf_counter()
    estimator = clone(task.estimator)
    reason, callback = None, SnapshotCallback(estimator, task.epochs)
    try:
        estimator.set_params(**copies(task.params), random_state=task.seed)
        own = list(estimator.callbacks or [])
        # First, because an early stop leaves the callbacks after it uncalled.
        estimator.set_params(callbacks=[("population_snapshots", callback), *own])
        estimator.fit(X, y, X_val, y_val)
        _check_not_interrupted(estimator, own)
    except Exception as error:
        reason = reason_of(error)
    net = getattr(estimator, "net_", None)
    return NetworkRecord(
        index=task.index,
        params=task.params,
        seed=task.seed,
        duration=time.perf_counter() - start,
        history={} if net is None else history_columns(net.history),
        snapshots=callback.snapshots_,
        reason=reason,
    )


def _check_not_interrupted(estimator: BaseEstimator, callbacks: list[Any]) -> None:
    """Tell Ctrl-C at the end of an epoch, which skorch takes for an early stop, from a stop that was wished for."""
    may_stop = callbacks or any(name.startswith("callbacks") for name in estimator.net_params or {})
    if len(estimator.history_) < estimator.net_.max_epochs and not may_stop:
        raise KeyboardInterrupt
