"""Stopping runs that will not beat a given loss, as far as a fitted predictor can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklyap.lyapunov import lyapunov_spectrum
from sklyap.runtime import one_thread
from sklyap.validation import check_instance, check_int, check_probe, check_real

__all__ = ["LossForecast", "StopHopeless"]

_NAME = "StopHopeless"


@dataclass(frozen=True)
class LossForecast:
    """What was predicted of a run at one epoch.

    Attributes
    ----------
    epoch : int
        After how many epochs.
    predicted, lower, upper : float
        The loss that it will end with, and the interval of it; infinite ends where the predictor has no interval.
    to_beat : float
        The loss to beat.

    Examples
    --------
    >>> from sklyap.training import LossForecast
    >>> forecast = LossForecast(epoch=3, predicted=0.4, lower=0.3, upper=0.6, to_beat=0.2)
    >>> forecast.lower > forecast.to_beat  # hopeless
    True
    """

    epoch: int
    predicted: float
    lower: float
    upper: float
    to_beat: float


class _Running:
    """A network in training as predictors take networks: with its net and its history so far."""

    def __init__(self, net: NeuralNet) -> None:
        self.net_ = net
        self.history_ = net.history


class StopHopeless(Callback):
    """End a run when a fitted predictor says, with its interval, that it will not beat a given loss.

    Parameters
    ----------
    predictor : fitted regressor
        Such as :func:`~sklyap.loss_predictor`. It is given a list of one network, with its losses so far, or one
        spectrum as a row, if `sequences` is set. With a method ``predict_interval(X, alpha=...)`` a run is stopped when
        the lower end of its interval is above `loss`; a predictor with `predict` alone stops it when the prediction is
        above `loss` by `margin`. Clones of the callback share it, fitted as it is.
    loss : float or callable without arguments
        The loss to beat, that of the best network so far, say; a callable is asked at every look.
    epochs : collection of int, default=(1, 3)
        After which epochs to look.
    alpha : float, default=0.1
        One minus the level of the interval.
    margin : float, default=0.0
        For predictors without intervals: by which share of `loss` the prediction must be worse.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), optional
        What drives the network for its spectrum, if the predictor takes spectra.
    n_exponents : int, optional
        How many exponents of it; by default as many as the predictor was fitted with, or all.

    Attributes
    ----------
    forecasts_ : list of LossForecast
        What was predicted at each look.
    stopped_epoch_ : int or None
        After which epoch the run was stopped.

    Raises
    ------
    ValueError, TypeError, NotFittedError
        At `fit`, before anything is trained, if a parameter is not as documented or the predictor is not fitted; at a
        look, if the predictor cannot take the network.

    Notes
    -----
    The history has `predicted_loss`, `predicted_lower` and `predicted_upper` in every row, NaN where there was no look.
    Inside :func:`~sklyap.train_population` a run that was stopped is a network that was trained for fewer epochs.
    A predictor that sees hyperparameters needs an estimator, which a net in training is not.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyRegressor
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.training import StopHopeless
    >>> X, y = make_recall(128, n_steps=20, random_state=0)
    >>> pessimist = DummyRegressor(strategy="constant", constant=2.0).fit(np.zeros((1, 4)), [2.0])
    >>> stop = StopHopeless(pessimist, 1.0, epochs=(2,), sequences=X[:4])
    >>> network = RNNClassifier("rnn", 8, max_epochs=10, callbacks=[stop], random_state=0).fit(X, y)
    >>> len(network.history_), stop.stopped_epoch_
    (2, 2)
    """

    forecasts_: list[LossForecast]
    # What it does at an epoch depends on that epoch alone: a search trains on from where a candidate stands.
    remembers_nothing = True

    def __init__(
        self,
        predictor: Any,
        loss: float | Callable[[], float],
        *,
        epochs: Collection[int] = (1, 3),
        alpha: float = 0.1,
        margin: float = 0.0,
        sequences: Any = None,
        n_exponents: int | None = None,
    ) -> None:
        self.predictor = predictor
        self.loss = loss
        self.epochs = epochs
        self.alpha = alpha
        self.margin = margin
        self.sequences = sequences
        self.n_exponents = n_exponents

    def __sklearn_clone__(self) -> Self:
        # A clone of the predictor would not be fitted.
        return type(self)(**self.get_params(deep=False))

    def initialize(self) -> Self:
        """Forget earlier forecasts."""
        self.forecasts_ = []
        self.stopped_epoch_: int | None = None
        return self

    # Hooks of skorch

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Check the parameters."""
        if isinstance(self.predictor, type) or not hasattr(self.predictor, "predict"):
            raise TypeError(
                f"The 'predictor' parameter of {_NAME} must be a fitted regressor. "
                f"Got {type(self.predictor).__name__}, which has no method 'predict'."
            )
        check_is_fitted(self.predictor)
        if not callable(self.loss):
            check_real(self.loss, "loss", caller=_NAME)
        check_instance(self.epochs, "epochs", Collection, caller=_NAME)
        for epoch in self.epochs:
            check_int(epoch, "epochs", low=1, caller=_NAME)
        check_real(self.alpha, "alpha", low=0.0, high=1.0, caller=_NAME)
        if self.n_exponents is not None:
            check_int(self.n_exponents, "n_exponents", low=1, caller=_NAME)
        check_probe(self.sequences, caller=_NAME)
        check_real(self.margin, "margin", low=0.0, caller=_NAME)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Look, where it is time, and end the run if it is hopeless."""
        epoch = len(net.history)
        forecast = self._forecast(net, epoch) if epoch in self.epochs else None
        for name in ("predicted", "lower", "upper"):
            key = "predicted_loss" if name == "predicted" else f"predicted_{name}"
            net.history.record(key, math.nan if forecast is None else getattr(forecast, name))
        if forecast is None:
            return
        self.forecasts_.append(forecast)
        if self._is_hopeless(forecast):
            self.stopped_epoch_ = epoch
            raise KeyboardInterrupt  # skorch's way to stop early

    def _forecast(self, net: NeuralNet, epoch: int) -> LossForecast:
        X = [_Running(net)] if self.sequences is None else self._spectrum(net)
        predicted = float(np.ravel(self.predictor.predict(X))[0])
        lower, upper = -math.inf, math.inf
        if self._has_intervals:
            lower, upper = (float(np.ravel(end)[0]) for end in self.predictor.predict_interval(X, alpha=self.alpha))
        to_beat = self.loss() if callable(self.loss) else self.loss
        return LossForecast(epoch, predicted, lower, upper, float(to_beat))

    def _is_hopeless(self, forecast: LossForecast) -> bool:
        if self._has_intervals:
            return forecast.lower > forecast.to_beat
        return forecast.predicted > forecast.to_beat + self.margin * abs(forecast.to_beat)

    @property
    def _has_intervals(self) -> bool:
        return hasattr(self.predictor, "predict_interval")

    def _spectrum(self, net: NeuralNet) -> Any:
        k = self.n_exponents or getattr(self.predictor, "n_features_in_", None)
        with one_thread():
            return lyapunov_spectrum(net, self.sequences, n_exponents=k, device=net.device).exponents[None]
