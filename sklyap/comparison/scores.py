"""Scores of out-of-fold predictions, with bootstrap intervals over networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from sklyap.statistics.ranks import column_correlations
from sklyap.validation import check_choice

__all__ = ["score_predictions"]


def score_predictions(
    predictions: pd.DataFrame,
    *,
    reference: str | None = None,
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
    groups : array-like of shape (n_networks,), optional
        Families for ``spearman_within``.
    n_bootstrap : int, default=1000
    confidence : float, default=0.95
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    DataFrame, one row per predictor
        ``r2`` and ``spearman``, for each the bootstrap standard error ``_se`` and the percentile interval ``_low``
        and ``_high``; with `reference` also ``r2_gain`` and ``spearman_gain`` over it, from the same resamples.
        The rank correlation of a constant is 0. Means of training folds are no constant: they are low where the
        losses that were left out are high, so that ``constant`` scores a little below 0.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklyap.comparison import score_predictions
    >>> predictions = pd.DataFrame({"target": [1.0, 2.0, 3.0, 4.0], "a": [1.0, 2.0, 3.0, 4.0], "b": [2.5] * 4})
    >>> table = score_predictions(predictions, random_state=0)
    >>> table["r2"].tolist(), table["spearman"].tolist()
    ([1.0, 0.0], [1.0, 0.0])
    """
    y, guesses = predictions["target"].to_numpy(), predictions.drop(columns="target")
    names, P = list(guesses), guesses.to_numpy()
    if reference is not None:
        check_choice(reference, "reference", names, caller="score_predictions")
    rng = check_random_state(random_state)
    scores = {"r2": _r2(y, P), "spearman": _spearman(y, P)}
    resampled: dict[str, list[NDArray[np.float64]]] = {"r2": [], "spearman": []}
    for _ in range(n_bootstrap):
        rows = rng.randint(len(y), size=len(y))
        if np.ptp(y[rows]) > 0:
            resampled["r2"].append(_r2(y[rows], P[rows]))
            resampled["spearman"].append(_spearman(y[rows], P[rows]))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    columns: dict[str, NDArray[np.float64]] = {}
    for measure, score in scores.items():
        columns |= _with_spread(measure, score, np.array(resampled[measure]), tails)
    if groups is not None:
        columns["spearman_within"] = _spearman_within(y, P, np.asarray(groups))
    if reference is not None:
        at = names.index(reference)
        for measure, score in scores.items():
            draws = np.array(resampled[measure])
            columns |= _with_spread(f"{measure}_gain", score - score[at], draws - draws[:, [at]], tails)
    return pd.DataFrame(columns, index=pd.Index(names, name="predictor"))


def _with_spread(
    name: str, score: NDArray[np.float64], draws: NDArray[np.float64], tails: list[float]
) -> dict[str, NDArray[np.float64]]:
    low, high = np.quantile(draws, tails, axis=0)
    return {name: score, f"{name}_se": draws.std(axis=0), f"{name}_low": low, f"{name}_high": high}


def _r2(y: NDArray[np.float64], P: NDArray[np.float64]) -> NDArray[np.float64]:
    residual = ((y[:, None] - P) ** 2).sum(axis=0)
    score: NDArray[np.float64] = 1 - residual / ((y - y.mean()) ** 2).sum()
    return score


def _spearman(y: NDArray[np.float64], P: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nan_to_num(column_correlations(P, y))  # a constant prediction orders nothing


def _spearman_within(y: NDArray[np.float64], P: NDArray[np.float64], groups: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean rank correlation inside families of at least three networks."""
    _, family = np.unique(groups.astype(str), return_inverse=True)
    inside = [family == f for f in range(family.max() + 1)]
    return np.mean([_spearman(y[rows], P[rows]) for rows in inside if rows.sum() > 2], axis=0)
