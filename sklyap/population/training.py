"""train_population: many networks of one task, trained safely and in parallel."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import ParameterGrid, ParameterSampler, train_test_split
from sklearn.utils import check_array, check_consistent_length, check_random_state
from torch import Tensor
from tqdm.auto import tqdm

from sklyap.exceptions import FailedNetworkWarning, SklyapWarning, UntrustedFileError
from sklyap.population.description import describe, differences, fingerprint, identity
from sklyap.population.network_population import NetworkPopulation
from sklyap.population.parallel import run_all
from sklyap.population.records import NetworkRecord, Origin, PopulationDirectory
from sklyap.population.worker import Task
from sklyap.validation import check_int, check_real

__all__ = ["train_population"]

_CALLER = "train_population"
# What the seeds derived from `random_state` are for.
_FOR_SAMPLING, _FOR_SPLIT, _FOR_NETWORKS = range(3)


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
        If `directory` can't be written to.

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
    >>> untrained_enough = population.networks(epoch=1)
    >>> population.losses().shape, population.best_losses.shape
    ((4,), (4,))
    """
    _check_estimator(estimator)
    epochs = _check_epochs(snapshot_epochs)
    data = _check_data(X, y)
    storage = None if directory is None else PopulationDirectory(directory)
    begun = storage is not None and resume and storage.manifest.exists()
    entropy = _entropy(random_state, storage.read_manifest() if begun else {})
    candidates = _candidates(estimator, param_distributions, n_networks, _seed(entropy, _FOR_SAMPLING))
    _check_snapshots(estimator, candidates, epochs)
    data = _split(estimator, data, validation, _seed(entropy, _FOR_SPLIT))
    seeds = [_seed(entropy, _FOR_NETWORKS, i) for i in range(len(candidates))]
    _rehearse(estimator, candidates, data)

    call = _describe_call(estimator, candidates, epochs, data, entropy)
    tasks = [
        Task(clone(estimator), i, params, seed, epochs, None if storage is None else str(storage.path), identity(call))
        for i, (params, seed) in enumerate(zip(candidates, seeds, strict=True))
    ]
    origin = Origin(name or ("population" if storage is None else storage.path.name), clone(estimator))
    run = _Run(tasks, origin, storage)
    if storage is not None:
        if begun:
            _check_same_call(storage, call)
        storage.open(identity(call), {"name": origin.name, "entropy": entropy, "call": call})
        if begun:
            run.take_finished()
    return run.train(data, n_jobs, verbose)


@dataclass
class _Run:
    """Networks on their way into a population."""

    tasks: list[Task]
    origin: Origin
    storage: PopulationDirectory | None

    def __post_init__(self) -> None:
        self.records: dict[int, NetworkRecord] = {}
        self.best = np.inf

    def take_finished(self) -> None:
        """Take over the networks that the directory holds, and name the files that can't be trusted."""
        assert self.storage is not None
        for task in self.tasks:
            try:
                record = self.storage.read(task.call, task.index, verify=True)
            except FileNotFoundError:
                continue
            except UntrustedFileError as error:
                warnings.warn(f"Network {task.index} is trained again: {error}", FailedNetworkWarning, stacklevel=4)
                continue
            self._add(replace(record, params=task.params))

    def train(self, data: tuple[Any, ...], n_jobs: int | None, verbose: int) -> NetworkPopulation:
        """Train the networks that are missing and return the population."""
        missing = [task for task in self.tasks if task.index not in self.records]
        done = len(self.records)
        with tqdm(total=len(self.tasks), initial=done, desc=self.origin.name, unit="net", disable=not verbose) as bar:

            def finish(record: NetworkRecord) -> None:
                self._add(self._store(record))
                bar.set_postfix_str(self._status(), refresh=False)
                bar.update()

            try:
                run_all(missing, data, n_jobs=n_jobs, done=finish)
            except KeyboardInterrupt:
                if self.storage is not None:
                    raise
                warnings.warn(
                    f"Training was interrupted: the population has {len(self.records)} of {len(self.tasks)} networks.",
                    SklyapWarning,
                    stacklevel=3,
                )
        self._warn_of_failures()
        records = [self.records[index] for index in sorted(self.records)]
        return NetworkPopulation(records)

    def _store(self, record: NetworkRecord) -> NetworkRecord:
        in_memory = record.reason is not None and not record.snapshots
        in_memory |= any(snapshot.path is None for snapshot in record.snapshots.values())
        if self.storage is not None and in_memory:
            return self.storage.write(self.tasks[record.index].call, record)
        return record

    def _add(self, record: NetworkRecord) -> None:
        self.records[record.index] = replace(record, origin=self.origin)
        if record.reason is None:
            self.best = min(self.best, record.best_loss)

    def _status(self) -> str:
        failed = sum(record.reason is not None for record in self.records.values())
        return f"best loss {self.best:.4g}" + (f", {failed} failed" if failed else "")

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


