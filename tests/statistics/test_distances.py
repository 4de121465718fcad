"""Distances between spectra: closed forms, sizes, units, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from sklyap import lyapunov_spectrum, spectrum_distance

METRICS = ("wasserstein", "l1", "l2")


@pytest.mark.parametrize("metric", METRICS)
def test_a_shift_is_its_size_whatever_the_number_of_exponents(metric):
    for k_a, k_b in ((5, 5), (1, 1), (4, 1)):
        a = np.zeros(k_a) if k_b == 1 else np.linspace(0, -2, k_a)
        b = np.zeros(k_b) if k_b == 1 else np.linspace(0, -2, k_b)
        assert spectrum_distance(a, b - 0.3, metric=metric) == pytest.approx(0.3)
    line = [np.linspace(0, -2, k) for k in (17, 33)]  # the same line, at other points
    assert spectrum_distance(*line, metric=metric) == pytest.approx(0, abs=0.04)


def test_wasserstein_is_the_area_between_step_curves():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=4), rng.normal(size=6)
    steps = np.repeat(np.sort(a), 3), np.repeat(np.sort(b), 2)  # both with twelve steps
    area = np.abs(steps[0] - steps[1]).mean()
    assert spectrum_distance(a, b) == pytest.approx(area) == pytest.approx(wasserstein_distance(a, b))
    assert spectrum_distance(a, np.repeat(a, 5)) == pytest.approx(0, abs=1e-12)


def test_l1_and_wasserstein_agree_on_one_size_and_l2_is_their_square_mean():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=9), rng.normal(size=9)
    assert spectrum_distance(a, b, metric="l1") == pytest.approx(spectrum_distance(a, b))
    expected = np.sqrt(np.mean((np.sort(a) - np.sort(b)) ** 2))
    assert spectrum_distance(a, b, metric="l2") == pytest.approx(expected)


@pytest.mark.parametrize("metric", METRICS)
def test_it_is_a_distance_and_its_shape_follows_the_arguments(metric):
    rng = np.random.default_rng(2)
    many, others = rng.normal(size=(3, 6)), [rng.normal(size=k) for k in (2, 6, 11, 4)]
    table = spectrum_distance(many, others, metric=metric)
    assert table.shape == (3, 4) and (table > 0).all()
    np.testing.assert_allclose(spectrum_distance(others, many, metric=metric), table.T)
    np.testing.assert_allclose(spectrum_distance(many[1], others, metric=metric), table[1])
    np.testing.assert_allclose(spectrum_distance(many, others[2], metric=metric), table[:, 2])
    one = spectrum_distance(list(many[0]), torch.as_tensor(others[3]), metric=metric)
    assert isinstance(one, float) and one == pytest.approx(table[0, 3])
    np.testing.assert_allclose(np.diag(spectrum_distance(many, many[:, ::-1], metric=metric)), 0)  # in any order


def test_annihilated_directions_are_as_far_as_rounding_tells():
    floor = np.log(np.finfo(float).eps)
    assert spectrum_distance([0.0, -np.inf], [0.0, -1.0]) == pytest.approx((-1 - floor) / 2)
    assert spectrum_distance([0.0, -np.inf], [0.0, -np.inf]) == 0


def test_results_are_compared_in_nats_and_only_whole():
    torch.manual_seed(0)
    x = torch.randn(2, 40, 2)
    small, large = (lyapunov_spectrum(torch.nn.GRU(2, size), x) for size in (4, 7))
    expected = spectrum_distance(small.exponents, large.exponents)
    assert spectrum_distance(small, large) == expected
    assert spectrum_distance(small.to("bits"), large) == pytest.approx(expected)
    assert spectrum_distance([small, large], large).tolist() == [expected, 0.0]
    part = lyapunov_spectrum(torch.nn.GRU(2, 4), x, n_exponents=2)
    with pytest.raises(ValueError, match=r"'A' parameter .* 2 leading ones; compute the whole"):
        spectrum_distance(part, large)


@pytest.mark.parametrize(
    "A, B, error, message",
    [
        ([], [0.0], ValueError, "'A' parameter .* at least one"),
        ([0.0], [np.nan], ValueError, "'B' parameter .* NaN"),
        ([[0.0, np.inf]], [0.0], ValueError, "'A' parameter .* inf"),
        (np.zeros((2, 2, 2)), [0.0], ValueError, r"'A' parameter .* shape \(2, 2\)"),
        ([0.0], 1.0, ValueError, r"'B' parameter .* shape \(\)"),
        ([[]], [0.0], ValueError, "'A' parameter"),
        ("abc", [0.0], TypeError, "'A' parameter"),
        (None, [0.0], (TypeError, ValueError), "'A' parameter"),
    ],
)
def test_what_is_no_spectrum_is_refused(A, B, error, message):
    with pytest.raises(error, match=message):
        spectrum_distance(A, B)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="'metric' parameter of spectrum_distance must be one of 'wasserstein'"):
        spectrum_distance([0.0], [0.0], metric="cosine")
