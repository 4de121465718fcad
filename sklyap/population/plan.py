"""What a call to train_population will do, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.model_selection import ParameterGrid, ParameterSampler, train_test_split
from sklearn.utils import check_array
from torch import Tensor

from sklyap.population.description import describe, digest
from sklyap.population.records import copies
from sklyap.validation import check_dense, check_int, check_real, seed_from, suggestion

__all__ = ["CALLER", "Plan", "make_plan"]

CALLER = "train_population"
# What the seeds derived from `random_state` are for.
_FOR_SAMPLING, _FOR_SPLIT, _FOR_NETWORKS = range(3)
# Where a share is asked for, these are the alternatives.
_VALIDATION = "a share in the range (0, 1), a tuple (X_val, y_val) or None"


@dataclass(frozen=True)
class Plan:
    """A population before it is trained.

    Attributes
    ----------
    estimator : estimator
        What the networks are copies of.
    epochs : tuple of float
        When to keep them, besides the end.
    given : dict
        What X, y and the share of validation were, before the data were split.
    data : tuple
        X, y, X_val, y_val.
    entropy : int
        What all seeds come from.
    params, seeds : list of dict, list of int
        Hyperparameters and seed of every network.
    """

    estimator: BaseEstimator
    epochs: tuple[float, ...]
    given: dict[str, Any]
    data: tuple[Any, ...]
    entropy: int
    params: list[dict[str, Any]]
    seeds: list[int]

    def describe(self) -> dict[str, Any]:
        """Return in plain values what the networks depend on."""
        own = self.estimator.get_params(deep=False)
        return {
            "random_state": self.entropy,
            "n_networks": len(self.params),
            "snapshot_epochs": list(self.epochs),
            "estimator": {
                "class": describe(type(self.estimator)),
                "params": describe({k: v for k, v in own.items() if k not in ("random_state", "verbose")}),
            },
            "data": {**self.given, "X_val": digest(self.data[2]), "y_val": digest(self.data[3])},
            "networks": describe(self.params),
        }


def make_plan(
    estimator: BaseEstimator,
    param_distributions: Any,
    X: Any,
    y: Any,
    *,
    n_networks: int | None,
    validation: Any,
    snapshot_epochs: Any,
    random_state: Any,
    caller: str = CALLER,
) -> Plan:
    """Check the parameters of `caller`, draw the hyperparameters and split the data."""
    estimator = _check_estimator(estimator, caller)
    epochs = _check_epochs(snapshot_epochs, caller)
    arrays = _check_data(X, y, ("X", "y"), caller)
    entropy = _entropy(random_state)
    params = _draw(estimator, param_distributions, n_networks, _seed(entropy, _FOR_SAMPLING), caller)
    _check_last_epochs(estimator, params, epochs, caller)
    if validation is None:
        estimator.set_params(validation_fraction=None)
    plan = Plan(
        estimator=estimator,
        epochs=epochs,
        given={
            "X": digest(arrays[0]),
            "y": digest(arrays[1]),
            "validation": float(validation) if isinstance(validation, Real) else None,
        },
        data=_split(estimator, arrays, validation, _seed(entropy, _FOR_SPLIT), caller),
        entropy=entropy,
        params=params,
        seeds=[_seed(entropy, _FOR_NETWORKS, i) for i in range(len(params))],
    )
    _rehearse(plan)
    return plan


def _check_estimator(estimator: Any, caller: str) -> BaseEstimator:
    wanted = ("fit", "get_params", "export_state", "restore_state")
    if isinstance(estimator, type) or not all(hasattr(estimator, method) for method in wanted):
        raise TypeError(
            f"The 'estimator' parameter of {caller} must be an instance of RNNClassifier or RNNRegressor. "
            f"Got {estimator!r} instead."
        )
    return clone(estimator)


def _check_epochs(snapshot_epochs: Any, caller: str) -> tuple[float, ...]:
    """Return the epochs that are numbers, in order; the end is always kept."""
    if isinstance(snapshot_epochs, str | Real) or not isinstance(snapshot_epochs, Iterable):
        snapshot_epochs = (snapshot_epochs,)
    numbers: set[float] = set()
    for epoch in snapshot_epochs:
        if isinstance(epoch, str) and epoch == "last":
            continue
        if isinstance(epoch, bool | np.bool_) or not isinstance(epoch, Real) or not 0 <= float(epoch) < np.inf:
            raise ValueError(
                f"The 'snapshot_epochs' parameter of {caller} must hold numbers that are not negative, or 'last'. "
                f"Got {epoch!r} in {snapshot_epochs!r}."
            )
        numbers.add(float(epoch))
    return tuple(sorted(numbers))


def _check_last_epochs(
    estimator: BaseEstimator, params: list[dict[str, Any]], epochs: tuple[float, ...], caller: str
) -> None:
    for i, own in enumerate(params):
        max_epochs = own.get("max_epochs", estimator.max_epochs)
        check_int(max_epochs, "max_epochs", low=1, caller=type(estimator).__name__)
        if epochs and epochs[-1] > max_epochs:
            raise ValueError(
                f"The 'snapshot_epochs' parameter of {caller} must not exceed max_epochs, which is {max_epochs} "
                f"for network {i}. Got {epochs[-1]:g} instead."
            )


def _check_data(X: Any, y: Any, names: tuple[str, str], caller: str) -> tuple[np.ndarray, np.ndarray]:
    """Return X and y as arrays of equal length without NaN; the rest is the estimator's to check."""
    arrays = []
    for value, name in zip((X, y), names, strict=True):
        if name.startswith("X") and value is not None:
            check_dense(value, name, caller=caller)
            if not len(value):
                raise ValueError(f"The {name!r} parameter of {caller} must not be empty. Got no sequences.")
        value = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        if value is None:
            raise TypeError(f"The {name!r} parameter of {caller} must be an array. Got None instead.")
        arrays.append(check_array(value, dtype=None, ensure_2d=False, allow_nd=True, input_name=name))
    if len(arrays[0]) != len(arrays[1]):
        raise ValueError(
            f"The {names[0]!r} and {names[1]!r} parameters of {caller} must have the same length. "
            f"Got {len(arrays[0])} and {len(arrays[1])} instead."
        )
    return arrays[0], arrays[1]


