"""Functions of a Lyapunov spectrum, and how they go with the loss.

Every function takes spectra of shape (..., k), in any order along the last axis, and returns one number
per spectrum, shape (...). To add a statistic, write such a function and name it in `STATISTICS` (or pass
the function itself to :class:`SpectrumStatistics`); a family with numbers in its name goes in `FAMILIES`.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, pearsonr, rankdata, spearmanr
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from sklyap.exceptions import SklyapWarning
from sklyap.validation import check_choice, check_exponents, check_int, check_real, floor_exponents

__all__ = [
    "FAMILIES",
    "STATISTICS",
    "SpectrumStatistics",
    "kaplan_yorke_dimension",
    "kolmogorov_sinai_entropy",
    "largest_exponent",
    "largest_gap",
    "mean_exponent",
    "median_exponent",
    "n_near_zero",
    "n_positive",
    "smallest_exponent",
    "spectrum_loss_correlation",
    "spectrum_quantile",
    "spectrum_slope",
    "spectrum_std",
    "spectrum_sum",
    "spectrum_variance",
    "top_mean",
]

Statistic = Callable[..., NDArray[np.float64]]


def _descending(spectra: ArrayLike) -> NDArray[np.float64]:
    return -np.sort(-np.asarray(spectra, dtype=np.float64), axis=-1)


def largest_exponent(spectra: ArrayLike) -> NDArray[np.float64]:
    """Largest exponent λ₁ = maxᵢ λᵢ, nats per step: positive in chaos, zero on a cycle.

    References
    ----------
    Benettin, G., Galgani, L., Giorgilli, A. and Strelcyn, J.-M. (1980). *Lyapunov characteristic exponents
    for smooth dynamical systems.* Meccanica 15, 9-30.

    Examples
    --------
    >>> float(largest_exponent([0.9, 0.0, -14.6]))
    0.9
    """
    return np.max(np.asarray(spectra, dtype=np.float64), axis=-1)


def smallest_exponent(spectra: ArrayLike) -> NDArray[np.float64]:
    """Smallest exponent minᵢ λᵢ, nats per step: the fastest forgetting.

    References
    ----------
    Benettin, G., Galgani, L., Giorgilli, A. and Strelcyn, J.-M. (1980). *Lyapunov characteristic exponents
    for smooth dynamical systems.* Meccanica 15, 9-30.

    Examples
    --------
    >>> float(smallest_exponent([0.9, 0.0, -14.6]))
    -14.6
    """
    return np.min(np.asarray(spectra, dtype=np.float64), axis=-1)


def mean_exponent(spectra: ArrayLike) -> NDArray[np.float64]:
    """Mean exponent (1/k) Σ λᵢ, nats per step.

    References
    ----------
    Vogt, R., Puelma Touzel, M., Shlizerman, E. and Lajoie, G. (2022). *On Lyapunov exponents for RNNs.*
    Front. Appl. Math. Stat. 8, 818799.

    Examples
    --------
    >>> float(mean_exponent([1.0, 0.0, -4.0]))
    -1.0
    """
    return np.mean(np.asarray(spectra, dtype=np.float64), axis=-1)


def median_exponent(spectra: ArrayLike) -> NDArray[np.float64]:
    """Median exponent, nats per step: the contraction of a typical direction, deaf to the outermost ones.

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> float(median_exponent([1.0, 0.0, -4.0]))
    0.0
    """
    return spectrum_quantile(spectra, 0.5)


def spectrum_variance(spectra: ArrayLike) -> NDArray[np.float64]:
    """Variance of the exponents (1/k) Σ (λᵢ − λ̄)², (nats per step)².

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> float(spectrum_variance([1.0, -1.0]))
    1.0
    """
    return np.var(np.asarray(spectra, dtype=np.float64), axis=-1)


def spectrum_std(spectra: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation of the exponents [(1/k) Σ (λᵢ − λ̄)²]^½, nats per step.

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> float(spectrum_std([2.0, -2.0]))
    2.0
    """
    return np.std(np.asarray(spectra, dtype=np.float64), axis=-1)


def spectrum_sum(spectra: ArrayLike) -> NDArray[np.float64]:
    """Sum of the exponents Σ λᵢ, nats per step: the rate at which state-space volume grows, ⟨ln |det J|⟩.

    Of a truncated spectrum it is the growth of the k-dimensional volume spanned by the leading directions.

    References
    ----------
    Benettin, G., Galgani, L., Giorgilli, A. and Strelcyn, J.-M. (1980). *Lyapunov characteristic exponents
    for smooth dynamical systems.* Meccanica 15, 9-30.

    Examples
    --------
    >>> round(float(spectrum_sum([0.4192, -1.6232])), 3)  # Hénon: ln 0.3
    -1.204
    """
    return np.sum(np.asarray(spectra, dtype=np.float64), axis=-1)


