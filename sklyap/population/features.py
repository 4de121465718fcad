"""What training has recorded so far, as features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklyap.validation import check_int, check_networks

__all__ = ["HistoryFeatures"]


class HistoryFeatures(TransformerMixin, BaseEstimator):
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

    Attributes
    ----------
    n_features_out_ : int
        Number of features.

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

    def __init__(self, columns=("valid_loss",), *, epoch="last", log=False):
        self.columns = columns
        self.epoch = epoch
        self.log = log

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def fit(self, X: Any, y: Any = None) -> HistoryFeatures:
        """Check the parameters.

        Parameters
        ----------
        X : list of fitted networks
            Networks with a ``history_``.
        y : ignored

        Returns
        -------
        self
        """
        check_networks(X, caller="HistoryFeatures")
        self.n_features_out_ = len(self._names())
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features.

        Parameters
        ----------
        X : list of fitted networks

        Returns
        -------
        ndarray of shape (n_networks, n_features_out_)

        Raises
        ------
        ValueError
            If a network's history has no such column or epoch.
        """
        check_is_fitted(self)
        networks = check_networks(X, caller="HistoryFeatures")
        features = np.array([self._read(network, i) for i, network in enumerate(networks)], dtype=np.float64)
        if self.log:
            if (features <= 0).any():
                raise ValueError(f"HistoryFeatures with log=True needs positive values. Got {features.min()}.")
            return np.log(features)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features, ``<column>`` or ``<column>_epoch_<epoch>``."""
        check_is_fitted(self)
        prefix = "log_" if self.log else ""
        names = [f"{prefix}{c}" if e == "last" else f"{prefix}{c}_epoch_{e}" for c, e in self._names()]
        return np.array(names, dtype=object)

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

    def _read(self, network: Any, i: int) -> list[float]:
        if not hasattr(network, "history_"):
            raise ValueError(f"Network {i} of X has no history_; HistoryFeatures needs networks trained by sklyap.")
        return [_value(network, column, epoch, i) for column, epoch in self._names()]


def _value(network: Any, column: str, epoch: Any, i: int) -> float:
    rows: Sequence[Mapping[str, Any]] = list(network.history_)
    if epoch == "last":
        # A snapshot of a population knows its loss also where no epoch has ended.
        row = {**(rows[-1] if rows else {}), **getattr(network, "snapshot_", {})}
    elif epoch <= len(rows):
        row = dict(rows[epoch - 1])
    else:
        raise ValueError(f"Network {i} of X has trained for {len(rows)} epochs. HistoryFeatures needs epoch {epoch}.")
    if not isinstance(row.get(column), int | float):
        known = [name for name, value in row.items() if isinstance(value, int | float)]
        raise ValueError(f"The history of network {i} of X has no column {column!r} at epoch {epoch}; it has {known}.")
    return float(row[column])
