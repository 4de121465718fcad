"""Cells: whole sequences, the published equations, and slopes where the naive formula cancels."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import (
    CELLS,
    AntisymmetricCell,
    CoRNNCell,
    ElmanCell,
    GRUCell,
    LEMCell,
    LipschitzCell,
    LSTMCell,
    OrthogonalCell,
    StackedCell,
)
from sklyap.cells.gated import sech2, sigmoid_slope
from tests.cells.helpers import both_steps, make, sigmoid


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "cell", "options"),
    [
        (nn.RNN, ElmanCell, {"nonlinearity": "tanh"}),
        (nn.RNN, ElmanCell, {"nonlinearity": "relu"}),
        (nn.GRU, GRUCell, {}),
        (nn.LSTM, LSTMCell, {}),
    ],
)
def test_single_steps_are_the_whole_sequence_forward_of_torch(layer, cell, options, bias, num_layers):
    torch.manual_seed(0)
    reference = layer(3, 6, num_layers, batch_first=True, bias=bias, **options).double()
    cells = [cell(3 if i == 0 else 6, 6, bias=bias, **options).double() for i in range(num_layers)]
    for i, own in enumerate(cells):
        own.load_state_dict({name: getattr(reference, f"{name}_l{i}") for name, _ in own.named_parameters()})
    stack = StackedCell(cells)
    x = torch.randn(4, 25, 3, dtype=torch.float64)
    with torch.no_grad():
        expected, _ = reference(x)
        s = stack.initial_state(4)
        for t in range(25):
            s = stack.step(s, x[:, t])
            torch.testing.assert_close(stack.output(s), expected[:, t], rtol=0, atol=1e-12)
        torch.testing.assert_close(stack(x)[0], expected, rtol=0, atol=1e-12)


def test_dropout_acts_between_layers_in_training_only():
    torch.manual_seed(0)
    stack = StackedCell([GRUCell(2, 50), GRUCell(50, 4)], dropout=0.5)
    x = torch.randn(3, 6, 2)
    assert not torch.equal(stack(x)[0], stack(x)[0])
    stack.eval()
    assert torch.equal(stack(x)[0], stack(x)[0])
    only = StackedCell([GRUCell(2, 4)], dropout=0.5)
    assert torch.equal(only(x)[0], only(x)[0])


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_learns_by_plain_backprop(name):
    torch.manual_seed(0)
    # On sequences as short as these, oscillators need longer steps than on the pixels of their default.
    cell = CELLS[name](2, 16, **({"dt": 0.3} if name == "cornn" else {}))
    readout = nn.Linear(cell.output_size, 1)
    x = torch.randn(64, 8, 2)
    y = x[:, :, 0].sum(1, keepdim=True)
    optimizer = torch.optim.Adam([*cell.parameters(), *readout.parameters()], lr=0.02)
    losses = []
    for _ in range(150):
        loss = nn.functional.mse_loss(readout(cell(x)[0][:, -1]), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("gating", [True, False])
def test_antisymmetric_equations(gating):
    h, x, after, p = both_steps(make(AntisymmetricCell, 3, 4, {"gating": gating, "epsilon": 0.2, "gamma": 0.3}))
    A = p["weight_hh"] - p["weight_hh"].T - 0.3 * np.eye(4)
    change = np.tanh(A @ h + p["weight_ih"][:4] @ x + p["bias_ih"][:4])
    if gating:
        change *= sigmoid(A @ h + p["weight_ih"][4:] @ x + p["bias_ih"][4:])
    np.testing.assert_allclose(after, h + 0.2 * change, rtol=0, atol=1e-14)


@pytest.mark.parametrize("damping", ["explicit", "implicit"])
def test_cornn_equations(damping):
    dt, gamma, epsilon = 0.1, 2.0, 3.0
    options = {"dt": dt, "gamma": gamma, "epsilon": epsilon, "damping": damping}
    s, x, after, p = both_steps(make(CoRNNCell, 3, 4, options))
    y, z = s[:4], s[4:]
    force = np.tanh(p["weight_hh"][:, :4] @ y + p["weight_hh"][:, 4:] @ z + p["weight_ih"] @ x + p["bias_ih"])
    if damping == "explicit":
        z_next = z + dt * (force - gamma * y - epsilon * z)
    else:  # z' = z + dt (force - gamma y - epsilon z')
        z_next = (z + dt * (force - gamma * y)) / (1 + dt * epsilon)
    np.testing.assert_allclose(after, np.concatenate([y + dt * z_next, z_next]), rtol=0, atol=1e-14)


def test_lipschitz_equations():
    options = {"epsilon": 0.1, "beta": (0.6, 0.8), "gamma": (0.2, 0.4)}
    h, x, after, p = both_steps(make(LipschitzCell, 3, 4, options))

    def form(M, beta, gamma):
        return (1 - beta) * (M + M.T) + beta * (M - M.T) - gamma * np.eye(4)

    A, W = form(p["weight_hh"][:4], 0.6, 0.2), form(p["weight_hh"][4:], 0.8, 0.4)
    expected = h + 0.1 * (A @ h + np.tanh(W @ h + p["weight_ih"] @ x + p["bias_ih"]))
    np.testing.assert_allclose(after, expected, rtol=0, atol=1e-14)


def test_lem_equations():
    s, x, after, p = both_steps(make(LEMCell, 3, 4, {"dt": 0.7}))
    y, z = s[:4], s[4:]
    by_x = (p["weight_ih"] @ x + p["bias_ih"]).reshape(4, 4)
    by_y = (p["weight_hh"] @ y).reshape(3, 4)
    tau, theta = 0.7 * sigmoid(by_x[0] + by_y[0]), 0.7 * sigmoid(by_x[1] + by_y[1])
    z_next = (1 - tau) * z + tau * np.tanh(by_x[2] + by_y[2])
    y_next = (1 - theta) * y + theta * np.tanh(p["weight_hh_z"] @ z_next + by_x[3])
    np.testing.assert_allclose(after, np.concatenate([y_next, z_next]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "modrelu", "identity"])
def test_orthogonal_equations(nonlinearity):
    h, x, after, p = both_steps(make(OrthogonalCell, 3, 4, {"nonlinearity": nonlinearity}))
    U = expm(p["weight_hh"] - p["weight_hh"].T)
    np.testing.assert_allclose(U @ U.T, np.eye(4), rtol=0, atol=1e-13)
    a, b = U @ h + p["weight_ih"] @ x, p["bias_ih"]
    expected = {
        "tanh": np.tanh(a + b),
        "relu": np.maximum(a + b, 0),
        "modrelu": np.sign(a) * np.maximum(np.abs(a) + b, 0),
        "identity": a + b,
    }
    np.testing.assert_allclose(after, expected[nonlinearity], rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ElmanCell, {"nonlinearity": "sigmoid"}, "'nonlinearity' parameter of ElmanCell must be one of"),
        (AntisymmetricCell, {"epsilon": -1.0}, "'epsilon' parameter of AntisymmetricCell must be a finite float"),
        (CoRNNCell, {"damping": "none"}, "'damping' parameter of CoRNNCell must be one of"),
        (CoRNNCell, {"gamma": math.nan}, "'gamma' parameter of CoRNNCell must be a finite float"),
        (LipschitzCell, {"beta": 1.5}, "'beta' parameter of LipschitzCell must be a finite float"),
        (LipschitzCell, {"gamma": (0.1, 0.2, 0.3)}, "'gamma' parameter of LipschitzCell must be a float or two"),
        (LEMCell, {"dt": math.inf}, "'dt' parameter of LEMCell must be a finite float"),
        (OrthogonalCell, {"nonlinearity": "gelu"}, "'nonlinearity' parameter of OrthogonalCell must be one of"),
    ],
)
def test_parameters_out_of_range(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(3, 4, **options)
    with pytest.raises(ValueError, match=f"'hidden_size' parameter of {kind.__name__}"):
        kind(3, 0)


@pytest.mark.parametrize("a", [-300.0, -40.0, -1.0, 0.0, 2.0, 20.0, 40.0, 300.0])
def test_slopes_are_accurate_in_the_tails(a):
    point = torch.tensor(a, dtype=torch.float64)
    expected = 1 / math.cosh(a) ** 2
    assert sech2(point).item() == pytest.approx(expected, rel=1e-14)
    assert sigmoid_slope(point).item() == pytest.approx(0.25 / math.cosh(a / 2) ** 2, rel=1e-14)


def test_saturated_units_keep_their_exponents():
    """tanh(20 ± small) has slope 1.7e-17: ``1 - tanh²`` would make it zero, and the exponent -inf."""
    cell = ElmanCell(1, 3).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.weight_hh.copy_(torch.eye(3) * torch.tensor([1.0, 2.0, 3.0]))
        cell.bias_ih.fill_(20.0)
    result = lyapunov_spectrum(cell, torch.zeros(1, 40, 1), warmup=10)
    slopes = [math.log(w) + math.log(4) - 2 * (20 + w) for w in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(result.exponents, sorted(slopes, reverse=True), rtol=1e-12)