def n_positive(spectra: ArrayLike) -> NDArray[np.float64]:
    """Number of positive exponents #{i : λᵢ > 0}: the dimension of the unstable directions.

    References
    ----------
    Engelken, R., Wolf, F. and Abbott, L. F. (2023). *Lyapunov spectra of chaotic recurrent neural networks.*
    Phys. Rev. Research 5, 043044.

    Examples
    --------
    >>> float(n_positive([0.9, 0.0, -14.6]))
    1.0
    """
    return np.sum(np.asarray(spectra, dtype=np.float64) > 0, axis=-1, dtype=np.float64)


def n_near_zero(spectra: ArrayLike, zero_tolerance: float = 0.01) -> NDArray[np.float64]:
    """Number of exponents near zero #{i : abs(λᵢ) ≤ `zero_tolerance`}: the slowest to forget.

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> float(n_near_zero([0.9, 0.001, -14.6]))
    1.0
    """
    return np.sum(np.abs(np.asarray(spectra, dtype=np.float64)) <= zero_tolerance, axis=-1, dtype=np.float64)


def kolmogorov_sinai_entropy(spectra: ArrayLike) -> NDArray[np.float64]:
    """Kolmogorov-Sinai entropy by Pesin's formula Σ_{λᵢ > 0} λᵢ, nats per step (an upper bound by Ruelle).

    References
    ----------
    Pesin, Ya. B. (1977). *Characteristic Lyapunov exponents and smooth ergodic theory.* Russian Math.
    Surveys 32, 55-114. Ruelle, D. (1978). *An inequality for the entropy of differentiable maps.*

    Examples
    --------
    >>> float(kolmogorov_sinai_entropy([0.75, 0.25, 0.0, -3.0]))
    1.0
    """
    return np.sum(np.maximum(np.asarray(spectra, dtype=np.float64), 0.0), axis=-1)


def kaplan_yorke_dimension(spectra: ArrayLike) -> NDArray[np.float64]:
    """Kaplan-Yorke (Lyapunov) dimension j + (λ₁ + … + λⱼ) / abs(λⱼ₊₁), a pure number.

    j is the largest number of leading exponents whose sum is not negative. The dimension is 0 when λ₁ < 0
    and the number of exponents when their whole sum is not negative (of a truncated spectrum, a lower
    bound). An exponent of −∞ adds no fraction.

    References
    ----------
    Kaplan, J. L. and Yorke, J. A. (1979). *Chaotic behavior of multidimensional difference equations.*
    Lecture Notes in Mathematics 730, 204-227.

    Examples
    --------
    >>> round(float(kaplan_yorke_dimension([0.906, 0.0, -14.572])), 3)  # Lorenz
    2.062
    >>> [float(d) for d in kaplan_yorke_dimension([[-0.1, -0.2], [0.2, -0.1]])]
    [0.0, 2.0]
    """
    spectra = _descending(spectra)
    sums = np.cumsum(spectra, axis=-1)
    # The sums rise, then fall, so those that are not negative come first.
    j = np.sum(sums >= 0, axis=-1, keepdims=True)
    k = spectra.shape[-1]
    volume = np.take_along_axis(sums, np.maximum(j - 1, 0), axis=-1)
    following = np.take_along_axis(spectra, np.minimum(j, k - 1), axis=-1)
    within = (j > 0) & (j < k)
    fraction = np.divide(volume, -following, out=np.zeros_like(volume), where=within)
    return (j + fraction)[..., 0]


def largest_gap(spectra: ArrayLike) -> NDArray[np.float64]:
    """Largest gap between neighbours maxᵢ (λᵢ − λᵢ₊₁), nats per step: slow directions told from fast ones.

    References
    ----------
    Ginelli, F. et al. (2007). *Characterizing dynamics with covariant Lyapunov vectors.* Phys. Rev. Lett. 99,
    130601 (on gaps and the splitting of tangent space).

    Examples
    --------
    >>> float(largest_gap([0.5, 0.0, -4.0]))
    4.0
    """
    spectra = _descending(spectra)
    # Two directions that are annihilated alike have no gap between them: −∞ − (−∞) is 0 here.
    upper, lower = spectra[..., :-1], spectra[..., 1:]
    gaps = np.subtract(upper, lower, out=np.zeros_like(upper), where=upper > lower)
    return np.max(gaps, axis=-1, initial=0.0)


