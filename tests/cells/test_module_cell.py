"""Modules with a step of their own: any nest of states, the module left as it is."""

import copy
import math
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import ElmanCell, FunctionCell, GRUCell, LSTMCell, ModuleCell, StackedCell
from sklyap.exceptions import StepError
from sklyap.testing import check_cell

Memory = namedtuple("Memory", ["h", "c"])


def seeded(make, *args):
    torch.manual_seed(0)
    return make(*args)


class Layers(nn.Module):
    """A GRU below an LSTM, as a nest of everything that a nest can be."""

    def __init__(self):
        super().__init__()
        self.below, self.above = nn.GRUCell(3, 4), nn.LSTMCell(4, 5)
        self.dropout = nn.Dropout(0.5)

    def advance(self, state, x):
        below = self.below(x, state["below"][0])
        h, c = self.above(self.dropout(below), tuple(state["above"]))
        return {"above": Memory(h, c), "below": [below], "nothing": None}


def layers_start(n=1):
    return {"below": [torch.zeros(n, 4)], "nothing": None, "above": Memory(torch.zeros(n, 5), torch.zeros(n, 5))}


class Rotation(nn.Module):
    """h' = λ h + B x with complex weights and a real readout that is not part of the state."""

    def __init__(self):
        super().__init__()
        radius, angle = torch.linspace(0.5, 0.95, 4), torch.linspace(0.1, 2.0, 4)
        self.decay = nn.Parameter(torch.polar(radius, angle).to(torch.complex128))
        self.B = nn.Parameter(torch.randn(4, 2, dtype=torch.complex128))

    def advance(self, h, x):
        return self.decay * h + x.to(h.dtype) @ self.B.T


class ConvGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gates, self.new = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)

    def advance(self, h, x):
        image = x.reshape(-1, 1, 4, 4)
        r, z = torch.sigmoid(self.gates(torch.cat([image, h], 1))).chunk(2, 1)
        return (1 - z) * torch.tanh(self.new(torch.cat([image, r * h], 1))) + z * h


class Attending(nn.Module):
    """A decoder that attends to a fixed memory and is fed its own context."""

    def __init__(self):
        super().__init__()
        self.memory = nn.Parameter(torch.randn(7, 6))
        self.cell, self.query = nn.GRUCell(6 + 2, 5), nn.Linear(5, 6)

    def advance(self, state, x):
        h, context = state
        h = self.cell(torch.cat([x, context], -1), h)
        weights = torch.softmax(self.query(h) @ self.memory.T, -1)
        return h, weights @ self.memory


def dense(cell, x):
    """Return the exponents from dense Jacobians by reverse mode, of one run over x (1, T, n_inputs)."""
    cell = as_recurrent_cell(copy.deepcopy(cell)).double()
    s, Q, growth = cell.initial_state(1), np.eye(cell.state_size), 0
    for t in range(x.shape[1]):
        J = torch.autograd.functional.jacobian(lambda s, t=t: cell.step(s, x[:, t]), s)[0, :, 0]
        Q, R = np.linalg.qr(J.numpy() @ Q)
        growth = growth + np.log(np.abs(np.diag(R)))
        s = cell.step(s, x[:, t]).detach()
    return np.sort(growth / x.shape[1])[::-1]


MODULES = {
    "layers": (Layers, layers_start(), 3, 14),
    "complex": (Rotation, torch.zeros(1, 4, dtype=torch.complex64), 2, 8),
    "convolution": (ConvGRU, torch.zeros(1, 2, 4, 4), 16, 32),
    "attention": (Attending, (torch.zeros(1, 5), torch.zeros(1, 6)), 2, 11),
}


def make(name):
    kind, start, n_inputs, state_size = MODULES[name]
    cell = ModuleCell(seeded(kind), kind.advance, start, n_inputs=n_inputs)
    assert cell.state_size == state_size
    return cell


@pytest.mark.parametrize("name", MODULES)
def test_contract(name):
    check_cell(make(name))
    check_cell(make(name), dtype="float32")


@pytest.mark.parametrize("name", MODULES)
def test_leading_exponents_are_those_of_dense_jacobians(name):
    cell = make(name)
    x = torch.randn(1, 150, cell.n_inputs, dtype=torch.float64)
    result = lyapunov_spectrum(cell, x, warmup=0, n_exponents=2)
    # The bases differ, and forget their start.
    np.testing.assert_allclose(result.exponents, dense(cell, x)[:2], atol=0.03)