def _rehearse(plan: Plan) -> None:
    """Let networks check the data without training, so that wrong data raise here and not in every network.

    A bad combination of hyperparameters is that network's own failure, hence several are tried.
    """
    errors: list[Exception] = []
    for own in plan.params[:3]:
        trial = clone(plan.estimator).set_params(**own)
        try:
            trial.set_params(max_epochs=0, callbacks=None, verbose=0, random_state=0).fit(*plan.data)
            return
        except (ValueError, TypeError) as error:
            errors.append(error)
    raise errors[0]


def _draw(
    estimator: BaseEstimator, distributions: Any, n_networks: int | None, seed: int, caller: str
) -> list[dict[str, Any]]:
    """Return the hyperparameters of every network, as plain Python values."""
    grids = _check_grids(estimator, distributions, caller)
    drawn: list[dict[str, Any]] = []
    if not any(hasattr(values, "rvs") for grid in grids for values in grid.values()):
        points = list(ParameterGrid(grids))
        n_networks = len(points) if n_networks is None else n_networks
        check_int(n_networks, "n_networks", low=1, caller=caller)
        drawn = points * (n_networks // len(points))
    elif n_networks is None:
        raise ValueError(
            f"The 'n_networks' parameter of {caller} must be an int when 'param_distributions' holds distributions. "
            "Got None instead."
        )
    rest = check_int(n_networks, "n_networks", low=1, caller=caller) - len(drawn)
    if rest:
        drawn += ParameterSampler(grids, rest, random_state=seed)
    return [copies({k: v.item() if isinstance(v, np.generic) else v for k, v in own.items()}) for own in drawn]


def _check_grids(estimator: BaseEstimator, distributions: Any, caller: str) -> list[dict[str, Any]]:
    grids = [distributions] if isinstance(distributions, Mapping) else distributions
    is_list = isinstance(grids, Sequence) and not isinstance(grids, str)
    if not is_list or not grids or not all(isinstance(grid, Mapping) for grid in grids):
        raise TypeError(
            f"The 'param_distributions' parameter of {caller} must be a dict or a list of dicts. "
            f"Got {distributions!r} instead."
        )
    known = estimator.get_params()
    for name in (name for grid in grids for name in grid):
        if name not in known:
            hint = suggestion(name, known)
            if "__" in str(name):
                hint = f" Options of the skorch net and its optimizer go together: 'net_params': [{{{name!r}: ...}}]."
            raise ValueError(
                f"The 'param_distributions' parameter of {caller} must name parameters of "
                f"{type(estimator).__name__}. Got {name!r} instead.{hint}"
            )
        if name == "random_state":
            raise ValueError(
                f"The 'param_distributions' parameter of {caller} must not set 'random_state': every network gets "
                f"its own seed from the 'random_state' parameter of {caller}."
            )
    return [dict(grid) for grid in grids]


def _entropy(random_state: Any) -> int:
    return int(np.random.default_rng().integers(2**31)) if random_state is None else seed_from(random_state)


def _seed(entropy: int, *key: int) -> int:
    return int(np.random.SeedSequence((entropy, *key)).generate_state(1)[0])


def _split(
    estimator: BaseEstimator, data: tuple[np.ndarray, np.ndarray], validation: Any, seed: int, caller: str
) -> tuple[Any, Any, Any, Any]:
    """Return X, y, X_val, y_val."""
    X, y = data
    if validation is None:
        return X, y, None, None
    if isinstance(validation, tuple | list):
        if len(validation) != 2:
            raise ValueError(
                f"The 'validation' parameter of {caller} must be {_VALIDATION}. Got {len(validation)} items instead."
            )
        X_val, y_val = validation
        return X, y, *_check_data(X_val, y_val, ("X_val", "y_val"), caller)
    if not isinstance(validation, Real):
        raise TypeError(f"The 'validation' parameter of {caller} must be {_VALIDATION}. Got {validation!r} instead.")
    share = check_real(validation, "validation", caller=caller)
    if not 0 < share < 1:
        raise ValueError(f"The 'validation' parameter of {caller} must be {_VALIDATION}. Got {validation!r} instead.")
    options = {"test_size": share, "random_state": seed}
    rows = np.arange(len(X))
    stratify = y if is_classifier(estimator) and y.ndim == 1 else None
    try:
        train, valid = train_test_split(rows, stratify=stratify, **options)
    except ValueError:  # classes too small to be on both sides
        train, valid = train_test_split(rows, **options)
    return X[train], y[train], X[valid], y[valid]