def spectrum_slope(spectra: ArrayLike, start: float = 0.0, stop: float = 1.0) -> NDArray[np.float64]:
    """Least-squares slope dλ/du of the ordered spectrum over relative index u = i/(k − 1) in [start, stop].

    Nats per step from one end of the spectrum to the other; 0 where fewer than two exponents fall into the
    window.

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> round(float(spectrum_slope([0.0, -1.0, -2.0, -3.0])), 6)
    -3.0
    """
    spectra = _descending(spectra)
    k = spectra.shape[-1]
    index = np.arange(k) / max(k - 1, 1)
    # A little slack, so that 0.1 + 0.2 and i/(k - 1) may differ in the last bit.
    window = (index >= start - 1e-9) & (index <= stop + 1e-9)
    if window.sum() < 2:
        return np.zeros(spectra.shape[:-1])
    centred = index[window] - index[window].mean()
    return spectra[..., window] @ (centred / (centred @ centred))


def spectrum_quantile(spectra: ArrayLike, q: float) -> NDArray[np.float64]:
    """Quantile `q` of the exponents (linear interpolation), nats per step.

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> float(spectrum_quantile([0.0, -1.0, -2.0, -3.0, -4.0], 0.25))
    -3.0
    """
    return np.quantile(np.asarray(spectra, dtype=np.float64), q, axis=-1)


def top_mean(spectra: ArrayLike, fraction: float = 0.1) -> NDArray[np.float64]:
    """Mean of the leading ⌈`fraction` · k⌉ exponents, nats per step.

    References
    ----------
    Vogt, R. (2022). *On Lyapunov exponents for RNNs*, see :func:`mean_exponent`.

    Examples
    --------
    >>> float(top_mean([0.5, -0.5, -2.0, -3.0], 0.5))
    0.0
    """
    spectra = _descending(spectra)
    leading = max(1, int(np.ceil(fraction * spectra.shape[-1] - 1e-9)))
    return spectra[..., :leading].mean(axis=-1)


FAMILIES: dict[str, tuple[Statistic, int]] = {
    "quantile": (spectrum_quantile, 1),
    "slope": (spectrum_slope, 2),
    "top_mean": (top_mean, 1),
}
"""Statistics with numbers in their names: ``"quantile_0.25"``, ``"slope_0_0.25"``, ``"top_mean_0.2"``.

Each entry is the function and how many numbers in [0, 1] follow the name.
"""

STATISTICS: dict[str, Statistic] = {
    "max": largest_exponent,
    "mean": mean_exponent,
    "median": median_exponent,
    "std": spectrum_std,
    "variance": spectrum_variance,
    "min": smallest_exponent,
    "sum": spectrum_sum,
    "n_positive": n_positive,
    "n_near_zero": n_near_zero,
    "kolmogorov_sinai_entropy": kolmogorov_sinai_entropy,
    "kaplan_yorke_dimension": kaplan_yorke_dimension,
    "gap": largest_gap,
    "slope": spectrum_slope,
    "slope_0_0.25": partial(spectrum_slope, start=0.0, stop=0.25),
    "slope_0.75_1": partial(spectrum_slope, start=0.75, stop=1.0),
    "quantile_0.1": partial(spectrum_quantile, q=0.1),
    "quantile_0.25": partial(spectrum_quantile, q=0.25),
    "quantile_0.75": partial(spectrum_quantile, q=0.75),
    "quantile_0.9": partial(spectrum_quantile, q=0.9),
    "top_mean": top_mean,
}
"""The statistics that ``"all"`` stands for, by name."""


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


def _resolve(statistics: Any, zero_tolerance: float, caller: str) -> dict[str, Statistic]:
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


