"""What the verdict calls settled: a sign, or zero to within a stated tolerance, never the one for the other."""

import math
import re
import warnings

import numpy as np
import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import FunctionCell
from sklyap.datasets import systems
from sklyap.lyapunov.verdict import ZERO_TOLERANCE, verdict_on

CONTRACTED = -16.0, 0.5


def verdict(first, error, others=(CONTRACTED,), **options):
    exponents, errors = np.array([(first, error), *others]).T
    return verdict_on(exponents, errors, **options)


@pytest.mark.parametrize(
    "first,error,converged,words",
    [
        (0.41, 0.003, True, "is positive, 0.41 ± 0.003 per step"),
        (-0.41, 0.003, True, "is negative, -0.41 ± 0.003 per step"),
        # Two standard errors are the threshold.
        (0.0601, 0.03, True, "is positive"),
        (-0.0601, 0.03, True, "is negative"),
        (0.0599, 0.03, False, "0.0599 ± 0.03 per step, so its sign cannot be told"),
        (-0.0599, 0.03, False, "sign cannot be told"),
        # A strongly contracted direction says nothing about the largest exponent.
        (-0.024, 0.033, False, "-0.024 ± 0.033 per step, so its sign cannot be told"),
        (-2e-13, 4e-5, True, "is zero to within 8e-05 per step; its sign is open"),
        (0.0, 0.00049, True, "is zero to within 0.00098 per step; its sign is open"),
        (0.0, 0.00051, False, "sign cannot be told; .* It is not zero to within 0.001 either"),
        (0.0009, 0.0004, True, "is positive"),
        (3e-17, 1e-18, True, "is zero to within 1.4e-14 per step"),
        (0.1, math.inf, False, "0.1 ± inf per step"),
    ],
)
def test_sign_or_zero(first, error, converged, words):
    found = verdict(first, error)
    assert found.converged is converged
    assert found.status.startswith("Converged: " if converged else "Not converged: ")
    assert re.search(words, found.status), found.status


def test_zero_is_a_rate_per_unit_of_time_where_that_is_known():
    assert verdict(0.0, 1e-4).converged
    assert not verdict(0.0, 1e-4, time_step=0.01).converged
    assert verdict(0.0, 4e-6, time_step=0.01).converged


def test_the_precision_of_the_run_counts():
    assert "positive" in verdict(1e-7, 1e-9).status
    assert "zero to within" in verdict(1e-7, 1e-9, eps=torch.finfo(torch.float32).eps).status


@pytest.mark.parametrize(
    "first,error,tolerance,converged,words",
    [
        (0.4, 0.009, 0.01, True, "positive"),
        (0.4, 0.011, 0.01, False, "largest standard error is 0.011 per step, above the tolerance of 0.01"),
        (0.001, 0.004, 0.01, True, "zero to within 0.009 per step"),
        (0.004, 0.004, 0.01, False, "sign cannot be told; .* not zero to within 0.01"),
    ],
)
def test_a_tolerance_that_was_asked_for(first, error, tolerance, converged, words):
    found = verdict(first, error, others=[(-1.0, 0.001)], tolerance=tolerance)
    assert found.converged is converged
    assert re.search(words, found.status), found.status


def test_a_tolerance_is_one_for_every_exponent_that_is_finite():
    assert not verdict(0.4, 0.001, others=[(-3.0, 0.2)], tolerance=0.01).converged
    assert verdict(0.4, 0.001, others=[(-math.inf, math.nan)], tolerance=0.01).converged


def test_undecided_and_annihilated_directions_are_counted():
    found = verdict(0.5, 0.01, others=[(0.001, 0.01), (-0.019, 0.01), (-0.021, 0.01), (-math.inf, math.nan)])
    assert found.n_undecided == 2 and found.converged
    assert "2 exponents are within 2 standard errors of zero" in found.status
    assert "1 direction(s) are annihilated" in found.status
    assert verdict(-0.5, 0.01).n_undecided == 0


def test_time_as_a_state():
    """Of a driven oscillator written with its phase as a state, the phase has a largest exponent of exactly zero."""

    def step(s, x):
        value, phase = s[..., 0], s[..., 1]
        return torch.stack([0.5 * value + torch.cos(phase), phase + 0.1], -1)

    result = lyapunov_spectrum(FunctionCell(step, 2), 6000)
    assert result.converged and result.n_undecided == 1
    assert "zero to within" in result.status and "sign is open" in result.status
    np.testing.assert_allclose(result.exponents, [0, math.log(0.5)], atol=1e-4)


def test_a_zero_that_is_exact_and_one_that_is_only_near():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = lyapunov_spectrum(systems.orthogonal_map().cell, 100)
    assert exact.converged and exact.n_undecided == 16 and "zero to within" in exact.status
    near = lyapunov_spectrum(systems.orthogonal_map(scale=1 + ZERO_TOLERANCE / 10).cell, 100)
    assert "positive" in near.status
