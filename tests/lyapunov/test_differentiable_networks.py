"""Differentiable exponents of networks of all kinds: where gradients arrive, transforms, memory, errors."""

import gc
import math

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import RNNClassifier, finite_time_exponents
from sklyap.cells import (
    CELLS,
    ElmanCell,
    FunctionCell,
    GRUCell,
    LSTMCell,
    ModuleCell,
    RecurrentCell,
    as_recurrent_cell,
)
from sklyap.exceptions import DivergedError
from tests.lyapunov.differentiable import check_directional_derivatives, make, sequences, weighted

pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")  # short runs settle no sign


class Network(nn.Module):
    """An embedding, normalisation, a learnt initial state and dropout around a torch layer."""

    def __init__(self, kind, layers=1):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.rnn = kind(4, 5, layers, batch_first=True, dropout=0.5 if layers > 1 else 0.0)
        self.start = nn.Parameter(0.3 * torch.randn(layers, 1, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, tokens):
        start = self.start.expand(-1, len(tokens), -1).contiguous()
        state = (start, 0.5 * start) if isinstance(self.rnn, nn.LSTM) else start
        return self.head(self.rnn(self.norm(self.embedding(tokens)), state)[0])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layers", [1, 2])
def test_gradient_of_everything_before_the_recurrent_layer(kind, layers):
    torch.manual_seed(0)
    network = Network(kind, layers).double()
    tokens = torch.randint(7, (3, 12))
    parameters = [p for name, p in network.named_parameters() if not name.startswith("head")]
    # The step size is smaller, as the smallest exponents of these networks bend.
    check_directional_derivatives(
        lambda: weighted(finite_time_exponents(network, tokens, n_exponents=4)), parameters, h=3e-6
    )
    assert network.training and network.head.weight.grad is None


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_gradient_of_a_loop_of_single_steps(kind):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.cell = nn.Linear(2, 3), kind(3, 4)

        def forward(self, x):
            state = None
            for x_t in self.encoder(x).unbind(1):
                state = self.cell(x_t, state)
            return state

    torch.manual_seed(0)
    network, x = Loop().double(), sequences()
    check_directional_derivatives(
        lambda: weighted(finite_time_exponents(network, x, n_exponents=3)), list(network.parameters())
    )


def test_float32_networks_are_read_in_float64_and_gradients_come_back_in_float32():
    torch.manual_seed(0)
    network, x = nn.GRU(2, 4, batch_first=True), sequences()
    double = nn.GRU(2, 4, batch_first=True).double()
    double.load_state_dict(network.state_dict())
    for module in (network, double):
        weighted(finite_time_exponents(module, x)).backward()
    for a, b in zip(network.parameters(), double.parameters(), strict=True):
        assert a.grad.dtype == torch.float32
        torch.testing.assert_close(a.grad, b.grad.float())


def test_estimators_and_skorch_nets():
    X = sequences(20, 6).numpy()
    estimator = RNNClassifier("gru", 4, max_epochs=1, random_state=0).fit(X, np.arange(20) % 2)
    for network in (estimator, estimator.net_):
        estimator.net_.module_.zero_grad()
        finite_time_exponents(network, X).sum().backward()
        gradients = {name: p.grad for name, p in estimator.net_.module_.named_parameters()}
        assert gradients["recurrent.weight_hh_l0"].abs().min() > 0
        assert gradients["readout.weight"] is None


def test_step_functions_and_what_they_refer_to():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3).double()
    scale = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    start = torch.randn(3, dtype=torch.float64, requires_grad=True)

    class Owner:
        def step(self, s, x):
            return torch.tanh(scale * layer(s)) + 0.1 * s

    for step in (Owner().step, lambda s, x: torch.tanh(scale * layer(s)) + 0.1 * s):
        cell = FunctionCell(step, 3, initial_state=lambda n: start.expand(n, 3))
        check_directional_derivatives(
            lambda cell=cell: weighted(finite_time_exponents(cell, 25)), [scale, start, *layer.parameters()]
        )


def test_a_step_that_is_a_module():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, s, x):
            return torch.tanh(self.linear(s) + x)

    torch.manual_seed(0)
    step = Step().double()
    cell = FunctionCell(step, 3, n_inputs=3)
    check_directional_derivatives(
        lambda: weighted(finite_time_exponents(cell, sequences(n_inputs=3))), list(step.parameters())
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_with_a_step_of_its_own(dtype):
    torch.manual_seed(0)
    module = nn.GRUCell(2, 3).to(dtype)
    cell = ModuleCell(module, lambda m, s, x: m(x, s), initial_state=torch.zeros(1, 3, dtype=dtype), n_inputs=2)
    if dtype == torch.float64:
        check_directional_derivatives(
            lambda: weighted(finite_time_exponents(cell, sequences())), list(module.parameters())
        )
    finite_time_exponents(cell, sequences()).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == dtype for p in module.parameters())


class Rotor(RecurrentCell):
    """A user's cell with a parameter of its own, a learnt start, and no closed form."""

    def __init__(self, n_inputs, hidden_size):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = n_inputs, hidden_size, hidden_size
        self.kernel = nn.Parameter(torch.randn(hidden_size, hidden_size) / hidden_size**0.5)
        self.start = nn.Parameter(torch.randn(hidden_size))
        self.register_buffer("mask", torch.ones(hidden_size))

    def initial_state(self, n):
        return self.start.expand(n, -1)

    def step(self, s, x):
        return torch.tanh(s @ (self.kernel * self.mask).mT + x.sum(-1, keepdim=True))


def test_a_cell_of_ones_own():
    torch.manual_seed(0)
    cell, x = Rotor(2, 4).double(), sequences()
    check_directional_derivatives(lambda: weighted(finite_time_exponents(cell, x)), list(cell.parameters()))


