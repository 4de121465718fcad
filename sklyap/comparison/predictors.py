"""The rows of the honest table: what is looked at, and by which estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

from sklyap.autoencoder import SpectrumAutoencoder
from sklyap.comparison.loss_predictor import LossPredictor
from sklyap.comparison.stacking import Ranks, SpectrumViews, loss_stack
from sklyap.statistics import SpectrumStatistics
from sklyap.statistics.ranks import column_correlations
from sklyap.validation import check_choice, seed_from

__all__ = ["FEATURES", "check_predictors", "default_loss_predictors"]

FEATURES = ("spectrum", "loss_so_far", "hyperparameters", "n_parameters")
"""What a predictor may look at, see :func:`~sklyap.compare_loss_predictors`."""


def default_loss_predictors(random_state: Any = None) -> dict[str, tuple[str | tuple[str, ...], BaseEstimator]]:
    """Return the rows of the honest table: for each name what is looked at, and the estimator.

    Rows without the name of an estimator are those of :func:`~sklyap.loss_predictor`, so that two of them differ in
    what they see and in nothing else. Linear models see statistics as quantiles, and spectra as the autoencoder does:
    asinh λ and exp λ.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    dict of str to (features, estimator)
        To extend or shorten, and to pass to :func:`~sklyap.compare_loss_predictors`.

    Examples
    --------
    >>> from sklyap.comparison import default_loss_predictors
    >>> list(default_loss_predictors())[:3]
    ['constant', 'parameter count', 'hyperparameters']
    """
    seed = seed_from(random_state)
    trees = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=seed)
    curve = make_pipeline(SplineTransformer(5, extrapolation="linear"), RidgeCV(np.logspace(-4, 2, 13)))
    # A single network that contracts without bound would decide a line through the statistics themselves.
    ranked = make_pipeline(SpectrumStatistics(), Ranks(10))
    best_one = make_pipeline(*clone(ranked), SelectKBest(_rank_correlations, k=1))

    def stacked(*features: str) -> tuple[tuple[str, ...], BaseEstimator]:
        spectrum = "spectrum" in features
        stack = loss_stack(mixed=features != ("spectrum",), spectrum=spectrum, n_folds=5, seed=seed)
        return features, LossPredictor(stack)

    ridge = RidgeCV(np.logspace(-2, 4, 13))
    return {
        "constant": ("n_parameters", DummyRegressor()),
        "parameter count": ("n_parameters", clone(curve)),
        "hyperparameters": stacked("hyperparameters"),
        "loss so far": stacked("loss_so_far"),
        "hyperparameters + loss so far": stacked("hyperparameters", "loss_so_far"),
        "best statistic": ("spectrum", make_pipeline(*best_one, *clone(curve))),
        "statistics, linear": ("spectrum", make_pipeline(*ranked, StandardScaler(), LinearRegression())),
        "statistics, ridge": (
            "spectrum",
            make_pipeline(*clone(ranked), StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))),
        ),
        "spectrum, ridge": ("spectrum", make_pipeline(SpectrumViews(), clone(ridge))),
        "spectrum, extra-trees": ("spectrum", trees),
        "AeLLE": ("spectrum", SpectrumAutoencoder(random_state=seed)),
        "spectrum": stacked("spectrum"),
        "spectrum + loss so far": stacked("spectrum", "loss_so_far"),
        "spectrum + hyperparameters": stacked("spectrum", "hyperparameters"),
        "all three": stacked("spectrum", "hyperparameters", "loss_so_far"),
    }


def check_predictors(predictors: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], BaseEstimator]]:
    """Return name -> (features, estimator), or say what is wrong."""
    if not isinstance(predictors, Mapping) or not predictors:
        raise TypeError(
            "The 'predictors' parameter of compare_loss_predictors must be a non-empty dict of names to "
            f"estimators, or to pairs (features, estimator). Got {predictors!r} instead."
        )
    checked = {}
    for name, entry in predictors.items():
        if name == "target":
            raise ValueError("The 'predictors' parameter of compare_loss_predictors must not hold the name 'target'.")
        features, estimator = entry if isinstance(entry, tuple) else ("spectrum", entry)
        features = (features,) if isinstance(features, str) else tuple(features)
        for feature in features:
            check_choice(feature, f"predictors[{name!r}]", FEATURES, caller="compare_loss_predictors")
        if not (hasattr(estimator, "fit") and hasattr(estimator, "predict")):
            raise TypeError(
                f"The 'predictors' parameter of compare_loss_predictors must hold regressors. Got {estimator!r} "
                f"as {name!r}."
            )
        checked[str(name)] = (features, estimator)
    return checked


def _rank_correlations(X: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return abs(Spearman's ρ) of every column with y, 0 for a constant column."""
    return np.nan_to_num(np.abs(column_correlations(X, y)))
