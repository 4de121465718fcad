"""Rates per step and per unit of time, Lyapunov time, Kaplan-Yorke dimension."""

import math

import numpy as np
import pytest

from sklyap import lyapunov_spectrum
from sklyap.cells import CoRNNCell, FunctionCell
from sklyap.datasets import systems
from sklyap.statistics.functions import kaplan_yorke_dimension
from tests.lyapunov.helpers import inputs, network, quiet


@pytest.fixture(scope="module")
def lorenz():
    system = systems.lorenz()
    system.cell.dt = system.time_step
    return lyapunov_spectrum(system.cell, 20_000, return_local=True)


def test_rates_per_unit_of_time(lorenz):
    assert lorenz.time_step == 0.01 and lorenz.per == "step"
    rates = lorenz.per_time()
    assert rates.per == "time" and "nats per unit of time" in repr(rates)
    for name in ("exponents", "standard_error", "per_sequence", "local", "log_abs_det"):
        np.testing.assert_allclose(getattr(rates, name), getattr(lorenz, name) / 0.01, rtol=1e-13)
    np.testing.assert_allclose(rates.exponents, [0.906, 0, -14.572], atol=4 * rates.standard_error.max())
    np.testing.assert_allclose(rates.per_time().exponents, rates.exponents, rtol=1e-15)
    np.testing.assert_allclose(rates.per_time(0.02).exponents, rates.exponents / 2, rtol=1e-15)
    np.testing.assert_allclose(rates.to("bits").exponents, rates.exponents / math.log(2), rtol=1e-15)


def test_lyapunov_time(lorenz):
    expected = 0.01 / lorenz.exponents[0]
    for result in (lorenz, lorenz.per_time(), lorenz.to("bits"), lorenz.per_time().to("bits")):
        assert result.lyapunov_time == pytest.approx(expected, rel=1e-12)
    henon = lyapunov_spectrum(systems.henon().cell, 2000)
    assert henon.lyapunov_time == pytest.approx(1 / henon.exponents[0])
    assert lyapunov_spectrum(systems.linear_map().cell, 500).lyapunov_time == pytest.approx(1 / math.log(1.3))
    assert quiet(network("gru"), inputs()).lyapunov_time == math.inf


def test_a_time_step_that_is_not_known_must_be_given():
    result = lyapunov_spectrum(systems.henon().cell, 500)
    assert result.time_step is None
    with pytest.raises(ValueError, match=r"'dt' parameter of LyapunovResult\.per_time must be given"):
        result.per_time()
    for dt, error in ((0.0, ValueError), (-1.0, ValueError), ("1", TypeError)):
        with pytest.raises(error, match=r"'dt' parameter of LyapunovResult\.per_time must be a finite float"):
            result.per_time(dt)
    assert result.per_time(0.5).time_step == 0.5


def test_kaplan_yorke_dimension(lorenz):
    assert lorenz.kaplan_yorke_dimension == pytest.approx(2.062, abs=0.01)
    assert lorenz.per_time().kaplan_yorke_dimension == pytest.approx(lorenz.kaplan_yorke_dimension, rel=1e-12)
    assert lorenz.kaplan_yorke_dimension == float(kaplan_yorke_dimension(lorenz.exponents))
    assert quiet(network("gru"), inputs()).kaplan_yorke_dimension == 0


def test_the_dimension_of_a_spectrum_cut_too_early_is_not_known():
    cell = FunctionCell(lambda s, x: s * s.new_tensor([1.2, 1.1, 0.9, 0.1]), 4, initial_state=[0.0] * 4)
    sums = {k: lyapunov_spectrum(cell, 50, n_exponents=k).kaplan_yorke_dimension for k in (1, 2, 3, 4)}
    assert math.isnan(sums[2]) and math.isnan(sums[3]) and math.isnan(sums[1])
    exact = 3 + math.log(1.2 * 1.1 * 0.9) / math.log(10)
    assert sums[4] == pytest.approx(exact, abs=1e-9)


def test_a_layer_counts_time_in_inputs():
    result = quiet(CoRNNCell(3, 4), inputs())
    assert result.time_step is None
