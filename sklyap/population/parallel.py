"""Tasks through joblib, on any backend: results as they come, and the death of a worker survived."""

from __future__ import annotations

import concurrent.futures
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, delayed, effective_n_jobs
from joblib.parallel import get_active_backend

from sklyap.exceptions import reason_of
from sklyap.population.worker import TrainingTask, fail, run_task

__all__ = ["run_all"]

# A task catches what its network raises, so what comes out of a backend is about workers. Exceptions of
# clusters go by name, because their packages may not be installed.
_DEATHS = (concurrent.futures.BrokenExecutor, concurrent.futures.CancelledError)
_DEATHS_BY_NAME = {"WorkerCrashedError", "ActorDiedError", "RayActorError", "OutOfMemoryError"}
_PATIENCE = 3
_WORKERS_RETURN_WITHIN = 300.0  # seconds


class _WorkerDiedError(RuntimeError):
    """Workers died; `suspects` are the indices of the tasks that they had."""

    def __init__(self, reason: str, suspects: Sequence[int]) -> None:
        super().__init__(reason)
        self.suspects = suspects


def run_all(
    tasks: Sequence[Any],
    data: tuple[Any, ...],
    *,
    n_jobs: int | None,
    done: Callable[[Any], None],
    run: Callable[..., Any] = run_task,
) -> None:
    """Do ``run(task, *data)`` for all `tasks` and hand each result to `done` as soon as it is there.

    When a worker dies, the rest goes on. A network that was in flight at `_PATIENCE` deaths is tried alone; if
    that kills its worker too (it needs more memory than there is, say), it becomes a failure.
    """
    pending = {task.index: task for task in tasks}
    blame: Counter[int] = Counter()
    while pending:
        try:
            for record in _results(list(pending.values()), data, n_jobs, run):
                pending.pop(record.index, None)
                done(record)
        except _WorkerDiedError as death:
            blame.update(death.suspects)
        for index in [i for i in pending if blame[i] >= _PATIENCE]:
            done(_alone(pending.pop(index), data, run))


def _alone(task: TrainingTask, data: tuple[Any, ...], run: Callable[..., Any]) -> Any:
    try:
        # A single job would be run in this process, which is not to die.
        return next(_results([task], data, 2, run))
    except _WorkerDiedError as death:
        return fail(task, f"its worker died, perhaps out of memory: {death}")


def _results(tasks: Sequence[Any], data: tuple[Any, ...], n_jobs: int | None, run: Callable[..., Any]) -> Iterator[Any]:
    backend = get_active_backend()[0]
    if type(backend).__name__ == "DaskDistributedBackend":
        yield from _dask_results(backend, tasks, data, run)
        return
    missing = [task.index for task in tasks]
    try:
        for record in _joblib_results(tasks, data, n_jobs, run, as_they_come=backend.supports_return_generator):
            missing.remove(record.index)
            yield record
    except Exception as error:
        if isinstance(error, _DEATHS) or any(kind.__name__ in _DEATHS_BY_NAME for kind in type(error).__mro__):
            # Tasks start in order, so those in flight are the first.
            raise _WorkerDiedError(_first_line(error), missing[: effective_n_jobs(n_jobs)]) from error
        raise


def _joblib_results(
    tasks: Sequence[Any], data: tuple[Any, ...], n_jobs: int | None, run: Callable[..., Any], as_they_come: bool
) -> Iterator[Any]:
    jobs = [delayed(run)(task, *data) for task in tasks]
    if as_they_come:
        yield from Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")(jobs)
        return
    # Such a backend (ray) returns when all is done: a few tasks per worker at a time, so that something is.
    size = 4 * effective_n_jobs(n_jobs)
    with Parallel(n_jobs=n_jobs, batch_size=1) as parallel:  # one pool for all
        for start in range(0, len(jobs), size):
            yield from parallel(jobs[start : start + size])


def _dask_results(backend: Any, tasks: Sequence[Any], data: tuple[Any, ...], run: Callable[..., Any]) -> Iterator[Any]:
    """Yield results of dask's own client.

    joblib's adapter waits for ever for a task whose worker died with the only copy of the data; here every
    worker has one, and tasks that are lost all the same are sent again.
    """
    from distributed import as_completed

    client = backend.client
    shared = _share(client, data)
    futures = {client.submit(run, task, *shared, pure=False, **backend.submit_kwargs): task.index for task in tasks}
    lost: dict[int, str] = {}
    try:
        for future in as_completed(list(futures), raise_errors=False):
            index = futures.pop(future)
            if future.status == "finished":
                yield future.result()
            elif future.status == "error" and not _is_cluster_error(future.exception()):
                raise future.exception()
            else:
                lost[index] = _first_line(future.exception()) if future.status == "error" else future.status
    finally:
        client.cancel(list(futures))
    if lost:
        raise _WorkerDiedError(next(iter(lost.values())), list(lost))


def _share(client: Any, data: tuple[Any, ...]) -> list[Any]:
    """Return futures of the data, of which every worker has a copy."""
    for attempts_left in (2, 1, 0):
        client.wait_for_workers(1, timeout=_WORKERS_RETURN_WITHIN)
        try:
            return client.scatter(data, broadcast=True, hash=False)
        except (OSError, TimeoutError):  # a worker died just now
            if not attempts_left:
                raise
    raise AssertionError("unreachable")


def _is_cluster_error(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "distributed"


def _first_line(error: BaseException) -> str:
    return reason_of(error).partition("\n")[0]
