"""NetworkTransformer: the base class of transformers whose samples are trained networks."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklyap.exceptions import FailedNetworkWarning, reason_of
from sklyap.networks.keywords import suggests_keywords
from sklyap.runtime import is_unwarned, lent_turn, one_thread, outside_inference_mode, watch_parent
from sklyap.validation import check_choice, check_jobs, check_networks, check_verbose

__all__ = ["Failure", "NetworkTransformer", "attempt"]


@dataclass(frozen=True)
class Failure:
    """What stands in the place of the result of a network that failed.

    Attributes
    ----------
    reason : str
        The exception, in a sentence.
    """

    reason: str


@contextmanager
def _naming(index: int):
    """Note on what is raised which network of the list it is about."""
    try:
        yield
    except Exception as error:
        error.add_note(f"This is network {index} of the list.")
        raise


def attempt(function: Callable[..., Any], *args: Any, index: int, on_error: str) -> Any:
    """Return ``function(*args)``, or, with ``on_error="warn"``, a Failure in place of what it raises.

    Parameters
    ----------
    function : callable
    index : int
        Of the network in the list; what is raised gets a note that says so.
    on_error : {"raise", "warn"}
    """
    try:
        with _naming(index):
            return function(*args)
    except Exception as error:
        if on_error == "raise":
            raise
        return Failure(reason_of(error))


class NetworkTransformer(TransformerMixin, BaseEstimator, ABC):
    """Base class of transformers that take a list of trained networks, one sample per network.

    A subclass stores its parameters in its constructor and says what the features of one network are
    (`features_of`) and what they are called (`feature_names`). In return it gets

    - `fit`, `transform` and `get_feature_names_out`, with the checks of what comes in and of what is fitted;
    - tags that tell scikit-learn that the input is no matrix;
    - parameters `sequences` and `targets`, where it has them, shared by clones instead of copied;
    - with a parameter `n_jobs`, networks in parallel, each on one thread, through joblib; with `verbose`, a
      progress bar;
    - with a parameter `on_error`, "raise" or "warn", rows of NaN for networks that fail, and `failures_`. What is
      raised has a note that names the network by its index in the list.

    :func:`~sklyap.testing.check_network_transformer` checks what a subclass must keep to.

    Attributes
    ----------
    n_features_out_ : int
        Number of columns.
    failures_ : dict of int to str
        Index and reason of each network of the last `transform` that failed.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklyap import NetworkTransformer, as_recurrent_cell
    >>> class WeightNorms(NetworkTransformer):
    ...     def __init__(self, order=2, *, n_jobs=None, on_error="raise"):
    ...         self.order = order
    ...         self.n_jobs = n_jobs
    ...         self.on_error = on_error
    ...
    ...     def feature_names(self):
    ...         return [f"norm_{self.order}"]
    ...
    ...     def features_of(self, network):
    ...         return [torch.linalg.matrix_norm(as_recurrent_cell(network).weight_hh, self.order).item()]
    >>> WeightNorms().fit_transform([torch.nn.GRU(3, size) for size in (4, 8)]).shape
    (2, 1)
    """

    _shared = ("sequences", "targets")

    @abstractmethod
    def features_of(self, network: Any) -> ArrayLike:
        """Return the features of one network.

        Parameters
        ----------
        network : torch module, fitted skorch net, fitted sklyap estimator or RecurrentCell
            Must not be changed.

        Returns
        -------
        array-like of shape (n_features_out_,)
        """

    @abstractmethod
    def feature_names(self) -> list[str]:
        """Return the names of the features, known once the estimator is fitted."""

    def check_parameters(self) -> None:
        """Raise TypeError or ValueError for parameters that are wrong; called before networks are looked at."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags

    def __sklearn_clone__(self) -> Any:
        # A search clones its estimator hundreds of times; sequences and targets are read only.
        shared = {name: value for name, value in self.get_params(deep=False).items() if name in self._shared}
        bare = copy.copy(self)
        for name in shared:
            setattr(bare, name, None)
        twin = super(NetworkTransformer, bare).__sklearn_clone__()
        for name, value in shared.items():
            setattr(twin, name, value)
        return twin

    @suggests_keywords
    @outside_inference_mode
    def fit(self, networks: Sequence[Any], y: Any = None) -> Any:
        """Check the parameters; there is nothing to learn.

        Parameters
        ----------
        networks : sequence of networks
            A list, an object array, a pandas Series, or a table with one column of them, as
            :class:`sklearn.compose.ColumnTransformer` cuts out.
        y : ignored
            Not used.

        Returns
        -------
        self
        """
        self._checked(networks)
        self.n_features_out_ = len(self.feature_names())
        return self

    @outside_inference_mode
    def transform(self, networks: Sequence[Any]) -> np.ndarray:
        """Compute the features.

        Parameters
        ----------
        networks : sequence of networks
            Trained networks.

        Returns
        -------
        features : ndarray of shape (n_networks, n_features_out_)
            NaN in the rows of networks that failed, with ``on_error="warn"``.
        """
        check_is_fitted(self)
        networks = self._checked(networks)
        rows = self._map(self.features_of, networks, on_error=self._on_error)
        return self._stacked(rows)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features; `input_features` is ignored."""
        check_is_fitted(self)
        return np.asarray(self.feature_names(), dtype=object)

    @property
    def _on_error(self) -> str:
        return getattr(self, "on_error", "raise")

    def _checked(self, networks: Any) -> Sequence[Any]:
        """Return the networks as a sequence after checking them and the parameters."""
        who = type(self).__name__
        networks = check_networks(networks, name="networks", caller=who)
        check_choice(self._on_error, "on_error", ["raise", "warn"], caller=who)
        check_jobs(getattr(self, "n_jobs", None), caller=who)
        check_verbose(getattr(self, "verbose", 0), caller=who)
        self.check_parameters()
        return networks

    def _map(self, function: Callable[[Any], Any], networks: Sequence[Any], *, on_error: str = "raise") -> list[Any]:
        """Return ``function(network)``, or a Failure, for each network."""
        one = partial(_each, function, on_error)
        results = self._map_groups(one, ({i: network} for i, network in enumerate(networks)), len(networks))
        return [results[i] for i in range(len(networks))]

    def _map_groups(
        self, function: Callable[[dict[int, Any]], dict[int, Any]], groups: Iterable[dict[int, Any]], total: int
    ) -> dict[int, Any]:
        """Call `function` on groups of networks, by their indices, in joblib's workers, and join what it returns."""
        verbose = getattr(self, "verbose", 0)
        jobs = (joblib.delayed(function)(group) for group in groups)
        parallel = joblib.Parallel(n_jobs=getattr(self, "n_jobs", None), return_as="generator" if verbose else "list")
        results: dict[int, Any] = {}
        bar = tqdm(total=total, desc=type(self).__name__, unit="network", disable=not verbose)
        with bar, lent_turn():  # a callback of a training may be what waits here for threads
            for done in parallel(jobs):
                results.update(done)
                bar.update(len(done))
        return results

    def _stacked(self, rows: Sequence[Any]) -> np.ndarray:
        """Return the rows as an array; set `failures_` and warn about each."""
        self.failures_ = {i: row.reason for i, row in enumerate(rows) if isinstance(row, Failure)}
        for index, reason in () if is_unwarned() else self.failures_.items():
            warnings.warn(
                f"Network {index} of {len(rows)} failed, its row is NaN: {reason}", FailedNetworkWarning, stacklevel=4
            )
        empty = np.full(self.n_features_out_, np.nan)
        return np.stack([empty if isinstance(row, Failure) else np.asarray(row, np.float64) for row in rows])


def _each(function: Callable[[Any], Any], on_error: str, group: dict[int, Any]) -> dict[int, Any]:
    """Call `function` on each network of a group: what a worker does."""
    watch_parent()
    with one_thread():
        return {index: attempt(function, network, index=index, on_error=on_error) for index, network in group.items()}
