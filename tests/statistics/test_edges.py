"""Statistics where a sign or a bound decides: exponents of exactly zero, tolerances met exactly, windows' ends."""

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from sklyap import SpectrumStatistics
from sklyap.statistics import (
    kaplan_yorke_dimension,
    kolmogorov_sinai_entropy,
    largest_gap,
    n_near_zero,
    n_positive,
    spectrum_slope,
    top_mean,
)
from sklyap.statistics.ranks import column_correlations


def test_an_exponent_of_exactly_zero_is_not_positive():
    spectra = [[0.5, 0.0, -1.0], [0.0, 0.0, 0.0], [0.5, -0.0, -1.0], [1e-300, 0.0, -1e-300]]
    np.testing.assert_array_equal(n_positive(spectra), [1, 0, 1, 1])
    columns = SpectrumStatistics(["n_positive"]).fit_transform(np.array(spectra))
    np.testing.assert_array_equal(columns[:, 0], [1, 0, 1, 1])


def test_a_tolerance_includes_its_ends():
    spectrum = [0.3, 0.25, 0.0, -0.25, -0.3]
    assert n_near_zero(spectrum, 0.25) == 3
    assert n_near_zero(spectrum, 0.0) == 1
    assert n_near_zero([0.01, 0.011]) == 1  # the default


def test_zero_adds_nothing_to_the_entropy_and_a_dimension():
    assert kolmogorov_sinai_entropy([0.0, -1.0]) == 0
    assert kaplan_yorke_dimension([0.0, -1.0]) == 1
    assert kaplan_yorke_dimension([-1e-300, -1.0]) == 0
    assert kaplan_yorke_dimension([0.5, -0.5, -1.0]) == 2  # a sum of exactly zero is not negative
    assert kaplan_yorke_dimension([0.5, -0.25]) == 2


def test_gaps_and_windows_at_their_ends():
    assert largest_gap([0.5]) == 0
    assert largest_gap([1.0, 1.0, 1.0]) == 0
    spectrum = [0.0, -1.0, -4.0, -9.0, -16.0]
    assert spectrum_slope(spectrum, 0.0, 0.25) == pytest.approx(-4.0)  # indices 0 and 1/4, both ends included
    assert spectrum_slope(spectrum, 0.75, 1.0) == pytest.approx(-28.0)
    assert spectrum_slope(spectrum, 0.3, 0.4) == 0
    assert spectrum_slope(spectrum, 0.1, 0.3) == 0  # one exponent has no slope
    assert spectrum_slope([1.0]) == 0


@pytest.mark.parametrize("fraction,leading", [(0.3, 3), (0.31, 4), (0.7, 7), (0.01, 1), (1.0, 10)])
def test_the_leading_share_is_rounded_up_but_not_for_rounding(fraction, leading):
    spectrum = -(np.arange(10.0) ** 2)
    assert top_mean(spectrum, fraction) == spectrum[:leading].mean()


@pytest.mark.parametrize("method,test", [("spearman", spearmanr), ("pearson", pearsonr)])
def test_correlations_of_columns_are_scipys(method, test):
    rng = np.random.default_rng(0)
    table, y = rng.integers(0, 6, (30, 4)).astype(float), rng.normal(size=30)
    expected = [test(column, y).statistic for column in table.T]
    np.testing.assert_allclose(column_correlations(table, y, method), expected, rtol=1e-12)
    table[:, 1] = 2.0
    assert np.isnan(column_correlations(table, y, method)).tolist() == [False, True, False, False]
    assert np.isnan(column_correlations(table, np.ones(30), method)).all()
