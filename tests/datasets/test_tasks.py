"""Tasks of memory: what is asked, the losses without memory, seeds, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sklyap.datasets import make_adding, make_copy, make_delayed_copy, make_delayed_xor, make_recall

MAKERS = [make_recall, make_copy, make_adding, make_delayed_copy, make_delayed_xor]


def cross_entropy_of_frequencies(y, n_classes, by_step):
    """Mean cross entropy of the best predictor that knows the step (or nothing) and no input."""
    columns = y.T if by_step else [y.ravel()]
    total = 0.0
    for column in columns:
        p = np.bincount(column, minlength=n_classes) / len(column)
        total -= sum(q * math.log(q) for q in p if q > 0) / len(columns)
    return total


@pytest.mark.parametrize("make", MAKERS)
def test_one_seed_makes_the_same_and_another_makes_others(make):
    X, y = make(50, random_state=3)
    again, y_again = make(50, random_state=3)
    other, _ = make(50, random_state=4)
    assert np.array_equal(X, again) and np.array_equal(y, y_again)
    assert not np.array_equal(X, other)
    assert X.dtype == np.float32 and len(X) == len(y) == 50


def test_recall_shows_the_symbol_once_and_noise_everywhere():
    X, y = make_recall(4000, n_steps=12, n_symbols=5, noise=0.3, random_state=0)
    assert X.shape == (4000, 12, 5) and y.dtype == np.int64
    noise = X - np.eye(5)[y][:, None] * (np.arange(12) == 0)[:, None]
    # 240,000 draws: the standard error of the deviation is 0.3 / sqrt(480,000)
    assert abs(noise.std() - 0.3) < 4 * 0.3 / math.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * 0.3 / math.sqrt(noise.size)


def test_recall_without_memory_costs_ln_k():
    _, y = make_recall(100_000, n_steps=1, n_symbols=4, random_state=0)
    # Frequencies of n draws lie below ln K by a chi-square of K - 1 degrees over 2 n.
    assert abs(cross_entropy_of_frequencies(y, 4, False) - math.log(4)) < 20 / 200_000


def test_copy_without_memory_costs_the_symbols_alone():
    X, y = make_copy(50_000, delay=7, length=3, n_symbols=6, random_state=0)
    assert X.shape == (50_000, 13, 8) and y.shape == (50_000, 13)
    assert np.array_equal(X.sum(-1), np.ones((50_000, 13)))
    shown = X.argmax(-1)
    assert np.array_equal(shown[:, :3], y[:, -3:]) and not y[:, :-3].any()
    assert (shown[:, 9] == 7).all() and not shown[:, [*range(3, 9), *range(10, 13)]].any()
    assert cross_entropy_of_frequencies(y, 7, True) == pytest.approx(3 * math.log(6) / 13, abs=1e-4)


def test_the_marker_comes_right_after_the_symbols_with_delay_one():
    X, y = make_copy(2, delay=1, length=2, n_symbols=3, random_state=0)
    assert (X.argmax(-1)[:, 2] == 4).all() and (y[:, 3:] > 0).all() and X.shape[1] == 5


def test_adding_without_memory_costs_a_sixth():
    X, y = make_adding(200_000, n_steps=9, random_state=0)
    marks = X[..., 1]
    assert np.array_equal(marks[:, :4].sum(1), np.ones(200_000)) and np.array_equal(marks.sum(1), 2 * np.ones(200_000))
    assert np.allclose((X[..., 0] * marks).sum(1), y, atol=1e-6)
    # The kurtosis of the triangular law is 2.4: the standard error of the variance is sqrt(1.4 / n) / 6.
    assert abs(y.var() - 1 / 6) < 4 * math.sqrt(1.4 / len(y)) / 6
    assert (marks.any(0)).all()  # every step is marked at times


@pytest.mark.parametrize("delay", [0, 1, 4])
def test_delayed_copy(delay):
    X, y = make_delayed_copy(20_000, n_steps=10, delay=delay, random_state=0)
    assert np.array_equal(y[:, delay:], X[:, : 10 - delay, 0]) and not y[:, :delay].any()
    assert cross_entropy_of_frequencies(y, 2, True) == pytest.approx((1 - delay / 10) * math.log(2), abs=1e-3)


@pytest.mark.parametrize("delay", [1, 4, 5])
def test_delayed_xor(delay):
    X, y = make_delayed_xor(20_000, n_steps=10, delay=delay, random_state=0)
    bits = np.pad(X[..., 0].astype(int), ((0, 0), (delay, 0)))
    half = delay // 2
    older, younger = bits[:, :10], bits[:, delay - half : delay - half + 10]
    assert np.array_equal(y, older ^ younger)
    assert cross_entropy_of_frequencies(y, 2, True) == pytest.approx((1 - half / 10) * math.log(2), abs=1e-3)
    # Knowing the younger bit does not help without the older one.
    for bit in (0, 1):
        chosen = y[:, delay:][younger[:, delay:] == bit]
        assert chosen.mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "make,options,error,words",
    [
        (make_recall, {"n_symbols": 1}, ValueError, "'n_symbols' parameter of make_recall"),
        (make_recall, {"noise": -0.1}, ValueError, "'noise' parameter of make_recall"),
        (make_recall, {"noise": float("nan")}, ValueError, "'noise'"),
        (make_recall, {"n_steps": 0}, ValueError, "'n_steps'"),
        (make_copy, {"delay": 0}, ValueError, "'delay' parameter of make_copy"),
        (make_copy, {"length": 2.5}, TypeError, "'length'"),
        (make_adding, {"n_steps": 1}, ValueError, "'n_steps' parameter of make_adding"),
        (make_delayed_copy, {"n_steps": 5, "delay": 5}, ValueError, "'delay' parameter of make_delayed_copy"),
        (make_delayed_xor, {"delay": 0}, ValueError, "'delay' parameter of make_delayed_xor"),
    ],
)
def test_wrong_parameters_are_named(make, options, error, words):
    with pytest.raises(error, match=words):
        make(10, **options)


@pytest.mark.parametrize("make", MAKERS)
def test_the_number_of_sequences_is_checked(make):
    with pytest.raises(ValueError, match="'n_sequences'"):
        make(0)
