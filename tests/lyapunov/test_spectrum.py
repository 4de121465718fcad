"""The spectrum against a plain loop, and the identities that hold to rounding at any finite length."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import FunctionCell, RecurrentCell, as_recurrent_cell
from sklyap.exceptions import DegenerateSpectrumWarning, PrecisionWarning
from sklyap.orthonormalize import random_bases
from sklyap.tangent import qr_iteration
from tests.lyapunov.helpers import LAYERS, dense_jacobians, inputs, network, plain_spectrum, quiet, torch_step


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.PrecisionWarning")  # an interval chosen too long
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_torch_layers_against_a_plain_loop_with_reverse_mode_jacobians(kind, n_layers):
    layer, X = network(kind, n_layers=n_layers, gain=0.4 if kind == "relu" else 1.0), inputs()
    N = layer.hidden_size * n_layers * (2 if kind == "lstm" else 1)
    Q = random_bases(N, N, seed=5, indices=range(4))
    jacobians = dense_jacobians(torch_step(layer, kind), torch.zeros(4, N, dtype=torch.float64), X)
    expected = plain_spectrum(jacobians, Q, warmup=10)
    order = np.argsort(-expected.mean(0))
    result = quiet(layer, X, warmup=10, qr_interval=1, random_state=5)
    np.testing.assert_allclose(result.per_sequence, expected[:, order], rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.exponents, expected.mean(0)[order], rtol=0, atol=1e-10)
    # At any finite length the sum is that of ln|det J|, whatever the interval.
    log_det = torch.linalg.slogdet(jacobians[10:])[1].mean().item()
    for interval in ("auto", 1, 2):
        result = quiet(layer, X, warmup=10, qr_interval=interval)
        assert result.exponents.sum() == pytest.approx(log_det, rel=0, abs=1e-9)
        assert result.log_abs_det == pytest.approx(log_det, rel=0, abs=1e-9)


def exact_spectrum(jacobians, Q):
    """Return growth rates (N,) of J (T, N, N) from the start Q (N, N) in arithmetic of 300 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(300):
        basis, logs = mpmath.matrix(Q.tolist()), mpmath.matrix(len(Q), 1)
        for J in jacobians.tolist():
            basis, R = mpmath.qr(mpmath.matrix(J) * basis)
            logs += mpmath.matrix([mpmath.log(abs(R[i, i])) for i in range(len(Q))])
        return np.array([float(x) for x in logs]) / len(jacobians)


@pytest.mark.parametrize("kind,weights", [("rnn", 3.0), ("rnn", 30.0), ("gru", 3.0), ("gru", 20.0), ("lstm", 3.0)])
def test_saturated_networks_against_arithmetic_of_300_digits(kind, weights):
    # Saturated units contract by a hundred nats in a step; each has its own row of the Jacobian and keeps its digits.
    layer, X = network(kind, hidden=5), inputs(1, 12)
    with torch.no_grad():
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -weights, weights)
    cell = as_recurrent_cell(layer)
    N = cell.state_size
    states = cell.trajectory(cell.initial_state(1), X)
    jacobians = cell.jacobian(states[:-1], X.transpose(0, 1))[:, 0]
    exact = exact_spectrum(jacobians, random_bases(N, N, seed=0, indices=[0])[0])
    result = quiet(layer, X, warmup=0)
    assert exact[-1] < -2 and result.n_degenerate == 0
    np.testing.assert_allclose(result.exponents, np.sort(exact)[::-1], rtol=1e-8, atol=1e-8)


def test_hidden_state_of_an_lstm_against_a_plain_loop():
    layer, X, H = network("lstm"), inputs(), 6
    step = torch_step(layer, "lstm")
    jacobians = dense_jacobians(step, torch.zeros(4, 2 * H, dtype=torch.float64), X)[..., :H, :H]
    expected = plain_spectrum(jacobians, random_bases(H, H, seed=0, indices=range(4)), warmup=10)
    hidden = lyapunov_spectrum(layer, X, warmup=10, qr_interval=1, state="hidden")
    np.testing.assert_allclose(hidden.exponents, np.sort(expected.mean(0))[::-1], rtol=0, atol=1e-10)
    # Without what c carries, the leading exponent is far too low.
    assert hidden.exponents[0] < lyapunov_spectrum(layer, X, warmup=10).exponents[0] - 0.5


