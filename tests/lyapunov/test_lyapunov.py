"""The spectrum against a plain loop, and the identities that hold to rounding at any finite length."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.functional import jacobian

from sklyap import lyapunov_spectrum
from sklyap.cells import FunctionCell, RecurrentCell, as_recurrent_cell
from sklyap.datasets import systems
from sklyap.exceptions import ConvergenceWarning, DegenerateSpectrumWarning, DivergedError, PrecisionWarning
from sklyap.lyapunov import LyapunovResult
from sklyap.orthonormalize import random_bases
from sklyap.tangent import qr_iteration

LAYERS = {
    "rnn": lambda n, H, L: nn.RNN(n, H, L),
    "relu": lambda n, H, L: nn.RNN(n, H, L, nonlinearity="relu"),
    "gru": lambda n, H, L: nn.GRU(n, H, L),
    "lstm": lambda n, H, L: nn.LSTM(n, H, L),
}
ONE_STEP = {"rnn": nn.RNNCell, "relu": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def network(kind, n_inputs=3, hidden=6, n_layers=1, *, gain=1.0, seed=0):
    """Return a torch layer in float64, its recurrent weights scaled by `gain`, its rectifiers mostly open."""
    torch.manual_seed(seed)
    layer = LAYERS[kind](n_inputs, hidden, n_layers).double()
    with torch.no_grad():
        for name, weights in layer.named_parameters():
            weights *= gain if "weight_hh" in name else 1.0
            weights += 2.0 if kind == "relu" and "bias_ih" in name else 0.0
    return layer


def inputs(n=4, n_steps=60, n_inputs=3, seed=1):
    return torch.randn(n, n_steps, n_inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_step(layer, kind):
    """Return ``step(s, x)`` on batches, made of torch's own one-step layers; the state is layer by layer."""
    H, cells = layer.hidden_size, []
    for i in range(layer.num_layers):
        options = {"nonlinearity": "relu"} if kind == "relu" else {}
        cell = ONE_STEP[kind](layer.input_size if i == 0 else H, H, **options).double()
        cell.load_state_dict({k: getattr(layer, f"{k}_l{i}").detach() for k in cell.state_dict()})
        cells.append(cell.requires_grad_(False))

    def step(s, x):
        new = []
        for cell, part in zip(cells, s.chunk(len(cells), -1), strict=True):
            new += cell(x, (part[:, :H], part[:, H:])) if kind == "lstm" else (cell(x, part),)
            x = new[-2] if kind == "lstm" else new[-1]
        return torch.cat(new, -1)

    return step


def dense_jacobians(step, s, X):
    """Return reverse-mode Jacobians (T, n, N, N) along the trajectories from s (n, N) driven by X (n, T, n_inputs)."""
    jacobians = []
    for x in X.unbind(1):
        # Sequences are independent: the derivative of the sum over them holds the Jacobian of each.
        jacobians.append(jacobian(lambda s, x=x: step(s, x).sum(0), s).transpose(0, 1))
        s = step(s, x)
    return torch.stack(jacobians)


def plain_spectrum(jacobians, Q, warmup):
    """The textbook: J Q, QR, logarithms of the diagonal."""
    sums = 0.0
    for t, J in enumerate(jacobians):
        Q, R = torch.linalg.qr(J @ Q)
        if t >= warmup:
            sums = sums + R.diagonal(dim1=-2, dim2=-1).abs().log()
    return (sums / (len(jacobians) - warmup)).numpy()


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return lyapunov_spectrum(*args, **kwargs)


# Against a plain loop


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


# Identities


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


# Intervals chosen on the run


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


# Sequences


