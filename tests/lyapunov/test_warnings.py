"""What a spectrum warns about and what it refuses."""

import math
import warnings

import numpy as np
import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import FunctionCell
from sklyap.datasets import systems
from sklyap.exceptions import ConvergenceWarning, DegenerateSpectrumWarning, DivergedError, PrecisionWarning
from tests.lyapunov.helpers import inputs, network


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


@pytest.mark.parametrize(
    "sequences,error,match",
    [
        (torch.zeros(0, 5, 3), ValueError, "not be empty"),
        (torch.zeros(2, 0, 3), ValueError, "not be empty"),
        ([], ValueError, "not be empty"),
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
