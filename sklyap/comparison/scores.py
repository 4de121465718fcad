"""Scores of out-of-fold predictions, with bootstrap intervals over networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.utils import check_random_state

from sklyap.statistics.ranks import column_correlations
from sklyap.validation import check_choice, check_int, check_real, check_seed

__all__ = ["score_predictions"]

Measure = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def score_predictions(
    predictions: pd.DataFrame,
    *,
    reference: str | None = None,
    added_to: Mapping[str, str] | None = None,
    threshold: float | str | None = "auto",
    groups: ArrayLike | None = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_state: Any = None,
) -> pd.DataFrame:
    """Score out-of-fold predictions, with bootstrap intervals over networks.

    Parameters
    ----------
    predictions : DataFrame of shape (n_networks, 1 + n_predictors)
        Column ``target`` and a column for each predictor.
    reference : str, optional
        The predictor that the others' gain is measured against.
    added_to : dict of str to str, optional
        For some predictors the one that sees the same but one thing, which they are measured against.
    threshold : float, "auto" or None, default="auto"
        The target that networks are to get below, for ``auc``. "auto" is the threshold that leaves the least variance
        within the two groups (Otsu's), which for losses in two clusters lies between them; None leaves the column out.
    groups : array-like of shape (n_networks,), optional
        Families for ``spearman_within``.
    n_bootstrap : int, default=1000
        Resamples for the intervals.
    confidence : float, default=0.95
        Level of the intervals.
    random_state : int, RandomState instance or None, default=None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    DataFrame, one row per predictor
        ``r2``, ``spearman`` and ``auc`` (area under the ROC curve for a target below the threshold, which is in
        ``attrs["threshold"]``; 0.5 for a predictor that knows nothing), for each the bootstrap standard error ``_se``
        and the percentile interval ``_low`` and ``_high``; with `reference` also ``r2_gain`` and ``spearman_gain`` over
        it, and with `added_to` ``r2_added`` and ``spearman_added``, from the same resamples.
        The rank correlation of a constant is 0. Means of training folds are no constant: they are low where the
        losses that were left out are high, so that ``constant`` scores a little below 0.

    References
    ----------
    Otsu, N. (1979). *A threshold selection method from gray-level histograms.* IEEE Trans. Syst. Man Cybern. 9, 62-66.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklyap.comparison import score_predictions
    >>> predictions = pd.DataFrame({"target": [1.0, 2.0, 3.0, 4.0], "a": [1.0, 2.0, 3.0, 4.0], "b": [2.5] * 4})
    >>> table = score_predictions(predictions, random_state=0)
    >>> table["r2"].tolist(), table["spearman"].tolist(), table["auc"].tolist()
    ([1.0, 0.0], [1.0, 0.0], [1.0, 0.5])
    """
    if not isinstance(predictions, pd.DataFrame) or "target" not in predictions or predictions.shape[1] < 2:
        raise TypeError(
            "The 'predictions' parameter of score_predictions must be a DataFrame with a column 'target' and one for "
            f"each predictor. Got {predictions!r:.80} instead."
        )
    if len(predictions) < 2:
        raise ValueError(
            f"The 'predictions' parameter of score_predictions must have two rows or more. Got {len(predictions)}."
        )
    check_int(n_bootstrap, "n_bootstrap", low=1, caller="score_predictions")
    check_real(confidence, "confidence", low=0.0, high=1.0, caller="score_predictions")
    check_seed(random_state, caller="score_predictions")
    y, guesses = predictions["target"].to_numpy(), predictions.drop(columns="target")
    names, P = list(guesses), guesses.to_numpy()
    caller = "score_predictions"
    if reference is not None:
        check_choice(reference, "reference", names, caller=caller)
    for pair in (added_to or {}).items():
        for name in pair:
            check_choice(name, "added_to", names, caller=caller)
    bound = _threshold(y, threshold)
    measures: dict[str, Measure] = {"r2": _r2, "spearman": _spearman}
    if bound is not None:
        measures["auc"] = lambda y, P: _auc(y < bound, P)
    scores = {name: measure(y, P) for name, measure in measures.items()}
    resampled = _resampled(measures, y, P, n_bootstrap, random_state)
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    columns: dict[str, NDArray[np.float64]] = {}
    for name, score in scores.items():
        columns |= _with_spread(name, score, resampled[name], tails)
    if groups is not None:
        columns["spearman_within"] = _spearman_within(y, P, np.asarray(groups))
    bases = {"gain": None if reference is None else dict.fromkeys(names, reference), "added": added_to}
    for word, base in bases.items():
        if not base:
            continue
        rows = [i for i, name in enumerate(names) if name in base]
        at = [names.index(base[names[i]]) for i in rows]
        for name in ("r2", "spearman"):
            draws = resampled[name]
            over = _with_spread(
                f"{name}_{word}", scores[name][rows] - scores[name][at], draws[:, rows] - draws[:, at], tails
            )
            for column, values in over.items():
                columns[column] = np.full(len(names), np.nan)
                columns[column][rows] = values
    table = pd.DataFrame(columns, index=pd.Index(names, name="predictor"))
    table.attrs["threshold"] = bound
    return table


def _threshold(y: NDArray[np.float64], threshold: float | str | None) -> float | None:
    """Return the target to get below."""
    if threshold is None or not isinstance(threshold, str):
        return None if threshold is None else check_real(threshold, "threshold", caller="score_predictions")
    check_choice(threshold, "threshold", ["auto"], caller="score_predictions")
    values = np.sort(y)
    if values[0] == values[-1]:
        return None
    n = np.arange(1, len(values))
    sums = np.cumsum(values)[:-1]
    low, high = sums / n, (values.sum() - sums) / (len(values) - n)
    between = np.where(values[1:] > values[:-1], n * (len(values) - n) * (high - low) ** 2, -1.0)
    at = int(between.argmax())
    return float((values[at] + values[at + 1]) / 2)


def _resampled(
    measures: Mapping[str, Measure], y: NDArray[np.float64], P: NDArray[np.float64], n_bootstrap: int, random_state: Any
) -> dict[str, NDArray[np.float64]]:
    """Return each measure (n_draws, n_predictors) on the same resamples of networks."""
    rng = check_random_state(random_state)
    draws: dict[str, list[NDArray[np.float64]]] = {name: [] for name in measures}
    for _ in range(n_bootstrap):
        rows = rng.randint(len(y), size=len(y))
        if np.ptp(y[rows]) > 0:
            for name, measure in measures.items():
                draws[name].append(measure(y[rows], P[rows]))
    return {name: np.array(values) for name, values in draws.items()}


def _with_spread(
    name: str, score: NDArray[np.float64], draws: NDArray[np.float64], tails: list[float]
) -> dict[str, NDArray[np.float64]]:
    # A resample may hold networks of one kind only, and then has no area under a curve.
    low, high = np.nanquantile(draws, tails, axis=0)
    return {name: score, f"{name}_se": np.nanstd(draws, axis=0), f"{name}_low": low, f"{name}_high": high}


def _r2(y: NDArray[np.float64], P: NDArray[np.float64]) -> NDArray[np.float64]:
    residual = ((y[:, None] - P) ** 2).sum(axis=0)
    score: NDArray[np.float64] = 1 - residual / ((y - y.mean()) ** 2).sum()
    return score


def _spearman(y: NDArray[np.float64], P: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(column_correlations(P, y))  # a constant prediction orders nothing


def _auc(below: NDArray[np.bool_], P: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that a network below is predicted lower than one above; NaN if all are alike."""
    n_below, n_above = below.sum(), (~below).sum()
    if not n_below or not n_above:
        return np.full(P.shape[1], np.nan)
    ranks = rankdata(P, axis=0)[~below].sum(axis=0)
    score: NDArray[np.float64] = (ranks - n_above * (n_above + 1) / 2) / (n_below * n_above)
    return score


def _spearman_within(y: NDArray[np.float64], P: NDArray[np.float64], groups: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean rank correlation inside families of at least three networks."""
    _, family = np.unique(groups.astype(str), return_inverse=True)
    inside = [family == f for f in range(family.max() + 1)]
    return np.mean([_spearman(y[rows], P[rows]) for rows in inside if rows.sum() > 2], axis=0)
