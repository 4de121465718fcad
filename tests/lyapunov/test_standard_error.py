"""Standard errors are right: on independent runs the truth lies within two of them about 95 % of the time."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import as_recurrent_cell, lyapunov_spectrum
from sklyap.datasets import systems
from sklyap.lyapunov.growth import GrowthRecord, standard_error, time_bins
from sklyap.orthonormalize import random_bases
from sklyap.tangent import growth_iteration


def many_runs(cell, x, *, per_run, warmup, n_exponents=None):
    """Return exponents and standard errors (n_runs, k) of runs of `per_run` sequences each, all carried at once."""
    x = torch.as_tensor(x) if not isinstance(x, int) else x
    n, n_steps = (cell.n_starts, x) if isinstance(x, int) else x.shape[:2]
    k = n_exponents or cell.state_size
    Q = random_bases(cell.state_size, k, seed=0, indices=range(n))
    bins = time_bins(warmup, n_steps, per_run)
    with torch.no_grad():
        blocks = growth_iteration(cell, x, Q=Q, breakpoints=[warmup])
        record = GrowthRecord.of(blocks, Q, list(range(n)), bins)
    exponents, errors = [], []
    for i in range(0, n, per_run):
        sums, steps = record.sums[i : i + per_run], record.steps[i : i + per_run]
        exponents.append((sums.sum(1) / steps.sum(1)[:, None]).mean(0))
        errors.append(standard_error(sums, steps, exponents[-1]))
    return np.array(exponents), np.array(errors)


def check_coverage(exponents, errors, truth=None):
    """Every exponent's truth is within 2 standard errors in about 95 % of the runs, and their size is right."""
    truth = exponents.mean(0) if truth is None else truth
    covered = (np.abs(exponents - truth) < 2 * errors).mean(0)
    # 2 points less for errors that are estimates themselves, and 3 standard deviations of a share of n runs.
    assert (covered > 0.93 - 3 * np.sqrt(0.05 * 0.95 / len(errors))).all(), covered
    ratio = np.sqrt((errors**2).mean(0)) / exponents.std(0, ddof=1)
    noise = 3 / np.sqrt(2 * len(errors))  # of the standard deviation over n runs
    assert (ratio > 0.96 - noise).all() and (ratio < 1.12 + noise).all(), ratio


def test_one_long_chaotic_run():
    # The growth of the Hénon map is anticorrelated from step to step: uncorrelated, it would vary by 1.8 as much.
    system = systems.henon(n_starts=400)
    exponents, errors = many_runs(system.cell, 2200, per_run=1, warmup=200)
    check_coverage(exponents, errors, system.exponents)


def test_one_run_whose_growth_cancels_itself():
    # What the Lorenz system gains on one wing it loses on the way to the other: errors fall as 1 / T, not 1 / √T,
    # and the standard error is an upper bound.
    system = systems.lorenz(n_starts=200)
    exponents, errors = many_runs(system.cell, 3000, per_run=1, warmup=1000, n_exponents=1)
    assert (np.abs(exponents / system.time_step - 0.906) < 2 * errors / system.time_step).mean() > 0.95
    assert np.sqrt((errors**2).mean()) / exponents.std() < 4


@pytest.mark.slow
@pytest.mark.parametrize("make", [systems.henon, systems.ikeda])
def test_one_very_long_run(make):
    system = make(n_starts=500)
    exponents, errors = many_runs(system.cell, 20_000, per_run=1, warmup=1000)
    check_coverage(exponents, errors, system.exponents)


def driven_gru(n, n_steps, n_runs, tau=0, seed=1):
    torch.manual_seed(seed)
    layer = nn.GRU(2, 4).double()
    with torch.no_grad():
        layer.weight_hh_l0 *= 2
    cell = as_recurrent_cell(layer)
    rng, shape = np.random.default_rng(seed), (n * n_runs, n_steps, 2)
    return cell, autoregressive(shape, tau, rng) if tau else rng.normal(size=shape)


def autoregressive(shape, tau, rng):
    """Return noise (n, T, k) of unit variance whose correlation decays as exp(-t / tau)."""
    decay = np.exp(-1 / tau)
    noise = rng.normal(size=shape)
    noise[:, 1:] *= np.sqrt(1 - decay**2)
    for t in range(1, shape[1]):
        noise[:, t] += decay * noise[:, t - 1]
    return noise


