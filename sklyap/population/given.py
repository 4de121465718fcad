"""Networks that were trained elsewhere, as the records of a population."""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from torch import nn

from sklyap.exceptions import UntrustedFileError
from sklyap.population.records import NetworkRecord, Origin, Snapshot, epoch_key
from sklyap.storage import read_tensors
from sklyap.validation import check_networks

__all__ = ["GivenNetwork", "GivenRecord", "given_records"]

_CALLER = "NetworkPopulation.from_networks"
_WRAPPED = ("state_dict", "model_state_dict", "model")
"""Where checkpoints of training frameworks keep the weights, beside optimizer and epoch."""


class GivenNetwork:
    """A network trained elsewhere, with what is known of its training.

    Attributes
    ----------
    module_ : torch module, skorch net, estimator or RecurrentCell
        The network itself, for :func:`~sklyap.as_recurrent_cell`.
    history_ : list of dict
        What is known of the epochs up to where the network stands.
    snapshot_ : dict
        Its epoch and validation loss there, where they are known.
    """

    def __init__(
        self, network: Any, params: dict[str, Any], history: list[dict[str, float]], snapshot: dict[str, float]
    ) -> None:
        self.module_ = network
        self.history_ = history
        self.snapshot_ = snapshot
        self._params = params

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the hyperparameters that were given."""
        return dict(self._params)

    def __repr__(self) -> str:
        return f"<{type(self.module_).__name__} trained elsewhere>"


@dataclass(frozen=True)
class GivenRecord(NetworkRecord):
    """A network that was trained elsewhere.

    Attributes
    ----------
    sources : dict of str to object
        By epoch: the network, its weights by name, or the file of them.
    build : callable or None
        Makes a module of the hyperparameters, for weights and files.
    final_loss : float
        What the network's training ended with, as it was given.
    identity : tuple
        What the same network has in other populations, too.
    """

    sources: dict[str, Any] = field(default_factory=dict, repr=False)
    build: Callable[[dict[str, Any]], nn.Module] | None = field(default=None, repr=False)
    final_loss: float = np.nan

    def param(self, name: str) -> Any:
        """Return a hyperparameter of the network."""
        return self.params[name]

    @property
    def max_epochs(self) -> float:
        """Epochs that are known."""
        return len(self.losses)

    def estimator(self) -> BaseEstimator:
        raise TypeError("A network that was trained elsewhere has no estimator of sklyap to train again.")

    def network(self, epoch: Any = "last") -> Any:
        """Return the network as it was at `epoch`, with what was known of its training then."""
        key = epoch_key(epoch)
        snapshot = self.snapshots[key]
        n_known = len(self.losses) if key == "last" else int(snapshot.epoch)
        columns = {name: column[:n_known].tolist() for name, column in self.history.items()}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        known = {} if snapshot.valid_loss is None else {"epoch": snapshot.epoch, "valid_loss": snapshot.valid_loss}
        return GivenNetwork(_materialise(self.sources[key], self.build, self.params), self.params, rows, known)

    def loss(self, epoch: Any = "last") -> float:
        """Return the loss at `epoch`, or raise ValueError where it is not known."""
        key = epoch_key(epoch)
        if key in self.snapshots and self.snapshots[key].valid_loss is not None:
            return float(self.snapshots[key].valid_loss)  # type: ignore[arg-type]
        if key != "last" and float(epoch).is_integer() and 1 <= epoch <= len(self.losses):
            return float(self.losses[int(epoch) - 1])
        raise ValueError(
            f"The loss of network {self.index} at epoch {epoch!r} is not known. Give the losses of every epoch as the "
            f"'histories' parameter of {_CALLER}."
        )

    @property
    def best_loss(self) -> float:
        """The loss that was given."""
        return self.final_loss


def given_records(
    networks: Any, losses: Any, params: Any, histories: Any, build: Any, name: str | None
) -> list[NetworkRecord]:
    """Return the records of networks that were trained elsewhere, after checking everything about them."""
    by_epoch = networks if isinstance(networks, Mapping) else {"last": networks}
    if not by_epoch:
        raise ValueError(f"The 'networks' parameter of {_CALLER} must hold at least one epoch. Got an empty dict.")
    lists = {_epoch(epoch): _checked_networks(listed, build) for epoch, listed in by_epoch.items()}
    _check_different(lists)
    y = _losses(losses)
    for epoch, listed in lists.items():
        if len(listed) != len(y):
            where = "" if epoch == "last" else f" at epoch {epoch}"
            raise ValueError(
                f"The 'losses' parameter of {_CALLER} must hold a loss for each of the {len(listed)} networks{where}. "
                f"Got {len(y)}."
            )
    rows, tables = _params(params, len(y)), _histories(histories, len(y))
    origin = Origin(name or "given", BaseEstimator())
    call = uuid.uuid4().hex
    records: list[NetworkRecord] = []
    for i, loss in enumerate(y):
        snapshots = {key: _snapshot(key, tables[i], float(loss)) for key in lists}
        records.append(
            GivenRecord(
                index=i,
                params=rows[i],
                seed=0,
                duration=0.0,
                history=tables[i],
                snapshots=snapshots,
                reason=None if np.isfinite(loss) else f"its loss is {loss}",
                origin=origin,
                key=f"{call}-{i}",
                sources={key: listed[i] for key, listed in lists.items()},
                build=build,
                final_loss=float(loss),
            )
        )
    return records


def _epoch(epoch: Any) -> str:
    if isinstance(epoch, bool) or not (epoch == "last" or (isinstance(epoch, int | float) and epoch >= 0)):
        raise ValueError(
            f"The 'networks' parameter of {_CALLER} must be a list of networks, or a dict of epochs (numbers ≥ 0 or "
            f"'last') to lists. Got the epoch {epoch!r}."
        )
    return epoch_key(epoch)


def _checked_networks(listed: Any, build: Any) -> Sequence[Any]:
    """Return the networks; those that are weights or files need a way to build them."""
    listed = check_networks(listed, name="networks", caller=_CALLER)
    for i, network in enumerate(listed):
        if isinstance(network, str | os.PathLike | Mapping):
            if not callable(build):
                raise TypeError(
                    f"The 'build' parameter of {_CALLER} must be a callable that makes a module of a network's "
                    f"hyperparameters, as position {i} of 'networks' holds weights and no network. Got {build!r}."
                )
            if not isinstance(network, Mapping) and not Path(network).is_file():
                raise FileNotFoundError(
                    f"The 'networks' parameter of {_CALLER} names a file that is not there: {network}"
                )
    return listed


def _check_different(lists: dict[str, Sequence[Any]]) -> None:
    """Refuse one object in two places: filled with weights after weights, it has the last ones everywhere."""
    seen: dict[Any, str] = {}
    for epoch, listed in lists.items():
        for i, network in enumerate(listed):
            same = _identity(network)
            place = f"position {i}" if len(lists) == 1 else f"position {i} of epoch {epoch}"
            if same in seen:
                raise ValueError(
                    f"The 'networks' parameter of {_CALLER} must hold different networks. Got the same one at "
                    f"{seen[same]} and {place}; load weights into a new module each, or pass the files and `build`."
                )
            seen[same] = place


def _identity(network: Any) -> Any:
    """Return what two entries have in common that are one network. State dicts share the memory of their module."""
    if isinstance(network, str | os.PathLike):
        return os.fspath(network)
    if isinstance(network, Mapping):
        tensors = [value.data_ptr() for value in network.values() if isinstance(value, torch.Tensor) and value.numel()]
        return tuple(tensors) or id(network)
    return id(network)


def _losses(losses: Any) -> np.ndarray:
    try:
        checked: np.ndarray = check_array(
            losses, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name="losses"
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"The 'losses' parameter of {_CALLER} must hold a number for each network: {error}") from None
    return checked.ravel()


def _params(params: Any, n: int) -> list[dict[str, Any]]:
    if params is None:
        return [{} for _ in range(n)]
    try:
        table = params if isinstance(params, pd.DataFrame) else pd.DataFrame(params)
    except ValueError as error:
        raise ValueError(f"The 'params' parameter of {_CALLER} must be a table of hyperparameters: {error}") from error
    if not table.columns.is_unique:
        raise ValueError(
            f"The 'params' parameter of {_CALLER} must have a name for each hyperparameter. Got the columns "
            f"{list(table)}."
        )
    if len(table) != n:
        raise ValueError(
            f"The 'params' parameter of {_CALLER} must have a row for each of the {n} networks. Got {len(table)}."
        )
    return [{str(k): v for k, v in row.items()} for row in table.astype(object).to_dict("records")]


def _histories(histories: Any, n: int) -> list[dict[str, np.ndarray]]:
    """Return for each network its columns; the NaN that pad shorter ones at the end are left out."""
    if histories is None:
        return [{} for _ in range(n)]
    if len(histories) != n:
        raise ValueError(
            f"The 'histories' parameter of {_CALLER} must have {n} entries, one a network. Got {len(histories)}."
        )
    tables = []
    for i, history in enumerate(histories):
        if not isinstance(history, pd.DataFrame | Mapping):
            history = {"valid_loss": history} if np.ndim(history) == 1 and np.size(history) else history
        table = pd.DataFrame(history)
        if not {"valid_loss", "train_loss"} & set(table):
            raise ValueError(
                f"The 'histories' parameter of {_CALLER} must hold losses by epoch, a row of numbers or a table with a "
                f"column 'valid_loss' or 'train_loss'. Got the columns {list(table)} at position {i}."
            )
        text = [str(column) for column in table if table[column].dtype.kind not in "fiub" and "loss" in str(column)]
        if text:
            raise TypeError(
                f"The 'histories' parameter of {_CALLER} must hold losses as numbers. Got {table[text[0]].dtype} in "
                f"the column {text[0]!r} at position {i}."
            )
        table = table.select_dtypes("number").dropna(how="all").astype(np.float64)
        tables.append({str(column): table[column].to_numpy() for column in table})
    return tables


def _snapshot(key: str, history: dict[str, np.ndarray], loss: float) -> Snapshot:
    """Return what is known of a network at an epoch."""
    losses = history.get("valid_loss", history.get("train_loss", np.empty(0)))
    if key == "last":
        return Snapshot(float(len(losses)), None, float(losses[-1]) if len(losses) else loss)
    epoch = float(key)
    known = epoch.is_integer() and 1 <= epoch <= len(losses)
    return Snapshot(epoch, None, float(losses[int(epoch) - 1]) if known else None)


def _materialise(source: Any, build: Any, params: dict[str, Any]) -> Any:
    """Return the network of a source: itself, or a new module with the weights."""
    if not isinstance(source, str | os.PathLike | Mapping):
        return source
    weights = source if isinstance(source, Mapping) else _read(Path(source))
    name = "the weights" if isinstance(source, Mapping) else source
    module = build(dict(params))
    if not isinstance(module, nn.Module):
        raise TypeError(f"The 'build' parameter of {_CALLER} must return a torch module. Got {type(module).__name__}.")
    try:
        module.load_state_dict(_state_dict(weights, name))
    except RuntimeError as error:
        message = " ".join(str(error).split())
        raise ValueError(f"The module that `build` made for {params} does not take {name}: {message}") from error
    return module.eval()


def _read(path: Path) -> Any:
    """Return what a file of weights holds, without running anything in it."""
    if path.suffix == ".safetensors":
        return read_tensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        # Not torch's advice, which is to read the file with whatever it executes.
        raise UntrustedFileError(
            f"{path} is damaged, or holds other objects than tensors and plain values, which are not read from files. "
            "Write the state dict of the network, by torch.save or as safetensors."
        ) from error


def _state_dict(weights: Any, name: Any) -> dict[str, torch.Tensor]:
    if isinstance(weights, Mapping):
        if weights and all(isinstance(value, torch.Tensor) for value in weights.values()):
            return dict(weights)
        for key in _WRAPPED:
            if isinstance(weights.get(key), Mapping):
                return _state_dict(weights[key], name)
    found = sorted(map(str, weights)) if isinstance(weights, Mapping) else type(weights).__name__
    raise ValueError(f"A state dict, names to tensors, is needed in {name}. It holds {found}.")
