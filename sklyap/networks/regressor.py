"""Recurrent networks that predict numbers at the end of sequences, or at every step of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklyap.cells import closed_loop
from sklyap.exceptions import DivergedError
from sklyap.networks.base import RecurrentEstimator
from sklyap.networks.checks import as_tensor, to_numpy
from sklyap.networks.keywords import suggests_keywords
from sklyap.validation import check_int

__all__ = ["RNNRegressor"]


class RNNRegressor(RegressorMixin, RecurrentEstimator):
    """Recurrent network that predicts numbers at the end of sequences, or at every step of them.

    The squared error is minimised on targets as they come: scale them, with
    :class:`sklearn.compose.TransformedTargetRegressor` say, where they are far from order one.

    Parameters
    ----------
    cell, hidden_size, num_layers, ... : optional
        All parameters are those of :class:`RNNClassifier` but `class_weight`, with the same defaults. A `criterion` in
        `net_params` sees outputs and targets of shape (n, n_outputs).

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The net; ``net_.module_`` is a :class:`~sklyap.networks.RecurrentNetwork`.
    history_ : skorch.history.History
        One row per epoch with `train_loss`, `valid_loss`, `dur` (seconds) and what callbacks record.
    n_outputs_ : int
        Numbers per target.
    n_inputs_ : int
        Inputs per step, or the size of the vocabulary.
    n_features_in_ : int
        Inputs per step for X of three dimensions, columns for X of two. Not set for tokens.
    feature_names_in_ : ndarray of str
        Names of the columns, where X was a table with names.
    seed_ : int
        What was drawn from `random_state`.

    See Also
    --------
    RNNClassifier : The same for classes.

    Examples
    --------
    The running mean of a sequence, at every step:

    >>> import numpy as np
    >>> from sklyap import RNNRegressor
    >>> X = np.random.default_rng(0).normal(size=(200, 20, 1))
    >>> y = X[:, :, 0].cumsum(axis=1) / np.arange(1, 21)
    >>> network = RNNRegressor("gru", 16, readout="all", max_epochs=30, lr=0.02, random_state=0)
    >>> network.fit(X[:150], y[:150]).score(X[150:], y[150:]) > 0.9
    True
    """

    _criterion = nn.MSELoss

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        # scikit-learn's yardstick is R² > 0.5 on 200 noisy rows; by default these get 40 updates at lr=1e-3.
        tags.regressor_tags.poor_score = True
        return tags

    @suggests_keywords
    def partial_fit(self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Self:
        """Train for one epoch on X and y, going on from where training stands.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        sample_weight : array-like of shape (n_sequences,), optional
            As in `fit`; only ratios within one call matter.

        Returns
        -------
        self
        """
        return self._train(X, y, sample_weight=sample_weight, fresh=not hasattr(self, "net_"), epochs=1)

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return predictions.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray
            Of the shape that targets had in `fit`: (n_sequences,), (n_sequences, n_outputs), or with
            ``readout="all"`` (n_sequences, n_steps) or (n_sequences, n_steps, n_outputs), a list of arrays where
            sequences have unequal lengths.
        """
        return self._as_given(self._predicted(X), X)

    def _predicted(self, X: Any) -> NDArray[np.float64]:
        outputs = self._collect(X, lambda outputs: outputs)
        return outputs if self._has_output_axis else outputs[..., 0]

    def forecast(self, spin_up: ArrayLike, n_steps: int) -> NDArray[np.float64]:
        """Return what the network predicts as it runs free, fed with its own predictions.

        Parameters
        ----------
        spin_up : array-like of shape (n_sequences, n_spin_up, n_inputs) or (n_sequences, n_spin_up)
            Sequences that the network is run on first, one step of which it was trained to predict from those before.
        n_steps : int
            How many steps to predict after the end of `spin_up`.

        Returns
        -------
        ndarray of shape (n_sequences, n_steps, n_outputs), or (n_sequences, n_steps)
            With an axis of outputs if the targets in `fit` had one.

        Raises
        ------
        ValueError
            If the network has not as many outputs as inputs. A feedback between them is given to
            :func:`~sklyap.closed_loop`, whose result has the same method.

        Examples
        --------
        >>> import numpy as np
        >>> from sklyap import RNNRegressor
        >>> wave = np.sin(0.3 * np.arange(300))
        >>> X = np.stack([wave[i : i + 30] for i in range(0, 260, 2)])
        >>> y = np.stack([wave[i + 1 : i + 31] for i in range(0, 260, 2)])
        >>> network = RNNRegressor("gru", 16, readout="all", max_epochs=40, lr=0.01, random_state=0).fit(X, y)
        >>> bool(np.abs(network.forecast(wave[None, :30], 10) - wave[30:40]).max() < 0.2)
        True
        """
        check_is_fitted(self)
        n_steps = check_int(n_steps, "n_steps", low=1, caller=type(self).__name__)
        X = as_tensor(self._check_X(spin_up, fresh=False))
        if self.input_type == "tokens" or self.n_outputs_ != self.n_inputs_:
            what = "tokens" if self.input_type == "tokens" else f"{self.n_inputs_} inputs"
            raise ValueError(
                f"forecast needs a network that predicts its own next input. Got one with {self.n_outputs_} outputs "
                f"and {what}: closed_loop(network, spin_up, feedback=...).forecast(n_steps) takes what lies between."
            )
        outputs = closed_loop(self, X).double().forecast(n_steps).cpu().numpy()
        if not np.isfinite(outputs).all():
            raise DivergedError("The forecast is NaN or infinite: the network, fed with its own output, diverges.")
        return outputs if self._has_output_axis else outputs[..., 0]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return R², over all steps with ``readout="all"``, averaged over outputs.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        sample_weight : array-like of shape (n_sequences,), optional
            Weights of the sequences.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        predicted = self._predicted(X)
        X, y = self._check_data(X, y, fresh=False)
        if self.readout == "all":
            there = self._there(X, y.shape[:2])
            if sample_weight is not None:
                sample_weight = np.repeat(sample_weight, there.sum(1))
            predicted, y = (a.reshape(*y.shape[:2], self.n_outputs_)[there] for a in (predicted, y))
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _check_y(self, y: Any, name: str) -> NDArray:
        y = check_array(to_numpy(y), ensure_2d=False, allow_nd=True, dtype=np.float64, input_name=name)
        if y.ndim - self._base_rank not in (0, 1):
            shape = "(n_sequences, n_steps)" if self.readout == "all" else "(n_sequences,)"
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must have shape {shape}, or an axis of outputs "
                f"more, with readout={self.readout!r}. Got shape {y.shape} instead."
            )
        return y

    @property
    def _base_rank(self) -> int:
        """Axes of targets with one output."""
        return 2 if self.readout == "all" else 1

    def _learn_targets(self, ys: list[NDArray], classes: ArrayLike | None) -> None:
        self._has_output_axis = ys[0].ndim > self._base_rank
        self.n_outputs_ = ys[0].shape[-1] if self._has_output_axis else 1

    def _encode(self, y: NDArray, name: str) -> Tensor:
        if y.ndim == self._base_rank:
            y = y[..., np.newaxis]
        if y.shape[-1] != self.n_outputs_:
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must have {self.n_outputs_} outputs, as in fit. "
                f"Got {y.shape[-1]}."
            )
        return as_tensor(y.astype(np.float32))

    def _export_targets(self) -> dict[str, Any]:
        return {"n_outputs": self.n_outputs_, "output_axis": self._has_output_axis}

    def _restore_targets(self, state: Mapping[str, Any]) -> None:
        self.n_outputs_ = check_int(state["n_outputs"], "n_outputs", low=1)
        self._has_output_axis = state["output_axis"] is True

    def _width(self) -> int:
        return self.n_outputs_
