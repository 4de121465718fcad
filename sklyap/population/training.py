"""train_population: many networks of one task, trained safely and in parallel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from tqdm.auto import tqdm

from sklyap.exceptions import FailedNetworkWarning, SklyapWarning, UntrustedFileError
from sklyap.population.description import differences, identity
from sklyap.population.directory import PopulationDirectory
from sklyap.population.network_population import NetworkPopulation
from sklyap.population.parallel import run_all
from sklyap.population.plan import CALLER, Plan, make_plan
from sklyap.population.records import NetworkRecord, Origin
from sklyap.population.worker import TrainingTask
from sklyap.validation import check_bool, check_jobs, check_verbose

__all__ = ["train_population"]


def train_population(
    estimator: BaseEstimator,
    param_distributions: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    X: Any,
    y: Any,
    *,
    n_networks: int | None = None,
    validation: Any = 0.2,
    snapshot_epochs: Any = (1, "last"),
    directory: str | Path | None = None,
    resume: bool = True,
    n_jobs: int | None = None,
    random_state: Any = None,
    verbose: int = 1,
    name: str | None = None,
) -> NetworkPopulation:
    """Train many networks that differ in hyperparameters and seed, and keep them with their histories.

    Every network has its own seed, derived from `random_state`, and one thread, so that the population is the
    same to the last bit for every `n_jobs`, and when it is trained in several calls.

    Parameters
    ----------
    estimator : RNNClassifier or RNNRegressor
        The networks are copies of it.
    param_distributions : dict or list of dicts
        Hyperparameters to vary: lists of values, or distributions with a ``rvs`` method, as in
        :class:`sklearn.model_selection.ParameterSampler`. With a list of dicts one of them is drawn first.
    X, y : array-like
        The data, as `estimator` takes them.
    n_networks : int, optional
        How many networks. By default one for each point of the grid, if there are only lists. Points of a
        grid that is smaller than `n_networks` are used more than once, with another seed.
    validation : float, tuple (X_val, y_val) or None, default=0.2
        Share of the data that is split off once for all networks (stratified, for a classifier of
        sequences), or the validation data. None does without; losses are then those of training.
    snapshot_epochs : sequence of numbers and "last", default=(1, "last")
        When to keep the weights: 0 for the untrained network, 0.5 after half of the batches of the first
        epoch, and so on. The end of training is always kept.
    directory : path-like, optional
        Where to put each network when it is finished: weights as safetensors, the rest as JSON. Without
        it they are in memory only.
    resume : bool, default=True
        Whether to go on in a directory that holds a part of this population; False trains all networks anew.
    n_jobs : int, optional
        Networks to train at the same time, through joblib: ``joblib.parallel_config(backend="dask")`` (or
        ray) moves them to a cluster.
    random_state : int, RandomState instance or None, default=None
        Determines the hyperparameters, the split and the seed of each network. With None a directory
        goes on from the seed it was begun with.
    verbose : int, default=1
        Whether to show a progress bar.
    name : str, optional
        Of the population, to tell it from others when several are concatenated; by default that of `directory`.

    Returns
    -------
    NetworkPopulation
        A network that failed (its loss became NaN, it raised an exception, it ran out of memory) is in
        ``failures`` with its reason. When training is interrupted (Ctrl-C) without a `directory`, it holds the
        networks finished so far; with one, call again to go on.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong, before the first network is trained: an unknown hyperparameter, a snapshot after
        the last epoch, X and y of different length, or a `directory` that belongs to another call, in
        which case the message says what differs.
    OSError
        If `directory` can't be written to, or another call trains a population there at this moment. The same call
        waits for the other's end instead, and takes over what it has trained.

    Warns
    -----
    FailedNetworkWarning
        Once, if networks failed; and for every file in `directory` that is corrupt or foreign. Its network
        is trained again.

    Examples
    --------
    >>> from sklyap.datasets import load_sequential_digits
    >>> from sklyap.networks import RNNClassifier
    >>> from sklyap.population import train_population
    >>> X, y = load_sequential_digits(n_class=2, return_X_y=True)
    >>> population = train_population(
    ...     RNNClassifier(max_epochs=2), {"hidden_size": [4, 8], "cell": ["rnn", "gru"]}, X, y,
    ...     random_state=0, verbose=0,
    ... )
    >>> len(population), population.params["hidden_size"].tolist()
    (4, [4, 8, 4, 8])
    >>> population.best_losses.shape, population.networks(epoch=1)
    ((4,), <4 trained networks, epoch 1>)
    """
    _check_options(resume, n_jobs, verbose, name)
    storage = None if directory is None else PopulationDirectory(directory)
    begun = storage.read_manifest() if storage is not None and resume and storage.manifest.exists() else None
    plan = make_plan(
        estimator,
        param_distributions,
        X,
        y,
        n_networks=n_networks,
        validation=validation,
        snapshot_epochs=snapshot_epochs,
        random_state=begun["call"]["random_state"] if begun and random_state is None else random_state,
    )
    call = plan.describe()
    run = _Run(plan, call, storage, name or ("population" if storage is None else storage.path.resolve().name))
    if storage is None:
        return run.train(n_jobs, verbose)
    with storage.claim(run.call, wait=resume):
        if resume and storage.manifest.exists():  # read again, as another call may have begun in the meantime
            _check_same_call(storage, storage.read_manifest()["call"], call)
        storage.open(run.call, {"name": run.origin.name, "call": call}, anew=not resume)
        run.take_finished()
        population = run.train(n_jobs, verbose)
        storage.tidy()
        return population


def _check_options(resume: Any, n_jobs: Any, verbose: Any, name: Any) -> None:
    check_bool(resume, "resume", caller=CALLER)
    check_verbose(verbose, caller=CALLER)
    check_jobs(n_jobs, caller=CALLER)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"The 'name' parameter of {CALLER} must be a string. Got {name!r} instead.")


class _Run:
    """Networks on their way into a population."""

    def __init__(self, plan: Plan, call: dict[str, Any], storage: PopulationDirectory | None, name: str) -> None:
        self.storage = storage
        self.data = plan.data
        self.origin = Origin(name, plan.estimator)
        self.call = identity(call)
        directory = None if storage is None else str(storage.path.resolve())
        self.tasks = [
            TrainingTask(plan.estimator, i, params, seed, plan.epochs, directory, self.call)
            for i, (params, seed) in enumerate(zip(plan.params, plan.seeds, strict=True))
        ]
        self.records: dict[int, NetworkRecord] = {}
        self.best = np.inf

    def take_finished(self) -> None:
        """Take over the networks that the directory holds, and name the files that can't be trusted."""
        assert self.storage is not None
        there = set(self.storage.indices())
        for task in self.tasks:
            if task.index not in there:
                continue
            try:
                self._add(self.storage.take(self.call, task))
            except UntrustedFileError as error:
                warnings.warn(f"Network {task.index} is trained again: {error}", FailedNetworkWarning, stacklevel=4)

    def train(self, n_jobs: int | None, verbose: int) -> NetworkPopulation:
        """Train the networks that are missing and return the population."""
        missing = [task for task in self.tasks if task.index not in self.records]
        done = len(self.records)
        with tqdm(total=len(self.tasks), initial=done, desc=self.origin.name, unit="net", disable=not verbose) as bar:

            def finish(record: NetworkRecord) -> None:
                self._add(self._store(record))
                bar.set_postfix_str(self._status(), refresh=False)
                bar.update()

            try:
                run_all(missing, self.data, n_jobs=n_jobs, done=finish)
            except KeyboardInterrupt:
                if self.storage is not None:
                    raise
                warnings.warn(
                    f"Training was interrupted: the population has {len(self.records)} of {len(self.tasks)} networks.",
                    SklyapWarning,
                    stacklevel=3,
                )
        self._warn_of_failures()
        return NetworkPopulation([self.records[index] for index in sorted(self.records)])

    def _store(self, record: NetworkRecord) -> NetworkRecord:
        """Write what its worker has not written: one that does not see the directory, or that died."""
        written = record.snapshots and all(s.path is not None for s in record.snapshots.values())
        if self.storage is None or written:
            return record
        return self.storage.write(self.call, record)

    def _add(self, record: NetworkRecord) -> None:
        self.records[record.index] = replace(record, origin=self.origin)
        if record.reason is None:
            self.best = min(self.best, record.best_loss)

    def _status(self) -> str:
        failed = sum(record.reason is not None for record in self.records.values())
        best = f"best loss {self.best:.4g}" if np.isfinite(self.best) else "no loss yet"
        return best + (f", {failed} failed" if failed else "")

    def _warn_of_failures(self) -> None:
        failed = [record for record in self.records.values() if record.reason is not None]
        if failed:
            first = min(failed, key=lambda record: record.index)
            warnings.warn(
                f"{len(failed)} of {len(self.tasks)} networks failed and are kept apart in `failures`. "
                f"The first is network {first.index} with {first.params}: {first.reason}",
                FailedNetworkWarning,
                stacklevel=4,
            )


def _check_same_call(storage: PopulationDirectory, begun: dict[str, Any], call: dict[str, Any]) -> None:
    found = differences(begun, call)
    if found:
        more = f", and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"The 'directory' parameter of {CALLER} must be new, or begun by the same call. {storage.path} was begun "
            f"by another: {'; '.join(found[:5])}{more}. Choose another directory, or pass resume=False to replace it."
        )
