"""Cells: the contract, the published equations, and spectra that are known."""

import math
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import (
    CELLS,
    AntisymmetricCell,
    CoRNNCell,
    ElmanCell,
    FunctionCell,
    GRUCell,
    LEMCell,
    LipschitzCell,
    LSTMCell,
    OrthogonalCell,
    RecurrentCell,
    StackedCell,
)
from sklyap.cells.base import DenseLinearization, JvpLinearization
from sklyap.cells.gated import sech2, sigmoid_slope
from sklyap.testing import check_cell

# Every architecture with every option that changes its equations.
VARIANTS = [
    (ElmanCell, {}),
    (ElmanCell, {"nonlinearity": "relu"}),
    (ElmanCell, {"bias": False}),
    (GRUCell, {}),
    (GRUCell, {"bias": False}),
    (LSTMCell, {}),
    (LSTMCell, {"bias": False}),
    (AntisymmetricCell, {}),
    (AntisymmetricCell, {"gating": False, "epsilon": 0.5, "gamma": 0.2}),
    (AntisymmetricCell, {"bias": False}),
    (CoRNNCell, {}),
    (CoRNNCell, {"damping": "implicit", "dt": 0.3}),
    (CoRNNCell, {"bias": False}),
    (LipschitzCell, {}),
    (LipschitzCell, {"beta": (0.6, 0.9), "gamma": (0.1, 0.3), "epsilon": 0.2, "bias": False}),
    (LEMCell, {}),
    (LEMCell, {"dt": 0.4, "bias": False}),
    (OrthogonalCell, {}),
    (OrthogonalCell, {"nonlinearity": "relu"}),
    (OrthogonalCell, {"nonlinearity": "modrelu"}),
    (OrthogonalCell, {"nonlinearity": "identity", "bias": False}),
]
variants = pytest.mark.parametrize(
    ("kind", "options"), VARIANTS, ids=lambda v: v.__name__ if isinstance(v, type) else ",".join(map(str, v.values()))
)


def make(kind, n_inputs, hidden_size, options=None, seed=0):
    """Return a cell in float64 whose parameters, biases included, are all away from zero."""
    torch.manual_seed(seed)
    cell = kind(n_inputs, hidden_size, **(options or {})).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return cell


def reverse_mode(cell, s, x):
    """Return ∂f/∂s at one point (N,), (n_inputs,) by reverse mode."""
    return torch.autograd.functional.jacobian(lambda s: cell.step(s, x), s)


# The contract


@variants
def test_contract(kind, options):
    check_cell(make(kind, 3, 5, options))
    check_cell(make(kind, 3, 5, options), dtype="float32")


@variants
def test_contract_of_two_layers(kind, options):
    below, above = make(kind, 2, 4, options), make(kind, 4, 3, options, seed=1)
    check_cell(StackedCell([below, above]))
    check_cell(StackedCell([below, above]), dtype="float32")


