"""Distances between spectra, also of networks of different size."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

from sklyap.lyapunov import LyapunovResult
from sklyap.validation import check_choice, check_exponents, floor_exponents

__all__ = ["spectrum_distance"]

Array = NDArray[np.float64]


def spectrum_distance(A: Any, B: Any, *, metric: str = "wasserstein") -> float | Array:
    """Return how far spectra lie from one another, whatever the sizes of their networks.

    A spectrum of k exponents is read as a curve over the relative index from 0 to 1, or as a distribution of k equal
    weights. So two networks of different size whose exponents are distributed alike are at distance 0.

    Parameters
    ----------
    A, B : spectra
        One spectrum, an array (k,) or a :class:`~sklyap.LyapunovResult`; or several, an array (n_spectra, k) or a
        list of spectra of any lengths. In any order along k.
    metric : {"wasserstein", "l1", "l2"}, default="wasserstein"
        "wasserstein" is the Wasserstein-1 distance of the two distributions, which is the area between the two step
        curves. "l1" and "l2" are the mean absolute and the root mean square difference of the curves at the points of
        the longer one, the shorter one interpolated linearly as ``align="interpolate"`` of
        :class:`~sklyap.LyapunovSpectrumTransformer` does it. Between spectra of one length "l1" equals "wasserstein".

    Returns
    -------
    float or ndarray of shape (n_A,), (n_B,) or (n_A, n_B), float64
        The distance of every A to every B, in the units of the exponents (nats per step). An argument that is one
        spectrum takes no axis.

    Raises
    ------
    ValueError
        If a spectrum is empty, holds NaN or +inf, or is a result of the leading exponents alone: the curve of a part
        is not that of the whole.

    Notes
    -----
    Exponents of −∞ are read as ln ε = −36.04 per step, or as the smallest finite exponent of their spectrum where that
    lies lower. Arrays do not tell whether they hold whole spectra: leading exponents of networks of different size
    are to be compared only where that is meant.

    References
    ----------
    Zheng, Y. and Shlizerman, E. (2025). *Hyperpruning: efficient search through pruned variants of recurrent neural
    networks leveraging Lyapunov spectrum.* arXiv:2506.07975.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap import spectrum_distance
    >>> spectrum_distance([0.0, -1.0], [0.0, 0.0, -1.0, -1.0])
    0.0
    >>> spectrum_distance([[0.0, -1.0], [0.5, -0.5]], [0.0, -1.0]).tolist()
    [0.0, 0.5]
    """
    check_choice(metric, "metric", _METRICS, caller="spectrum_distance")
    rows, a_is_one = _spectra(A, "A")
    columns, b_is_one = _spectra(B, "B")
    distance = _METRICS[metric]
    table = np.array([[distance(a, b) for b in columns] for a in rows], dtype=np.float64)
    if a_is_one and b_is_one:
        return float(table[0, 0])
    return table[0] if a_is_one else table[:, 0] if b_is_one else table


def _spectra(given: Any, name: str) -> tuple[list[Array], bool]:
    """Return the spectra, each descending, and whether it was one alone."""
    alone = _is_one(given)
    many = [given] if alone else list(given)
    if not many:
        raise ValueError(f"The {name!r} parameter of spectrum_distance must hold at least one spectrum. Got none.")
    return [_spectrum(one, name) for one in many], alone


def _is_one(given: Any) -> bool:
    """Tell whether `given` is one spectrum: a result, or numbers and not a list of rows or results."""
    if hasattr(given, "ndim"):  # an array, or a tensor
        return bool(given.ndim < 2 and given.dtype != object)
    if not isinstance(given, list | tuple):
        return True
    return len(given) > 0 and isinstance(given[0], Real)


def _spectrum(one: Any, name: str) -> Array:
    wanted = f"The {name!r} parameter of spectrum_distance must hold spectra"
    if isinstance(one, LyapunovResult):
        if one.log_abs_det is None:
            raise ValueError(
                f"{wanted} of all exponents. Got a result of the {len(one.exponents)} leading ones; compute the whole "
                "spectrum with n_exponents=None, or pass its exponents to compare the leading ones as they are."
            )
        one = one.to("nats").exponents
    try:
        exponents = np.asarray(one, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{wanted}, rows of real numbers. Got {type(one).__name__}: {error}") from error
    if exponents.ndim != 1 or exponents.size == 0:
        raise ValueError(f"{wanted} of shape (k,) with k ≥ 1. Got shape {exponents.shape} instead.")
    check_exponents(exponents, name, caller="spectrum_distance")
    return -np.sort(-floor_exponents(exponents))


def _on_common_points(a: Array, b: Array) -> tuple[Array, Array]:
    """Return both curves at the relative indices of the longer one."""
    points = np.linspace(0, 1, max(len(a), len(b)))
    at_a, at_b = (np.interp(points, np.linspace(0, 1, len(x)), x) for x in (a, b))
    return at_a, at_b


def _l1(a: Array, b: Array) -> float:
    a, b = _on_common_points(a, b)
    return float(np.mean(np.abs(a - b)))


def _l2(a: Array, b: Array) -> float:
    a, b = _on_common_points(a, b)
    return float(np.sqrt(np.mean((a - b) ** 2)))


_METRICS: dict[str, Callable[[Array, Array], float]] = {"wasserstein": wasserstein_distance, "l1": _l1, "l2": _l2}
