"""Several predictors of one loss, weighted by what each says of networks that it has not seen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, RegressorMixin, TransformerMixin
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import ExtraTreesRegressor, StackingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, QuantileTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from sklyap.autoencoder import SpectrumAutoencoder
from sklyap.autoencoder.scaling import SpectrumScaler
from sklyap.validation import check_exponents, check_real

__all__ = ["OutOfFoldBlend", "Ranks", "SpectrumViews", "any_columns", "loss_stack"]

Array = NDArray[np.float64]

_SPECTRUM = r"^(?:.*__)?lyapunov_\d+$"
"""Names of the columns that hold a spectrum, in a table that holds more."""
_NO_SPECTRUM = r"^(?!(?:.*__)?lyapunov_\d+$)"
_ALPHAS = np.logspace(-3, 4, 15)


class Ranks(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Columns on the scale of their quantiles, of which few samples have few.

    Parameters
    ----------
    n_quantiles : int, default=10
        How many quantiles at most.

    Attributes
    ----------
    quantiles_ : QuantileTransformer
    """

    def __init__(self, n_quantiles: int = 10) -> None:
        self.n_quantiles = n_quantiles

    def fit(self, X: Any, y: Any = None) -> Ranks:
        """Learn the quantiles of each column."""
        self.quantiles_ = QuantileTransformer(n_quantiles=min(self.n_quantiles, len(X))).fit(X)
        self.n_features_in_ = self.quantiles_.n_features_in_
        if hasattr(self.quantiles_, "feature_names_in_"):
            self.feature_names_in_ = self.quantiles_.feature_names_in_
        return self

    def transform(self, X: Any) -> Array:
        """Return the columns as shares of the samples seen that are smaller."""
        check_is_fitted(self, "quantiles_")
        return self.quantiles_.transform(X)


class SpectrumViews(TransformerMixin, BaseEstimator):
    """Spectra as the autoencoder sees them: asinh λ and exp λ, standardised, or their principal components.

    Parameters
    ----------
    n_components : int or None, default=None
        How many principal components to return at most; None for the views themselves.
    """

    def __init__(self, n_components: int | None = None) -> None:
        self.n_components = n_components

    def fit(self, X: ArrayLike, y: Any = None) -> SpectrumViews:
        self._scaler = SpectrumScaler("growth", self.n_components).fit(self._checked(X, reset=True))
        return self

    def transform(self, X: ArrayLike) -> Array:
        check_is_fitted(self, "_scaler")
        return self._scaler.inputs(self._checked(X, reset=False))

    def _checked(self, X: ArrayLike, *, reset: bool) -> Array:
        checked = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=False)
        return check_exponents(checked, caller=type(self).__name__)


