"""SpectrumStatistics(floor=...): exponents that are forgotten at once count alike."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklyap.statistics import SpectrumStatistics


def test_exponents_below_the_floor_count_as_it():
    statistics = SpectrumStatistics(["mean", "min", "max"], floor=-5.0)
    values = statistics.fit_transform([[0.5, -1.0, -30.0], [0.5, -1.0, -np.inf]])
    np.testing.assert_allclose(values, [[-5.5 / 3, -5.0, 0.5]] * 2)
    # What lies above is as it was.
    spectra = [[0.5, -1.0, -4.0]]
    np.testing.assert_array_equal(
        statistics.fit_transform(spectra), SpectrumStatistics(["mean", "min", "max"]).fit_transform(spectra)
    )


def test_a_line_through_statistics_survives_two_networks_that_contract_without_bound():
    rng = np.random.default_rng(0)
    slope = rng.uniform(0.5, 3, size=80)
    spectra = -slope[:, None] * np.linspace(0, 1, 16)
    spectra[3, 8:] = -36.0
    spectra[50, 8:] = -300.0
    scores = []
    for floor in (None, -5.0):
        model = make_pipeline(SpectrumStatistics(floor=floor), StandardScaler(), RidgeCV(np.logspace(-3, 3, 7)))
        scores.append(r2_score(slope, cross_val_predict(model, spectra, slope, cv=5)))
    assert scores[1] > 0.9 > scores[0]


@pytest.mark.parametrize("floor,error", [("low", TypeError), (np.nan, ValueError)])
def test_a_floor_that_is_no_number_is_refused(floor, error):
    with pytest.raises(error, match="'floor' parameter of SpectrumStatistics"):
        SpectrumStatistics(floor=floor).fit([[0.0, -1.0]])
