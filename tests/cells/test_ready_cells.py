"""Leaky, rate, piecewise linear, normalised, minimal, diagonal and liquid cells: equations, spectra in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy import sparse

from sklyap import lyapunov_spectrum
from sklyap.cells import (
    ElmanCell,
    LayerNormLSTMCell,
    LeakyCell,
    LRUCell,
    LTCCell,
    MGUCell,
    MinGRUCell,
    PLRNNCell,
    RateCell,
)
from sklyap.datasets import systems
from sklyap.testing import check_cell
from tests.cells.helpers import both_steps, make, sigmoid


def exponents(cell, x, **options):
    return lyapunov_spectrum(cell, x, **options).exponents


def log_moduli(matrix):
    return np.sort(np.log(np.abs(np.linalg.eigvals(matrix))))[::-1]


def noise(n_steps=400, n_inputs=3, scale=1.0):
    return scale * torch.randn(2, n_steps, n_inputs, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_leaky_equations():
    h, x, after, p = both_steps(make(LeakyCell, 3, 4, {"leak": 0.3}))
    drive = p["weight_hh"] @ h + p["weight_ih"] @ x + p["bias_ih"]
    np.testing.assert_allclose(after, 0.7 * h + 0.3 * np.tanh(drive), rtol=0, atol=1e-14)


def test_leaky_without_leak_is_the_elman_network():
    cell = make(LeakyCell, 3, 5, {"leak": 1.0})
    elman = ElmanCell(3, 5).double()
    weights = dict(cell.named_parameters()) | {"bias_hh": torch.zeros(5, dtype=torch.float64)}
    elman.load_state_dict(weights)
    np.testing.assert_allclose(exponents(cell, noise()), exponents(elman, noise()), atol=1e-12)


def test_a_linear_reservoir_has_the_spectrum_of_its_matrix():
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(5, 5))
    W = basis @ np.diag([0.9, 0.5, 0.1, -0.3, -0.8]) @ np.linalg.inv(basis)
    for matrix in (W, sparse.csr_array(W)):
        cell = LeakyCell.from_weights(matrix, rng.normal(size=(5, 3)), leak=0.4, nonlinearity="identity")
        expected = log_moduli(0.6 * np.eye(5) + 0.4 * W)
        np.testing.assert_allclose(exponents(cell, noise(1200), warmup=600), expected, atol=1e-8)
    check_cell(cell)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 3)), np.ones((2, 1))), r"\(n_units, n_units\).*Got \(2, 3\)"),
        ((np.ones((2, 2)), np.ones((3, 1))), r"Got \(2, 2\), \(3, 1\)"),
        ((np.full((2, 2), np.nan), np.ones((2, 1))), "'W' parameter .* must be finite"),
    ],
)
def test_wrong_reservoirs(arguments, message):
    with pytest.raises(ValueError, match=message):
        LeakyCell.from_weights(*arguments)
    with pytest.raises(ValueError, match="'leak' parameter of LeakyCell"):
        LeakyCell(1, 2, leak=1.5)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rate_equations(nonlinearity):
    h, x, after, p = both_steps(make(RateCell, 3, 4, {"dt": 0.2, "nonlinearity": nonlinearity}))
    rates = np.tanh(h) if nonlinearity == "tanh" else np.maximum(h, 0)
    drive = p["weight_hh"] @ rates + p["weight_ih"] @ x + p["bias_ih"]
    np.testing.assert_allclose(after, h + 0.2 * (drive - h), rtol=0, atol=1e-14)


def quiet(system, **options):
    """Return a rate cell with the weights of a known system, and its starts; zero inputs drive it."""
    field = system.cell._field if hasattr(system.cell, "_field") else system.cell._step
    J = field.args[0]
    cell = RateCell(1, len(J), bias=False, **options).double()
    cell.load_state_dict({"weight_hh": J, "weight_ih": torch.zeros(len(J), 1)})
    starts = system.cell.initial_state(system.cell.n_starts)
    cell.initial_state = lambda n: starts[:n]
    return cell


def test_the_published_rate_network():
    """Of Engelken, Wolf and Abbott, with the same numbers as the flow of the known systems."""
    system = systems.rate_network(n_starts=4)
    cell = quiet(system)
    result = lyapunov_spectrum(cell, torch.zeros(4, 1500, 1), n_exponents=4, warmup=500)
    expected = lyapunov_spectrum(system.cell, 1500, n_exponents=4, warmup=500)
    np.testing.assert_allclose(result.exponents, expected.exponents, atol=3e-3)
    rates = result.per_time(cell.dt)
    allowed = 4 * rates.standard_error + system.tolerance
    assert (np.abs(rates.exponents - system.exponents) < allowed).all()


@pytest.mark.parametrize("gain", [2.0, 3.0])
def test_random_tanh_maps_meet_mean_field_theory(gain):
    system = systems.tanh_map(300, gain, n_starts=4)
    cell = quiet(system, dt=1.0)
    result = lyapunov_spectrum(cell, torch.zeros(4, 400, 1), n_exponents=1, warmup=100)
    assert result.exponents[0] == pytest.approx(
        system.exponents[0], abs=system.tolerance + 4 * float(result.standard_error[0])
    )


def test_plrnn_equations():
    z, x, after, p = both_steps(make(PLRNNCell, 3, 4))
    W = p["weight_hh"] - np.diag(np.diag(p["weight_hh"]))
    expected = p["decay"] * z + W @ np.maximum(z, 0) + p["weight_ih"] @ x + p["bias_ih"]
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-14)
    z, x, after, p = both_steps(make(PLRNNCell, 3, 4, {"n_bases": 3}))
    W = p["weight_hh"] - np.diag(np.diag(p["weight_hh"]))
    rates = np.maximum(z[:, None] - p["basis_thresholds"], 0) @ p["basis_slopes"]
    expected = p["decay"] * z + W @ rates + p["weight_ih"] @ x + p["bias_ih"]
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_plrnn_inside_one_region_is_linear(sign):
    """With a large bias all units stay above, or below, the threshold."""
    cell = make(PLRNNCell, 3, 4)
    with torch.no_grad():
        cell.decay.copy_(torch.tensor([0.8, 0.6, 0.4, 0.2]))
        cell.weight_hh.copy_(0.05 * torch.randn(4, 4))
        cell.bias_ih.fill_(20 * sign)
    W = (cell.weight_hh - torch.diag(cell.weight_hh.diagonal())).detach().numpy()
    A = np.diag([0.8, 0.6, 0.4, 0.2]) + (W if sign > 0 else 0)
    np.testing.assert_allclose(exponents(cell, noise(800, scale=0.1), warmup=200), log_moduli(A), atol=1e-6)


def test_layernorm_lstm_equations():
    def normal(a, gain, shift=0.0):
        return gain * (a - a.mean()) / np.sqrt(a.var() + 1e-5) + shift

    s, x, after, p = both_steps(make(LayerNormLSTMCell, 3, 4))
    h, c = s[:4], s[4:]
    gates = normal(p["weight_ih"] @ x, p["gain_ih"]) + normal(p["weight_hh"] @ h, p["gain_hh"]) + p["bias_ih"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(normal(c, p["gain_c"], p["shift_c"]))
    np.testing.assert_allclose(after, np.concatenate([h, c]), rtol=0, atol=1e-13)


def test_layernorm_lstm_with_constant_gates():
    """Without recurrent gain, c decays on its own: ln σ(b_f), and h is a function of it."""
    cell = make(LayerNormLSTMCell, 3, 4)
    bias = torch.linspace(-1, 2, 4, dtype=torch.float64)
    with torch.no_grad():
        cell.gain_hh.zero_()
        cell.gain_ih.zero_()
        cell.bias_ih[4:8] = bias
    with pytest.warns(UserWarning, match="annihilated"):
        found = exponents(cell, noise(300), warmup=100)
    np.testing.assert_allclose(found[:4], torch.nn.functional.logsigmoid(bias).flip(0).numpy(), atol=1e-8)
    assert np.isneginf(found[4:]).all()


def test_mgu_equations():
    h, x, after, p = both_steps(make(MGUCell, 3, 4))
    f = sigmoid(p["weight_hh"] @ h + p["weight_ih"][:4] @ x + p["bias_ih"][:4])
    n = np.tanh(p["weight_hh_n"] @ (f * h) + p["weight_ih"][4:] @ x + p["bias_ih"][4:])
    np.testing.assert_allclose(after, (1 - f) * h + f * n, rtol=0, atol=1e-14)


def test_mgu_with_zero_weights_halves():
    cell = MGUCell(3, 5).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
    np.testing.assert_allclose(exponents(cell, noise(50)), math.log(0.5), atol=1e-12)


def test_mingru_is_known_along_any_input():
    cell, x = make(MinGRUCell, 3, 5), noise(300)
    h, x_t, after, p = both_steps(cell)
    z, n = sigmoid(p["weight_ih"][:5] @ x_t + p["bias_ih"][:5]), p["weight_ih"][5:] @ x_t + p["bias_ih"][5:]
    np.testing.assert_allclose(after, (1 - z) * h + z * n, rtol=0, atol=1e-14)
    kept = torch.nn.functional.logsigmoid(-(x @ cell.weight_ih[:5].T + cell.bias_ih[:5])).mean((0, 1)).detach()
    found = exponents(cell, x, warmup=0)
    assert found.sum() == pytest.approx(float(kept.sum()), abs=1e-10)
    np.testing.assert_allclose(found, np.sort(kept.numpy())[::-1], atol=0.02)


def test_lru_equations_and_spectrum():
    cell = make(LRUCell, 3, 4)
    s, x, after, p = both_steps(cell)
    eigenvalues = np.exp(-np.exp(p["nu"]) + 1j * np.exp(p["theta"]))
    B = p["weight_ih"][:4] + 1j * p["weight_ih"][4:]
    h = eigenvalues * (s[:4] + 1j * s[4:]) + np.exp(p["log_gamma"]) * (B @ x)
    np.testing.assert_allclose(after, np.concatenate([h.real, h.imag]), rtol=0, atol=1e-14)
    expected = np.repeat(np.sort(-np.exp(p["nu"]))[::-1], 2)
    np.testing.assert_allclose(exponents(cell, noise(3000), warmup=1500), expected, atol=2e-3)
    assert exponents(cell, noise(100)).sum() == pytest.approx(expected.sum(), abs=1e-10)


def test_lru_starts_inside_the_ring():
    torch.manual_seed(0)
    a, b = (p.detach() for p in LRUCell(2, 500, min_radius=0.4, max_radius=0.9, max_phase=0.5).eigenvalues())
    radius, phase = torch.hypot(a, b), torch.atan2(b, a)
    assert 0.4 <= float(radius.min()) < 0.5 and 0.85 < float(radius.max()) <= 0.9
    assert float(phase.min()) >= 0 and 0.45 < float(phase.max()) <= 0.5


def test_ltc_equations():
    h, x, after, p = both_steps(make(LTCCell, 3, 4, {"dt": 0.4}))
    f = sigmoid(p["weight_hh"] @ h + p["weight_ih"] @ x + p["bias_ih"])
    expected = (h + 0.4 * f * p["target"]) / (1 + 0.4 * (np.exp(-p["log_tau"]) + f))
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-14)


def test_ltc_with_constant_gates():
    cell = make(LTCCell, 3, 4, {"dt": 0.4})
    with torch.no_grad():
        cell.weight_hh.zero_()
        cell.weight_ih.zero_()
    decay = -torch.log1p(0.4 * (torch.exp(-cell.log_tau) + torch.sigmoid(cell.bias_ih))).detach().numpy()
    result = lyapunov_spectrum(cell, noise(600), warmup=300)
    np.testing.assert_allclose(result.exponents, np.sort(decay)[::-1], atol=2e-3)
    assert result.exponents.sum() == pytest.approx(decay.sum(), abs=1e-10)
    np.testing.assert_allclose(result.per_time(cell.dt).exponents, result.exponents / 0.4, atol=1e-12)
