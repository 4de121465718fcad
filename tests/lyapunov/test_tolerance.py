"""Enough is enough: a run stops as soon as its standard errors are below a tolerance, and not before."""

import numpy as np
import pytest

from sklyap import lyapunov_spectrum
from sklyap.datasets import systems
from sklyap.exceptions import ConvergenceWarning
from tests.lyapunov.helpers import inputs, network, quiet


def test_an_autonomous_system_runs_as_long_as_it_takes():
    cell = systems.henon().cell
    runs = {tolerance: lyapunov_spectrum(cell, 200_000, tolerance=tolerance) for tolerance in (0.02, 0.005)}
    for tolerance, result in runs.items():
        assert result.converged and 0.3 * tolerance < result.standard_error.max() <= tolerance
        assert abs(result.exponents[0] - 0.4192) < 4 * tolerance
        assert result.warmup == pytest.approx((result.warmup + result.n_steps) / 10, rel=0.15)
    assert runs[0.02].n_steps < runs[0.005].n_steps < 30_000


def test_what_a_run_of_the_same_length_gives():
    cell = systems.henon().cell
    result = lyapunov_spectrum(cell, 100_000, tolerance=0.01)
    plain = lyapunov_spectrum(cell, result.n_steps + result.warmup, warmup=result.warmup)
    np.testing.assert_allclose(result.exponents, plain.exponents, rtol=0, atol=1e-10)
    again = lyapunov_spectrum(cell, 1000, resume=result)
    assert again.n_steps == result.n_steps + 1000


def test_a_given_warm_up_is_kept():
    result = lyapunov_spectrum(systems.henon().cell, 50_000, tolerance=0.02, warmup=100)
    assert result.warmup == 100 and result.n_steps >= 512


@pytest.mark.parametrize("steps", [300, 2000])
def test_the_number_of_steps_is_the_most_that_is_run(steps):
    with pytest.warns(ConvergenceWarning, match="above the tolerance of 1e-06; use more or longer sequences"):
        result = lyapunov_spectrum(systems.henon().cell, steps, tolerance=1e-6)
    assert result.n_steps + result.warmup == steps and not result.converged


def test_a_driven_network_takes_as_many_sequences_as_are_needed():
    layer, X = network("gru"), inputs(200, 60)
    result = lyapunov_spectrum(layer, X, tolerance=0.01)
    n = len(result.per_sequence)
    assert 8 < n < 200 and result.standard_error.max() <= 0.01 and result.converged
    first = quiet(layer, X[:n])
    np.testing.assert_allclose(result.per_sequence, first.per_sequence, rtol=0, atol=1e-9)
    with pytest.warns(ConvergenceWarning, match="above the tolerance"):
        every = lyapunov_spectrum(layer, X[:20], tolerance=1e-4)
    assert len(every.per_sequence) == 20
    loose = lyapunov_spectrum(layer, X, tolerance=10.0)
    assert len(loose.per_sequence) == 8


def test_one_long_driven_sequence_stops_in_time():
    layer, X = network("gru"), inputs(1, 20_000)
    result = lyapunov_spectrum(layer, X, tolerance=0.02)
    assert 400 < result.n_steps < 10_000 and result.converged
    steps = result.n_steps + result.warmup
    more = lyapunov_spectrum(layer, X[:, steps : steps + 500], resume=result)
    whole = quiet(layer, X[:, : steps + 500], warmup=result.warmup)
    np.testing.assert_allclose(more.exponents, whole.exponents, rtol=0, atol=1e-9)


def test_going_on_until_a_finer_tolerance():
    cell = systems.henon().cell
    coarse = lyapunov_spectrum(cell, 50_000, tolerance=0.02)
    fine = lyapunov_spectrum(cell, 50_000, tolerance=0.005, resume=coarse)
    assert fine.standard_error.max() <= 0.005 < coarse.standard_error.max()
    plain = lyapunov_spectrum(cell, fine.warmup + fine.n_steps, warmup=fine.warmup)
    np.testing.assert_allclose(fine.exponents, plain.exponents, rtol=0, atol=1e-10)


def test_many_starts_of_an_autonomous_system():
    result = lyapunov_spectrum(systems.henon(n_starts=40).cell, 20_000, tolerance=0.005)
    assert result.per_sequence.shape == (40, 2) and result.n_steps < 2000 and result.converged


def test_progress_and_batches():
    cell, done = systems.henon(n_starts=5).cell, []
    result = lyapunov_spectrum(cell, 20_000, tolerance=0.01, batch_size=2, progress=done.append)
    assert sum(done) == 5 * (result.n_steps + result.warmup)


def test_annihilated_directions_are_not_waited_for():
    with pytest.warns(UserWarning, match="annihilated"):
        result = lyapunov_spectrum(systems.linear_map(np.zeros((3, 3))).cell, 10_000, tolerance=0.01)
    assert result.n_steps < 600


@pytest.mark.parametrize(
    "options,error,match",
    [
        ({"tolerance": 0.0}, ValueError, "'tolerance' parameter must be a finite float in the range"),
        ({"tolerance": -1.0}, ValueError, "'tolerance'"),
        ({"tolerance": "small"}, TypeError, "'tolerance'"),
        (
            {"tolerance": 0.1, "return_local": True},
            ValueError,
            "must be None with 'return_local'",
        ),
        ({"tolerance": 0.1, "return_basis": True}, ValueError, "'tolerance'"),
    ],
)
def test_bad_input(options, error, match):
    with pytest.raises(error, match=match):
        lyapunov_spectrum(network("gru"), inputs(), **options)