def test_layers_are_a_stack():
    cell = make("layers")
    below, above = (as_recurrent_cell(layer) for layer in (cell.module.below, cell.module.above))
    assert isinstance(below, GRUCell) and isinstance(above, LSTMCell)
    x = torch.randn(4, 80, 3)
    expected = lyapunov_spectrum(StackedCell([below, above]), x)
    assert lyapunov_spectrum(cell, x).exponents[0] == pytest.approx(expected.exponents[0], abs=0.02)  # other bases
    assert lyapunov_spectrum(cell, x, qr_interval=1).log_abs_det == pytest.approx(expected.log_abs_det, rel=1e-9)


def test_complex_numbers_are_pairs_of_reals():
    moduli = torch.linspace(0.5, 0.95, 4, dtype=torch.float64).log().numpy()
    result = lyapunov_spectrum(make("complex"), torch.randn(2, 400, 2))
    np.testing.assert_allclose(result.exponents, np.repeat(moduli[::-1], 2), atol=1e-6)


def test_complex_weights_move_with_their_imaginary_part():
    module = seeded(Rotation)
    before = module.decay.detach().clone()
    cell = ModuleCell(module, Rotation.advance, torch.zeros(1, 4, dtype=torch.complex64), n_inputs=2)
    cell.to(torch.float32)
    assert module.decay.dtype == torch.complex64
    torch.testing.assert_close(module.decay.to(torch.complex128), before, rtol=1e-6, atol=1e-7)


def test_nothing_of_the_module_changes():
    module = seeded(Layers).train()
    cell = ModuleCell(module, Layers.advance, layers_start(), n_inputs=3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    seed = torch.get_rng_state()
    result = lyapunov_spectrum(cell, torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), seed)
    assert module.training and module.dropout.training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) and value.dtype == torch.float32
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    with torch.no_grad():
        module.below.weight_hh.mul_(0.1)
    changed = lyapunov_spectrum(cell, torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(0)))
    assert not np.array_equal(changed.exponents, result.exponents)


def test_derivatives_reach_the_weights_of_the_module():
    """d/dw of ln|w| for s' = w s."""
    module = nn.Linear(1, 1, bias=False).double()
    cell = ModuleCell(module, lambda module, s, x: module(s), torch.ones(1, 1))
    assert list(cell.parameters()) == [module.weight]
    growth = cell.push(torch.ones(2, 1, dtype=torch.float64), None, torch.ones(2, 1, 1, dtype=torch.float64))
    growth.abs().log().mean().backward()
    assert module.weight.grad.item() == pytest.approx(1 / module.weight.item())


def test_starts():
    module = seeded(nn.GRUCell, 1, 3)

    def step(module, h, x):
        return module(h.new_zeros(len(h), 1), h)

    rows = torch.randn(4, 3)
    cell = ModuleCell(module, step, rows)
    assert cell.n_starts == 4 and lyapunov_spectrum(cell, 50).per_sequence.shape == (4, 3)
    torch.testing.assert_close(cell.initial_state(4), rows.double())
    by_number = ModuleCell(module, step, lambda n: rows[:1].expand(n, 3))
    torch.testing.assert_close(by_number.initial_state(5), rows[:1].double().expand(5, 3))
    assert by_number.n_starts == 1
    state = ModuleCell(seeded(Layers), Layers.advance, layers_start(), n_inputs=3).state(torch.arange(28.0).view(2, 14))
    assert isinstance(state["above"], Memory) and state["below"][0].shape == (2, 4) and state["nothing"] is None
    assert state["above"].h[0].tolist() == [0, 1, 2, 3, 4]


def test_noise():
    cell = ModuleCell(nn.Identity(), lambda m, s, x, xi: s * xi, torch.ones(1, 1), n_noise=1)
    result = lyapunov_spectrum(cell, 300, warmup=0)
    assert result.exponents[0] == pytest.approx(float(cell.with_noise(300).abs().log().mean()), abs=1e-12)


