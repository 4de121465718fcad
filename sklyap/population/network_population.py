"""A population of trained networks: losses, parameters and histories in tables, weights when asked for."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from torch import nn

from sklyap.exceptions import FailedNetworkWarning
from sklyap.population.description import describe
from sklyap.population.given import given_records
from sklyap.population.loading import stored_records
from sklyap.population.network_sequence import NetworkSequence, take
from sklyap.population.records import NetworkRecord, Origin, epoch_key
from sklyap.validation import check_instance

__all__ = ["NetworkPopulation", "check_epoch"]

# They differ between estimators without saying anything about the networks.
_UNTOLD = ("random_state", "verbose", "device", "warm_start", "callbacks")


class NetworkPopulation(Sequence):
    """Networks trained on one task, or several, with their histories.

    ``population[i]`` is the i-th network at the end of its training, a fitted estimator; slices, masks and
    index arrays give a smaller population, and ``+`` a larger one. Weights stay on the disk until asked for,
    if the population was trained into a directory.

    Parameters
    ----------
    records : sequence of NetworkRecord
        What :func:`train_population` made, failures included.

    Attributes
    ----------
    records : list of NetworkRecord
        Of the networks that did not fail, in order.
    failures : list of NetworkRecord
        Of those that did; see ``reason`` and ``params``.

    See Also
    --------
    train_population : Trains one.
    from_networks : Makes one of networks that were trained elsewhere.

    Examples
    --------
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(60, n_steps=5, random_state=0)
    >>> grid = {"lr": [0.01, 0.03, 0.1]}
    >>> population = train_population(RNNClassifier("gru", 4, max_epochs=2), grid, X, y, random_state=0, verbose=0)
    >>> len(population), population.best_losses.shape, len(population.networks(epoch=1))
    (3, (3,), 3)
    """

    records: list[NetworkRecord]
    failures: list[NetworkRecord]

    def __init__(self, records: Sequence[NetworkRecord]) -> None:
        self.records = [record for record in records if record.reason is None]
        self.failures = [record for record in records if record.reason is not None]

    @classmethod
    def load(cls, directory: str | Path, *, estimator: BaseEstimator | None = None) -> NetworkPopulation:
        """Return the population in a directory, also one whose training has not ended.

        Parameters
        ----------
        directory : path-like
            Of a call of :func:`train_population`, on this machine or another.
        estimator : estimator, optional
            What the networks are copies of. Needed when it is not one of sklyap's own estimators.

        Returns
        -------
        NetworkPopulation

        Raises
        ------
        FileNotFoundError
            If there is no population.
        UntrustedFileError
            If the description of the population is not what sklyap wrote.
        ValueError
            If its networks use a class that is not loaded; nothing is imported on the word of a file.

        Warns
        -----
        FailedNetworkWarning
            For every network whose record is corrupt; it becomes one of the `failures`.
        """
        return cls(stored_records(directory, estimator))

    @classmethod
    def from_networks(
        cls,
        networks: Any,
        losses: Any,
        *,
        params: Any = None,
        histories: Any = None,
        name: str | None = None,
        build: Callable[[dict[str, Any]], nn.Module] | None = None,
    ) -> NetworkPopulation:
        """Return a population of networks that were trained elsewhere.

        Parameters
        ----------
        networks : list, or dict of epochs to lists
            For each network what :func:`~sklyap.as_recurrent_cell` takes (a module, skorch net or estimator), or, with
            `build`, its state dict or the file of it: safetensors, or what ``torch.save`` wrote. Files are read when
            a network is asked for, and nothing in them is executed. A dict holds the same networks at several epochs,
            ``{1: [...], "last": [...]}``; a list is the networks at the epoch ``"last"``. Networks are not copied.
        losses : array-like of shape (n_networks,)
            The loss that each network's training ended with: what is predicted. One that is not finite makes its
            network one of the `failures`.
        params : DataFrame, list of dict or dict of lists, optional
            Hyperparameters, one row per network.
        histories : list, optional
            For each network its validation losses by epoch, from 1, or a table with columns ``valid_loss`` or
            ``train_loss``, and others. Rows of NaN are left out.
        name : str, optional
            Of the population, for ``groups("population")``; by default "given".
        build : callable, optional
            Takes the hyperparameters of a network as a dict and returns a new module that takes its weights.

        Returns
        -------
        NetworkPopulation
            Its networks have a ``module_``, the ``history_`` up to where they stand, and ``get_params``, and so go into
            every transformer that takes networks.

        Raises
        ------
        ValueError, TypeError
            If lengths differ, one object stands for several networks, or weights come without `build`.
        FileNotFoundError
            If a file is not there.

        Warns
        -----
        FailedNetworkWarning
            If losses are not finite.

        Examples
        --------
        >>> import torch
        >>> from sklyap import NetworkPopulation
        >>> networks = [torch.nn.GRU(3, size, batch_first=True) for size in (4, 8)]
        >>> population = NetworkPopulation.from_networks(networks, [0.7, 0.4], params={"hidden_size": [4, 8]})
        >>> population.best_losses
        array([0.7, 0.4])
        >>> population.networks()[1]
        <GRU trained elsewhere>
        """
        if name is not None:
            check_instance(name, "name", str, caller="from_networks")
        population = cls(given_records(networks, losses, params, histories, build, name))
        if population.failures:
            positions = [record.index for record in population.failures]
            warnings.warn(
                f"The networks at the positions {positions} have no finite loss and are among the failures.",
                FailedNetworkWarning,
                stacklevel=2,
            )
        return population

    @classmethod
    def concatenate(cls, populations: Iterable[NetworkPopulation]) -> NetworkPopulation:
        """Return one population of the networks of several, in order."""
        populations = [
            check_instance(p, "populations", NetworkPopulation, caller="concatenate")
            for p in check_instance(populations, "populations", Iterable, caller="concatenate")
        ]
        return cls([record for p in populations for record in (*p.records, *p.failures)])

    def __add__(self, other: NetworkPopulation) -> NetworkPopulation:
        if not isinstance(other, NetworkPopulation):
            return NotImplemented
        return self.concatenate([self, other])

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> BaseEstimator: ...
    @overload
    def __getitem__(self, index: slice) -> NetworkPopulation: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Integral):
            return self.records[index].network()
        return NetworkPopulation(take(self.records, index))

    def filter(self, condition: Callable[[NetworkRecord], bool] | None = None, /, **params: Any) -> NetworkPopulation:
        """Return the population of the networks that meet conditions, without failures.

        Parameters
        ----------
        condition : callable, optional
            Takes a :class:`~sklyap.population.NetworkRecord` (``params``, ``best_loss``, ``loss(epoch)``, ...), returns
            a bool.
        **params
            Hyperparameters that must have this value, or one of these values if it is a list; ``population``
            is the name of the population, as in :meth:`groups`.

        Examples
        --------
        ``population.filter(lambda record: record.best_loss < 1, cell=["lstm", "gru"])``
        """
        chosen = np.ones(len(self), dtype=bool)
        for name, wanted in params.items():
            wanted = wanted if isinstance(wanted, list) else [wanted]
            chosen &= np.array([value in wanted for value in self.groups(name)], dtype=bool)
        if condition is not None:
            chosen &= np.array([bool(condition(record)) for record in self.records], dtype=bool)
        return NetworkPopulation(take(self.records, chosen))

    def networks(self, epoch: Any = "last") -> NetworkSequence:
        """Return the networks as they were at a snapshot, as a list that loads each when it is asked for.

        Parameters
        ----------
        epoch : number or "last", default="last"
            One of the ``snapshot_epochs`` that the population was trained with.

        Returns
        -------
        NetworkSequence of length n_networks
            Of fitted estimators; ``list(...)`` of it holds them all in memory.

        Raises
        ------
        ValueError
            If a network has no snapshot at this epoch.
        """
        key = check_epoch(epoch, "networks")
        for record in self.records:
            if key not in record.snapshots:
                raise ValueError(
                    f"The 'epoch' parameter of networks must be one that was kept: {', '.join(record.snapshots)}. "
                    f"Got {epoch!r} instead."
                )
        return NetworkSequence([(record, epoch) for record in self.records])

    def losses(self, epoch: Any = "last") -> np.ndarray:
        """Return the validation losses at an epoch (the training losses where there was no validation).

        Parameters
        ----------
        epoch : number or "last", default="last"
            A whole number of epochs, or a snapshot. A network that stopped early has its last loss from then on.

        Returns
        -------
        ndarray of shape (n_networks,)

        Raises
        ------
        ValueError
            If no loss was measured there.
        """
        key = check_epoch(epoch, "losses")
        for record in self.records:
            measured = key in record.snapshots or (key != "last" and float(epoch).is_integer() and epoch >= 1)
            if not measured or (key not in record.snapshots and epoch > record.max_epochs):
                raise ValueError(
                    f"The 'epoch' parameter of losses must be a whole number of epochs of the training, or a snapshot: "
                    f"{', '.join(record.snapshots)}. Got {epoch!r} instead."
                )
        return np.array([record.loss(epoch) for record in self.records], dtype=np.float64)

    @property
    def best_losses(self) -> np.ndarray:
        """Lowest validation loss of each network over its epochs (n_networks,)."""
        return np.array([record.best_loss for record in self.records], dtype=np.float64)

    @property
    def params(self) -> pd.DataFrame:
        """Hyperparameters that vary, one row per network; None where a network has no such parameter.

        Those that were drawn, and where populations were joined those in which their estimators differ.
        """
        names = dict.fromkeys(name for record in self.records for name in record.params)
        names |= dict.fromkeys(_differing({id(r.origin): r.origin for r in self.records if r.origin}.values()))
        columns = {name: _column(self.records, name) for name in names}
        return pd.DataFrame(columns, index=range(len(self))).infer_objects()

    @property
    def histories(self) -> list[pd.DataFrame]:
        """One table per network: losses, metrics and seconds at every epoch, from 1."""
        return [pd.DataFrame(r.history, index=pd.RangeIndex(1, len(r.losses) + 1, name="epoch")) for r in self.records]

    def groups(self, name: str) -> np.ndarray:
        """Return a label for every network, for cross-validation that leaves families out.

        Parameters
        ----------
        name : str
            A parameter of the estimators (``"cell"``, ``"hidden_size"``), or ``"population"``.

        Returns
        -------
        ndarray of shape (n_networks,), dtype object
        """
        check_instance(name, "name", str, caller="groups")
        labels = np.empty(len(self), dtype=object)
        for i, record in enumerate(self.records):
            assert record.origin is not None
            if name == "population":
                labels[i] = record.origin.name
                continue
            try:
                labels[i] = record.param(name)
            except KeyError:
                raise ValueError(
                    f"Networks are grouped and filtered by 'population' or one of their parameters. "
                    f"Got {name!r} instead."
                ) from None
        return labels

    def to_frame(self) -> pd.DataFrame:
        """Return a table with a row per network: hyperparameters, seed, seconds, and losses.

        Columns ``loss_<epoch>`` are those of the snapshots, ``best_loss`` the lowest over epochs; metrics are
        those of the last epoch.
        """
        rows = []
        for label, record in zip(self.groups("population"), self.records, strict=True):
            losses = {f"loss_{key}": record.loss(key) for key in record.snapshots}
            metrics = {name: column[-1] for name, column in record.history.items() if name not in ("epoch", "dur")}
            measured = {"n_epochs": len(record.losses), "duration": record.duration, "seed": record.seed, **losses}
            rows.append(
                {"population": label, "index": record.index, **measured, "best_loss": record.best_loss, **metrics}
            )
        table = pd.DataFrame(rows, index=range(len(self)))
        return pd.concat([table.iloc[:, :2], self.params, table.iloc[:, 2:]], axis=1)

    def __repr__(self) -> str:
        return "\n".join([self._headline(), *(f"  {name}: {text}" for name, text in self._summary().items())])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
            for name, text in self._summary().items()
        )
        return f"<div><strong>{html.escape(self._headline())}</strong><table>{rows}</table></div>"

    def _headline(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"NetworkPopulation of {len(self)} networks{failed}"

    def _summary(self) -> dict[str, str]:
        """Return what to print, by name."""
        summary = {name: _range(column) for name, column in self.params.items()}
        if len(self):
            quantiles = np.nanquantile(self.best_losses, [0, 0.25, 0.5, 0.75, 1])
            summary["best loss"] = " | ".join(f"{q:.4g}" for q in quantiles) + "  (min, quartiles, max)"
            summary["kept at epochs"] = ", ".join(self.records[0].snapshots)
        if self.failures:
            summary["failures"] = "; ".join(f"network {r.index}: {r.reason}" for r in self.failures[:3])
            summary["failures"] += f"; and {len(self.failures) - 3} more" if len(self.failures) > 3 else ""
        return summary


def _differing(origins: Iterable[Origin]) -> list[str]:
    """Return the parameters of estimators that are not the same in all of them."""
    made = [origin.params for origin in origins]
    names = dict.fromkeys(name for params in made for name in params if name not in _UNTOLD)
    return [name for name in names if len({str(describe(params.get(name))) for params in made}) > 1]


def _column(records: Sequence[NetworkRecord], name: str) -> np.ndarray:
    values = np.empty(len(records), dtype=object)
    for i, record in enumerate(records):
        try:
            values[i] = record.param(name)
        except KeyError:
            values[i] = None
    return values


def _range(column: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return f"{column.min():.4g} to {column.max():.4g}"
    values = list(dict.fromkeys(getattr(value, "__name__", str(value)) for value in column))
    return ", ".join(values[:8]) + (f", and {len(values) - 8} more" if len(values) > 8 else "")


def check_epoch(epoch: Any, caller: str) -> str:
    """Return the name of a snapshot, or raise ValueError."""
    if isinstance(epoch, bool) or not (epoch == "last" or isinstance(epoch, int | float | np.number)):
        raise ValueError(f"The 'epoch' parameter of {caller} must be a number or 'last'. Got {epoch!r} instead.")
    return epoch_key(epoch)
