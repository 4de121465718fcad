"""as_recurrent_cell: layers of torch, parametrised layers, skorch nets and estimators."""

import copy

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn.utils import parametrizations

from sklyap import RNNClassifier, RNNRegressor, as_recurrent_cell
from sklyap.cells import CELLS, StackedCell
from tests.cells.networks import LAYERS, SINGLE, WIDTH, H, T, Wrapper, assert_drives, draw, outputs_of, same_spectrum


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_bare_layer(kind, bias, num_layers, batch_first, x):
    layer = LAYERS[kind](WIDTH, H, num_layers, bias=bias, batch_first=batch_first).double()
    cell = as_recurrent_cell(layer)
    assert isinstance(cell, CELLS[kind] if num_layers == 1 else StackedCell)
    assert cell.encoder is None
    assert cell.state_size == num_layers * H * (2 if kind == "lstm" else 1)
    expected = layer(x)[0] if batch_first else layer(x.transpose(0, 1))[0].transpose(0, 1)
    assert_drives(layer, x, expected)


def test_relu(x):
    layer = nn.RNN(WIDTH, H, nonlinearity="relu", batch_first=True).double()
    assert_drives(layer, x, layer(x)[0])


@pytest.mark.parametrize("kind", SINGLE)
def test_bare_single_step_layer(kind, x):
    layer = SINGLE[kind](WIDTH, H).double()
    h, expected = None, []
    for t in range(T):
        h = layer(x[:, t], h)
        expected.append(h[0] if kind == "lstm" else h)
    assert_drives(layer, x, torch.stack(expected, 1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_keep_their_dtype_and_values(dtype):
    layer = nn.LSTM(WIDTH, H, 2).to(dtype)
    cell = as_recurrent_cell(layer)
    assert {p.dtype for p in cell.parameters()} == {dtype}
    assert torch.equal(cell.cells[1].weight_hh, layer.weight_hh_l1)
    assert not any(p.requires_grad for p in cell.parameters()) and not cell.training


def test_analysis_runs_in_its_own_dtype(x):
    layer = nn.GRU(WIDTH, H)
    same_spectrum(layer, copy.deepcopy(layer).double(), x)
    assert layer.weight_hh_l0.dtype == torch.float32


@pytest.mark.parametrize("normalise", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_layers(normalise, x):
    layer = nn.LSTM(WIDTH, H, 2, batch_first=True)
    normalise(layer, "weight_hh_l0")
    normalise(layer, "weight_ih_l1")
    net = Wrapper(layer, lambda net, x: net.layer(x)[0]).double()
    net(x)
    before = copy.deepcopy(net.state_dict())
    found, bare = outputs_of(net, x), outputs_of(layer, x)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    expected = net.eval()(x).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(bare, expected, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("normalise", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_layers_normalised_by_hooks(normalise, x):
    """Their weights are renewed before each forward: an optimizer's last step has not reached them."""
    layer = nn.LSTM(WIDTH, H, batch_first=True)
    normalise(layer, "weight_hh_l0")
    net = Wrapper(layer, lambda net, x: net.layer(x)[0]).double()
    net(x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    found = outputs_of(net, x)
    torch.testing.assert_close(found, net.eval()(x).detach(), rtol=0, atol=1e-12)


class Tokens(nn.Module):
    def __init__(self, kind=nn.GRU, n_outputs=3):
        super().__init__()
        self.embedding = nn.Embedding(11, WIDTH)
        self.recurrent = kind(WIDTH, H, batch_first=True)
        self.readout = nn.Linear(H, n_outputs)

    def forward(self, x):
        return torch.softmax(self.readout(self.recurrent(self.embedding(x))[0][:, -1]), -1)


def test_skorch_classifier():
    net = NeuralNetClassifier(Tokens, max_epochs=1, train_split=None, verbose=0)
    tokens = torch.randint(0, 11, (20, T))
    with pytest.raises(ValueError, match=r"must be a fitted network\. Got a NeuralNetClassifier"):
        as_recurrent_cell(net)
    net.fit(tokens, torch.randint(0, 3, (20,)))
    module = net.module_
    same_spectrum(net, module.recurrent, tokens[:4], module.embedding(tokens[:4]).detach().double())


def test_skorch_regressor():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.recurrent = nn.LSTM(WIDTH, H, 2)
            self.readout = nn.Linear(H, 1)

        def forward(self, x):
            return self.readout(self.recurrent(x.transpose(0, 1))[0][-1])

    X = draw(20, T, WIDTH, dtype=torch.float32)
    net = NeuralNetRegressor(Last, max_epochs=1, train_split=None, verbose=0).fit(X, X[:, -1, :1])
    same_spectrum(net, net.module_.recurrent, X[:4])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_classifiers(cell, num_layers):
    X, y = draw(20, T, WIDTH).numpy(), np.arange(20) % 3
    network = RNNClassifier(cell, H, num_layers, max_epochs=1, random_state=0).fit(X, y)
    same_spectrum(network, network.net_.module_.recurrent, X[:4])
    found = as_recurrent_cell(network)
    assert isinstance(found, CELLS[cell] if num_layers == 1 else StackedCell)


@pytest.mark.parametrize("embedding_dim", [None, 4])
def test_regressor_of_tokens(embedding_dim):
    X = np.random.default_rng(0).integers(0, 6, (20, T))
    network = RNNRegressor("gru", H, input_type="tokens", embedding_dim=embedding_dim, max_epochs=1).fit(X, X[:, -1])
    module = network.net_.module_
    same_spectrum(network, module.recurrent, X[:4], module.encoder(torch.as_tensor(X[:4])).detach().double())


def test_estimator_of_two_dimensions():
    X = draw(20, T).numpy()
    network = RNNClassifier("rnn", H, max_epochs=1).fit(X, np.arange(20) % 2)
    same_spectrum(network, network, X[:4], X[:4, :, None])


def test_compiled_modules_are_seen_through(x):
    net = Wrapper(nn.GRU(WIDTH, H), lambda net, x: net.layer(x)[0])
    same_spectrum(torch.compile(net), net.layer, x)