def test_stock_layers_inside():
    """A whole nn.LSTM taken one step at a time, its layers after the sequences."""

    def step(lstm, state, x):
        _, state = lstm(x.unsqueeze(1), tuple(part.transpose(0, 1).contiguous() for part in state))
        return tuple(part.transpose(0, 1) for part in state)

    lstm = seeded(lambda: nn.LSTM(2, 3, num_layers=2, batch_first=True))
    cell = ModuleCell(lstm, step, (torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)), n_inputs=2)
    x = torch.randn(3, 40, 2)
    for dtype, tolerance in (("float64", 1e-9), ("float32", 1e-3)):
        expected = lyapunov_spectrum(lstm, x, dtype=dtype, qr_interval=1)
        assert lyapunov_spectrum(cell, x, dtype=dtype, qr_interval=1).log_abs_det == pytest.approx(
            expected.log_abs_det, abs=tolerance * abs(expected.log_abs_det)
        )


LIVE = nn.GRUCell(2, 3)


def float32_inside(module, h, x):
    return module(x, h) * torch.ones(len(h), 3, dtype=torch.float32)


REFUSED = {
    "a nest of another kind": (lambda m, h, x: (m(x, h), h), r"with state\. Got state\[0\], state\[1\]"),
    "another shape": (lambda m, h, x: m(x, h).unsqueeze(0), r"real numbers of shape \(2, 3\) at state.*Got .*1, 2, 3"),
    "complex": (lambda m, h, x: m(x, h).to(torch.complex128), "must have real numbers"),
    "float32": (lambda m, h, x: m(x, h).float(), "must be in torch.float64.*like the state"),
    "nothing": (lambda m, h, x: None, "Got nothing"),
    "the live module": (lambda m, h, x: LIVE(x, h), "runs in float32 only. Use the module that the step is handed"),
    "arguments": (lambda m, h: h, "called with the module, the state, the input"),
    "detached": (lambda m, h, x: m(x, h).detach() + 0.1 * h, "finite differences"),
    "mixed": (lambda m, h, x: m(x, h) + h.mean(0), "each row"),
    "random": (lambda m, h, x: nn.functional.dropout(m(x, h)), "random numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_steps(name):
    step, message = REFUSED[name]
    cell = ModuleCell(nn.GRUCell(2, 3), step, torch.zeros(1, 3), n_inputs=2)
    with pytest.raises(StepError, match="(?s)'step' parameter of ModuleCell.*" + message):
        lyapunov_spectrum(cell, torch.randn(2, 20, 2))


@pytest.mark.parametrize(
    ("make_cell", "error", "message"),
    [
        (lambda: ModuleCell(len, len, torch.zeros(1, 2)), TypeError, "'module' parameter of ModuleCell"),
        (lambda: ModuleCell(nn.Identity(), 3, torch.zeros(1, 2)), TypeError, "'step' parameter .* callable"),
        (lambda: ModuleCell(nn.Identity(), len, [1.0]), TypeError, r"nest of tensors. Got float at state\[0\]"),
        (
            lambda: ModuleCell(nn.Identity(), len, {"h": torch.zeros(1, 2), "t": torch.zeros(1, dtype=torch.int64)}),
            TypeError,
            r"torch.int64 at state\['t'\]: integers have no exponents",
        ),
        (lambda: ModuleCell(nn.Identity(), len, ()), ValueError, "one row for each sequence"),
        (
            lambda: ModuleCell(nn.Identity(), len, (torch.zeros(2, 1, 3), torch.zeros(1, 3))),
            ValueError,
            r"one first axis, .*state\[0\] \(2, 1, 3\), state\[1\] \(1, 3\)",
        ),
        (lambda: ModuleCell(nn.Identity(), len, torch.full((1, 2), math.nan)), ValueError, "must be finite"),
    ],
)
def test_bad_arguments(make_cell, error, message):
    with pytest.raises(error, match=message):
        make_cell()


def test_scripted_modules_are_refused():
    scripted = nn.Sequential(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)))
    with pytest.raises(TypeError, match=r"'module' parameter of ModuleCell .* scripted or traced"):
        ModuleCell(scripted, lambda m, s, x: m(s), torch.zeros(1, 2))
    with pytest.raises(TypeError, match=r"'step' parameter of FunctionCell .* scripted or traced"):
        FunctionCell(scripted, 2)


def test_on_top_of_another_layer():
    stack = StackedCell([ElmanCell(2, 3), make("layers")])
    check_cell(stack)
    assert lyapunov_spectrum(stack, torch.randn(3, 30, 2)).exponents.shape == (17,)
