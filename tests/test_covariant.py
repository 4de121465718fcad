"""Covariant Lyapunov vectors where they are known, and what defines them everywhere."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import as_recurrent_cell, lyapunov_spectrum
from sklyap.covariant import covariant_from_qr, covariant_lyapunov_vectors
from sklyap.datasets import systems
from sklyap.exceptions import DegenerateSpectrumWarning


def network(kind=nn.GRU, hidden=6, seed=0):
    torch.manual_seed(seed)
    return kind(3, hidden).double()


def inputs(n=3, n_steps=200):
    return torch.randn(n, n_steps, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def jacobians(layer, X):
    """Return the Jacobians (n, T, N, N) along the trajectories."""
    cell = as_recurrent_cell(layer)
    states = cell.trajectory(cell.initial_state(len(X)), X)[:-1]
    return cell.jacobian(states, X.transpose(0, 1)).transpose(0, 1).numpy()


def check_covariance(result, J):
    """``J_t v_t`` is ``exp(growth) v_{t+1}``, in length and direction."""
    pushed = J @ result.vectors[:, :-1]
    predicted = np.exp(result.growth)[:, :, None] * result.vectors[:, 1:]
    scale = np.linalg.norm(J, axis=(-2, -1))[..., None, None]
    assert np.abs((pushed - predicted) / scale).max() < 1e-12


def test_of_a_linear_map_they_are_the_eigenvectors():
    system = systems.linear_map()
    A = system.cell.jacobian(torch.zeros(4, dtype=torch.float64), None).numpy()
    values, vectors = np.linalg.eig(A)
    vectors = vectors[:, np.argsort(-np.abs(values))]
    result = covariant_lyapunov_vectors(system.cell, 400, warmup=100, cooldown=100)
    cosines = np.abs(np.einsum("ni,tni->ti", vectors, result.vectors[0]))
    np.testing.assert_allclose(cosines, 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.growth[0], np.broadcast_to(system.exponents, (200, 4)), rtol=0, atol=1e-11)
    # The QR basis, an orthonormal one, is not: all but its first vector turn under the map.
    basis = lyapunov_spectrum(system.cell, 400, return_basis=True).basis[0, -1]
    assert np.abs((vectors * basis).sum(0))[1:].max() < 0.99


def test_of_a_periodic_product_they_are_the_eigenvectors_of_its_cycles():
    system = systems.periodic_product()
    X = system.sequences(600)
    A = X[0, :3].reshape(3, 4, 4)
    result = covariant_lyapunov_vectors(system.cell, X, warmup=150, cooldown=150)
    for phase in range(3):  # 150 is a whole number of cycles
        cycle = np.linalg.multi_dot([A[(phase + i) % 3] for i in (2, 1, 0)])
        values, vectors = np.linalg.eig(cycle)
        order = np.argsort(-np.abs(values))
        for i in (0, 1):  # the others are a complex pair, or close to one another
            cosine = np.abs(vectors[:, order[i]].conj() @ result.vectors[0, phase, :, i])
            assert cosine == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(result.exponents[:2], system.exponents[:2], rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_they_are_carried_into_one_another_by_the_jacobians(kind):
    layer, X = network(kind), inputs()
    result = covariant_lyapunov_vectors(layer, X, warmup=40, cooldown=30)
    N = 12 if kind is nn.LSTM else 6
    assert result.vectors.shape == (3, 131, N, N) and result.growth.shape == (3, 130, N)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=-2), 1, rtol=0, atol=1e-13)
    check_covariance(result, jacobians(layer, X)[:, 40:170])


def test_they_do_not_depend_on_the_start_where_exponents_differ():
    layer, X = network(nn.RNN, hidden=3), inputs()
    first, second = (covariant_lyapunov_vectors(layer, X, warmup=80, cooldown=80, random_state=seed) for seed in (0, 1))
    gaps = -np.diff(first.exponents)
    assert (gaps > 0.2).all()
    cosines = np.abs((first.vectors * second.vectors).sum(-2))
    np.testing.assert_allclose(cosines, 1, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [systems.henon, systems.ikeda])
def test_growth_averages_to_the_exponents_on_an_attractor(make):
    system = make()
    local = lyapunov_spectrum(system.cell, 1000, warmup=100, return_local=True).local[:, :800]
    result = covariant_lyapunov_vectors(system.cell, 1000, warmup=100, cooldown=100)
    # The first vector is the first of the QR basis; of the others the sums over time differ by how much the
    # angles to it have changed between first and last step, not by more the longer the run.
    np.testing.assert_allclose(result.growth[..., 0], local[..., 0], rtol=0, atol=1e-9)
    sines = np.sin(result.angles()[0, :, 0, 1])
    assert (result.growth - local)[0, :, 1].sum() == pytest.approx(math.log(sines[0] / sines[-1]), abs=1e-6)


def test_henon_has_tangencies_and_a_hyperbolic_map_has_none():
    henon = covariant_lyapunov_vectors(systems.henon().cell, 3000)
    cat = covariant_lyapunov_vectors(systems.linear_map([[2.0, 1.0], [1.0, 1.0]]).cell, 200)
    assert henon.splitting_angles(1).min() < 0.02
    # Of the cat map's symmetric matrix the eigenvectors are orthogonal.
    np.testing.assert_allclose(cat.splitting_angles(1), math.pi / 2, rtol=0, atol=1e-9)
    pair = henon.angles()
    assert pair.shape == (1, henon.growth.shape[1] + 1, 2, 2)
    np.testing.assert_allclose(pair[..., 0, 1], henon.splitting_angles(1), rtol=0, atol=1e-7)


def test_fewer_vectors_are_the_leading_ones():
    layer, X = network(), inputs(n_steps=60)
    full, part = covariant_lyapunov_vectors(layer, X), covariant_lyapunov_vectors(layer, X, n_exponents=2)
    np.testing.assert_allclose(part.vectors, full.vectors[..., :2], rtol=0, atol=1e-11)
    np.testing.assert_allclose(part.growth, full.growth[..., :2], rtol=0, atol=1e-11)


def test_from_stored_factors():
    layer, X = network(), inputs(n_steps=60)
    stored = lyapunov_spectrum(layer, X, warmup=10, return_basis=True)
    vectors, growth = covariant_from_qr(stored.basis, stored.r_factors)
    result = covariant_lyapunov_vectors(layer, X, warmup=10, cooldown=5)
    np.testing.assert_allclose(vectors[:, :46].numpy(), result.vectors, rtol=0, atol=1e-12)
    np.testing.assert_allclose(growth[:, :45].numpy(), result.growth, rtol=0, atol=1e-12)
    # Blocks of several steps serve as well: vectors at their ends, growth over the whole of each.
    coarse = lyapunov_spectrum(layer, X, warmup=10, qr_interval=2, return_basis=True)
    sparse, per_block = covariant_from_qr(coarse.basis, coarse.r_factors)
    np.testing.assert_allclose(sparse.numpy(), vectors[:, ::2].numpy(), rtol=0, atol=1e-9)
    np.testing.assert_allclose(per_block.numpy(), growth.numpy().reshape(3, 25, 2, 6).sum(2), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype,tiny", [(torch.float64, 1e-200), (torch.float32, 1e-30)])
def test_factors_that_differ_by_orders_of_magnitude_do_not_overflow(dtype, tiny):
    R = torch.eye(3, dtype=dtype) * torch.tensor([1 / tiny, 1.0, tiny], dtype=dtype)
    R[0, 1:], R[1, 2] = 0.5 / tiny, 0.5
    Q = torch.eye(3, dtype=dtype).expand(1, 6, 3, 3)
    vectors, growth = covariant_from_qr(Q, R.expand(1, 5, 3, 3))
    assert bool(torch.isfinite(vectors).all())
    np.testing.assert_allclose(growth[0, 0], [-math.log(tiny), 0, math.log(tiny)], rtol=1e-5, atol=1e-5)


def test_annihilated_directions_lie_in_the_kernel():
    system = systems.constant_gate_lstm()
    X = system.sequences(60)
    with pytest.warns(DegenerateSpectrumWarning, match="6 of 12 directions are annihilated"):
        result = covariant_lyapunov_vectors(system.cell, X, warmup=20)
    assert np.isneginf(result.exponents[6:]).all() and np.isfinite(result.exponents[:6]).all()
    assert np.isfinite(result.vectors).all()
    J = jacobians(system.cell, torch.as_tensor(X))[:, 20 : 20 + result.growth.shape[1]]
    assert np.abs(J @ result.vectors[:, :-1, :, 6:]).max() < 1e-12
    pushed = J @ result.vectors[:, :-1, :, :6]
    predicted = np.exp(result.growth[:, :, None, :6]) * result.vectors[:, 1:, :, :6]
    np.testing.assert_allclose(pushed, predicted, rtol=0, atol=1e-12)


def test_batches_and_ensembles_keep_their_order():
    layer, X = network(), inputs(5, 60)
    whole, parts = covariant_lyapunov_vectors(layer, X), covariant_lyapunov_vectors(layer, X, batch_size=2)
    np.testing.assert_allclose(parts.vectors, whole.vectors, rtol=0, atol=1e-10)
    ensemble = covariant_lyapunov_vectors(systems.henon(n_starts=3).cell, 100)
    single = covariant_lyapunov_vectors(systems.henon().cell, 100)
    np.testing.assert_allclose(ensemble.vectors[0], single.vectors[0], rtol=0, atol=1e-9)


def test_hidden_state_and_float32():
    layer, X = network(nn.LSTM), inputs(n_steps=60)
    assert covariant_lyapunov_vectors(layer, X, state="hidden").vectors.shape[2:] == (6, 6)
    single = covariant_lyapunov_vectors(layer, X, dtype="float32", n_exponents=3)
    assert single.vectors.dtype == np.float32
    double = covariant_lyapunov_vectors(layer, X, n_exponents=3)
    np.testing.assert_allclose(single.growth, double.growth, rtol=0, atol=1e-3)


def test_the_record_reads_well_and_automatic_settling_takes_both_ends():
    result = covariant_lyapunov_vectors(network(), inputs(2, 100))
    assert (result.warmup, result.cooldown) == (10, 10)
    assert "6 vectors of 6 entries along 2 sequence(s) of 80 steps" in repr(result)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert covariant_lyapunov_vectors(network(), inputs(2, 1)).vectors.shape == (2, 2, 6, 6)


@pytest.mark.parametrize(
    "parameters,error,match",
    [
        ({"n_exponents": 7}, ValueError, r"'n_exponents' .* \[1, 6\]"),
        ({"warmup": 60}, ValueError, r"'warmup' .* \[0, 59\]"),
        ({"warmup": 20, "cooldown": 40}, ValueError, r"'cooldown' .* \[0, 39\]"),
        ({"state": "whole"}, ValueError, "'state'"),
        ({"orthonormalizer": "qr"}, ValueError, "'orthonormalizer'"),
        ({"batch_size": 0}, ValueError, "'batch_size'"),
    ],
)
def test_bad_parameters(parameters, error, match):
    with pytest.raises(error, match=match):
        covariant_lyapunov_vectors(network(), inputs(n_steps=60), **parameters)


def test_bad_input():
    with pytest.raises(ValueError, match="'sequences' parameter must have sequences of one length"):
        covariant_lyapunov_vectors(network(), [torch.zeros(5, 3), torch.zeros(6, 3)])
    with pytest.raises(ValueError, match="'Q' and 'R' parameters must have shapes"):
        covariant_from_qr(np.zeros((1, 5, 3, 3)), np.zeros((1, 5, 3, 3)))
    with pytest.raises(ValueError, match="'n_leading' parameter"):
        covariant_lyapunov_vectors(network(), inputs(1, 20)).splitting_angles(6)
