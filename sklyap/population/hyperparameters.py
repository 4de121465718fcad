"""Hyperparameters of networks as features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeGuard

import numpy as np

from sklyap.networks import NetworkTransformer
from sklyap.networks.keywords import suggests_keywords

__all__ = ["HyperparameterFeatures"]

# They differ between networks without saying anything about them.
_IGNORED = ("random_state", "verbose", "device", "warm_start")


class HyperparameterFeatures(NetworkTransformer):
    """The parameters that networks were made with, as numbers.

    Numbers and booleans are a column each. Anything else (names, classes, dicts, None) is a category, with a column
    for every value that was seen in `fit`; a network with another value has zeros there. Where a parameter is a number
    for some networks and something else for others, it is both, and the number's column holds the median of those seen.

    Parameters
    ----------
    columns : "all" or sequence of str, default="all"
        Parameters of the networks. "all" are those that differ between the networks that `fit` sees, other than
        ``random_state``, ``verbose``, ``device`` and ``warm_start``.

    Attributes
    ----------
    columns_ : list of str
        The parameters.
    n_features_out_ : int
        Number of features.

    See Also
    --------
    HistoryFeatures : Losses and metrics of their training.

    Examples
    --------
    >>> from sklyap import HyperparameterFeatures, RNNClassifier
    >>> from sklyap.datasets import load_sequential_digits
    >>> X, y = load_sequential_digits(n_class=2, return_X_y=True)
    >>> networks = [RNNClassifier(cell, size, max_epochs=0).fit(X, y) for cell, size in [("gru", 4), ("rnn", 6)]]
    >>> features = HyperparameterFeatures().fit(networks)
    >>> list(features.get_feature_names_out())
    ['cell_gru', 'cell_rnn', 'hidden_size']
    >>> features.transform(networks)
    array([[1., 0., 4.],
           [0., 1., 6.]])
    """

    def __init__(self, columns="all", *, on_error="raise"):
        self.columns = columns
        self.on_error = on_error

    def check_parameters(self) -> None:
        """Raise ValueError if `columns` names no parameters."""
        self._wanted()

    @suggests_keywords
    def fit(self, networks: Any, y: Any = None) -> HyperparameterFeatures:
        """Learn which parameters differ, and their categories.

        Parameters
        ----------
        networks : list of networks
            sklyap's estimators, or any with ``get_params``.
        y : ignored
            Not used.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a network has no parameters, or none of them those that are asked for.
        """
        rows = self._map(_parameters, self._checked(networks), on_error=self._on_error)
        rows = [row for row in rows if isinstance(row, dict)]
        known = dict.fromkeys(name for row in rows for name in row)
        wanted = self._wanted()
        if wanted is None:
            wanted = [n for n in known if n not in _IGNORED and len({_key(row.get(n)) for row in rows}) > 1]
        for name in wanted:
            if name not in known:
                raise ValueError(
                    f"The 'columns' parameter of HyperparameterFeatures must name parameters of the networks: "
                    f"{', '.join(map(repr, sorted(known)))}. Got {name!r}."
                )
        self.columns_ = wanted
        self._categories = {n: _categories(row.get(n) for row in rows) for n in wanted}
        self._medians = {n: _median(row.get(n) for row in rows) for n in wanted}
        self.n_features_out_ = len(self.feature_names())
        return self

    def features_of(self, network: Any) -> list[float]:
        """Return the features of one network.

        Parameters
        ----------
        network : estimator
            With ``get_params``.

        Returns
        -------
        list of float, one for each column
        """
        params = _parameters(network)
        features: list[float] = []
        for name in self.columns_:
            value = params.get(name)
            features += [float(_word(value) == known) for known in self._categories[name]]
            median = self._medians[name]
            if median is not None:
                features.append(float(value) if _is_number(value) else median)
        return features

    def feature_names(self) -> list[str]:
        """Return the names of the features, ``<parameter>`` or ``<parameter>_<category>``."""
        names: list[str] = []
        for name in self.columns_:
            names += [f"{name}_{known}" for known in self._categories[name]]
            names += [name] if self._medians[name] is not None else []
        return names

    def _wanted(self) -> list[str] | None:
        """Return the parameters that are asked for, None for all that differ."""
        if isinstance(self.columns, str):
            return None if self.columns == "all" else [self.columns]
        wanted = list(self.columns) if isinstance(self.columns, Iterable) else []
        if not wanted or not all(isinstance(name, str) for name in wanted):
            raise ValueError(
                "The 'columns' parameter of HyperparameterFeatures must be 'all' or a non-empty sequence of str. "
                f"Got {self.columns!r} instead."
            )
        return wanted


def _parameters(network: Any) -> dict[str, Any]:
    if not hasattr(network, "get_params"):
        raise TypeError(
            "HyperparameterFeatures needs networks with get_params: sklyap's estimators, or those of a population. "
            f"Got a {type(network).__name__}."
        )
    params: dict[str, Any] = network.get_params(deep=False)
    return params


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, bool | int | float | np.number | np.bool_) and bool(np.isfinite(value))


def _word(value: Any) -> str | None:
    """Return the name of a category, None for a number."""
    return None if _is_number(value) else str(getattr(value, "__name__", value))


def _key(value: Any) -> Any:
    return float(value) if _is_number(value) else _word(value)


def _categories(values: Iterable[Any]) -> list[str]:
    return sorted({word for word in map(_word, values) if word is not None})


def _median(values: Iterable[Any]) -> float | None:
    numbers = [float(value) for value in values if _is_number(value)]
    return float(np.median(numbers)) if numbers else None
