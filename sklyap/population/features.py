"""What training has recorded so far, as features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sklyap.networks import NetworkTransformer
from sklyap.validation import check_bool, check_int

__all__ = ["HistoryFeatures"]


class HistoryFeatures(NetworkTransformer):
    """Losses and metrics from the training of networks as features.

    Beside a spectrum in a :class:`~sklearn.pipeline.FeatureUnion`, it lets a predictor know how well a network
    does already.

    Parameters
    ----------
    columns : sequence of str, default=("valid_loss",)
        Columns of the history: ``"train_loss"``, ``"valid_loss"``, a metric.
    epoch : "last", int or sequence of ints, default="last"
        Epochs to read. ``"last"`` is where the network itself stands: for ``population.networks(epoch=1)`` the
        first epoch, whatever came after it.
    log : bool, default=False
        Take natural logarithms.
    on_error : {"raise", "warn"}, default="raise"
        What to do with a network without such a history: raise, or warn and give a row of NaN.

    Attributes
    ----------
    n_features_out_ : int
        Number of features.
    failures_ : dict of int to str
        Index and reason of each network of the last `transform` that failed.

    Examples
    --------
    >>> from sklyap.datasets import load_sequential_digits
    >>> from sklyap.networks import RNNClassifier
    >>> from sklyap.population import HistoryFeatures
    >>> X, y = load_sequential_digits(n_class=2, return_X_y=True)
    >>> network = RNNClassifier(hidden_size=4, max_epochs=2, validation_fraction=0.2, random_state=0).fit(X, y)
    >>> features = HistoryFeatures(("train_loss", "valid_loss"), epoch=1).fit([network])
    >>> features.get_feature_names_out()
    array(['train_loss_epoch_1', 'valid_loss_epoch_1'], dtype=object)
    >>> features.transform([network]).shape
    (1, 2)
    """

    def __init__(self, columns=("valid_loss",), *, epoch="last", log=False, on_error="raise"):
        self.columns = columns
        self.epoch = epoch
        self.log = log
        self.on_error = on_error

    def check_parameters(self) -> None:
        """Raise TypeError or ValueError for parameters that are wrong."""
        check_bool(self.log, "log", caller=type(self).__name__)
        self._names()

    def feature_names(self) -> list[str]:
        """Return the names of the features, ``<column>`` or ``<column>_epoch_<epoch>``."""
        prefix = "log_" if self.log else ""
        return [f"{prefix}{c}" if e == "last" else f"{prefix}{c}_epoch_{e}" for c, e in self._names()]

    def features_of(self, network: Any) -> np.ndarray:
        """Return the features of one network.

        Parameters
        ----------
        network : network trained by sklyap
            With a ``history_``.

        Returns
        -------
        ndarray of shape (n_features_out_,)

        Raises
        ------
        ValueError
            If the history has no such column or epoch, or a value is not positive with ``log=True``.
        """
        if not hasattr(network, "history_"):
            raise ValueError(
                "HistoryFeatures needs networks trained by sklyap, which have a history_. "
                f"Got a {type(network).__name__}."
            )
        row = np.array([_value(network, column, epoch) for column, epoch in self._names()], dtype=np.float64)
        if not self.log:
            return row
        if (row <= 0).any():
            raise ValueError(f"HistoryFeatures with log=True needs positive values. Got {row.min()}.")
        return np.log(row)

    def _names(self) -> list[tuple[str, Any]]:
        """Return the column and epoch of each feature."""
        columns = [self.columns] if isinstance(self.columns, str) else self.columns
        if not isinstance(columns, Iterable) or not columns or not all(isinstance(c, str) for c in columns):
            raise ValueError(
                "The 'columns' parameter of HistoryFeatures must be a non-empty sequence of str. "
                f"Got {self.columns!r} instead."
            )
        epochs = self.epoch if isinstance(self.epoch, list | tuple | np.ndarray) else [self.epoch]
        for epoch in epochs:
            if not (isinstance(epoch, str) and epoch == "last"):
                check_int(epoch, "epoch", low=1, caller="HistoryFeatures")
        return [(column, epoch) for column in columns for epoch in epochs]


def _value(network: Any, column: str, epoch: Any) -> float:
    rows: Sequence[Mapping[str, Any]] = list(network.history_)
    if epoch == "last":
        # A snapshot of a population knows its loss also where no epoch has ended.
        row = {**(rows[-1] if rows else {}), **getattr(network, "snapshot_", {})}
    elif epoch <= len(rows):
        row = dict(rows[epoch - 1])
    else:
        raise ValueError(f"The network has trained for {len(rows)} epochs. HistoryFeatures needs epoch {epoch}.")
    if not isinstance(row.get(column), int | float):
        known = [name for name, value in row.items() if isinstance(value, int | float)]
        raise ValueError(f"The network's history has no column {column!r} at epoch {epoch}; it has {known}.")
    return float(row[column])
