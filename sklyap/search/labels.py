"""What a search learns from its own candidates: of those that have got further, about those that may."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from sklyap.search.knowledge import Knowledge, log_loss

__all__ = ["PSEUDO_COUNT", "learn_from_networks", "learn_from_numbers", "rank_correlation", "standardised"]

PSEUDO_COUNT = 10.0
"""As many candidates seen count as much as what was believed before."""
FEWEST_LABELS = 6
_FOLDS = 3
_ALPHAS = np.logspace(0, 4, 9)

Array = NDArray[np.float64]


def learn_from_numbers(
    known: Knowledge,
    labelled: NDArray[np.intp],
    y: Array,
    then: int,
    who: NDArray[np.intp],
    now: int,
    kinds: tuple[str, ...],
) -> tuple[Array, float] | None:
    """Return what ridge regression on some candidates says of others, and its weight.

    Parameters
    ----------
    known : Knowledge
    labelled : ndarray of int
        Candidates to learn from, as they were at epoch `then`.
    y : ndarray of shape (n_labelled,)
        What became of them: ln loss at the end or at the next rung.
    then : int
    who : ndarray of int
        Candidates to predict, as they are at epoch `now`. Both epochs are standardised by themselves.
    now : int
    kinds : tuple of str
        Kinds of features.

    Returns
    -------
    tuple, or None if there are too few labels
        Standardised predictions, and a weight between 0 and 1: the root of the share of the variance that is
        explained of candidates left out one at a time, shrunk to zero.
    """
    if len(y) < FEWEST_LABELS or np.ptp(y) == 0:
        return None
    kinds = tuple(kind for kind in kinds if kind != "loss" or then > 0)
    X = _scaled(known.numbers(then, kinds)[labelled])
    # Its efficient form of leaving one out needs one decomposition for all penalties: replays call this often.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        ridge = RidgeCV(_ALPHAS).fit(X, y)
    explained = max(1 + float(ridge.best_score_) / float(np.var(y)), 0.0)
    weight = np.sqrt(explained) * len(y) / (len(y) + PSEUDO_COUNT)
    X_now = _scaled(known.numbers(now, kinds)[who])
    return standardised(ridge.predict(X_now)), float(weight)


def _scaled(X: Array) -> Array:
    """Return columns of mean 0 and standard deviation 1; in a replay a transformer would take most of the time."""
    scale = X.std(axis=0)
    columns: Array = (X - X.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    return columns


def learn_from_networks(
    model: Any, labelled: Knowledge, known: Knowledge, y: Array, epoch: int
) -> tuple[Array, float] | None:
    """Return the same for a regressor that takes networks, cross-validated; its losses are learnt as they are."""
    if len(y) < FEWEST_LABELS or np.ptp(y) == 0:
        return None
    assert labelled.networks_at is not None and known.networks_at is not None
    X, losses = labelled.networks_at(epoch), np.exp(y)
    guesses = cross_val_predict(clone(model), X, losses, cv=KFold(_FOLDS, shuffle=True, random_state=0))
    weight = max(rank_correlation(guesses, y), 0.0) * len(y) / (len(y) + PSEUDO_COUNT)
    predicted = clone(model).fit(X, losses).predict(known.networks_at(epoch))
    return standardised(log_loss(np.ravel(predicted))), weight


def standardised(values: Array) -> Array:
    """Return values of mean 0 and standard deviation 1; those that are not finite count as the largest."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    filled = np.where(finite, values, values[finite].max())
    scale = filled.std()
    centred: Array = (filled - filled.mean()) / (scale if scale > 0 else 1.0)
    return centred


def rank_correlation(a: Array, b: Array) -> float:
    """Return Spearman's correlation, 0 where it is not defined."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    ranks = rankdata(np.vstack([a, b]), axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    return float(ranks[0] @ ranks[1] / np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