class OutOfFoldBlend(RegressorMixin, BaseEstimator):
    """Weighted mean of predictions; the final estimator of a stack, which fits it on out-of-fold predictions.

    The weights are non-negative, sum to one and minimise the squared error, with a pull towards equal weights as strong
    as `n_prior` further networks on which all members err independently, each as much as the best one does. They are
    fitted on predictions of networks that the members have not seen, so what is left unexplained is what to expect
    of a new network: its quantiles are the half-widths of conformal intervals [1]_.

    Parameters
    ----------
    n_prior : float, default=10.0

    Attributes
    ----------
    weights_ : ndarray of shape (n_members,)
    residuals_ : ndarray of shape (n_networks,)
        Absolute errors, ascending, each with weights that were fitted without the fold of the network.

    References
    ----------
    .. [1] Barber, R. F., Candès, E. J., Ramdas, A. and Tibshirani, R. J. (2021). *Predictive inference with the
       jackknife+.* Annals of Statistics 49, 486-507. Here the folds are those of the stack, and the mean of all
       members predicts ("CV").
    """

    def __init__(self, n_prior: float = 10.0) -> None:
        self.n_prior = n_prior

    def fit(self, X: ArrayLike, y: ArrayLike) -> OutOfFoldBlend:
        check_real(self.n_prior, "n_prior", low=0.0, caller=type(self).__name__)
        Z, targets = validate_data(self, X, y, dtype=np.float64)
        self.weights_ = self._weights(Z, targets)
        predicted = np.empty(len(targets))
        folds = KFold(min(5, len(targets)), shuffle=True, random_state=0)
        for train, test in folds.split(Z):
            predicted[test] = Z[test] @ self._weights(Z[train], targets[train])
        self.residuals_ = np.sort(np.abs(targets - predicted))
        return self

    def predict(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        predicted: Array = validate_data(self, X, reset=False, dtype=np.float64) @ self.weights_
        return predicted

    def half_width(self, alpha: float) -> float:
        """Return the half-width of intervals that hold all but a share `alpha` of new networks."""
        n = len(self.residuals_)
        rank = int(np.ceil((n + 1) * (1 - alpha)))
        if rank > n:
            raise ValueError(
                f"The 'alpha' parameter of predict_interval must be at least 1/{n + 1} after learning from {n} "
                f"networks. Got {alpha} instead."
            )
        return float(self.residuals_[rank - 1])

    def _weights(self, Z: Array, y: Array) -> Array:
        """Return the weights, by least squares with the sum as a heavy further row."""
        n_members = Z.shape[1]
        least = max(np.mean((y[:, None] - Z) ** 2, axis=0).min(), 1e-12)
        pull = np.sqrt(self.n_prior * least) * np.eye(n_members)
        heavy = 1e4 * (np.abs(Z).max(initial=0.0) + 1.0)
        rows = np.vstack([Z, pull, np.full((1, n_members), heavy)])
        wanted = np.concatenate([y, pull.sum(axis=1) / n_members, [heavy]])
        weights: Array = nnls(rows, wanted)[0]
        return weights / weights.sum()


def loss_stack(*, mixed: bool, spectrum: bool, n_folds: int, seed: int, n_jobs: int | None = None) -> StackingRegressor:
    """Return the stack that predicts scaled losses.

    Parameters
    ----------
    mixed : bool
        Whether rows hold more than a spectrum: columns of a table, those of the spectrum named ``lyapunov_<i>``.
    spectrum : bool
        Whether they hold a spectrum.
    n_folds, seed, n_jobs : int
    """
    members: list[tuple[str, Any]] = []
    if spectrum:
        code = SpectrumAutoencoder(target_transform=None, random_state=seed)
        members.append(("code", make_pipeline(_spectrum_columns(), code) if mixed else code))
    if mixed:
        members += _table_members(spectrum, seed)
    else:
        trees = ExtraTreesRegressor(300, max_features="sqrt", min_samples_leaf=2, random_state=seed)
        members.append(("linear", make_pipeline(SpectrumViews(16), RidgeCV(_ALPHAS))))
        members.append(("trees", make_pipeline(SpectrumViews(), trees)))
    folds = KFold(n_folds, shuffle=True, random_state=seed)
    return StackingRegressor(members, OutOfFoldBlend(), cv=folds, n_jobs=n_jobs)


def _table_members(spectrum: bool, seed: int) -> list[tuple[str, Any]]:
    """Return members that see all columns, and one that sees all but the spectrum."""
    trees = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=seed)
    known = make_column_transformer((any_columns(), make_column_selector(_NO_SPECTRUM)))
    curved = make_column_transformer((_curved_columns(), make_column_selector(_NO_SPECTRUM)))
    if not spectrum:
        return [("linear", make_pipeline(curved, RidgeCV(_ALPHAS))), ("trees", make_pipeline(known, trees))]
    views = (SpectrumViews(16), make_column_selector(_SPECTRUM))
    both = make_column_transformer(views, (any_columns(), make_column_selector(_NO_SPECTRUM)))
    both_curved = make_column_transformer(views, (_curved_columns(), make_column_selector(_NO_SPECTRUM)))
    return [
        ("linear", make_pipeline(both_curved, RidgeCV(_ALPHAS))),
        ("trees", make_pipeline(both, trees)),
        ("without_spectrum", make_pipeline(known, trees)),
    ]


def _spectrum_columns() -> Any:
    return make_column_transformer(("passthrough", make_column_selector(_SPECTRUM)))


def any_columns(numbers: Any = "passthrough") -> Pipeline:
    """Return a transformer of words, numbers and gaps, such as hyperparameters are, to numbers."""
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", missing_values=None),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    filled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), numbers)
    return make_pipeline(
        make_column_transformer(
            (words, make_column_selector(dtype_exclude="number")),
            (filled, make_column_selector(dtype_include="number")),
        )
    )


def _curved_columns() -> Pipeline:
    """Return the same with curves in each column and products of any two, for linear models.

    Quantiles put learning rates, sizes and losses on one scale, whatever their ranges.
    """
    quantiles = any_columns(Ranks(5))
    return make_pipeline(quantiles, PolynomialFeatures(2, include_bias=False), StandardScaler())
