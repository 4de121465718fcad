"""Initial weights: the laws they follow, and the edge of chaos checked by the spectrum engine."""

import math

import pytest
import torch
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import CELLS, RecurrentCell, StackedCell
from sklyap.networks.initialization import INITIALIZERS, critical_, initialize_


def layers():
    torch.manual_seed(0)
    return {
        "rnn": nn.RNN(5, 40, batch_first=True),
        "gru": nn.GRU(5, 40, 2, batch_first=True),
        "lstm": nn.LSTM(5, 40, batch_first=True),
        "lstm cell": CELLS["lstm"](5, 40),
        "stacked": StackedCell([CELLS["gru"](5, 40), CELLS["gru"](40, 40)]),
    }


def recurrent_blocks(layer, size=40):
    weights = [p for name, p in layer.named_parameters() if "weight_hh" in name]
    return [block.detach() for weight in weights for block in weight.split(size)]


@pytest.mark.parametrize("kind", layers())
def test_uniform_fills_its_interval_with_weights_and_biases(kind):
    layer = layers()[kind]
    initialize_(layer, "uniform", 0.3)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 0.3
        assert parameter.abs().max() > 0.2
        assert parameter.std().item() == pytest.approx(0.3 / math.sqrt(3), rel=0.25)
    initialize_(layer, "uniform")
    assert all(parameter.abs().max() <= 40**-0.5 for parameter in layer.parameters())


@pytest.mark.parametrize("kind", layers())
def test_normal_scales_with_the_fan_in(kind):
    layer = layers()[kind]
    initialize_(layer, "normal", 2.0)
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            assert not parameter.any()
        else:
            assert parameter.std().item() == pytest.approx(2.0 * parameter.shape[1] ** -0.5, rel=0.2)


@pytest.mark.parametrize("kind", layers())
@pytest.mark.parametrize("scale", [None, 1.7])
def test_orthogonal_gates(kind, scale):
    layer = layers()[kind]
    initialize_(layer, "orthogonal", scale)
    blocks = recurrent_blocks(layer)
    assert blocks
    for block in blocks:
        singular = torch.linalg.svdvals(block)
        torch.testing.assert_close(singular, torch.full_like(singular, scale or 1.0))
    assert not torch.equal(blocks[0], blocks[-1]) or len(blocks) == 1


@pytest.mark.parametrize("kind", layers())
def test_xavier_uses_the_fans_of_one_gate(kind):
    layer = layers()[kind]
    initialize_(layer, "xavier", 0.5)
    for block in recurrent_blocks(layer):
        bound = 0.5 * math.sqrt(6 / 80)
        assert 0.9 * bound < block.abs().max() <= bound


def test_default_changes_nothing():
    layer = nn.LSTM(3, 4)
    before = [p.clone() for p in layer.parameters()]
    initialize_(layer, "default", 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))


@pytest.mark.filterwarnings("ignore:Not converged")  # a sign that can't be told is the point
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "stacked"])
def test_critical_starts_at_the_edge(kind):
    layer = layers()[kind]
    drive = torch.rand(6, 12, 5)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    reported = critical_(layer, drive)
    assert abs(reported) < 2e-3
    # One factor for the recurrent weights, everything else as it was.
    factors = []
    for name, parameter in layer.named_parameters():
        if "weight_hh" in name:
            factor = (parameter.detach() / before[name]).median()
            torch.testing.assert_close(parameter.detach(), before[name] * factor)
            factors.append(factor.item())
        else:
            assert torch.equal(parameter, before[name])
    assert max(factors) == pytest.approx(min(factors))
    assert abs(factors[0] - 1) > 0.1
    result = lyapunov_spectrum(layer, drive.repeat(1, 60, 1), n_exponents=1, random_state=1)
    # The engine runs on for 720 steps; the search saw 100: what it misses is its own sampling error.
    assert abs(result.exponents[0]) < 0.03


def test_critical_from_above():
    layer = nn.RNN(2, 50, batch_first=True)
    initialize_(layer, "normal", 4.0)
    assert float(lyapunov_spectrum(layer, torch.zeros(2, 100, 2) + 0.1, n_exponents=1).exponents[0]) > 0.2
    assert abs(critical_(layer, torch.zeros(2, 100, 2) + 0.1)) < 2e-3


class Contraction(RecurrentCell):
    """Contracts by at least one half whatever its weights are."""

    def __init__(self, n_inputs, hidden_size):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = n_inputs, hidden_size, hidden_size
        self.weight_hh = nn.Parameter(torch.eye(hidden_size))

    def step(self, s, x):
        U = self.weight_hh / torch.linalg.matrix_norm(self.weight_hh, 2)
        return 0.5 * s @ U.mT


def test_critical_leaves_a_stable_cell_where_it_is_nearest_to_zero():
    cell = Contraction(2, 3)
    assert critical_(cell) == pytest.approx(math.log(0.5))
    assert torch.isfinite(cell.weight_hh).all()


class Nameless(Contraction):
    def __init__(self, n_inputs, hidden_size):
        super().__init__(n_inputs, hidden_size)
        self.kernel = nn.Parameter(torch.eye(hidden_size))
        del self.weight_hh


@pytest.mark.parametrize("init", ["critical", "normal", "orthogonal", "xavier"])
def test_layers_without_such_weights_are_named(init):
    with pytest.raises(ValueError, match=r"'init' parameter needs .*'weight.*Nameless with kernel"):
        initialize_(Nameless(2, 3), init)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"'init' parameter must be one of .* Got 'unifrom'"):
        initialize_(nn.RNN(1, 2), "unifrom")
    with pytest.raises(ValueError, match="init_scale"):
        initialize_(nn.RNN(1, 2), "uniform", -1.0)


@pytest.mark.parametrize("init", INITIALIZERS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_architecture_takes_every_law(cell, init):
    torch.manual_seed(0)
    layer = CELLS[cell](3, 6)
    if cell in ("mingru", "lru") and init in ("orthogonal", "critical"):
        with pytest.raises(
            ValueError, match="'init' parameter needs recurrent layers with parameters called 'weight_hh"
        ):
            initialize_(layer, init, 0.5)
        return
    if init == "chrono" and cell not in ("lstm", "gru"):
        with pytest.raises(ValueError, match="can be 'chrono' for LSTM and GRU layers only"):
            initialize_(layer, init, 10)
        return
    initialize_(layer, init, 10 if init == "chrono" else 0.5)
    outputs, _ = layer(torch.randn(2, 5, 3))
    assert torch.isfinite(outputs).all()
