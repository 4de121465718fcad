"""How each statistic of a spectrum goes with the loss."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import factorial
from scipy.stats import false_discovery_control, pearsonr, permutation_test, rankdata, spearmanr
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils.validation import column_or_1d

from sklyap.exceptions import SklyapWarning
from sklyap.runtime import is_unwarned
from sklyap.statistics.functions import Statistic
from sklyap.statistics.ranks import column_correlations
from sklyap.statistics.transformer import evaluate, resolve
from sklyap.validation import check_choice, check_dense, check_exponents, check_int, check_real, check_seed

__all__ = ["spectrum_loss_correlation"]

EXACT_BELOW = 9
"""Networks, below which the p of a rank correlation is that of all orders: Student's t says 0 for a perfect one."""
NARROW_BELOW = 8
"""Networks, below which resamples repeat few values, so that their quantiles are too narrow an interval."""


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
        One row for each network.
    losses : array-like of shape (n_networks,)
        One loss for each network.
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
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    DataFrame, one row per statistic, sorted by decreasing abs(r)
        ``r``, the percentile bootstrap interval ``low`` and ``high``, the two-sided ``p`` of no correlation,
        and ``p_corrected``, which holds the false discovery rate over the rows (Benjamini-Hochberg). The p of a
        rank correlation is exact for up to eight networks, and by Student's t beyond.

    Raises
    ------
    ValueError
        If the lengths differ, fewer than three networks are given, or a loss is not finite.

    Warns
    -----
    SklyapWarning
        For statistics that are the same for every network; their row is NaN. For fewer than eight networks, whose
        resampled intervals are too narrow.

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
    check_dense(spectra, "spectra", caller="spectrum_loss_correlation")
    shape = np.shape(spectra)
    if len(shape) != 2 or shape[0] < 3 or not shape[1]:
        raise ValueError(
            "The 'spectra' parameter of spectrum_loss_correlation must have shape (n_networks, n_exponents), with "
            f"three networks or more. Got shape {shape} instead."
        )
    check_choice(method, "method", ["spearman", "pearson"], caller=caller)
    check_int(n_bootstrap, "n_bootstrap", low=1, caller=caller)
    check_real(confidence, "confidence", low=0.0, high=1.0, caller=caller)
    chosen = resolve(statistics, check_real(zero_tolerance, "zero_tolerance", low=0, caller=caller), caller)
    checked = check_exponents(
        check_array(spectra, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=3, input_name="spectra"),
        "spectra",
        caller=caller,
    )
    y = column_or_1d(check_array(losses, dtype=np.float64, ensure_2d=False, input_name="losses"))
    check_consistent_length(checked, y)

    if np.ptp(y) == 0:
        raise ValueError(
            "The 'losses' parameter of spectrum_loss_correlation must vary, as nothing correlates with a constant. "
            f"Got {y[0]:g} for every network."
        )
    table = evaluate(chosen, checked)
    varies = np.ptp(table, axis=0) > 0
    if not varies.all() and not is_unwarned():
        constant = [name for name, varied in zip(chosen, varies, strict=True) if not varied]
        warnings.warn(
            f"No correlation is defined for statistics that are the same for every network: {', '.join(constant)}.",
            SklyapWarning,
            stacklevel=2,
        )
    if len(y) < NARROW_BELOW and not is_unwarned():
        warnings.warn(
            f"The intervals are resampled from {len(y)} networks and too narrow: they mean something from "
            f"{NARROW_BELOW} on.",
            SklyapWarning,
            stacklevel=2,
        )
    result = pd.DataFrame(
        np.nan, index=pd.Index(chosen, name="statistic"), columns=["r", "low", "high", "p", "p_corrected"]
    )
    for name, column in zip(result.index[varies], table.T[varies], strict=True):
        result.loc[name, ["r", "p"]] = _correlate(column, y, method)
    if varies.any():
        resampled = _bootstrap_correlations(table[:, varies], y, method, n_bootstrap, random_state)
        tails = [(1 - confidence) / 2, (1 + confidence) / 2]
        result.loc[varies, ["low", "high"]] = np.nanquantile(resampled, tails, axis=0).T
        result.loc[varies, "p_corrected"] = false_discovery_control(result.loc[varies, "p"])
    return result.sort_values("r", key=np.abs, ascending=False, kind="stable")


def _correlate(column: NDArray[np.float64], losses: NDArray[np.float64], method: str) -> tuple[float, float]:
    """Return a correlation and its two-sided p."""
    found = (spearmanr if method == "spearman" else pearsonr)(column, losses)
    if method == "pearson":
        return float(found.statistic), float(found.pvalue)
    if len(losses) >= EXACT_BELOW:
        return float(found.statistic), max(float(found.pvalue), 2 / factorial(len(losses)))  # Student's t is 0 at 1
    ranks, ranked_losses = rankdata(column), rankdata(losses)
    exact = permutation_test(
        (ranks - ranks.mean(),),
        lambda x, axis: np.sum(x * ranked_losses, axis=axis),
        permutation_type="pairings",
        vectorized=True,
        n_resamples=np.inf,
    )
    return float(found.statistic), float(exact.pvalue)


def _bootstrap_correlations(
    table: NDArray[np.float64], losses: NDArray[np.float64], method: str, n_bootstrap: int, random_state: Any
) -> NDArray[np.float64]:
    """Return correlations (n_bootstrap, n_statistics) over resamples; NaN where one is constant."""
    rng = check_random_state(check_seed(random_state, caller="spectrum_loss_correlation"))
    correlations = np.empty((n_bootstrap, table.shape[1]))
    for draw in range(n_bootstrap):
        rows = rng.randint(len(losses), size=len(losses))
        correlations[draw] = column_correlations(table[rows], losses[rows], method)
    return correlations