# Checks, before anything is trained


def _check_estimator(estimator: Any) -> None:
    wanted = ("fit", "get_params", "export_state", "restore_state")
    if isinstance(estimator, type) or not all(hasattr(estimator, method) for method in wanted):
        raise TypeError(
            f"The 'estimator' parameter of {_CALLER} must be an instance of RNNClassifier or RNNRegressor. "
            f"Got {estimator!r} instead."
        )


def _check_epochs(snapshot_epochs: Any) -> tuple[float, ...]:
    """Return the epochs that are numbers, in order; the end is always kept."""
    wanted = f"The 'snapshot_epochs' parameter of {_CALLER} must hold numbers that are not negative, or 'last'."
    if isinstance(snapshot_epochs, str | Real) or not isinstance(snapshot_epochs, Iterable):
        snapshot_epochs = (snapshot_epochs,)
    numbers = set()
    for epoch in snapshot_epochs:
        if isinstance(epoch, str) and epoch == "last":
            continue
        if isinstance(epoch, bool | np.bool_) or not isinstance(epoch, Real) or not 0 <= epoch < np.inf:
            raise ValueError(f"{wanted} Got {epoch!r} in {snapshot_epochs!r}.")
        numbers.add(float(epoch))
    return tuple(sorted(numbers))


def _check_data(X: Any, y: Any, names: tuple[str, str] = ("X", "y")) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y as arrays of equal length without NaN; the rest is the estimator's to check."""
    arrays = []
    for value, name in zip((X, y), names, strict=True):
        value = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        arrays.append(check_array(value, dtype=None, ensure_2d=False, allow_nd=True, input_name=name))
    if len(arrays[0]) != len(arrays[1]):
        raise ValueError(
            f"The {names[0]!r} and {names[1]!r} parameters of {_CALLER} must have the same length. "
            f"Got {len(arrays[0])} and {len(arrays[1])} instead."
        )
    check_consistent_length(*arrays)
    return arrays[0], arrays[1]


def _check_snapshots(estimator: BaseEstimator, candidates: list[dict[str, Any]], epochs: tuple[float, ...]) -> None:
    for i, params in enumerate(candidates):
        max_epochs = params.get("max_epochs", estimator.max_epochs)
        check_int(max_epochs, "max_epochs", low=1, caller=type(estimator).__name__)
        if epochs and epochs[-1] > max_epochs:
            raise ValueError(
                f"The 'snapshot_epochs' parameter of {_CALLER} must not exceed max_epochs, which is {max_epochs} "
                f"for network {i}. Got {epochs[-1]:g} instead."
            )


def _check_same_call(storage: PopulationDirectory, call: dict[str, Any]) -> None:
    found = differences(storage.read_manifest()["call"], call)
    if found:
        more = f", and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"The 'directory' parameter of {_CALLER} must be new, or begun by the same call. {storage.path} was begun "
            f"by another: {'; '.join(found[:5])}{more}. Choose another directory, or pass resume=False to replace it."
        )


def _rehearse(estimator: BaseEstimator, candidates: list[dict[str, Any]], data: tuple[Any, ...]) -> None:
    """Let networks check the data without training, so that wrong data raise here and not in every network.

    A single bad combination of hyperparameters is that network's own failure, hence several are tried.
    """
    errors = []
    for params in candidates[:3]:
        trial = clone(estimator).set_params(**params)
        try:
            trial.set_params(max_epochs=0, callbacks=None, verbose=0, random_state=0).fit(*data)
            return
        except (ValueError, TypeError) as error:
            errors.append(error)
    raise errors[0]


