"""Populations read from the disk, of which no class and no number is believed unseen."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator, clone

from sklyap.exceptions import FailedNetworkWarning, UntrustedFileError
from sklyap.networks import RNNClassifier, RNNRegressor
from sklyap.population.description import Unknown, identity, recall
from sklyap.population.directory import PopulationDirectory
from sklyap.population.records import NetworkRecord, Origin

__all__ = ["stored_records"]

_ESTIMATORS = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in (RNNClassifier, RNNRegressor)}


def stored_records(directory: str | Path, estimator: BaseEstimator | None) -> list[NetworkRecord]:
    """Return the networks in a directory, and those whose files can't be trusted as failures; see `load`."""
    storage = PopulationDirectory(directory)
    manifest = storage.read_manifest()
    call = manifest["call"]
    estimator = _restore_estimator(call, storage) if estimator is None else clone(estimator)
    origin = Origin(manifest["name"], estimator)
    records, name = [], identity(call)
    networks = call["networks"]
    for index in storage.indices():
        if index >= len(networks):
            continue
        params = networks[index]
        try:
            record = storage.read(name, index)
            if record.params != recall(params):
                raise UntrustedFileError(f"it has other hyperparameters than {storage.manifest} has for it.")
            record = replace(record, params=params)
        except FileNotFoundError:
            continue
        except UntrustedFileError as error:
            warnings.warn(f"Network {index} is left out: {error}", FailedNetworkWarning, stacklevel=3)
            record = NetworkRecord(index, params, 0, 0.0, {}, {}, reason=f"UntrustedFileError: {error}")
        records.append(_with_origin(record, origin, storage))
    return records


def _restore_estimator(call: dict[str, Any], storage: PopulationDirectory) -> BaseEstimator:
    description = call["estimator"].get("class")
    name = description.get("__class__") if isinstance(description, dict) else None
    if not isinstance(name, str) or name not in _ESTIMATORS:
        raise ValueError(
            f"The networks in {storage.path} are of the class {name}, which is not loaded on the word of a file. "
            "Pass `estimator`, an instance of it."
        )
    estimator = _ESTIMATORS[name]()
    known = estimator.get_params(deep=False)
    described = {k: v for k, v in _recall_params(call["estimator"]["params"], storage).items() if k in known}
    return estimator.set_params(**described)


def _recall_params(described: dict[str, Any], storage: PopulationDirectory) -> dict[str, Any]:
    """Return parameters from their description, without objects (callbacks), which analysis does not need."""
    params = {name: recall(value) for name, value in described.items()}
    for name, value in params.items():
        if isinstance(value, Unknown) and value.is_class:
            raise ValueError(
                f"The networks in {storage.path} have {name}={value.name}, a class that is not loaded. "
                "Import or define it first."
            )
    return {name: value for name, value in params.items() if not isinstance(value, Unknown)}


def _with_origin(record: NetworkRecord, origin: Origin, storage: PopulationDirectory) -> NetworkRecord:
    return replace(record, origin=origin, params=_recall_params(record.params, storage))