@pytest.mark.parametrize(
    "kinds",
    [
        (LSTMCell, GRUCell, CoRNNCell),
        (LEMCell, AntisymmetricCell, LSTMCell),
        (CoRNNCell, OrthogonalCell, LipschitzCell),
    ],
)
def test_contract_of_mixed_layers(kinds):
    check_cell(StackedCell([make(kind, width, width + 1) for width, kind in enumerate(kinds, 2)]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    variant=st.sampled_from(VARIANTS),
    n_inputs=st.integers(1, 6),
    hidden_size=st.integers(1, 9),
    n_steps=st.integers(2, 5),
    n_sequences=st.integers(1, 4),
)
def test_contract_for_random_shapes(variant, n_inputs, hidden_size, n_steps, n_sequences):
    kind, options = variant
    check_cell(make(kind, n_inputs, hidden_size, options), n_sequences=n_sequences, n_steps=n_steps)


def test_contract_at_saturated_gates():
    for kind in CELLS.values():
        cell = make(kind, 3, 5)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.mul_(10)
        check_cell(cell)


def test_nested_stacks_are_one_stack():
    inner = StackedCell([ElmanCell(2, 3), GRUCell(3, 4)])
    assert len(StackedCell([inner, LSTMCell(4, 5)]).cells) == 3
    with pytest.raises(ValueError, match="a cell with 3 outputs is followed by one with 4 inputs"):
        StackedCell([ElmanCell(2, 3), GRUCell(4, 4)])


# Whole sequences


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
    readout = nn.Linear(16, 1)
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


# The published equations, written out a second time


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def both_steps(cell, seed=1):
    """Return numpy arrays s, x, the next state by the cell, and its parameters by name."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(cell.state_size, generator=generator, dtype=torch.float64)
    x = torch.randn(cell.n_inputs, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        after = cell.step(s, x).numpy()
    return s.numpy(), x.numpy(), after, {name: p.detach().numpy() for name, p in cell.named_parameters()}


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


# Derivatives where the naive formula cancels


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


# Known spectra


def with_parameters(cell, value=0.0):
    cell = cell.double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(value)
    return cell


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


# state="hidden"


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


# Users' own steps


def henon(s, x):
    return torch.stack([1 - 1.4 * s[:, 0] ** 2 + s[:, 1], 0.3 * s[:, 0]], -1)


class Pull(nn.Module):
    """A step with weights: s' = tanh(W s + x)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, s, x):
        return torch.tanh(self.linear(s) + x.sum(-1, keepdim=True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "cell",
    [
        FunctionCell(henon, 2),
        FunctionCell(henon, 2, initial_state=[0.1, 0.2]),
        FunctionCell(henon, 2, initial_state=lambda n: torch.linspace(0, 0.2, n).unsqueeze(-1)),
        FunctionCell(lambda s, x: torch.sin(s) + x.mean(-1, keepdim=True), 4, n_inputs=2),
        FunctionCell(Pull(), 3, n_inputs=2, output_size=2),
    ],
    ids=["autonomous", "one start", "starts by a function", "driven", "a module"],
)
def test_contract_of_functions(cell, dtype):
    check_cell(cell, dtype=dtype)


def test_function_with_rows_of_initial_states():
    starts = [[0.1, 0.2], [0.3, -0.1], [0.0, 0.0], [0.2, 0.2]]
    cell = FunctionCell(henon, 2, initial_state=starts)
    check_cell(cell)
    np.testing.assert_array_equal(cell.initial_state(4), starts)
    assert lyapunov_spectrum(cell, 3000).per_sequence.shape == (4, 2)
    with pytest.raises(ValueError, match="has 4 rows, but there are 2 sequences"):
        cell.initial_state(2)


def test_function_takes_many_tangents_as_one_matrix():
    cell = FunctionCell(lambda s, x: torch.tanh(s), 80)
    linearization = cell.linearize(torch.randn(2, 80), None)
    assert isinstance(linearization, JvpLinearization)
    assert isinstance(linearization.fold(2), JvpLinearization)
    assert isinstance(linearization.fold(80), DenseLinearization)


@pytest.mark.parametrize(
    ("make_cell", "error", "message"),
    [
        (lambda: FunctionCell("henon", 2), TypeError, "'step' parameter of FunctionCell must be callable"),
        (lambda: FunctionCell(henon, 0), ValueError, "'state_size' parameter of FunctionCell"),
        (lambda: FunctionCell(henon, 2, n_inputs=0), ValueError, "'n_inputs' parameter of FunctionCell"),
        (lambda: FunctionCell(henon, 2, output_size=3), ValueError, "'output_size' parameter of FunctionCell"),
        (lambda: FunctionCell(henon, 2, initial_state=[1.0]), ValueError, r"must have shape \(2,\) or \(n, 2\)"),
        (
            lambda: FunctionCell(lambda s, x: s[:, 0], 2).step(torch.zeros(3, 2), None),
            ValueError,
            r"must return the next state, a tensor of shape \(3, 2\) as `s` has. Got shape \(3,\)",
        ),
        (
            lambda: FunctionCell(lambda s, x: (s, s), 2).step(torch.zeros(3, 2), None),
            ValueError,
            "Got tuple instead",
        ),
    ],
)
def test_wrong_functions(make_cell, error, message):
    with pytest.raises(error, match=message):
        make_cell()


# check_cell finds what is broken


class Plain(RecurrentCell):
    """A correct cell with state (h, m), output h; the broken ones below change one thing."""

    def __init__(self):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = 2, 6, 3
        torch.manual_seed(0)
        self.U = nn.Parameter(torch.randn(6, 6) / 2)
        self.W = nn.Parameter(torch.randn(6, 2) / 2)

    def step(self, s, x):
        return torch.tanh(s @ self.U.T + x @ self.W.T)

    def linearize(self, s, x):
        slope = sech2(s @ self.U.T + x @ self.W.T).unsqueeze(-1)
        return DenseLinearization(slope * self.U, slope * self.W)


class Transposed(Plain):
    def linearize(self, s, x):
        return DenseLinearization(super().linearize(s, x).dense().mT, super().linearize(s, x).input_jacobian)


class WrongInput(Plain):
    def linearize(self, s, x):
        right = super().linearize(s, x)
        return DenseLinearization(right.jacobian, 1.001 * right.input_jacobian)


class WrongFold(Plain):
    class Linearized(DenseLinearization):
        def fold(self, k, *, inputs=True):
            return DenseLinearization(self.jacobian.tril(), self.input_jacobian)

    def linearize(self, s, x):
        right = super().linearize(s, x)
        return self.Linearized(right.jacobian, right.input_jacobian)


class WrongHidden(Plain):
    def hidden_linearization(self, s, x):
        right = super().linearize(s, x)
        return DenseLinearization(right.jacobian[..., 3:, 3:], right.input_jacobian[..., 3:, :])


class ChangesItsArgument(Plain):
    def step(self, s, x):
        return s.add_(x.sum(-1, keepdim=True)).tanh()


class Noisy(Plain):
    def step(self, s, x):
        return super().step(s, x) + 1e-3 * torch.randn_like(s)


class OneAxisOnly(Plain):
    def step(self, s, x):
        return torch.tanh(torch.einsum("nj,ij->ni", s, self.U) + x @ self.W.T)


class MixesSequences(Plain):
    def step(self, s, x):
        return super().step(s - s.mean(0), x)


class ForgetsItsDtype(Plain):
    def initial_state(self, n):
        return torch.zeros(n, 6, dtype=torch.float32)


class TrailingOutput(Plain):
    def output(self, s):
        return s[..., 3:]


class Detached(Plain):
    def step(self, s, x):
        return super().step(s, x).detach()


class Explodes(Plain):
    def step(self, s, x):
        return super().step(s, x) / 0.0


class WrongShape(Plain):
    def step(self, s, x):
        return super().step(s, x)[..., :3]


class WrongTrajectory(Plain):
    def trajectory(self, s, x):
        return super().trajectory(s, x) + 1e-6


class Locked(Plain):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class OutputTooWide(Plain):
    def __init__(self):
        super().__init__()
        self.output_size = 7


class Untrainable(Plain):
    def step(self, s, x):
        return torch.tanh(s @ self.U.detach().T + x @ self.W.detach().T)


BROKEN = {
    Transposed: "push, against reverse mode",
    WrongInput: r"linearize.push with tangents of the input is off by",
    WrongFold: r"linearize.fold\(1\).push along a trajectory is off",
    WrongHidden: "hidden_linearization.push along a trajectory is off",
    ChangesItsArgument: "step must not change its arguments",
    Noisy: "step must return the same at every call",
    OneAxisOnly: "step must work on a trajectory, with leading axes",
    MixesSequences: "step on a trajectory, with leading axes .* is off",
    ForgetsItsDtype: r"initial_state must follow cell.to\(dtype\)",
    TrailingOutput: "the Jacobian of a StackedCell with a layer on top is off",
    Detached: "step must be differentiable",
    Explodes: "step must return finite states, but not at step 0",
    WrongShape: r"step must return shape \(3, 6\)",
    WrongTrajectory: "trajectory is off by",
    Locked: "copy.deepcopy must copy the cell, but it raises",
    OutputTooWide: "output_size must not exceed state_size",
    Untrainable: "the outputs must depend on the parameters",
}


def test_a_correct_cell_passes():
    check_cell(Plain())


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_check_cell_finds(kind):
    with pytest.raises(AssertionError, match=BROKEN[kind]):
        check_cell(kind())


def test_check_cell_leaves_the_cell_and_chance_alone():
    cell = Plain().train()
    before, state = {name: p.clone() for name, p in cell.named_parameters()}, torch.get_rng_state()
    check_cell(cell)
    assert cell.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in cell.named_parameters())


# The registry, the documentation


@pytest.mark.parametrize("name", CELLS)
def test_every_registered_cell_keeps_the_contract_as_initialized(name):
    torch.manual_seed(0)
    cell = CELLS[name](3, 4)
    check_cell(cell)
    check_cell(StackedCell([cell, CELLS[name](cell.output_size, 4)]))


def test_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs" / "cells.md").read_text()
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "docs/cells.md", "exec"), names)
    assert names["result"].exponents == pytest.approx([0.51, -0.72], abs=0.05)
    slow, fast = names["LeakyCell"](2, 4).double(), names["FastLeakyCell"](2, 4).double()
    fast.load_state_dict(
        {"weight_ih": slow.weight_ih.weight, "weight_hh": slow.weight_hh.weight, "bias_ih": slow.weight_ih.bias}
    )
    x = torch.randn(2, 30, 2, dtype=torch.float64)
    expected = lyapunov_spectrum(slow, x).exponents
    np.testing.assert_allclose(lyapunov_spectrum(fast, x).exponents, expected, rtol=0, atol=1e-12)
    assert names["spectrum"].exponents.shape == (8,)
    for name, kind in CELLS.items():
        assert f'`"{name}"`' in text and f"`{kind.__name__}`" in text