class CubicCell(RecurrentCell):
    """A user's cell with nothing but a step."""

    def __init__(self):
        super().__init__()
        self.state_size, self.n_inputs, self.output_size = 3, 2, 3
        mix = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.register_buffer("mix", mix / 2)

    def step(self, s, x):
        return torch.tanh(torch.cat([s - 0.1 * s**3, x], -1) @ self.mix.T)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_cell_with_nothing_but_a_step(k):
    cell, X = CubicCell(), inputs(n_inputs=2)
    jacobians = dense_jacobians(cell.step, torch.zeros(4, 3, dtype=torch.float64), X)
    expected = plain_spectrum(jacobians, random_bases(3, k, seed=0, indices=range(4)), warmup=10)
    found = quiet(cell, X, warmup=10, qr_interval=1, n_exponents=k).exponents
    np.testing.assert_allclose(found, np.sort(expected.mean(0))[::-1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("hidden", [5, 7, 16])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_truncation_gives_the_leading_part(kind, hidden):
    layer, X = network(kind, hidden=hidden), inputs()
    # Unsorted: noise may swap neighbours where exponents nearly coincide.
    full = quiet(layer, X, warmup=0, qr_interval=1, return_basis=True)
    for k in range(1, hidden + 1):
        part = quiet(layer, X, warmup=0, qr_interval=1, n_exponents=k, return_basis=True)
        assert part.exponents.shape == (k,) and (part.log_abs_det is None) == (k < full.exponents.size)
        logs = [np.log(np.diagonal(r.r_factors, axis1=-2, axis2=-1)[..., :k]).mean(1) for r in (full, part)]
        np.testing.assert_allclose(logs[0], logs[1], rtol=0, atol=1e-12)
    first = quiet(layer, X, warmup=20, qr_interval=1).exponents[:1]
    np.testing.assert_allclose(quiet(layer, X, warmup=20, n_exponents=1).exponents, first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("interval", [2, 3, 7])
def test_interval_within_its_bound(kind, interval):
    # 53 averaged steps are no multiple of any: the last block is a partial one.
    layer, X = network(kind, hidden=8), inputs(n_steps=63)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrecisionWarning)
        every, sparse = (lyapunov_spectrum(layer, X, warmup=10, qr_interval=m) for m in (1, interval))
    assert sparse.qr_interval == interval and sparse.n_steps == 53
    np.testing.assert_allclose(sparse.exponents[:3], every.exponents[:3], rtol=0, atol=1e-12)
    # ε exp(g m) per block of m steps, and room for the size of the matrices.
    gap = every.exponents[0] - every.exponents
    bound = 100 * np.finfo(float).eps * np.exp(2 * gap * interval) / interval
    assert (np.abs(sparse.exponents - every.exponents) < bound + 1e-12).all()


def test_a_rotation_of_state_space_changes_nothing_where_the_dynamics_contract():
    cell = as_recurrent_cell(network("gru", hidden=6)).double()
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    X, Q = inputs(), random_bases(6, 6, seed=0, indices=range(4))
    rotated = FunctionCell(lambda s, x: cell.step(s @ rotation, x) @ rotation.T, 6, n_inputs=3)

    def rates(cell, Q):
        return sum(block.log_growth for block in qr_iteration(cell, X, Q=Q)) / X.shape[1]

    with torch.no_grad():
        torch.testing.assert_close(rates(rotated, rotation @ Q), rates(cell, Q), rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_float32_agrees_on_the_leading_exponents_where_the_dynamics_contract(kind):
    layer, X = network(kind, hidden=16), inputs()
    double, single = (quiet(layer, X, dtype=dtype) for dtype in ("float64", torch.float32))
    np.testing.assert_allclose(single.exponents[:8], double.exponents[:8], rtol=0, atol=1e-5)
    assert single.exponents.dtype == np.float64


@pytest.mark.parametrize(
    "kind,hidden,lengths", [("lstm", 40, [60, 60, 41, 13]), ("rnn", 90, [50]), ("gru", 64, [30] * 6)]
)
@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_the_fast_path_is_that_of_single_steps(kind, hidden, lengths, gain):
    """Elimination between exact steps changes neither the exponents of a sequence nor their standard error."""
    layer = network(kind, hidden=hidden, gain=gain)
    X = [x[:n] for x, n in zip(inputs(len(lengths), max(lengths)), lengths, strict=True)]
    careful = quiet(layer, X, warmup=5, qr_interval=1, orthonormalizer="householder")
    for interval in (1, "auto"):
        fast = quiet(layer, X, warmup=5, qr_interval=interval)
        atol = 1e-10 if interval == 1 else 1e-7
        np.testing.assert_allclose(fast.per_sequence, careful.per_sequence, rtol=0, atol=atol)
        np.testing.assert_allclose(fast.exponents[:8], careful.exponents[:8], rtol=0, atol=1e-10)
        if interval == 1:
            np.testing.assert_allclose(fast.standard_error, careful.standard_error, rtol=1e-5)
    assert careful.n_degenerate == fast.n_degenerate == 0


def test_float32_of_a_large_lstm():
    # Its directions part by more than half of the digits of float32 in every step.
    layer, X = network("lstm", hidden=128), inputs(2, 12)
    expected = quiet(layer, X, warmup=2, qr_interval=1, orthonormalizer="householder")
    result = quiet(layer, X, warmup=2, dtype="float32")
    assert result.qr_interval == 1 and result.condition > 1e4
    np.testing.assert_allclose(result.exponents[:8], expected.exponents[:8], rtol=0, atol=1e-5)
    np.testing.assert_allclose(result.exponents, expected.exponents, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_annihilated_directions_of_a_large_network(dtype):
    layer, X = network("rnn", hidden=200), inputs(2, 20)
    with torch.no_grad():
        layer.weight_hh_l0[7:27] = 0.0  # twenty units that remember nothing
    with pytest.warns(DegenerateSpectrumWarning, match="20 of 200"):
        result = quiet(layer, X, warmup=2, dtype=dtype)
    assert result.n_degenerate == 20 and np.isfinite(result.exponents[:180]).all()


def test_orthonormalizers_agree():
    layer, X = network("lstm", hidden=8), inputs()
    house, chol = (quiet(layer, X, orthonormalizer=m) for m in ("householder", "cholesky"))
    np.testing.assert_allclose(house.exponents[:8], chol.exponents[:8], rtol=0, atol=1e-10)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["rnn", "gru", "lstm"]),
    hidden=st.integers(1, 9),
    n_layers=st.integers(1, 2),
    n=st.integers(1, 3),
    n_steps=st.integers(1, 30),
    gain=st.sampled_from([0.1, 1.0, 3.0]),
    interval=st.sampled_from(["auto", 1, 2]),
    seed=st.integers(0, 1000),
)
def test_any_shape(kind, hidden, n_layers, n, n_steps, gain, interval, seed):
    layer = network(kind, hidden=hidden, n_layers=n_layers, gain=gain, seed=seed)
    X = inputs(n, n_steps, seed=seed)
    result = quiet(layer, X, qr_interval=interval)
    N = hidden * n_layers * (2 if kind == "lstm" else 1)
    assert result.exponents.shape == result.standard_error.shape == (N,)
    assert result.per_sequence.shape == (n, N) and result.n_steps + result.warmup == n_steps
    assert np.isfinite(result.exponents).all() and (np.diff(result.exponents) <= 0).all()
    jacobians = dense_jacobians(torch_step(layer, kind), torch.zeros(n, N, dtype=torch.float64), X)
    log_det = torch.linalg.slogdet(jacobians[result.warmup :])[1].mean().item()
    # An interval that was asked for may lose digits, by as much as the condition says.
    lost = result.condition * np.finfo(float).eps if interval == 2 else 0.0
    assert result.exponents.sum() == pytest.approx(log_det, rel=0, abs=1e-9 + lost)
