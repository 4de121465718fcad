"""Intervals between factorisations that are chosen on the run, and the hand-over from float32 to float64."""

import warnings

import numpy as np
import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import FunctionCell
from sklyap.datasets import systems
from sklyap.exceptions import ConvergenceWarning, DivergedError
from sklyap.tangent.jacobians import FoldedJacobians
from tests.lyapunov.helpers import inputs, network, quiet


def fluctuating(period, peak, n_steps):
    """A product of matrices whose directions separate by `peak` nats and come together again every `period` steps."""
    rng = np.random.default_rng(0)
    basis, rates = rng.normal(size=(4, 4)), np.array([0.3, 0.1, -0.2, -0.5])
    swing = np.array([1, -1, 0.5, -0.5]) * peak * np.pi / period / 2
    diagonal = np.exp(rates + swing * np.cos(2 * np.pi * np.arange(n_steps) / period)[:, None])
    return np.einsum("ij,tj,jk->tik", basis, diagonal, np.linalg.inv(basis))


def bursts(n_steps):
    """Long calm, then steps that separate directions by 8 nats each, and one that shrinks everything."""
    rng = np.random.default_rng(1)
    products = np.linalg.qr(rng.normal(size=(n_steps, 4, 4)))[0]
    sudden = np.arange(n_steps) % 97 > 93
    products[sudden] = products[sudden] @ np.diag([50.0, 1.0, 0.1, 0.02])
    products[np.arange(n_steps) % 97 == 50] *= 1e-30
    return products


def nearly_degenerate(n_steps):
    rng = np.random.default_rng(2)
    return np.linalg.qr(rng.normal(size=(n_steps, 4, 4)))[0] * (1 + 1e-6 * rng.normal(size=(n_steps, 1, 4)))


def delay_line(n_steps, n=12, feedback=1e-3):
    """A shift register that feeds its end back, weakly: all moduli coincide, and no single step is normal."""
    A = np.eye(n, k=-1)
    A[0, -1] = feedback
    A[0, 3] = 0.2
    return np.broadcast_to(A, (n_steps, n, n))


PRODUCTS = {
    "swings of 8 steps": lambda: fluctuating(8, 20, 800),
    "swings of 64 steps": lambda: fluctuating(64, 25, 800),
    "bursts": lambda: bursts(800),
    "nearly degenerate": lambda: nearly_degenerate(800),
    "delay line": lambda: delay_line(800),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_automatic_interval_on_products(name):
    matrices = PRODUCTS[name]()
    n = matrices.shape[-1]
    cell, X = systems.gaussian_product(n).cell, matrices.reshape(1, len(matrices), n * n)
    check_automatic_interval(cell, X)


@pytest.mark.parametrize("gain", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_automatic_interval_on_networks(kind, gain):
    check_automatic_interval(network(kind, hidden=12, gain=gain, seed=2), inputs(3, 200))


def check_automatic_interval(network, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        auto, every = (lyapunov_spectrum(network, X, qr_interval=m) for m in ("auto", 1))
    leading = every.exponents > every.exponents[0] - 0.3
    np.testing.assert_allclose(auto.exponents[leading], every.exponents[leading], rtol=0, atol=1e-10)
    np.testing.assert_allclose(auto.exponents, every.exponents, rtol=1e-3, atol=1e-9)


def test_automatic_interval_is_long_where_directions_stay_together_and_one_where_they_part():
    together = systems.orthogonal_map(scale=0.9)
    assert lyapunov_spectrum(together.cell, 2000).qr_interval > 30
    apart = systems.linear_map(np.diag([1.0, 1e-9]))
    assert lyapunov_spectrum(apart.cell, 500).qr_interval == 1


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")  # growth that has no mean
@pytest.mark.parametrize("dtype,step", [("float64", 20.0), ("float64", -20.0), ("float32", 9.0), ("float32", -9.0)])
def test_growth_out_of_range_within_a_block_is_no_accident(dtype, step):
    # Long blocks of calm steps run into some that over- or underflow together.
    rates = np.where((np.arange(300) >= 150) & (np.arange(300) < 200), step, 0.0)
    rotations = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 3, 3)))[0]
    X = (rotations * np.exp(rates)[:, None, None]).reshape(1, 300, 9)
    result = lyapunov_spectrum(systems.gaussian_product(3).cell, X, warmup=0, dtype=dtype)
    np.testing.assert_allclose(result.exponents, step / 6, rtol=0, atol=1e-6)
    if step > 0:
        with pytest.raises(DivergedError, match="lower qr_interval"):
            lyapunov_spectrum(systems.gaussian_product(3).cell, X, warmup=0, dtype=dtype, qr_interval=100)


