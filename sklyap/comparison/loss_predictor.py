"""From networks, or their spectra, to the loss that they will end with: the predictor to begin with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.model_selection import check_cv
from sklearn.pipeline import Pipeline, make_union
from sklearn.utils import check_array, check_consistent_length, get_tags
from sklearn.utils.validation import check_is_fitted, column_or_1d

from sklyap.autoencoder.scaling import LossScaler
from sklyap.comparison.stacking import loss_stack
from sklyap.networks.keywords import suggests_keywords
from sklyap.population import HistoryFeatures, HyperparameterFeatures
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.spectrum.cache import check_memory
from sklyap.validation import (
    check_choice,
    check_instance,
    check_int,
    check_jobs,
    check_methods,
    check_probe,
    check_real,
    seed_from,
)

__all__ = ["LossPredictor", "loss_predictor"]

Array = NDArray[np.float64]

_FEATURES = ("spectrum", "loss_so_far", "hyperparameters")


def loss_predictor(
    sequences: Any = None,
    *,
    features: str | Iterable[str] = ("spectrum",),
    epoch: Any = "last",
    memory: Any = None,
    n_exponents: int | None = 128,
    target_transform: str | None = "rank",
    cv: int = 5,
    n_jobs: int | None = None,
    random_state: Any = None,
) -> LossPredictor:
    """Return a regressor from what is known of networks early in training to the loss that they will end with.

    It is a scikit-learn :class:`~sklearn.ensemble.StackingRegressor` of the autoencoder's code with its loss head
    (:class:`~sklyap.SpectrumAutoencoder`), a linear model on principal components, and randomised trees, behind the
    transformers that compute the features. The weights of the members are non-negative and come from predictions out
    of fold, as do prediction intervals.

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list of arrays, or int, optional
        What drives the networks, see :class:`~sklyap.LyapunovSpectrumTransformer`. With it the regressor takes lists of
        networks. Without, and with ``features=("spectrum",)``, it takes spectra, rows of a 2-D array.
    features : sequence of {"spectrum", "loss_so_far", "hyperparameters"}, default=("spectrum",)
        What the predictor sees. "loss_so_far" and "hyperparameters" are those of
        :class:`~sklyap.HistoryFeatures` and :class:`~sklyap.HyperparameterFeatures`.
    epoch : int or "last", default="last"
        Up to which epoch losses are known, for "loss_so_far": with 3 those of the epochs 1, 2 and 3; with "last" the
        latest loss of each network where it stands.
    memory : joblib.Memory or str, optional
        Cache of spectra. Without one they are computed again in every fit and prediction.
    n_exponents : int or None, default=128
        Points of relative index that whole spectra are interpolated at; None for the size of the largest.
    target_transform : {"rank", "log"} or None, default="rank"
        The scale that losses are learnt on: normal scores of their ranks, their logarithms, or as they are.
        Predictions are losses again, with "rank" never beyond those that were seen.
    cv : int, default=5
        Folds of the networks that are learnt from, for the weights and the intervals.
    n_jobs : int, optional
        How many networks are analysed, or members fitted, at once.
    random_state : int, RandomState instance or None, default=None
        Seeds folds and members. None is 0.

    Returns
    -------
    LossPredictor
        Not fitted.

    Raises
    ------
    ValueError
        If a feature is unknown, none is given, or the spectrum is asked for beside others without `sequences`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap import loss_predictor
    >>> rng = np.random.default_rng(0)
    >>> slope = rng.uniform(0.5, 3, size=60)
    >>> spectra = -slope[:, None] * np.linspace(0, 1, 16)
    >>> predictor = loss_predictor(random_state=0).fit(spectra, np.exp(-slope))
    >>> predictor.score(spectra, np.exp(-slope)) > 0.9
    True
    >>> lower, upper = predictor.predict_interval(spectra, alpha=0.1)
    >>> bool(np.mean((lower <= np.exp(-slope)) & (np.exp(-slope) <= upper)) > 0.8)
    True
    """
    caller = "loss_predictor"
    check_instance(features, "features", (str, Iterable), caller=caller)
    chosen = (features,) if isinstance(features, str) else tuple(features)
    for feature in chosen:
        check_choice(feature, "features", _FEATURES, caller=caller)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"The 'features' parameter of {caller} must name each feature once, at least one. Got {chosen!r}."
        )
    if sequences is None and "spectrum" in chosen and len(chosen) > 1:
        raise ValueError(
            f"The 'sequences' parameter of {caller} must be given where the spectrum is one of several features, as "
            "only networks tell the others. Got None."
        )
    check_choice(target_transform, "target_transform", ["rank", "log", None], caller=caller)
    check_int(cv, "cv", low=2, caller=caller)
    check_probe(sequences, caller=caller)
    check_memory(memory, caller)
    check_jobs(n_jobs, caller=caller)
    if n_exponents is not None:
        check_int(n_exponents, "n_exponents", low=1, caller=caller)
    epochs = _epochs_so_far(epoch, caller)
    makers = {
        "spectrum": lambda: LyapunovSpectrumTransformer(
            sequences, n_exponents=n_exponents, align="interpolate", memory=memory, n_jobs=n_jobs
        ),
        "loss_so_far": lambda: HistoryFeatures(epoch=epochs, log=True),
        "hyperparameters": HyperparameterFeatures,
    }
    stack = loss_stack(
        mixed=chosen != ("spectrum",),
        spectrum="spectrum" in chosen,
        n_folds=cv,
        seed=seed_from(random_state),
        n_jobs=n_jobs,
    )
    if sequences is None and chosen == ("spectrum",):
        return LossPredictor(stack, target_transform=target_transform)
    seen = [makers[feature]() for feature in chosen]
    union = seen[0] if chosen == ("spectrum",) else make_union(*seen).set_output(transform="pandas")
    return LossPredictor(Pipeline([("features", union), ("stack", stack)]), target_transform=target_transform)


def _epochs_so_far(epoch: Any, caller: str) -> Any:
    """Return the epochs whose losses are known at `epoch`."""
    if isinstance(epoch, str):
        return check_choice(epoch, "epoch", ["last"], caller=caller)
    return list(range(1, check_int(epoch, "epoch", low=1, caller=caller) + 1))


class LossPredictor(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """A stack of regressors that learns losses on another scale, with prediction intervals.

    :func:`~sklyap.loss_predictor` makes them.

    Parameters
    ----------
    regressor : StackingRegressor, or Pipeline that ends in one
        Its final estimator knows the width of intervals.
    target_transform : {"rank", "log"} or None, default="rank"
        The scale that it learns losses on.

    Attributes
    ----------
    regressor_ : estimator
        Fitted.
    weights_ : dict of str to float
        Weight of each member of the stack.
    n_features_in_ : int
        Number of exponents per spectrum, where spectra were learnt from.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the exponents, where the input had any.

    Examples
    --------
    >>> from sklyap import loss_predictor
    >>> type(loss_predictor(random_state=0)).__name__
    'LossPredictor'
    """

    def __init__(self, regressor: Any, *, target_transform: str | None = "rank") -> None:
        self.regressor = regressor
        self.target_transform = target_transform

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.regressor)
        tags.input_tags.two_d_array = inner.input_tags.two_d_array
        tags.no_validation = inner.no_validation
        return tags

    @suggests_keywords
    def fit(self, X: Sequence[Any] | ArrayLike, y: ArrayLike) -> LossPredictor:
        """Learn from networks, or spectra, and their losses.

        Parameters
        ----------
        X : list of networks, or array-like of shape (n_spectra, n_exponents)
            Networks, or spectra, as the predictor takes them.
        y : array-like of shape (n_networks,)
            Finite losses.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are fewer networks than folds, or a loss or a spectrum is not one.
        """
        check_methods(self.regressor, "regressor", ["fit", "predict"], caller=type(self).__name__)
        check_methods(_stack_of(self.regressor), "regressor", ["cv", "get_params"], caller=type(self).__name__)
        check_choice(self.target_transform, "target_transform", ["rank", "log", None], caller=type(self).__name__)
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        losses = column_or_1d(check_array(y, dtype=np.float64, ensure_2d=False, input_name="y"), warn=True)
        check_consistent_length(X, losses)
        n_folds = check_cv(_stack_of(self.regressor).cv).get_n_splits()
        if len(losses) < n_folds:
            raise ValueError(
                f"{type(self).__name__} needs at least {n_folds} networks, one for each of its folds. "
                f"Got n_samples = {len(losses)}."
            )
        self._scaler = LossScaler(self.target_transform).fit(losses)
        self.regressor_ = clone(self.regressor).fit(X, self._scaler.targets(losses))
        return self

    def predict(self, X: Sequence[Any] | ArrayLike) -> Array:
        """Return the predicted losses.

        Parameters
        ----------
        X : list of networks, or array-like of shape (n_spectra, n_exponents)
            The input, as of `fit`.

        Returns
        -------
        ndarray of shape (n_networks,), float64
        """
        check_is_fitted(self)
        return self._scaler.losses(self.regressor_.predict(X))

    def predict_members(self, X: Sequence[Any] | ArrayLike) -> dict[str, Array]:
        """Return what each member of the stack predicts by itself.

        Parameters
        ----------
        X : list of networks, or array-like of shape (n_spectra, n_exponents)
            Networks, or spectra, as in `fit`.

        Returns
        -------
        dict of str to ndarray of shape (n_networks,), float64
            Losses, by the names in `weights_`.
        """
        check_is_fitted(self)
        said = self.regressor_.transform(X)
        return {name: self._scaler.losses(column) for name, column in zip(self.weights_, said.T, strict=True)}

    def predict_interval(self, X: Sequence[Any] | ArrayLike, alpha: float = 0.1) -> tuple[Array, Array]:
        """Return intervals that hold the losses of new networks of the same kind, all but a share `alpha` of them.

        Parameters
        ----------
        X : list of networks, or array-like of shape (n_spectra, n_exponents)
            Networks, or spectra, as in `fit`.
        alpha : float in (0, 1), default=0.1
            Share of losses that may lie outside.

        Returns
        -------
        lower, upper : ndarray of shape (n_networks,), float64

        Raises
        ------
        ValueError
            If `alpha` is out of range, or so small that more networks would have to be learnt from.

        Notes
        -----
        The half-width is that of the errors out of fold, on the scale of `target_transform`. That holds on average over
        networks drawn as those learnt from, not for other architectures or tasks.
        """
        check_is_fitted(self)
        check_real(alpha, "alpha", low=0.0, high=1.0, caller="predict_interval")
        half = _stack_of(self.regressor_).final_estimator_.half_width(alpha)
        centre = self.regressor_.predict(X)
        return self._scaler.bounds(centre - half), self._scaler.bounds(centre + half)

    @property
    def weights_(self) -> dict[str, float]:
        check_is_fitted(self)
        stack = _stack_of(self.regressor_)
        return dict(zip(stack.named_estimators_, map(float, stack.final_estimator_.weights_), strict=True))

    @property
    def n_features_in_(self) -> int:
        return int(self.regressor_.n_features_in_)

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        names: NDArray[np.object_] = self.regressor_.feature_names_in_
        return names


def _stack_of(regressor: Any) -> Any:
    return regressor[-1] if isinstance(regressor, Pipeline) else regressor