@pytest.mark.parametrize(
    "n,n_steps,n_runs,tau", [(40, 40, 120, 0), (12, 60, 150, 0), (3, 300, 250, 0), (1, 500, 300, 0), (1, 1500, 250, 15)]
)
def test_driven_networks(n, n_steps, n_runs, tau):
    cell, x = driven_gru(n, n_steps, n_runs, tau)
    check_coverage(*many_runs(cell, x, per_run=n, warmup=n_steps // 5))


@pytest.mark.parametrize("n,n_steps,n_runs", [(40, 20, 120), (4, 100, 250), (1, 300, 400)])
def test_products_of_gaussian_matrices(n, n_steps, n_runs):
    system = systems.gaussian_product(4)
    x = system.sequences(n_steps, n * n_runs)
    check_coverage(*many_runs(system.cell, x, per_run=n, warmup=0), system.exponents)


def test_it_is_what_the_spectrum_reports():
    cell, x = driven_gru(5, 60, 4)
    exponents, errors = many_runs(cell, x[:5], per_run=5, warmup=10)
    first = lyapunov_spectrum(cell, x[:5], warmup=10)
    np.testing.assert_allclose(first.exponents, np.sort(exponents[0])[::-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(first.standard_error, errors[0][np.argsort(-exponents[0])], rtol=1e-9)


# The estimator alone, on growth of known statistics


def coverage(growth):
    """Return the share of columns of growth (n, T, k) whose mean, truly 0, is within 2 errors, and the ratio."""
    n, n_steps, _ = growth.shape
    edges = time_bins(0, n_steps, n)
    sums = np.stack([growth[:, a:b].sum(1) for a, b in pairwise(edges)], 1)
    steps = np.broadcast_to(np.diff(edges), sums.shape[:2])
    mean = growth.mean((0, 1))
    errors = standard_error(sums, steps, mean)
    return (np.abs(mean) < 2 * errors).mean(), np.sqrt((errors**2).mean()) / mean.std()


NOISE = {  # kind: (growth (n, T, k), least coverage)
    "independent, one run": (lambda rng: rng.normal(size=(1, 500, 1000)), 0.93),
    "independent, three sequences": (lambda rng: rng.normal(size=(3, 100, 1000)), 0.93),
    "independent, many sequences": (lambda rng: rng.normal(size=(64, 20, 1000)), 0.93),
    "slow, one run": (lambda rng: autoregressive((1, 1000, 1000), 20, rng), 0.90),
    "slow, a short run": (lambda rng: autoregressive((1, 200, 1000), 5, rng), 0.88),
    "slow, four sequences": (lambda rng: autoregressive((4, 400, 500), 20, rng), 0.93),
    "sequences that differ": (lambda rng: rng.normal(size=(12, 100, 500)) + rng.normal(size=(12, 1, 500)), 0.91),
    "a trend shared by all": (
        lambda rng: 0.1 * rng.normal(size=(8, 60, 500)) + np.linspace(-1, 1, 60)[None, :, None],
        0.92,
    ),
}


@pytest.mark.parametrize("kind", NOISE)
def test_noise_of_known_statistics(kind):
    make, least = NOISE[kind]
    covered, ratio = coverage(make(np.random.default_rng(0)))
    assert least < covered < 0.98
    assert 0.9 < ratio < 1.25


def test_growth_that_cancels_itself_is_bounded_from_above():
    # A zero exponent of a flow: growth is the change of a bounded quantity, and averages out as 1 / T.
    bounded = autoregressive((1, 2001, 500), 5, np.random.default_rng(0))
    covered, ratio = coverage(np.diff(bounded, axis=1))
    assert covered == 1 and ratio < 4  # blocks taken for independent would have a ratio near 6


def test_sequences_of_unequal_length_weigh_the_same():
    rng = np.random.default_rng(0)
    lengths = np.array([200, 120, 60, 60])
    edges = time_bins(0, 200, 4)
    present = np.arange(200) < lengths[:, None]
    means, errors = [], []
    for _ in range(800):
        growth = rng.normal(size=(4, 200)) * present
        sums = np.add.reduceat(growth, edges[:-1], axis=1)[..., None]
        steps = np.add.reduceat(present, edges[:-1], axis=1)
        mean = (sums.sum(1) / steps.sum(1)[:, None]).mean(0)
        means.append(mean)
        errors.append(standard_error(sums, steps, mean))
    means, errors = np.array(means), np.array(errors)
    assert 0.92 < (np.abs(means) < 2 * errors).mean() < 0.99
    assert np.sqrt((errors**2).mean()) / means.std() == pytest.approx(1.1, abs=0.15)


def test_what_cannot_be_told():
    one = standard_error(np.ones((1, 1, 2)), np.ones((1, 1), int), np.ones(2))
    assert np.isposinf(one).all()
    sums = np.array([[[-np.inf, 1.0]], [[2.0, 1.5]]])
    annihilated = standard_error(sums, np.ones((2, 1), int), np.array([-np.inf, 1.25]))
    assert np.isnan(annihilated[0]) and annihilated[1] == pytest.approx(0.25)
    constant = standard_error(np.full((3, 4, 1), 2.0), np.full((3, 4), 2), np.ones(1))
    assert constant[0] == 0


@pytest.mark.parametrize("n,n_bins", [(1, 64), (2, 64), (5, 16), (31, 3), (32, 1), (1000, 1)])
def test_bins_do_not_grow_with_the_length(n, n_bins):
    for n_steps in (1000, 100_000):
        edges = time_bins(100, n_steps, n)
        assert len(edges) == n_bins + 1 and edges[0] == 100 and edges[-1] == n_steps
    assert time_bins(3, 5, 1) == [3, 4, 5]