class TestFloat32GoesOnInFloat64:
    """Where single steps part directions by more than float32 has digits for."""

    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return torch.nn.LSTM(3, 40, batch_first=True), torch.randn(6, 60, 3)

    def test_so_every_exponent_keeps_its_digits(self, network, monkeypatch):
        exact = quiet(*network).exponents
        np.testing.assert_allclose(quiet(*network, dtype="float32").exponents, exact, rtol=2e-6)
        for limit, least in ((9.0, 0.0), (1e9, 5e-5)):
            monkeypatch.setattr("sklyap.tangent.iteration._single_step_limit", lambda Q, limit=limit: limit)
            error = np.abs(quiet(*network, dtype="float32").exponents / exact - 1).max()
            assert error > least and (limit > 9 or error < 2e-5)

    def test_the_first_step_decides_and_nothing_is_run_twice(self, network, monkeypatch):
        layer, X = network
        steps = []
        push = FoldedJacobians.push
        monkeypatch.setattr(
            FoldedJacobians, "push", lambda self, Q, t: steps.append((t.start, Q.dtype)) or push(self, Q, t)
        )
        result = quiet(layer, X, dtype="float32", warmup=0)
        assert result.end.Q.dtype == np.float64 and result.end.s.dtype == np.float64
        assert steps == sorted(set(steps), key=steps.index) and {dtype for _, dtype in steps} == {torch.float64}

    def test_a_network_with_digits_to_spare_goes_on_in_float32(self):
        torch.manual_seed(0)
        layer, X = torch.nn.GRU(3, 16, batch_first=True), torch.randn(4, 60, 3)
        result, exact = quiet(layer, X, dtype="float32"), quiet(layer, X)
        assert result.end.Q.dtype == np.float32 and result.end.s.dtype == np.float32
        np.testing.assert_allclose(result.exponents, exact.exponents, rtol=0, atol=2e-4)
        np.testing.assert_allclose(result.exponents[:4], exact.exponents[:4], rtol=0, atol=1e-5)

    def test_also_from_the_middle_of_a_run(self):
        """The map parts directions from step 50 on only."""

        def step(s, x):
            return s * torch.cat([torch.ones_like(x), torch.exp(-x), torch.exp(-2 * x)], -1)

        cell = FunctionCell(step, 3, n_inputs=1, initial_state=[1.0, 1.0, 1.0])
        x = torch.cat([torch.ones(2, 50, 1), torch.full((2, 70, 1), 6.0)], 1)
        result = quiet(cell, x, dtype="float32", warmup=20)
        mean = float(x[:, 20:].mean())
        np.testing.assert_allclose(result.exponents, [0, -mean, -2 * mean], rtol=1e-6, atol=1e-6)

    def test_unless_it_cannot(self):
        scale = torch.tensor([1.0, 1e-3], dtype=torch.float32)
        cell = FunctionCell(lambda s, x: s @ torch.diag(scale), 2)
        with pytest.raises(RuntimeError):
            cell.step(torch.ones(1, 2, dtype=torch.float64), None)
        result = quiet(cell, 100, dtype="float32")
        np.testing.assert_allclose(result.exponents, np.log([1, 1e-3]), rtol=1e-5, atol=1e-6)
