"""Correlations of few networks: p of all orders, and a word about intervals."""

import warnings
from itertools import permutations
from math import factorial

import numpy as np
import pytest
from scipy.stats import spearmanr

from sklyap.exceptions import SklyapWarning
from sklyap.statistics import spectrum_loss_correlation


def correlated(X, losses, **params):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklyapWarning)
        return spectrum_loss_correlation(X, losses, statistics=["mean"], n_bootstrap=5, random_state=0, **params)


@pytest.mark.parametrize("n", [3, 5, 7])
@pytest.mark.parametrize("seed", range(3))
def test_p_of_a_rank_correlation_is_the_share_of_orders(n, seed):
    rng = np.random.default_rng(seed)
    X, losses = -np.sort(rng.random((n, 4))), rng.integers(0, 2 * n, n) + np.arange(n) / 2
    row = correlated(X, losses).loc["mean"]
    of_all = np.array([spearmanr(X.mean(axis=1), np.array(order)).statistic for order in permutations(losses)])
    tail = min((of_all >= row["r"] - 1e-12).mean(), (of_all <= row["r"] + 1e-12).mean())
    assert row["p"] == pytest.approx(min(1, 2 * tail))


@pytest.mark.parametrize("n", [3, 6, 9, 15])
def test_a_perfect_order_is_not_certain(n):
    X = -np.sort(np.random.default_rng(0).random((n, 4)))
    row = correlated(X, X.mean(axis=1)).loc["mean"]
    assert row["r"] == pytest.approx(1)
    assert row["p"] == pytest.approx(2 / factorial(n))


def test_intervals_of_few_networks_come_with_a_word():
    X = -np.sort(np.random.default_rng(0).random((7, 4)))
    with pytest.warns(SklyapWarning, match="resampled from 7 networks and too narrow"):
        spectrum_loss_correlation(X, X[:, 0], statistics=["mean"], n_bootstrap=5)
