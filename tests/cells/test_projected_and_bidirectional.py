"""Layers of torch with projections, and the forward half of bidirectional ones."""

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import LyapunovSpectrumTransformer, as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import ProjectedLSTMCell
from sklyap.cells.conversion import name_in_layer
from sklyap.gradients import loss_gradient
from sklyap.testing import check_cell
from tests.cells.networks import Wrapper, assert_drives, draw, outputs_of, same_spectrum


class Reader(nn.Module):
    """A layer with a readout of its last output."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.readout = layer, nn.Linear(width, 2)

    def forward(self, x):
        return self.readout(self.layer(x)[0][:, -1])


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_a_projected_layer_is_torchs(num_layers, bias, x):
    layer = nn.LSTM(3, 5, num_layers, bias=bias, proj_size=2, batch_first=True).double()
    cell = as_recurrent_cell(layer)
    assert cell.state_size == num_layers * 7 and cell.output_size == 2
    check_cell(cell)
    check_cell(cell, dtype="float32")
    assert_drives(layer, x, layer(x)[0])
    _, last = cell(x)
    h, c = layer(x)[1]
    expected = torch.cat([h.transpose(0, 1), c.transpose(0, 1)], -1).flatten(1)
    torch.testing.assert_close(last, expected.detach(), rtol=0, atol=1e-12)


def test_a_projection_of_full_width_by_the_identity_is_no_projection(x):
    layer = nn.LSTM(3, 5, batch_first=True).double()
    cell = ProjectedLSTMCell(3, 5, proj_size=5).double()
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(torch.eye(5) if name == "weight_hr" else getattr(layer, f"{name}_l0"))
    same_spectrum(cell, layer, x)


def test_exponents_of_a_projected_layer_add_up(x):
    cell = as_recurrent_cell(nn.LSTM(3, 5, proj_size=2).double())
    states = cell.trajectory(cell.initial_state(len(x)), x)
    expected = torch.linalg.slogdet(cell.jacobian(states[:-1], x.transpose(0, 1))).logabsdet.mean().item()
    result = lyapunov_spectrum(cell, x, warmup=0)
    assert len(result.exponents) == 7
    assert result.exponents.sum() == pytest.approx(expected, rel=0, abs=1e-9)
    assert len(lyapunov_spectrum(cell, x, state="hidden").exponents) == 2


@pytest.mark.parametrize("proj_size", [0, 6, 2.0])
def test_projections_out_of_range_are_refused(proj_size):
    with pytest.raises((ValueError, TypeError), match=r"'proj_size' parameter of ProjectedLSTMCell .* \[1, 5\]"):
        ProjectedLSTMCell(3, 5, proj_size=proj_size)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_loss_gradient_goes_through_a_projected_layer(num_layers, x):
    network = Reader(nn.LSTM(3, 5, num_layers, proj_size=2, batch_first=True), 2).double()
    targets = torch.arange(len(x)) % 2
    found = loss_gradient(network, x, targets, parameters="all")
    nn.functional.cross_entropy(network(x), targets).backward()
    assert len(found.parameters) == 5 * num_layers
    for name, gradient in found.parameters.items():
        own = network.layer.get_parameter(name_in_layer(network.layer, name))
        np.testing.assert_allclose(gradient, own.grad.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_forward_half_of_a_bidirectional_layer(kind, batch_first, x):
    both = kind(3, 5, bidirectional=True, batch_first=batch_first).double()
    half = kind(3, 5, batch_first=True).double()
    half.load_state_dict({name: value for name, value in both.state_dict().items() if "reverse" not in name})
    expected = half(x)[0].detach()
    torch.testing.assert_close(outputs_of(both, x, layer="forward"), expected, rtol=0, atol=1e-12)
    inside = nn.Sequential(both) if batch_first else Wrapper(both, lambda m, x: m.layer(x.transpose(0, 1))[0])
    name = "0" if batch_first else "layer"
    torch.testing.assert_close(outputs_of(inside, x, layer=f"{name}.forward"), expected, rtol=0, atol=1e-12)
    exponents = lyapunov_spectrum(inside, x, layer=f"{name}.forward").exponents
    np.testing.assert_allclose(exponents, lyapunov_spectrum(half, x).exponents, rtol=0, atol=1e-12)
    row = LyapunovSpectrumTransformer(x, layer="forward").fit_transform([both])[0]
    np.testing.assert_allclose(row, exponents, rtol=0, atol=1e-12)


def test_an_initial_state_of_a_bidirectional_layer_is_that_of_its_half(x):
    both, start = nn.LSTM(3, 5, bidirectional=True, batch_first=True).double(), (draw(2, 4, 5), draw(2, 4, 5))
    network = Wrapper(both, lambda m, x: m.layer(x, start)[0])
    expected = both(x, start)[0][..., :5].detach()
    torch.testing.assert_close(outputs_of(network, x, layer="layer.forward"), expected, rtol=0, atol=1e-12)


def test_a_loss_of_both_halves_is_not_one_of_the_forward_half(x):
    network = Reader(nn.GRU(3, 5, bidirectional=True, batch_first=True), 10)
    with pytest.raises(ValueError, match="names the forward half of a bidirectional GRU"):
        loss_gradient(network, x, torch.zeros(4, dtype=torch.int64), layer="layer.forward")