def test_sequences_of_unequal_length_are_averaged_each_over_its_own_steps():
    layer, X, lengths = network("gru"), inputs(5, 50), [20, 50, 35, 20, 41]
    ragged = quiet(layer, [x[:n] for x, n in zip(X, lengths, strict=True)], warmup=6, return_local=True)
    for i, n in enumerate(lengths):
        alone = quiet(layer, X[:, :n], warmup=6, qr_interval=1)
        np.testing.assert_allclose(np.sort(ragged.per_sequence[i]), np.sort(alone.per_sequence[i]), rtol=0, atol=1e-12)
        assert np.isnan(ragged.local[i, n - 6 :]).all() and np.isfinite(ragged.local[i, : n - 6]).all()
    np.testing.assert_allclose(ragged.exponents, ragged.per_sequence.mean(0), rtol=0, atol=1e-15)
    assert ragged.n_steps == 44


@pytest.mark.parametrize("lengths", [[40] * 5, [40, 25, 40, 33, 18]])
def test_batch_size_changes_nothing(lengths):
    layer, X = network("lstm"), inputs(5, 40)
    X = [x[:n] for x, n in zip(X, lengths, strict=True)]
    whole = quiet(layer, X, qr_interval=1, return_local=True)
    for size in (1, 2, 4, 99):
        parts = quiet(layer, X, qr_interval=1, return_local=True, batch_size=size)
        np.testing.assert_allclose(parts.per_sequence, whole.per_sequence, rtol=0, atol=1e-12)
        np.testing.assert_allclose(parts.standard_error, whole.standard_error, rtol=1e-6)
        np.testing.assert_allclose(parts.local, whole.local, rtol=0, atol=1e-9)
    assert quiet(layer, X, batch_size=2).exponents == pytest.approx(quiet(layer, X).exponents, abs=1e-7)


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"qr_interval": 7}])
def test_progress_counts_every_step_of_every_sequence(options):
    layer, X = network("gru"), [x[:n] for x, n in zip(inputs(3, 200), [200, 31, 90], strict=True)]
    done = []
    result = quiet(layer, X, progress=done.append, **options)
    assert sum(done) == 321 and len(done) > 2
    np.testing.assert_array_equal(result.exponents, quiet(layer, X, **options).exponents)


def test_autonomous_ensembles_have_a_sequence_for_each_start():
    ensemble, single = systems.henon(n_starts=3), systems.henon()
    many, one = (lyapunov_spectrum(system.cell, 400) for system in (ensemble, single))
    assert many.per_sequence.shape == (3, 2) and one.per_sequence.shape == (1, 2)
    # A chaotic trajectory, but bit by bit the same.
    np.testing.assert_allclose(many.per_sequence[0], one.exponents, rtol=0, atol=1e-9)
    assert np.unique(many.per_sequence[:, 0]).size == 3


