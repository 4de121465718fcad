"""Cells: spectra that are known, and the hidden state alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import (
    AntisymmetricCell,
    CoRNNCell,
    GRUCell,
    LEMCell,
    LipschitzCell,
    LSTMCell,
    OrthogonalCell,
    StackedCell,
)
from tests.cells.helpers import make, reverse_mode, with_parameters


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")
def test_rotations_have_zero_exponents():
    cell = make(OrthogonalCell, 2, 6, {"nonlinearity": "identity"})
    exponents = lyapunov_spectrum(cell, torch.randn(3, 50, 2)).exponents
    np.testing.assert_allclose(exponents, 0, atol=1e-12)


def test_unconnected_oscillators_have_their_eigenvalues():
    """Without weights a coRNN is H times the same damped oscillator, here with two real rates."""
    dt, gamma, epsilon, H = 0.1, 2.0, 5.0, 3
    cell = with_parameters(CoRNNCell(1, H, dt=dt, gamma=gamma, epsilon=epsilon, bias=False))
    J = np.array([[1 - dt**2 * gamma, dt * (1 - dt * epsilon)], [-dt * gamma, 1 - dt * epsilon]])
    expected = np.repeat(np.sort(np.log(np.abs(np.linalg.eigvals(J))))[::-1], H)
    result = lyapunov_spectrum(cell, torch.zeros(1, 400, 1), warmup=200)
    np.testing.assert_allclose(result.exponents, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("cell", "rate"),
    [
        (AntisymmetricCell(1, 4, gating=False, epsilon=0.5, gamma=0.4), 1 - 0.5 * 0.4),
        (AntisymmetricCell(1, 4, epsilon=0.5, gamma=0.4), 1 - 0.5 * 0.4 / 2),
        (LipschitzCell(1, 4, epsilon=0.5, gamma=(0.4, 0.6)), 1 - 0.5 * (0.4 + 0.6)),
        (LEMCell(1, 4, dt=0.5), 1 - 0.5 / 2),
    ],
    ids=["antisymmetric", "gated antisymmetric", "lipschitz", "lem"],
)
def test_cells_without_weights_decay_at_one_rate(cell, rate):
    result = lyapunov_spectrum(with_parameters(cell), torch.zeros(1, 20, 1))
    np.testing.assert_allclose(result.exponents, math.log(rate), rtol=1e-12)


def test_hidden_lstm_is_the_derivative_with_c_frozen():
    torch.manual_seed(0)
    layer = nn.LSTMCell(3, 5).double()
    cell = make(LSTMCell, 3, 5)
    cell.load_state_dict(layer.state_dict())
    x = torch.randn(1, 30, 3, dtype=torch.float64)
    h = c = torch.zeros(1, 5, dtype=torch.float64)
    log_dets = []
    for t in range(30):
        J = torch.autograd.functional.jacobian(lambda h, c=c, t=t: layer(x[:, t], (h, c))[0][0], h)[:, 0]
        dense = cell.hidden_linearization(torch.cat([h, c], -1), x[:, t]).dense()[0]
        torch.testing.assert_close(dense, J, rtol=0, atol=1e-14)
        log_dets.append(torch.linalg.slogdet(J).logabsdet.item())
        h, c = (s.detach() for s in layer(x[:, t], (h, c)))
    result = lyapunov_spectrum(cell, x, state="hidden", warmup=0)
    assert result.exponents.shape == (5,)
    assert result.exponents.sum() == pytest.approx(np.mean(log_dets), abs=1e-10)


def test_hidden_cornn_is_the_derivative_with_velocities_frozen():
    cell = make(CoRNNCell, 3, 4)
    s, x = torch.randn(8, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    J = torch.autograd.functional.jacobian(lambda y: cell.step(torch.cat([y, s[4:]]), x)[:4], s[:4])
    torch.testing.assert_close(cell.hidden_linearization(s, x).dense(), J, rtol=0, atol=1e-15)


@pytest.mark.parametrize("above", [LSTMCell, LEMCell, GRUCell])
def test_hidden_stack_freezes_what_is_not_hidden_in_every_layer(above):
    stack = StackedCell([make(LSTMCell, 2, 3), make(above, 3, 4)])
    s, x = torch.randn(stack.state_size, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    hidden = [0, 1, 2, 6, 7, 8, 9]  # of (h, c | h, ...)
    J = reverse_mode(stack, s, x)[hidden][:, hidden]
    torch.testing.assert_close(stack.hidden_linearization(s, x).dense(), J, rtol=0, atol=1e-14)


def test_hidden_lstm_gives_the_numbers_of_the_thesis():
    """U(-0.1, 0.1) and 16 units: -0.86 bits on the full state, -4.16 on h alone, with a spread over draws."""
    full, hidden = [], []
    for seed in range(10):
        torch.manual_seed(seed)
        layer = nn.LSTM(28, 16)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        x = torch.randn(2, 150, 28)
        for found, state in ((full, "full"), (hidden, "hidden")):
            result = lyapunov_spectrum(layer, x, n_exponents=1, state=state).to("bits")
            found.append(result.exponents[0])
    assert np.mean(full) == pytest.approx(-0.86, abs=0.03)
    assert np.mean(hidden) == pytest.approx(-4.16, abs=0.1)
