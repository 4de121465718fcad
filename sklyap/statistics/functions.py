"""Functions of a Lyapunov spectrum.

Every function takes spectra of shape (..., k), in any order along the last axis, and returns one number
per spectrum, shape (...). To add a statistic, write such a function and name it in `STATISTICS` (or pass
the function itself to :class:`~sklyap.SpectrumStatistics`); a family with numbers in its name goes in
`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklyap.lyapunov.dimension import kaplan_yorke_dimension
from sklyap.validation import check_dense, check_real

__all__ = [
    "FAMILIES",
    "STATISTICS",
    "Statistic",
    "kaplan_yorke_dimension",
    "kolmogorov_sinai_entropy",
    "largest_exponent",
    "largest_gap",
    "mean_exponent",
    "median_exponent",
    "n_near_zero",
    "n_positive",
    "smallest_exponent",
    "spectrum_quantile",
    "spectrum_slope",
    "spectrum_std",
    "spectrum_sum",
    "spectrum_variance",
    "top_mean",
]

Statistic = Callable[..., NDArray[np.float64]]


def _checked(spectra: ArrayLike) -> NDArray[np.float64]:
    check_dense(spectra, "spectra")
    array = np.asarray(spectra, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            "The 'spectra' parameter must have shape (..., k), with at least one exponent in each. "
            f"Got shape {array.shape} instead."
        )
    return array


def _descending(spectra: ArrayLike) -> NDArray[np.float64]:
    return -np.sort(-_checked(spectra), axis=-1)


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
    return np.max(_checked(spectra), axis=-1)


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
    return np.min(_checked(spectra), axis=-1)


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
    return np.mean(_checked(spectra), axis=-1)


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
    return np.var(_checked(spectra), axis=-1)


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
    return np.std(_checked(spectra), axis=-1)


def spectrum_sum(spectra: ArrayLike) -> NDArray[np.float64]:
    """Sum of the exponents Σ λᵢ, nats per step: the rate at which state-space volume grows, ``⟨ln |det J|⟩``.

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
    return np.sum(_checked(spectra), axis=-1)


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
    return np.sum(_checked(spectra) > 0, axis=-1, dtype=np.float64)


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
    check_real(zero_tolerance, "zero_tolerance", low=0.0)
    return np.sum(np.abs(_checked(spectra)) <= zero_tolerance, axis=-1, dtype=np.float64)


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
    return np.sum(np.maximum(_checked(spectra), 0.0), axis=-1)


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
    start, stop = check_real(start, "start", low=0.0, high=1.0), check_real(stop, "stop", low=0.0, high=1.0)
    if start >= stop:
        raise ValueError(f"The 'stop' parameter must be larger than 'start', {start:g}. Got {stop:g} instead.")
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
    check_real(q, "q", low=0.0, high=1.0)
    return np.quantile(_checked(spectra), q, axis=-1)


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
    fraction = check_real(fraction, "fraction", low=0.0, high=1.0)
    if not fraction:
        raise ValueError("The 'fraction' parameter must be larger than 0. Got 0 instead.")
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