def test_warmup_is_not_averaged():
    layer, X = network("gru"), inputs()
    whole = quiet(layer, X, warmup=0, return_local=True)
    late = quiet(layer, X, warmup=25, return_local=True)
    assert (whole.n_steps, late.n_steps, late.warmup) == (60, 35, 25)
    np.testing.assert_allclose(np.sort(late.exponents), np.sort(whole.local[:, 25:].mean((0, 1))), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_steps,warmup", [(1, 0), (2, 0), (4, 1), (8, 2), (28, 7), (100, 10), (3000, 300)])
def test_automatic_warmup(n_steps, warmup):
    result = quiet(systems.orthogonal_map(2).cell, n_steps)
    assert (result.warmup, result.n_steps) == (warmup, n_steps - warmup)


class TokenNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(11, 3), nn.GRU(3, 6, batch_first=True)
        self.readout = nn.Linear(6, 11)

    def forward(self, tokens):
        return self.readout(self.rnn(self.embedding(tokens))[0])


def test_integer_tokens_go_through_the_embedding():
    torch.manual_seed(0)
    module = TokenNetwork()
    tokens = torch.randint(11, (4, 30))
    direct = quiet(module.rnn, module.embedding(tokens).detach())
    np.testing.assert_allclose(quiet(module, tokens).exponents, direct.exponents, rtol=0, atol=1e-12)
    ragged = [np.asarray(row[:n]) for row, n in zip(tokens, (30, 20, 30, 11), strict=True)]
    assert quiet(module, ragged).per_sequence.shape == (4, 6)


# What comes back


def test_local_exponents_average_to_the_exponents():
    layer, X = network("lstm"), inputs()
    result = quiet(layer, X, return_local=True)
    assert result.local.shape == (4, result.n_steps, 12)
    np.testing.assert_allclose(result.local.mean((0, 1)), result.exponents, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.local.mean(1), result.per_sequence, rtol=0, atol=1e-12)
    # At an explicit interval every step of a block has the block's rate.
    coarse = quiet(layer, X, return_local=True, qr_interval=4, warmup=result.warmup)
    assert np.array_equal(coarse.local[:, 0], coarse.local[:, 3])
    np.testing.assert_allclose(coarse.local.mean((0, 1)), coarse.exponents, rtol=0, atol=1e-12)


@pytest.mark.parametrize("interval", ["auto", 4])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_bases_and_factors_rebuild_the_products_of_jacobians(interval, batch_size):
    layer, X = network("gru"), inputs()
    result = quiet(layer, X, warmup=6, qr_interval=interval, return_basis=True, batch_size=batch_size)
    jacobians = dense_jacobians(torch_step(layer, "gru"), torch.zeros(4, 6, dtype=torch.float64), X).numpy()
    assert result.block_steps.sum() == result.n_steps == 54
    assert result.basis.shape == (4, len(result.block_steps) + 1, 6, 6)
    t = 6
    for i, steps in enumerate(result.block_steps):
        pushed = result.basis[:, i]
        for J in jacobians[t : t + steps]:
            pushed = J @ pushed
        np.testing.assert_allclose(result.basis[:, i + 1] @ result.r_factors[:, i], pushed, rtol=0, atol=1e-13)
        t += steps
    diagonals = np.log(np.diagonal(result.r_factors, axis1=-2, axis2=-1)).sum(1) / 54
    np.testing.assert_allclose(np.sort(diagonals.mean(0))[::-1], result.exponents, rtol=0, atol=1e-12)


def test_units():
    result = quiet(network("gru"), inputs(), return_local=True)
    bits = result.to("bits")
    assert bits.unit == "bits" and result.unit == "nats" and result.to("nats") is result
    for name in ("exponents", "standard_error", "per_sequence", "local", "log_abs_det"):
        np.testing.assert_allclose(getattr(bits, name) * math.log(2), getattr(result, name), rtol=1e-14)
    np.testing.assert_allclose(bits.to("nats").exponents, result.exponents, rtol=1e-14)
    assert "bits per step" in repr(bits)
    with pytest.raises(ValueError, match="'unit' parameter"):
        result.to("bans")


def test_the_result_reads_well_and_cannot_be_changed():
    result = lyapunov_spectrum(network("gru", gain=0.5), inputs())
    text = repr(result)
    for part in (f"{result.exponents[0]:.4g} ± ", "4 sequence(s), 50 steps after 10", "Converged"):
        assert part in text
    assert isinstance(result, LyapunovResult)
    with pytest.raises(AttributeError):
        result.exponents = None
    assert (np.diff(result.exponents) <= 0).all()


def test_the_same_call_gives_the_same_bits_and_leaves_the_network_alone():
    layer, X = network("lstm"), inputs()
    layer.train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = quiet(layer, X), quiet(layer, X)
    for name in ("exponents", "standard_error", "per_sequence"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.exponents, quiet(layer, X, random_state=1).exponents)
    assert np.array_equal(
        quiet(layer, X, random_state=np.random.default_rng(4)).exponents,
        quiet(layer, X, random_state=np.random.default_rng(4)).exponents,
    )
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])
    assert layer.training and all(p.requires_grad and p.grad is None for p in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


# Warnings


def test_a_sign_that_cannot_be_told_is_a_warning():
    cell, X = systems.gaussian_product(2, scale=0.9).cell, systems.gaussian_product(2, scale=0.9).sequences(100)
    with pytest.warns(ConvergenceWarning, match="its sign cannot be told; use more or longer sequences"):
        result = lyapunov_spectrum(cell, X)
    assert not result.converged and result.status in repr(result)
    assert abs(result.exponents[0]) < 2 * result.standard_error[0]
    with pytest.warns(ConvergenceWarning, match="± inf"):
        lyapunov_spectrum(network("gru"), inputs(1, 1))


def test_zero_is_a_sign_where_it_is_known_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lyapunov_spectrum(systems.orthogonal_map().cell, 100).converged


def test_an_interval_that_loses_digits_is_a_warning():
    layer, X = network("lstm"), inputs()
    with pytest.warns(PrecisionWarning, match="qr_interval=30 loses digits"):
        result = lyapunov_spectrum(layer, X, qr_interval=30)
    assert result.condition > 1e8
    for interval in ("auto", 1):
        with warnings.catch_warnings():
            warnings.simplefilter("error", PrecisionWarning)
            lyapunov_spectrum(layer, X, qr_interval=interval)


def test_annihilated_directions_are_reported():
    system = systems.constant_gate_lstm()
    with pytest.warns(DegenerateSpectrumWarning, match="6 of 12 directions are annihilated"):
        result = lyapunov_spectrum(system.cell, system.sequences(400), warmup=200, return_local=True)
    assert result.n_degenerate == 6 and "6 direction(s) are annihilated" in result.status
    assert np.isneginf(result.exponents[6:]).all() and np.isnan(result.standard_error[6:]).all()
    assert not np.isnan(result.exponents).any() and not np.isnan(result.local).any()
    np.testing.assert_allclose(result.exponents[:6], system.exponents[:6], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_map_to_a_point_and_a_nilpotent_one(dtype):
    # Of a nilpotent map the steps are harmless one by one; it takes N of them to see the end.
    for matrix in (np.zeros((3, 3)), np.eye(3, k=-1)):
        with pytest.warns(DegenerateSpectrumWarning):
            result = lyapunov_spectrum(systems.linear_map(matrix).cell, 40, dtype=dtype)
        assert np.isneginf(result.exponents).all() and result.converged


def test_silent_relu_units_are_degenerate_directions():
    layer = network("relu", hidden=8)
    with torch.no_grad():
        layer.bias_ih_l0[:3] = -50
    with pytest.warns(DegenerateSpectrumWarning):
        result = lyapunov_spectrum(layer, inputs())
    assert result.n_degenerate >= 3 and np.isfinite(result.exponents[0])


# Bad input


@pytest.mark.parametrize(
    "sequences,error,match",
    [
        (torch.zeros(0, 5, 3), ValueError, "must not be empty"),
        (torch.zeros(2, 0, 3), ValueError, "must not be empty"),
        ([], ValueError, "must not be empty"),
        (torch.zeros(2, 5, 4), ValueError, "must have 3 inputs per step"),
        (torch.zeros(2, 5), ValueError, "must have 3 inputs per step"),
        (torch.zeros(2, 5, 3, 1), ValueError, r"must have shape \(n_sequences, n_steps, n_inputs\)"),
        (torch.full((2, 5, 3), math.nan), ValueError, r"must be finite. Got nan at index \(0, 0, 0\)"),
        (np.array([[["a"] * 3]]), TypeError, "must hold real numbers"),
        (100, TypeError, "the network takes 3 inputs per step. Got 100"),
        (None, TypeError, "Got None"),
        ([torch.zeros(5, 3), torch.zeros(6, 2)], ValueError, "must have 3 inputs per step"),
    ],
)
def test_bad_sequences(sequences, error, match):
    with pytest.raises(error, match=match):
        lyapunov_spectrum(network("gru"), sequences)


@pytest.mark.parametrize(
    "parameters,error,match",
    [
        ({"n_exponents": 0}, ValueError, r"'n_exponents' parameter must be an int in the range \[1, 6\]. Got 0"),
        ({"n_exponents": 7}, ValueError, r"'n_exponents' .* \[1, 6\]. Got 7"),
        ({"n_exponents": 2.0}, TypeError, "'n_exponents' parameter must be an int"),
        ({"warmup": 60}, ValueError, r"'warmup' .* \[0, 59\]. Got 60"),
        ({"warmup": -1}, ValueError, "'warmup'"),
        ({"warmup": "long"}, TypeError, "'warmup'"),
        ({"qr_interval": 0}, ValueError, "'qr_interval'"),
        ({"qr_interval": "often"}, TypeError, "'qr_interval'"),
        ({"orthonormalizer": "qr"}, ValueError, "'orthonormalizer' parameter must be one of"),
        ({"state": "cell"}, ValueError, "'state' parameter must be one of 'full', 'hidden'"),
        ({"dtype": "float16"}, ValueError, "'dtype'"),
        ({"device": "abacus"}, ValueError, "'device'"),
        ({"batch_size": 0}, ValueError, "'batch_size'"),
        ({"random_state": -1}, ValueError, "'random_state'"),
    ],
)
def test_bad_parameters(parameters, error, match):
    with pytest.raises(error, match=match):
        lyapunov_spectrum(network("gru"), inputs(), **parameters)


def test_bad_combinations():
    with pytest.raises(ValueError, match="'return_basis' parameter needs sequences of one length"):
        lyapunov_spectrum(network("gru"), [torch.zeros(5, 3), torch.zeros(6, 3)], return_basis=True)
    with pytest.raises(TypeError, match="must be a number of steps for an autonomous system"):
        lyapunov_spectrum(systems.henon().cell, torch.zeros(1, 5, 2))
    with pytest.raises(TypeError, match="'network' parameter"):
        lyapunov_spectrum("a network", inputs())


def test_a_trajectory_that_diverges_says_where():
    cell = FunctionCell(lambda s, x: 2 * s**2, 1, initial_state=[[0.1], [3.0]])
    with pytest.raises(DivergedError, match="state of sequence 1 is not finite at step 9"):
        lyapunov_spectrum(cell, 100)


# Random networks


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
    assert result.exponents.sum() == pytest.approx(log_det, rel=0, abs=1e-9)


PEAKS = """
import resource, torch
from sklyap import lyapunov_spectrum

def peak(n_steps):
    lyapunov_spectrum(network, torch.randn(1, n_steps, 1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.manual_seed(0)
torch.set_num_threads(1)
network = torch.nn.GRU(1, 60)
print(peak(300), peak(8_000))
"""


def test_memory_does_not_grow_with_the_length():
    # In a process of its own, whose peak nothing else has raised. A number kept for every step and exponent
    # would show: 8 bytes · 8,000 steps · 60 exponents are 4 MB.
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAKS], capture_output=True, text=True, check=True)
    short, long = (int(kilobytes) for kilobytes in out.stdout.split())
    assert long - short < 2500


class TestFloat32GoesOnInFloat64:
    """Where single steps part directions by more than float32 has digits for."""

    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return torch.nn.LSTM(3, 40, batch_first=True), torch.randn(6, 60, 3)

    @pytest.mark.parametrize("small,rtol", [(0, 2e-5), (384, 2e-6)])
    def test_so_every_exponent_keeps_its_digits(self, network, small, rtol, monkeypatch):
        monkeypatch.setattr("sklyap.tangent.iteration._SMALL_DIMENSION", small)
        exact = quiet(*network).exponents
        np.testing.assert_allclose(quiet(*network, dtype="float32").exponents, exact, rtol=rtol)
        monkeypatch.setattr("sklyap.tangent.iteration._SMALL_DIMENSION", 0)
        monkeypatch.setattr("sklyap.tangent.iteration._UNRESOLVED_SPREAD", math.inf)
        assert np.abs(quiet(*network, dtype="float32").exponents / exact - 1).max() > 5e-5

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