def test_weights_that_are_computed_from_others():
    torch.manual_seed(0)
    x = sequences()
    layer = nn.utils.parametrizations.weight_norm(nn.GRU(2, 4, batch_first=True).double(), "weight_hh_l0")
    check_directional_derivatives(lambda: weighted(finite_time_exponents(layer, x)), list(layer.parameters()))
    with pytest.warns(FutureWarning):
        old = nn.utils.weight_norm(nn.RNN(2, 4, batch_first=True).double(), "weight_hh_l0")
    check_directional_derivatives(lambda: weighted(finite_time_exponents(old, x)), list(old.parameters()))


def test_gradient_of_the_inputs():
    cell, x = make(LSTMCell, 2, 3), sequences().requires_grad_()
    check_directional_derivatives(lambda: weighted(finite_time_exponents(cell, x, n_exponents=4)), [x])


def test_the_network_is_left_as_it_was():
    torch.manual_seed(0)
    network = Network(nn.GRU, 2)
    network.batch = nn.BatchNorm1d(3)
    network.embedding.weight.requires_grad_(False)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    state = torch.get_rng_state()
    finite_time_exponents(network, torch.randint(7, (3, 12), generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training and not network.embedding.weight.requires_grad
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters()) and not network.rnn._forward_hooks


# Transforms, memory, errors


def test_vmap_and_grad_of_torch_func():
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]

    def exponents(g):
        return finite_time_exponents(FunctionCell(lambda s, x: g * s @ rotation.mT, 3, initial_state=torch.ones(3)), 20)

    g = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
    mapped = torch.func.vmap(exponents)(g)
    torch.testing.assert_close(mapped, g.log().reshape(3, 1, 1).expand(3, 1, 3), rtol=0, atol=1e-13)
    derivatives = torch.func.vmap(torch.func.jacrev(exponents))(g)
    torch.testing.assert_close(derivatives, (1 / g).reshape(3, 1, 1).expand(3, 1, 3))
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.func.grad(torch.func.grad(lambda g: exponents(g).sum()))(g[0])


@pytest.mark.parametrize("kind", [ElmanCell, GRUCell, LSTMCell])
def test_vmap_over_the_weights_of_many_networks(kind):
    cells, x = [make(kind, 2, 3, seed=seed) for seed in range(3)], sequences()

    class Exponents(nn.Module):
        def __init__(self, cell):
            super().__init__()
            self.cell = cell

        def forward(self, x):
            return finite_time_exponents(self.cell, x)

    modules = [Exponents(cell) for cell in cells]
    weights, _ = torch.func.stack_module_state(modules)

    def value(weights):
        return weighted(torch.func.functional_call(modules[0], weights, (x,)))

    gradients, values = torch.func.vmap(torch.func.grad_and_value(value))(weights)
    for i, cell in enumerate(cells):
        expected = weighted(finite_time_exponents(cell, x))
        assert values[i].item() == pytest.approx(expected.item(), rel=1e-11)
        one = torch.autograd.grad(expected, list(cell.parameters()))
        for (name, _), gradient in zip(cell.named_parameters(), one, strict=True):
            torch.testing.assert_close(gradients[f"cell.{name}"][i], gradient, rtol=1e-8, atol=1e-10)


def saved_bytes(n_steps):
    """Return the bytes that the graph keeps between the forward and the backward pass, inputs aside."""
    cell, x = make(ElmanCell, 1, 24), sequences(1, n_steps, 1)
    gc.collect()
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = finite_time_exponents(cell, x).sum()
    value.backward()
    return sum(kept.values())


def test_memory_grows_as_the_square_root_of_the_steps():
    short, long = saved_bytes(300), saved_bytes(3000)
    assert long < 10**0.5 * short


def test_errors():
    cell, x = make(ElmanCell, 2, 4), sequences()
    with pytest.raises(ValueError, match=r"'n_exponents' parameter must be an int in the range \[1, 4\]. Got 5"):
        finite_time_exponents(cell, x, n_exponents=5)
    with pytest.raises(ValueError, match="must have 2 inputs per step"):
        finite_time_exponents(cell, sequences(n_inputs=3))
    with pytest.raises(ValueError, match="'state' parameter must be one of"):
        finite_time_exponents(cell, x, state="half")
    with pytest.raises(ValueError, match=r"'warmup' parameter must be an int in the range \[0, 13\]"):
        finite_time_exponents(cell, x, warmup=14)
    with pytest.raises(ValueError, match="must hold a recurrent layer"):
        finite_time_exponents(nn.Linear(2, 2), x)
    with pytest.raises(TypeError, match="number of steps"):
        finite_time_exponents(FunctionCell(lambda s, x: s, 2), x)
    with torch.no_grad():
        cell.weight_hh[0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinite values in weight_hh"):
        finite_time_exponents(cell, x)
    with pytest.raises(DivergedError, match="sequence 0 is not finite at step"):
        finite_time_exponents(FunctionCell(lambda s, x: 10 * s**3, 2, initial_state=[1.0, 1.0]), 50)


def test_a_cell_with_an_encoder_of_its_own():
    network, x = make(GRUCell, 2, 4), sequences()
    wrapped = nn.Sequential(nn.Linear(2, 2).double(), network)
    cell = as_recurrent_cell(wrapped).requires_grad_(True)
    finite_time_exponents(cell, x).sum().backward()
    assert cell.weight_hh.grad.abs().sum() > 0 and network.weight_hh.grad is None


def test_every_architecture_by_name():
    for name, kind in CELLS.items():
        exponents = finite_time_exponents(make(kind, 2, 3), sequences(2, 70))
        exponents.sum().backward()
        assert exponents.shape[0] == 2, name
