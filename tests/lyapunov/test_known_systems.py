"""Ground truth: the engine on every system whose spectrum is known. The full lengths are marked slow."""

import math
import pickle
import warnings

import numpy as np
import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import FlowCell, FunctionCell
from sklyap.datasets import systems
from sklyap.exceptions import ConvergenceWarning, DegenerateSpectrumWarning
from sklyap.statistics import kaplan_yorke_dimension

SYSTEMS = {system.name + (f" {i}" if i == 2 else ""): system for i, system in enumerate(systems.known_systems())}


def spectrum(system, n_steps, n_sequences=1, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (ConvergenceWarning, DegenerateSpectrumWarning))
        return lyapunov_spectrum(system.cell, system.sequences(n_steps, n_sequences), **parameters)


def check_statistically(system, result):
    """The leading exponents are the reference's within its tolerance and 4 standard errors."""
    k = len(system.exponents)
    allowed = 4 * result.standard_error[:k] + system.tolerance * system.time_step
    assert (np.abs(result.exponents[:k] - system.per_step) < allowed).all(), (
        result.exponents[:k] / system.time_step,
        allowed / system.time_step,
    )


@pytest.mark.parametrize("name", ["linear map", "orthogonal map", "orthogonal map 2", "periodic product", "zero GRU"])
@pytest.mark.parametrize("interval", ["auto", 1])
def test_closed_forms(name, interval):
    system = SYSTEMS[name]
    result = spectrum(system, 1200, warmup=600, qr_interval=interval)
    np.testing.assert_allclose(result.exponents, system.per_step, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [2, 8, 9, 20])
def test_periodic_products_of_any_size(n):
    # Small ones multiply Jacobians with one another, larger ones push the basis; both keep order and orientation.
    rng = np.random.default_rng(n)
    system = systems.periodic_product(rng.normal(size=(3, n, n)) / np.sqrt(n))
    result = spectrum(system, 3000, warmup=1500)
    np.testing.assert_allclose(result.exponents, system.per_step, rtol=0, atol=2e-3)
    few = spectrum(system, 3000, warmup=1500, n_exponents=2)
    np.testing.assert_allclose(few.exponents, system.per_step[:2], rtol=0, atol=2e-3)


def test_constant_gates():
    system = SYSTEMS["constant-gate LSTM"]
    with pytest.warns(DegenerateSpectrumWarning):
        result = lyapunov_spectrum(system.cell, system.sequences(600, 2), warmup=300)
    np.testing.assert_allclose(result.exponents[:6], system.exponents[:6], rtol=0, atol=1e-10)
    assert np.isneginf(result.exponents[6:]).all() and np.isneginf(system.exponents[6:]).all()


def test_products_of_gaussian_matrices():
    # Each R is independent of the rest here: ln R_ii² has the moments of ln χ² exactly, from the first step.
    for n, scale in ((10, 1.0), (3, 0.5)):
        system = systems.gaussian_product(n, scale=scale)
        result = spectrum(system, 1000, 40, warmup=0)
        check_statistically(system, result)
        assert result.standard_error.max() < 0.01


CHAOTIC = {
    "Hénon": (lambda n: systems.henon(n_starts=n), math.log(0.3)),
    "Ikeda": (lambda n: systems.ikeda(n_starts=n), 2 * math.log(0.9)),
}


@pytest.mark.parametrize("name", CHAOTIC)
@pytest.mark.parametrize(
    "n,n_steps,precision", [(64, 1500, 0.005), pytest.param(200, 20_000, 0.0005, marks=pytest.mark.slow)]
)
def test_chaotic_maps(name, n, n_steps, precision):
    make, total = CHAOTIC[name]
    system = make(n)
    result = spectrum(system, n_steps)
    check_statistically(system, result)
    assert result.standard_error[0] < precision
    # Their Jacobians have one determinant everywhere.
    assert result.exponents.sum() == pytest.approx(total, rel=0, abs=1e-10)
    assert system.exponents.sum() == pytest.approx(total, rel=0, abs=1e-15)


