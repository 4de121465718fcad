"""Tasks through joblib, on any backend: results as they come, and workers that die are survived."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from sklyap.population.records import NetworkRecord
from sklyap.population.worker import Task, fail, run_task

__all__ = ["run_all"]

# A task catches what its network raises, so whatever else comes out of a backend is about the workers. The
# exceptions of clusters go by name, because their packages may not be installed here.
_DEATHS = (concurrent.futures.BrokenExecutor, concurrent.futures.CancelledError, asyncio.CancelledError)
_DEATHS_BY_NAME = {"KilledWorker", "FutureCancelledError", "WorkerCrashedError", "ActorDiedError", "RayActorError"}
_PATIENCE = 3


def run_all(
    tasks: Sequence[Task], data: tuple[Any, ...], *, n_jobs: int | None, done: Callable[[NetworkRecord], None]
) -> None:
    """Train the networks of all `tasks` and hand each to `done` as soon as it is there.

    When a worker dies, the rest goes on. A network that was in flight at `_PATIENCE` deaths is tried alone; if
    that kills its worker too (it needs more memory than there is, say), it becomes a failure.
    """
    pending = {task.index: task for task in tasks}
    blame: Counter[int] = Counter()
    while pending:
        try:
            for record in _results(list(pending.values()), data, n_jobs):
                pending.pop(record.index, None)
                done(record)
        except Exception as error:
            if not _is_death(error):
                raise
            # Tasks start in order, so those in flight are the first.
            blame.update(list(pending)[: effective_n_jobs(n_jobs)])
        for index in [i for i in pending if blame[i] >= _PATIENCE]:
            done(_alone(pending.pop(index), data))


def _alone(task: Task, data: tuple[Any, ...]) -> NetworkRecord:
    try:
        # A single job would be run in this process, which is not to die.
        return next(_results([task], data, n_jobs=2))
    except Exception as error:
        if not _is_death(error):
            raise
        return fail(task, f"its worker died, perhaps out of memory ({type(error).__name__}: {error})")


def _results(tasks: Sequence[Task], data: tuple[Any, ...], n_jobs: int | None) -> Iterator[NetworkRecord]:
    options = {"n_jobs": n_jobs, "batch_size": 1}
    if get_active_backend()[0].supports_return_generator:
        yield from Parallel(return_as="generator_unordered", **options)(delayed(run_task)(t, *data) for t in tasks)
        return
    # Other backends (ray) return when all is done: a few tasks per worker at a time, so that something is.
    size = 4 * effective_n_jobs(n_jobs)
    for start in range(0, len(tasks), size):
        yield from Parallel(**options)(delayed(run_task)(t, *data) for t in tasks[start : start + size])


def _is_death(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, _DEATHS) or bool(names & _DEATHS_BY_NAME)
