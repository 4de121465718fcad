"""Statistics against closed forms and published numbers; the transformer and the correlation table."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, pearsonr, spearmanr
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from sklyap.datasets import known_systems
from sklyap.exceptions import SklyapWarning
from sklyap.statistics import (
    STATISTICS,
    SpectrumStatistics,
    kaplan_yorke_dimension,
    kolmogorov_sinai_entropy,
    largest_gap,
    n_near_zero,
    n_positive,
    spectrum_loss_correlation,
    spectrum_quantile,
    spectrum_slope,
    top_mean,
)

LN_EPS = np.log(np.finfo(float).eps)


@pytest.fixture
def spectra():
    return np.random.default_rng(0).normal(-0.5, 1.0, size=(40, 13))


def test_scikit_learns_checks():
    results = check_estimator(SpectrumStatistics(), on_fail=None, on_skip=None)
    assert {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"} == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert sum(r["status"] == "passed" for r in results) >= 46


@pytest.mark.parametrize(
    "spectrum, dimension",
    [
        ([0.906, 0.0, -14.572], 2 + 0.906 / 14.572),  # Lorenz
        ([0.4192, -1.6232], 1 + 0.4192 / 1.6232),  # Hénon
        ([-0.1, -0.2, -5.0], 0.0),
        ([0.0, -0.2, -5.0], 1.0),  # a limit cycle
        ([0.3, 0.2, -0.5], 3.0),  # volume is kept
        ([0.3, 0.2, -0.4], 3.0),  # volume grows
        ([0.5, -0.2, -0.3, -1.0], 3.0),  # the sum is zero after three
        ([0.5, -np.inf], 1.0),
        ([2.0], 1.0),
        ([-2.0], 0.0),
    ],
)
def test_kaplan_yorke_dimension(spectrum, dimension):
    assert kaplan_yorke_dimension(spectrum) == pytest.approx(dimension, abs=1e-12)
    assert kaplan_yorke_dimension(spectrum[::-1]) == pytest.approx(dimension, abs=1e-12)  # in any order
    assert kaplan_yorke_dimension([spectrum, spectrum]) == pytest.approx([dimension] * 2, abs=1e-12)


def test_kaplan_yorke_dimension_by_its_definition(spectra):
    for row in np.sort(spectra + 0.5)[:, ::-1]:
        sums = np.cumsum(row)
        if sums[-1] >= 0:
            expected = len(row)
        elif row[0] < 0:
            expected = 0
        else:
            j = next(i for i, total in enumerate(sums) if total < 0)
            expected = j + sums[j - 1] / -row[j]
        assert kaplan_yorke_dimension(row) == pytest.approx(expected, rel=1e-12)


def test_systems_with_known_spectra():
    """Volume: the sum of a whole spectrum is the rate that is known in closed form."""
    for system in known_systems():
        spectrum = np.asarray(system.per_step)
        if not np.isfinite(spectrum).all():
            continue
        table = SpectrumStatistics(["max", "sum", "kolmogorov_sinai_entropy"]).fit_transform(spectrum[None])
        assert table[0] == pytest.approx(
            [spectrum.max(), spectrum.sum(), spectrum[spectrum > 0].sum()], rel=1e-12, abs=1e-15
        )


def test_counts_entropy_gap_and_slope():
    spectrum = [0.5, 0.25, 0.004, -0.004, -2.0, -2.5]
    assert n_positive(spectrum) == 3
    assert n_near_zero(spectrum) == 2
    assert n_near_zero(spectrum, 0.3) == 3
    assert kolmogorov_sinai_entropy(spectrum) == pytest.approx(0.754)
    assert largest_gap(spectrum) == pytest.approx(1.996)
    assert largest_gap([1.0]) == 0 and spectrum_slope([1.0]) == 0
    line = 2 - 3 * np.linspace(0, 1, 21)
    for window in [(0, 1), (0, 0.25), (0.3, 0.7), (0.9, 1)]:
        assert spectrum_slope(line, *window) == pytest.approx(-3)
    assert top_mean(line) == pytest.approx(line[:3].mean())  # a tenth of 21, rounded up
    assert top_mean(np.arange(20.0)) == pytest.approx(18.5)
    assert spectrum_quantile(line, 0.25) == pytest.approx(2 - 3 * 0.75)


def test_every_statistic_of_a_batch_is_that_of_its_rows_in_any_order(spectra):
    shuffled = np.random.default_rng(1).permuted(spectra, axis=1)
    for name, function in STATISTICS.items():
        batch = function(spectra)
        assert batch.shape == (40,) and np.isfinite(batch).all(), name
        np.testing.assert_allclose(batch, [function(row) for row in spectra], rtol=1e-12, atol=1e-14, err_msg=name)
        np.testing.assert_allclose(batch, function(shuffled), rtol=1e-12, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(function(spectra.reshape(8, 5, 13)), batch.reshape(8, 5), err_msg=name)


@pytest.mark.parametrize("name", [n for n in STATISTICS if not n.startswith(("n_", "variance", "kaplan"))])
def test_units_go_through(spectra, name):
    transformer = SpectrumStatistics(name).fit(spectra)
    bits = transformer.transform(spectra / np.log(2))
    np.testing.assert_allclose(bits * np.log(2), transformer.transform(spectra), rtol=1e-12)


def test_annihilated_directions_give_finite_statistics(spectra):
    spectra[0, 3:] = -np.inf
    spectra[1, :] = -np.inf
    spectra[2, 5] = -100.0
    spectra[2, 6] = -np.inf
    table = pd.DataFrame(
        SpectrumStatistics().fit_transform(spectra), columns=SpectrumStatistics().fit(spectra).statistics_
    )
    assert np.isfinite(table.to_numpy()).all()
    # What is finite without a floor stays exact.
    assert table.loc[0, "max"] == spectra[0].max()
    assert table.loc[0, "kaplan_yorke_dimension"] == kaplan_yorke_dimension(spectra[0])
    assert table.loc[0, "mean"] == pytest.approx((spectra[0, :3].sum() + 10 * LN_EPS) / 13)
    assert table.loc[1, "min"] == table.loc[1, "max"] == pytest.approx(LN_EPS)
    assert table.loc[2, "min"] == -100.0  # a floor above a finite exponent would turn the order round


def test_names_select_and_label(spectra):
    names = ["max", "quantile_0.33", "slope_0.1_0.4", "top_mean_0.5"]
    with pytest.raises(ValueError, match=r"'ptp' must return one number per spectrum"):
        SpectrumStatistics(np.ptp).fit_transform(spectra)  # one number for all

    def spread(spectra):
        return np.ptp(spectra, axis=-1)

    transformer = SpectrumStatistics([*names, spread]).set_output(transform="pandas")
    table = transformer.fit_transform(pd.DataFrame(spectra, index=range(100, 140)))
    assert list(table.columns) == [*names, "spread"] and list(table.index) == list(range(100, 140))
    np.testing.assert_allclose(table["spread"], np.ptp(spectra, axis=1))
    np.testing.assert_allclose(table["quantile_0.33"], np.quantile(spectra, 0.33, axis=1))
    assert SpectrumStatistics("mean").fit_transform(spectra).shape == (40, 1)


def test_zero_tolerance(spectra):
    wide = SpectrumStatistics("n_near_zero", zero_tolerance=0.5).fit_transform(spectra)
    np.testing.assert_array_equal(wide[:, 0], (np.abs(spectra) <= 0.5).sum(axis=1))


def test_clone_and_pickle(spectra):
    transformer = SpectrumStatistics().fit(spectra)
    for twin in (clone(transformer).fit(spectra), pickle.loads(pickle.dumps(transformer))):
        np.testing.assert_array_equal(twin.transform(spectra), transformer.transform(spectra))


@pytest.mark.parametrize(
    "wrong", ["lyapunov", "quantile", "quantile_2", "quantile_0.1_0.2", "slope_0.5", ["max", "max"], [], 3]
)
def test_unknown_statistics_are_refused(spectra, wrong):
    with pytest.raises((ValueError, TypeError), match="statistics"):
        SpectrumStatistics(wrong).fit(spectra)


def test_numbers_that_are_no_spectra_are_refused(spectra):
    for value in (np.nan, np.inf):
        spectra[4, 2] = value
        with pytest.raises(ValueError, match=r"index \(4, 2\)"):
            SpectrumStatistics().fit(spectra)
    with pytest.raises(ValueError, match="zero_tolerance"):
        SpectrumStatistics(zero_tolerance=-1).fit(np.zeros((2, 2)))


@pytest.mark.parametrize("method, test", [("spearman", spearmanr), ("pearson", pearsonr)])
def test_correlations_are_scipys(spectra, method, test):
    losses = spectra.mean(axis=1) + 0.3 * np.random.default_rng(2).normal(size=40)
    table = spectrum_loss_correlation(spectra, losses, method=method, n_bootstrap=200, random_state=0)
    assert set(table.index) == set(STATISTICS)
    values = pd.DataFrame(SpectrumStatistics().fit_transform(spectra), columns=list(STATISTICS))
    for name in STATISTICS:
        expected = test(values[name], losses)
        assert table.loc[name, "r"] == pytest.approx(expected.statistic)
        assert table.loc[name, "p"] == pytest.approx(expected.pvalue)
    assert (table["low"] < table["r"]).all() and (table["r"] < table["high"]).all()
    np.testing.assert_allclose(table["p_corrected"], false_discovery_control(table["p"]))
    assert table["r"].abs().is_monotonic_decreasing
    again = spectrum_loss_correlation(spectra, losses, method=method, n_bootstrap=200, random_state=0)
    pd.testing.assert_frame_equal(table, again)


def test_intervals_cover():
    """The 90 % interval holds the true correlation in about 90 % of draws: 60 to 80 of 80 is 4 standard errors."""
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(80):
        x, noise = rng.normal(size=(2, 60))
        table = spectrum_loss_correlation(
            x[:, None], 0.6 * x + 0.8 * noise, statistics="max", method="pearson", n_bootstrap=200, confidence=0.9,
            random_state=seed,
        )  # fmt: skip
        hits += table["low"].item() <= 0.6 <= table["high"].item()
    assert 61 <= hits <= 80


def test_a_statistic_that_never_varies_is_reported_not_dropped(spectra):
    losses = np.arange(40.0)
    with pytest.warns(SklyapWarning, match="n_positive, kolmogorov_sinai_entropy"):
        table = spectrum_loss_correlation(
            spectra - 20, losses, statistics=["n_positive", "mean", "kolmogorov_sinai_entropy"], random_state=0
        )
    assert table.loc["n_positive"].isna().all() and table.loc["mean"].notna().all()
    assert table.index[0] == "mean"


def test_correlation_refuses_what_it_cannot_use(spectra):
    with pytest.raises(ValueError, match="method"):
        spectrum_loss_correlation(spectra, np.arange(40.0), method="kendall")
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        spectrum_loss_correlation(spectra, np.arange(39.0))
    with pytest.raises(ValueError, match="three networks or more"):
        spectrum_loss_correlation(spectra[:2], np.arange(2.0))
    with pytest.raises(ValueError, match="NaN"):
        spectrum_loss_correlation(spectra, np.full(40, np.nan))