def test_the_transposed_jacobian_is_caught():
    # What carrying Jᵀ forward in time gives, as some published code does; the sum cannot tell.
    system = systems.ikeda(n_starts=64)
    states = system.cell.trajectory(system.cell.initial_state(64), 1100)
    Q, rates = torch.eye(2, dtype=torch.float64).expand(64, 2, 2), []
    for J in system.cell.jacobian(states[100:-1], None):
        Q, R = torch.linalg.qr(J.mT @ Q)
        rates.append(R.diagonal(dim1=-2, dim2=-1).abs().log())
    rates = torch.stack(rates).mean((0, 1))
    assert float(rates[0]) == pytest.approx(0.28, abs=0.02)
    assert float(rates.sum()) == pytest.approx(2 * math.log(0.9), abs=1e-10)
    assert abs(spectrum(system, 1100).exponents[0] - 0.5075) < 0.02


@pytest.mark.parametrize(
    "n,n_steps,precision", [(16, 3000, 0.05), pytest.param(64, 40_000, 0.003, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("parameters", ["sprott", "wolf"])
def test_lorenz(parameters, n, n_steps, precision):
    system = systems.lorenz(parameters, n_starts=n)
    result = spectrum(system, n_steps, warmup=1000)
    check_statistically(system, result)
    found = result.to("nats").exponents / system.time_step
    assert result.standard_error[0] / system.time_step < precision
    assert found[1] == pytest.approx(0, abs=precision)
    assert found.sum() == pytest.approx(system.statistics["sum"], abs=2e-3)


def test_lorenz_sum_is_met_to_fourth_order_in_the_step():
    errors = []
    for step in (0.02, 0.01):
        system = systems.lorenz(time_step=step, n_starts=8)
        found = spectrum(system, round(20 / step)).exponents.sum() / step
        errors.append(abs(found - system.statistics["sum"]))
    assert 3.5 < math.log2(errors[0] / errors[1]) < 4.5


@pytest.mark.parametrize(
    "n_units,gain,n_steps",
    [
        (150, 2.0, 300),
        (400, 1.5, 300),
        *(pytest.param(2000, gain, 600, marks=pytest.mark.slow) for gain in (1.5, 2.0, 3.0, 5.0)),
    ],
)
def test_largest_exponent_of_random_tanh_maps(n_units, gain, n_steps):
    system = systems.tanh_map(n_units, gain, n_starts=4)
    check_statistically(system, spectrum(system, n_steps, n_exponents=1))


@pytest.mark.parametrize(
    "n_units,gain,n_steps", [(150, 2.0, 150), pytest.param(1000, 3.0, 150, marks=pytest.mark.slow)]
)
def test_mean_of_the_spectrum_of_random_tanh_maps(n_units, gain, n_steps):
    system = systems.tanh_map(n_units, gain)
    result = spectrum(system, n_steps, warmup=50)
    assert result.exponents.mean() == pytest.approx(system.statistics["mean"], abs=system.tolerance + 0.02)
    if gain == 3.0:  # a simulation of 4096 units gave 15.3 %
        assert (result.exponents > 0).mean() == pytest.approx(0.153, abs=0.01)


def test_mean_field_values():
    for gain, first in ((1.5, 0.0652), (2.0, 0.1547), (3.0, 0.3103), (5.0, 0.5324)):
        assert systems.tanh_map(2, gain).exponents[0] == pytest.approx(first, abs=2e-4)
    assert systems.tanh_map(2, 3.0).statistics["mean"] == pytest.approx(-2.2739, abs=2e-3)
    # At the edge of chaos the activity dies: ln g, and the mean of the circular law.
    edge = systems.tanh_map(2, 1.0)
    assert edge.exponents[0] == pytest.approx(0, abs=1e-14)
    assert edge.statistics["mean"] == pytest.approx(-0.5, abs=1e-14)


@pytest.mark.parametrize("n,n_steps", [(16, 8000), pytest.param(64, 100_000, marks=pytest.mark.slow)])
def test_rossler(n, n_steps):
    system = systems.rossler(n_starts=n)
    result = spectrum(system, n_steps, warmup=n_steps // 4)
    rates, errors = result.per_time(), result.standard_error / system.time_step
    # A finite run has not forgotten its start along the flow: its exponent falls as one over time.
    scatter = 4 * errors + system.tolerance + 20 / (n_steps * system.time_step)
    assert (abs(rates.exponents - system.exponents) < scatter).all()
    assert result.lyapunov_time == pytest.approx(1 / rates.exponents[0])


def test_rate_network():
    system = systems.rate_network(n_starts=4)
    check_statistically(system, spectrum(system, 1500, warmup=500, n_exponents=4))


@pytest.mark.slow
def test_rate_network_at_length():
    system = systems.rate_network(n_starts=16)
    result = spectrum(system, 20_000, n_exponents=16)
    check_statistically(system, result)
    dimension = kaplan_yorke_dimension(result.exponents)
    assert dimension == pytest.approx(system.statistics["kaplan_yorke_dimension"], abs=0.15)


# The records


@pytest.mark.parametrize("name", SYSTEMS)
def test_records(name):
    system = SYSTEMS[name]
    k, N = len(system.exponents), system.cell.state_size
    assert 1 <= k <= N and (system.exponents[1:] <= system.exponents[:-1]).all()
    assert system.source and system.tolerance >= 0 and system.time_step > 0
    np.testing.assert_array_equal(system.per_step, system.exponents * system.time_step)
    with pytest.raises(AttributeError):
        system.exponents = None
    X = system.sequences(7)
    if system.cell.n_inputs is None:
        assert X == 7
        with pytest.raises(ValueError, match="'n_sequences'"):
            system.sequences(7, 2)
    else:
        assert X.shape == (1, 7, system.cell.n_inputs)
        np.testing.assert_array_equal(system.sequences(7, 2), system.sequences(7, 2))
    again = pickle.loads(pickle.dumps(system))
    s = system.cell.initial_state(1)
    x = None if system.cell.n_inputs is None else torch.as_tensor(X[:, 0])
    assert torch.equal(again.cell.step(s, x), system.cell.step(s, x))


@pytest.mark.parametrize("name", SYSTEMS)
def test_jacobians_are_exact(name):
    system = SYSTEMS[name]
    if not isinstance(system.cell, FunctionCell | FlowCell) or system.cell.state_size > 100:
        return
    X = system.sequences(3)
    s = system.cell.initial_state(1) + 0.1
    x = None if system.cell.n_inputs is None else torch.as_tensor(X[:, 2])
    expected = torch.autograd.functional.jacobian(lambda s: system.cell.step(s, x).sum(0), s).transpose(0, 1)
    torch.testing.assert_close(system.cell.jacobian(s, x), expected, rtol=1e-14, atol=1e-14)


def test_starts():
    for make in (systems.henon, systems.ikeda, systems.lorenz):
        one, three = make().cell.initial_state(1), make(n_starts=3).cell.initial_state(3)
        assert torch.equal(one[0], three[0]) and len(torch.unique(three, dim=0)) == 3


def test_bad_parameters():
    with pytest.raises(ValueError, match=r"'matrix' parameter must have shape \(N, N\). Got shape \(2, 3\)"):
        systems.linear_map(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"'matrices' parameter must have shape \(period, N, N\)"):
        systems.periodic_product(np.eye(2))
    with pytest.raises(ValueError, match="'parameters' parameter must be one of 'sprott', 'wolf'"):
        systems.lorenz("rossler")
    with pytest.raises(ValueError, match="'time_step'"):
        systems.lorenz(time_step=0.5)
    with pytest.raises(ValueError, match="'gain'"):
        systems.tanh_map(gain=0.5)
    with pytest.raises(ValueError, match="'n_starts'"):
        systems.henon(n_starts=0)