# Hyperparameters, seeds and data


def _candidates(
    estimator: BaseEstimator, distributions: Any, n_networks: int | None, seed: int
) -> list[dict[str, Any]]:
    """Return the hyperparameters of every network, as plain Python values."""
    grids = [distributions] if isinstance(distributions, Mapping) else distributions
    if isinstance(grids, str) or not isinstance(grids, Sequence) or not all(isinstance(g, Mapping) for g in grids):
        raise TypeError(
            f"The 'param_distributions' parameter of {_CALLER} must be a dict or a list of dicts. "
            f"Got {distributions!r} instead."
        )
    known = estimator.get_params()
    for name in (name for grid in grids for name in grid):
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"The 'param_distributions' parameter of {_CALLER} must name parameters of "
                f"{type(estimator).__name__}. Got {name!r} instead.{hint}"
            )
    only_lists = not any(hasattr(values, "rvs") for grid in grids for values in grid.values())
    if n_networks is None and not only_lists:
        raise ValueError(
            f"The 'n_networks' parameter of {_CALLER} must be an int when 'param_distributions' holds distributions. "
            "Got None instead."
        )
    if n_networks is not None:
        check_int(n_networks, "n_networks", low=1, caller=_CALLER)
    drawn: list[dict[str, Any]] = []
    if only_lists:
        points = list(ParameterGrid(list(grids)))
        if n_networks is None:
            n_networks = len(points)
        drawn = points * (n_networks // len(points))
    rest = n_networks - len(drawn)
    if rest:
        drawn += ParameterSampler(list(grids), rest, random_state=seed)
    return [{name: _plain(value) for name, value in params.items()} for params in drawn]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _entropy(random_state: Any, manifest: Mapping[str, Any]) -> int:
    """Return the number that all seeds come from."""
    if random_state is None and isinstance(manifest.get("entropy"), int):
        return manifest["entropy"]
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _seed(entropy: int, *key: int) -> int:
    return int(np.random.SeedSequence((entropy, *key)).generate_state(1)[0])


def _split(estimator: BaseEstimator, data: tuple[np.ndarray, np.ndarray], validation: Any, seed: int) -> tuple:
    """Return X, y, X_val, y_val."""
    if validation is None:
        return (*data, None, None)
    if isinstance(validation, tuple | list):
        if len(validation) != 2:
            raise ValueError(
                f"The 'validation' parameter of {_CALLER} must be a share, a tuple (X_val, y_val) or None. "
                f"Got {len(validation)} items instead."
            )
        return (*data, *_check_data(*validation, names=("X_val", "y_val")))
    share = check_real(validation, "validation", caller=_CALLER)
    if not 0 < share < 1:
        raise ValueError(
            f"The 'validation' parameter of {_CALLER} must be a share in the range (0, 1), a tuple (X_val, y_val) "
            f"or None. Got {validation!r} instead."
        )
    X, y = data
    options = {"test_size": share, "random_state": seed}
    rows = np.arange(len(X))
    stratify = y if is_classifier(estimator) and y.ndim == 1 else None
    try:
        train, valid = train_test_split(rows, stratify=stratify, **options)
    except ValueError:  # classes too small to be on both sides
        train, valid = train_test_split(rows, **options)
    return X[train], y[train], X[valid], y[valid]


def _describe_call(
    estimator: BaseEstimator,
    candidates: list[dict[str, Any]],
    epochs: tuple[float, ...],
    data: tuple[Any, ...],
    entropy: int,
) -> dict[str, Any]:
    # What does not change the networks is left out.
    params = {k: v for k, v in estimator.get_params(deep=False).items() if k not in ("random_state", "verbose")}
    names = ("X", "y", "X_val", "y_val")
    return {
        "random_state": entropy,
        "n_networks": len(candidates),
        "snapshot_epochs": list(epochs),
        "estimator": {"class": describe(type(estimator)), "params": describe(params)},
        "data": {name: fingerprint(array) for name, array in zip(names, data, strict=True)},
        "networks": describe(candidates),
    }
