"""What is kept of one trained network, its weights in memory or in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from torch import Tensor

from sklyap import storage
from sklyap.exceptions import UntrustedFileError

__all__ = ["NetworkRecord", "Origin", "Snapshot", "copies", "epoch_key"]

State = tuple[dict[str, Tensor], dict[str, Any]]


def epoch_key(epoch: Any) -> str:
    """Return the name of a snapshot: ``"last"``, or the epoch as short as it can be written."""
    return epoch if isinstance(epoch, str) else f"{float(epoch):.10g}"


def copies(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters of which networks share nothing: a callback keeps what it saw in training."""
    return {name: clone(value, safe=False) for name, value in params.items()}


@dataclass(frozen=True)
class Origin:
    """Where a network comes from: the population's name and the estimator that its networks are copies of."""

    name: str
    estimator: BaseEstimator

    @cached_property
    def params(self) -> dict[str, Any]:
        """The hyperparameters of the estimator."""
        return self.estimator.get_params(deep=False)


@dataclass(frozen=True)
class Snapshot:
    """A network at one moment of its training.

    Attributes
    ----------
    epoch : float
        Epochs trained so far.
    train_loss, valid_loss : float or None
        Losses then; None where they were not measured.
    state : tuple, optional
        Tensors and attributes, when they are held in memory.
    path, checksum : Path and str, optional
        The file that holds them otherwise.

    Examples
    --------
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(60, n_steps=5, random_state=0)
    >>> grid = {"lr": [0.01, 0.03, 0.1]}
    >>> population = train_population(RNNClassifier("gru", 4, max_epochs=2), grid, X, y, random_state=0, verbose=0)
    >>> population.records[0].snapshots["1"].epoch
    1.0
    """

    epoch: float
    train_loss: float | None
    valid_loss: float | None
    state: State | None = field(default=None, repr=False)
    path: Path | None = None
    checksum: str | None = None

    def load(self, estimator: Any = None) -> State:
        """Return the tensors and attributes of the network, read from the disk unless they are in memory.

        What a file states is held against the architecture of `estimator` before its tensors are read.
        """
        if self.state is not None:
            return self.state
        assert self.path is not None

        def check(layout: storage.Layout, attributes: Any) -> None:
            if not isinstance(attributes, dict):
                raise UntrustedFileError(f"{self.path} is a safetensors file, but not of a trained network.")
            if estimator is not None and hasattr(estimator, "check_layout"):
                estimator.check_layout(layout, attributes)

        try:
            return storage.read_state(self.path, checksum=self.checksum, check=check)
        except FileNotFoundError as error:
            raise UntrustedFileError(f"{self.path} is missing, though a record names it.") from error


@dataclass(frozen=True)
class NetworkRecord:
    """One network of a population: parameters, history, and how to get its weights.

    Attributes
    ----------
    index : int
        Position in the call that trained it.
    params : dict
        The hyperparameters that were drawn for it.
    seed : int
        Its ``random_state``.
    duration : float
        Seconds that training took.
    history : dict of str to ndarray of shape (n_epochs,)
        What was recorded at every epoch: losses, metrics, seconds.
    snapshots : dict of str to Snapshot
        By epoch; ``"last"`` is the end of training.
    reason : str or None
        Why it failed; None for a network that did not.
    origin : Origin
        The population that it was trained in.
    key : str or None
        What stands for a network that has no seed here, as it was trained elsewhere.

    Examples
    --------
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(60, n_steps=5, random_state=0)
    >>> grid = {"lr": [0.01, 0.03, 0.1]}
    >>> population = train_population(RNNClassifier("gru", 4, max_epochs=2), grid, X, y, random_state=0, verbose=0)
    >>> record = population.records[1]
    >>> record.params, len(record.losses), sorted(record.snapshots)
    ({'lr': 0.03}, 2, ['1', 'last'])
    """

    index: int
    params: dict[str, Any]
    seed: int
    duration: float
    history: dict[str, np.ndarray] = field(repr=False)
    snapshots: dict[str, Snapshot] = field(repr=False)
    reason: str | None = None
    origin: Origin | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    @property
    def identity(self) -> Any:
        """What two entries of one and the same network share, and those of different networks do not."""
        return self.key or (self.seed, sorted(self.params.items(), key=str), self.losses)

    @property
    def max_epochs(self) -> float:
        """Epochs that it was to be trained for."""
        return float(self.param("max_epochs"))

    def param(self, name: str) -> Any:
        """Return a hyperparameter of the network, also one that was not drawn."""
        assert self.origin is not None
        return self.params[name] if name in self.params else self.origin.params[name]

    def estimator(self) -> BaseEstimator:
        """Return the network's estimator, unfitted."""
        assert self.origin is not None
        return clone(self.origin.estimator).set_params(**copies(self.params), random_state=self.seed)

    def network(self, epoch: Any = "last") -> BaseEstimator:
        """Return the network as it was at `epoch`: a fitted estimator with its own copy of the weights."""
        snapshot = self.snapshots[epoch_key(epoch)]
        estimator = self.estimator()
        try:
            tensors, attributes = snapshot.load(estimator)
            # Seconds are not part of the state, which is the same whenever a network is trained.
            rows = zip(attributes["history"], self.history.get("dur", ()), strict=False)
            history = [{**row, "dur": float(seconds)} for row, seconds in rows]
            network = estimator.restore_state(tensors, {**attributes, "history": history})
        except UntrustedFileError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if snapshot.path is None:
                raise
            raise UntrustedFileError(f"{snapshot.path} does not hold the network of its record: {error}") from error
        network.snapshot_ = {
            name: getattr(snapshot, name)
            for name in ("epoch", "train_loss", "valid_loss")
            if getattr(snapshot, name) is not None
        }
        return network

    def verify(self) -> None:
        """Raise UntrustedFileError unless every snapshot holds finite weights of the network's architecture."""
        if not self.snapshots:
            return
        estimator = self.estimator()
        checked: set[Path | None] = set()
        for snapshot in self.snapshots.values():
            if snapshot.path in checked:
                continue
            checked.add(snapshot.path)
            try:
                tensors, attributes = snapshot.load(estimator)
                if self.reason is None and hasattr(estimator, "check_weights"):
                    estimator.check_weights(tensors, attributes)
            except UntrustedFileError:
                raise
            except (KeyError, TypeError, ValueError) as error:
                raise UntrustedFileError(f"{snapshot.path} does not hold the network of its record: {error}") from error

    def loss(self, epoch: Any = "last") -> float:
        """Return the validation loss at `epoch` (the training loss where there was no validation)."""
        if epoch_key(epoch) in self.snapshots:
            snapshot = self.snapshots[epoch_key(epoch)]
            loss = snapshot.train_loss if snapshot.valid_loss is None else snapshot.valid_loss
            return np.nan if loss is None else loss
        # A network that stopped early has its last loss from then on.
        losses = self.losses
        return float(losses[min(int(epoch), len(losses)) - 1])

    @property
    def losses(self) -> np.ndarray:
        """Validation loss at every epoch (n_epochs,); the training loss where there was no validation."""
        return self.history.get("valid_loss", self.history.get("train_loss", np.empty(0)))

    @property
    def best_loss(self) -> float:
        """The lowest of `losses`."""
        return float(self.losses.min()) if len(self.losses) else np.nan
