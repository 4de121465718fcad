"""SpectrumStatistics: each spectrum summarised by a few numbers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sklyap.networks.keywords import suggests_keywords
from sklyap.statistics.functions import FAMILIES, STATISTICS, Statistic
from sklyap.validation import check_exponents, check_real, floor_exponents

__all__ = ["SpectrumStatistics", "evaluate", "resolve"]


def _numbered(name: str) -> Statistic | None:
    """Return the member of a family that `name` asks for, or None."""
    for family, (function, n_numbers) in FAMILIES.items():
        if not name.startswith(family + "_"):
            continue
        try:
            numbers = [float(part) for part in name[len(family) + 1 :].split("_")]
        except ValueError:
            continue
        if len(numbers) == n_numbers and all(0 <= number <= 1 for number in numbers):
            arguments = list(inspect.signature(function).parameters)[1 : 1 + n_numbers]
            return partial(function, **dict(zip(arguments, numbers, strict=True)))
    return None


def resolve(statistics: Any, zero_tolerance: float, caller: str) -> dict[str, Statistic]:
    """Return name -> function for what the user selected."""
    if isinstance(statistics, str):
        statistics = STATISTICS if statistics == "all" else [statistics]
    elif callable(statistics) or not isinstance(statistics, Iterable):
        statistics = [statistics]
    chosen: dict[str, Statistic] = {}
    for item in statistics:
        if callable(item):
            name, function = getattr(item, "__name__", type(item).__name__), item
        else:
            name, function = (
                item,
                STATISTICS.get(item) or (_numbered(item) if isinstance(item, str) else None),
            )
        if function is None:
            raise ValueError(
                f"The 'statistics' parameter of {caller} must be 'all', a function, or name some of "
                f"{', '.join(map(repr, STATISTICS))}, or follow one of the patterns 'quantile_0.25', "
                f"'slope_0_0.25', 'top_mean_0.2' with numbers in [0, 1]. Got {item!r} instead."
            )
        if name in chosen:
            raise ValueError(
                f"The 'statistics' parameter of {caller} must name each statistic once. Got {name!r} twice."
            )
        if "zero_tolerance" in inspect.signature(function).parameters:
            function = partial(function, zero_tolerance=zero_tolerance)
        chosen[name] = function
    if not chosen:
        raise ValueError(f"The 'statistics' parameter of {caller} must not be empty.")
    return chosen


def evaluate(chosen: dict[str, Statistic], spectra: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the statistics (n_spectra, n_statistics); floored where −∞ would make one infinite."""
    table = np.empty((len(spectra), len(chosen)))
    floored = floor_exponents(spectra)
    for column, (name, function) in enumerate(chosen.items()):
        with np.errstate(invalid="ignore"):
            values = np.asarray(function(spectra))
        if values.shape != (len(spectra),):
            raise ValueError(
                f"The statistic {name!r} must return one number per spectrum, shape ({len(spectra)},). "
                f"Got shape {values.shape} instead."
            )
        if floored is not spectra:
            values = np.where(np.isfinite(values), values, function(floored))
        table[:, column] = values
    return table


class SpectrumStatistics(TransformerMixin, BaseEstimator):
    """Summarise each Lyapunov spectrum by a few numbers.

    Parameters
    ----------
    statistics : "all", str, callable or sequence of them, default="all"
        Names from ``sklyap.statistics.STATISTICS``, names with numbers such as ``"quantile_0.25"``,
        ``"slope_0_0.25"`` (relative index from 0 to 0.25) and ``"top_mean_0.2"``, or functions that take
        spectra (n_spectra, n_exponents) and return (n_spectra,).
    zero_tolerance : float, default=0.01
        How far from zero an exponent may lie and still count as near zero, in the units of the exponents.
    floor : float, optional
        Exponents below it count as it, in their units. A direction that shrinks by e⁻⁵ and one that shrinks by e⁻³⁰ per
        step are forgotten alike, but a few of the latter decide means, sums and variances, and a line fitted to them.

    Attributes
    ----------
    statistics_ : list of str
        The names, in the order of the columns.
    n_features_in_ : int
        Number of exponents per spectrum.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the exponents, where the input had any.

    See Also
    --------
    spectrum_loss_correlation : How each statistic goes with the loss.

    Notes
    -----
    The order of the exponents within a spectrum does not matter. Statistics carry the units of the
    exponents (nats per step unless the transformer was told otherwise); the variance carries their square,
    counts and the Kaplan-Yorke dimension none.

    Exponents of −∞, from directions that are annihilated, are accepted. Statistics that stay finite (the
    maximum, the entropy, the Kaplan-Yorke dimension, …) are exact; one that would be infinite is taken of
    the spectrum with −∞ read as ln ε = −36.04 per step, or as its smallest finite exponent if that is lower.

    References
    ----------
    Vogt, R., Puelma Touzel, M., Shlizerman, E. and Lajoie, G. (2022). *On Lyapunov exponents for RNNs:
    understanding information propagation using dynamical systems tools.* Front. Appl. Math. Stat. 8, 818799.

    Examples
    --------
    >>> from sklyap.statistics import SpectrumStatistics
    >>> spectra = [[0.9, 0.0, -14.6], [-0.1, -0.2, -0.3]]
    >>> statistics = SpectrumStatistics(["max", "n_positive", "quantile_0.25"])
    >>> statistics.fit_transform(spectra).round(2)
    array([[ 0.9 ,  1.  , -7.3 ],
           [-0.1 ,  0.  , -0.25]])
    >>> list(statistics.get_feature_names_out())
    ['max', 'n_positive', 'quantile_0.25']
    """

    def __init__(
        self,
        statistics: str | Statistic | Sequence[str | Statistic] = "all",
        *,
        zero_tolerance: float = 0.01,
        floor: float | None = None,
    ) -> None:
        self.statistics = statistics
        self.zero_tolerance = zero_tolerance
        self.floor = floor

    @suggests_keywords
    def fit(self, X: ArrayLike, y: Any = None) -> SpectrumStatistics:
        """Check the parameters and the width of the spectra.

        Parameters
        ----------
        X : array-like of shape (n_spectra, n_exponents)
            Spectra, a row for each network.
        y : ignored
            Not used.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a statistic is unknown or named twice, or a spectrum holds NaN or +inf.
        """
        self._validate(X, reset=True)
        self.statistics_ = list(self._chosen())
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the statistics of each spectrum.

        Parameters
        ----------
        X : array-like of shape (n_spectra, n_exponents)
            Spectra.

        Returns
        -------
        ndarray of shape (n_spectra, n_statistics), float64
        """
        check_is_fitted(self)
        return evaluate(self._chosen(), self._validate(X, reset=False))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the statistics; `input_features` is ignored."""
        check_is_fitted(self)
        return np.array(self.statistics_, dtype=object)

    def _chosen(self) -> dict[str, Statistic]:
        name = type(self).__name__
        tolerance = check_real(self.zero_tolerance, "zero_tolerance", low=0, caller=name)
        return resolve(self.statistics, tolerance, name)

    def _validate(self, X: ArrayLike, *, reset: bool) -> NDArray[np.float64]:
        if self.floor is not None:
            check_real(self.floor, "floor", caller=type(self).__name__)
        checked = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=False)
        exponents = check_exponents(checked, caller=type(self).__name__)
        return exponents if self.floor is None else np.maximum(exponents, self.floor)
