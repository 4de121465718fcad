"""Differential equations as cells."""

import builtins

import numpy as np
import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import FlowCell
from sklyap.exceptions import StepError
from sklyap.testing import check_cell

FIXED = ["euler", "midpoint", "rk4"]
ADAPTIVE = ["dopri5", "dopri8", "bosh3", "adaptive_heun"]
A = torch.tensor([[-0.5, 2.0], [-1.0, -0.1]], dtype=torch.float64)


def linear(s, x):
    return s @ A.to(s).T


def pendulum(s, x):
    angle, velocity = s.unbind(-1)
    return torch.stack([velocity, -torch.sin(angle) - 0.2 * velocity + x[..., 0]], -1)


def van_der_pol(s, x):
    a, b = s.unbind(-1)
    return torch.stack([b, (1 - a * a) * b - a], -1)


@pytest.mark.parametrize("method", FIXED)
def test_contract(method):
    check_cell(FlowCell(pendulum, 2, dt=0.1, n_inputs=1, method=method, substeps=2))
    check_cell(FlowCell(van_der_pol, 2, dt=0.1, method=method), dtype="float32")


@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_contract_of_adaptive_methods(method):
    check_cell(FlowCell(pendulum, 2, dt=0.1, n_inputs=1, method=method), rtol=1e-6)


@pytest.mark.parametrize("method", FIXED)
def test_of_a_linear_field_the_map_is_known(method):
    """I + A dt + … up to the order of the method."""
    A = linear(torch.eye(2, dtype=torch.float64), None).T.numpy()
    order = 1 + FIXED.index(method) if method != "rk4" else 4
    terms, step = np.eye(2), np.eye(2)
    for i in range(1, order + 1):
        terms = terms @ A * 0.1 / i
        step = step + terms
    expected = np.log(np.abs(np.linalg.eigvals(step))).mean()
    result = lyapunov_spectrum(FlowCell(linear, 2, dt=0.1, method=method, initial_state=[0.0, 0.0]), 4000)
    np.testing.assert_allclose(result.exponents, expected, atol=1e-3)
    assert result.exponents.sum() == pytest.approx(2 * expected, abs=1e-12)


@pytest.mark.parametrize("method", FIXED)
def test_order_of_convergence(method):
    """Halving the step divides the error of one stretch of time by 2 to the order."""
    s = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    exact = FlowCell(van_der_pol, 2, dt=1.0, method="rk4", substeps=4096).step(s, None)
    errors = [
        float((FlowCell(van_der_pol, 2, dt=1.0, method=method, substeps=n).step(s, None) - exact).abs().max())
        for n in (64, 128)
    ]
    order = {"euler": 1, "midpoint": 2, "rk4": 4}[method]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_methods_meet_their_tolerance(method):
    s = torch.tensor([[1.0, 0.5], [2.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    exact = FlowCell(van_der_pol, 2, dt=0.5, substeps=100)
    tolerance = 1e-8 if method.startswith("dopri") else 1e-5
    cell = FlowCell(van_der_pol, 2, dt=0.5, method=method, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(cell.step(s, None), exact.step(s, None), rtol=0, atol=200 * tolerance)
    torch.testing.assert_close(cell.jacobian(s, None), exact.jacobian(s, None), rtol=0, atol=500 * tolerance)


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")  # zero to less than the run resolves
def test_a_limit_cycle():
    """Of the van der Pol oscillator: zero along the cycle; the sum is the mean of the divergence 1 - a²."""
    for method, n_steps in (("rk4", 2000), ("dopri5", 200)):
        cell = FlowCell(van_der_pol, 2, dt=0.05, method=method, initial_state=[2.0, 0.0])
        result = lyapunov_spectrum(cell, n_steps, warmup=n_steps // 4)
        states = cell.trajectory(cell.initial_state(1), n_steps)[n_steps // 4 :, 0, 0]
        divergence = 1 - states**2
        mean = float((divergence[:-1] + divergence[1:]).mean() / 2)
        assert result.exponents.sum() / cell.dt == pytest.approx(mean, abs=1e-3)
        assert abs(result.exponents[0] / cell.dt) < 0.1


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")  # short sequences
def test_a_driven_field_and_units():
    x = torch.sin(torch.arange(600) * 0.1).reshape(1, -1, 1)
    fine, coarse = (
        lyapunov_spectrum(FlowCell(pendulum, 2, dt=0.1, n_inputs=1, substeps=n), x, qr_interval=1) for n in (4, 1)
    )
    assert fine.exponents.sum() / 0.1 == pytest.approx(-0.2, abs=1e-7)
    assert coarse.exponents.sum() / 0.1 == pytest.approx(-0.2, abs=1e-4)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (lambda s, x: s[..., :1], r"return the velocity, a tensor of shape \(1, 2\) .* Got shape \(1, 1\)"),
        (lambda s, x: None, "return the velocity.*Got NoneType"),
        (lambda s: s, "called with the state, the input"),
        (lambda s, x: -s + s.mean(), "each row"),
        (lambda s, x: torch.randn_like(s), "random numbers"),
        (lambda s, x: -s.detach(), "finite differences"),
        (lambda s, x: -s if s.max() < 9 else s, "trust='branches'"),
        (lambda s, x: s @ A.float(), "runs in float32 only"),
    ],
)
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_refused_fields(field, message, method):
    with pytest.raises(StepError, match="(?s)'field' parameter of FlowCell must .*" + message):
        lyapunov_spectrum(FlowCell(field, 2, dt=0.1, method=method), 20)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dt": 0.0}, ValueError, "'dt' parameter of FlowCell must be a finite float"),
        ({"dt": "0.1"}, TypeError, "'dt' parameter of FlowCell"),
        ({"dt": 0.1, "method": "heun"}, ValueError, "'method' parameter of FlowCell must be one of 'euler'"),
        ({"dt": 0.1, "substeps": 0}, ValueError, "'substeps' parameter"),
        ({"dt": 0.1, "rtol": -1.0}, ValueError, "'rtol' parameter"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        FlowCell(linear, 2, **options)


def test_without_torchdiffeq(monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "torchdiffeq":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"needs torchdiffeq: pip install 'sklyap\[ode\]'"):
        FlowCell(linear, 2, dt=0.1, method="dopri5")
    FlowCell(linear, 2, dt=0.1)