def _evaluate(chosen: dict[str, Statistic], spectra: NDArray[np.float64]) -> NDArray[np.float64]:
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

    Attributes
    ----------
    statistics_ : list of str
        The names, in the order of the columns.
    n_features_in_ : int
        Number of exponents per spectrum.
    feature_names_in_ : ndarray of shape (n_features_in_,)
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
    ) -> None:
        self.statistics = statistics
        self.zero_tolerance = zero_tolerance

    def fit(self, X: ArrayLike, y: Any = None) -> SpectrumStatistics:
        """Check the parameters and the width of the spectra.

        Parameters
        ----------
        X : array-like of shape (n_spectra, n_exponents)
        y : ignored

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

        Returns
        -------
        ndarray of shape (n_spectra, n_statistics), float64
        """
        check_is_fitted(self)
        return _evaluate(self._chosen(), self._validate(X, reset=False))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the names of the statistics; `input_features` is ignored."""
        check_is_fitted(self)
        return np.array(self.statistics_, dtype=object)

    def _chosen(self) -> dict[str, Statistic]:
        name = type(self).__name__
        tolerance = check_real(self.zero_tolerance, "zero_tolerance", low=0, caller=name)
        return _resolve(self.statistics, tolerance, name)

    def _validate(self, X: ArrayLike, *, reset: bool) -> NDArray[np.float64]:
        X = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=False)
        return check_exponents(X, caller=type(self).__name__)


def spectrum_loss_correlation(
    spectra: ArrayLike,
    losses: ArrayLike,
    *,
    statistics: str | Statistic | Sequence[str | Statistic] = "all",
    method: str = "spearman",
    zero_tolerance: float = 0.01,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
) -> pd.DataFrame:
    """Correlate each statistic of the spectra with the loss.

    Parameters
    ----------
    spectra : array-like of shape (n_networks, n_exponents)
    losses : array-like of shape (n_networks,)
    statistics, zero_tolerance
        As in :class:`SpectrumStatistics`.
    method : {"spearman", "pearson"}, default="spearman"
        Rank or linear correlation; the rank correlation does not care whether the loss or its logarithm is
        given.
    n_bootstrap : int, default=1000
        Resamples of networks for the interval.
    confidence : float, default=0.95
        Level of the interval.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    DataFrame, one row per statistic, sorted by decreasing abs(r)
        ``r``, the percentile bootstrap interval ``low`` and ``high``, the two-sided ``p`` of no correlation,
        and ``p_corrected``, which holds the false discovery rate over the rows (Benjamini-Hochberg).

    Raises
    ------
    ValueError
        If the lengths differ, fewer than three networks are given, or a loss is not finite.

    Warns
    -----
    SklyapWarning
        For statistics that are the same for every network; their row is NaN.

    References
    ----------
    Benjamini, Y. and Hochberg, Y. (1995). *Controlling the false discovery rate.* J. R. Stat. Soc. B 57,
    289-300.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> spectra = -np.sort(rng.exponential(size=(50, 8)), axis=1)
    >>> losses = spectra.mean(axis=1)
    >>> table = spectrum_loss_correlation(spectra, losses, statistics=["mean", "max"], random_state=0)
    >>> float(table.loc["mean", "r"])
    1.0
    """
    caller = "spectrum_loss_correlation"
    check_choice(method, "method", ["spearman", "pearson"], caller=caller)
    check_int(n_bootstrap, "n_bootstrap", low=1, caller=caller)
    check_real(confidence, "confidence", low=0.0, high=1.0, caller=caller)
    chosen = _resolve(statistics, check_real(zero_tolerance, "zero_tolerance", low=0, caller=caller), caller)
    spectra = check_exponents(
        check_array(spectra, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=3, input_name="spectra"),
        "spectra",
        caller=caller,
    )
    losses = column_or_1d(check_array(losses, dtype=np.float64, ensure_2d=False, input_name="losses"))
    check_consistent_length(spectra, losses)

    table = _evaluate(chosen, spectra)
    varies = np.ptp(table, axis=0) > 0
    if not varies.all():
        constant = [name for name, varied in zip(chosen, varies, strict=True) if not varied]
        warnings.warn(
            f"No correlation is defined for statistics that are the same for every network: {', '.join(constant)}.",
            SklyapWarning,
            stacklevel=2,
        )
    result = pd.DataFrame(
        np.nan, index=pd.Index(chosen, name="statistic"), columns=["r", "low", "high", "p", "p_corrected"]
    )
    test = spearmanr if method == "spearman" else pearsonr
    for name, column in zip(result.index[varies], table.T[varies], strict=True):
        found = test(column, losses)
        result.loc[name, ["r", "p"]] = float(found.statistic), float(found.pvalue)
    if varies.any():
        resampled = _bootstrap_correlations(table[:, varies], losses, method, n_bootstrap, random_state)
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        result.loc[varies, ["low", "high"]] = np.nanquantile(resampled, tails, axis=0).T
        result.loc[varies, "p_corrected"] = false_discovery_control(result.loc[varies, "p"])
    return result.sort_values("r", key=np.abs, ascending=False, kind="stable")


def _bootstrap_correlations(
    table: NDArray[np.float64], losses: NDArray[np.float64], method: str, n_bootstrap: int, random_state: Any
) -> NDArray[np.float64]:
    """Return correlations (n_bootstrap, n_statistics) over resamples; NaN where one is constant."""
    rng = check_random_state(random_state)
    correlations = np.empty((n_bootstrap, table.shape[1]))
    for draw in range(n_bootstrap):
        rows = rng.randint(len(losses), size=len(losses))
        sample = np.column_stack([table[rows], losses[rows]])
        if method == "spearman":
            sample = rankdata(sample, axis=0)
        sample = sample - sample.mean(axis=0)
        norms = np.sqrt(np.sum(sample**2, axis=0))
        with np.errstate(invalid="ignore", divide="ignore"):
            correlations[draw] = (sample[:, -1] @ sample[:, :-1]) / (norms[:-1] * norms[-1])
    return correlations
