"""as_recurrent_cell: what is refused, and networks that come out as they went in."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sklyap import RNNClassifier, as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import ElmanCell, RecurrentCell
from tests.cells.networks import WIDTH, H, N, T, Wrapper, draw, outputs_of


def assert_refused(network, message, error=ValueError, **options):
    with pytest.raises(error, match=message):
        as_recurrent_cell(network, **options)


def test_bidirectional():
    assert_refused(nn.LSTM(3, 5, bidirectional=True), "bidirectional layer, .* its backward half runs on the future")
    assert_refused(nn.Sequential(nn.GRU(3, 5, bidirectional=True)), r"bidirectional layer '0'.*layer='0.forward'")
    assert_refused(nn.GRU(3, 5), "not bidirectional", layer="forward")
    assert_refused(nn.GRU(3, 5, 2, bidirectional=True), "of 2 levels", layer="forward")


def test_no_recurrent_layer():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert_refused(net, "must hold a recurrent layer .* Got a Sequential that holds Linear, ReLU")
    assert_refused(nn.Linear(3, 4), "Got a Linear that holds nothing")


def test_several_recurrent_layers(x):
    net = nn.ModuleDict({"encoder": nn.GRU(WIDTH, H), "deep": nn.ModuleDict({"decoder": nn.LSTM(H, 2)})})
    assert_refused(net, r"Got a ModuleDict with 2: 'encoder' \(GRU\), 'deep.decoder' \(LSTM\). Say which .*layer=")
    assert as_recurrent_cell(net, layer="deep.decoder").state_size == 4
    assert_refused(net, "'layer' parameter must name one of 'encoder' .* Got 'decoder' instead", layer="decoder")
    two = Wrapper(
        nn.GRU(WIDTH, H, batch_first=True),
        lambda net, x: net.second(net.layer(x)[0])[0],
        second=nn.GRU(H, 4, batch_first=True),
    ).double()
    torch.testing.assert_close(outputs_of(two, x, layer="layer"), two.layer(x)[0].detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(outputs_of(two, x, layer="second"), two(x).detach(), rtol=0, atol=1e-12)


def test_a_shared_layer_counts_once():
    layer = nn.GRU(3, 5)
    assert as_recurrent_cell(nn.ModuleList([layer, layer])).state_size == 5


def test_unknown_layers_of_the_family():
    class Twice(nn.GRU):
        def forward(self, input, hx=None):
            out, h = super().forward(input, hx)
            return super().forward(out, h)

    assert_refused(Twice(5, 5), "a Twice that overrides the forward of nn.GRU")


def test_estimators_that_are_not_fitted():
    assert_refused(RNNClassifier(), "must be a fitted network. Got a RNNClassifier")

    class Other(BaseEstimator):
        def fit(self, X, y=None):
            return self

    assert_refused(Other(), "Got a Other without net_ or module_")


@pytest.mark.parametrize("thing", [3, "lstm", None, np.zeros((3, 3)), object()])
def test_what_is_no_network(thing):
    assert_refused(thing, f"must be a RecurrentCell, .* Got {type(thing).__name__} instead", TypeError)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value):
    net = nn.Sequential(nn.Linear(3, 3), nn.GRU(3, 5, 2))
    with torch.no_grad():
        net[1].weight_hh_l1[2, 2] = value
    assert_refused(net, "NaN or infinite values in cells.1.weight_hh of '1'; its training has probably diverged")
    cell = ElmanCell(2, 3)
    with torch.no_grad():
        cell.bias_ih[0] = value
    assert_refused(cell, "NaN or infinite values in bias_ih")


def test_networks_that_cannot_be_copied():
    net = nn.Sequential(nn.GRU(3, 5))
    net.stream = (i for i in range(3))
    assert_refused(net, "copy.deepcopy .* Copying the Sequential failed")


def test_wrong_sequences(x):
    layer = nn.GRU(WIDTH, H)
    encoder = nn.Sequential(nn.Linear(WIDTH, 6), nn.GRU(6, H))
    embedding = nn.Sequential(nn.Embedding(11, WIDTH), nn.GRU(WIDTH, H))
    with pytest.raises(ValueError, match="must have 3 inputs per step"):
        lyapunov_spectrum(layer, draw(N, T, 2))
    for net in (nn.Sequential(layer), encoder):
        with pytest.raises(ValueError, match=r"of shape \(4, 7, 2\), .* could not be run through the Sequential"):
            lyapunov_spectrum(net, draw(N, T, 2))
    with pytest.raises(ValueError, match=r"torch.int64 and values in \[9, 15\], could not be run .* out of range"):
        lyapunov_spectrum(embedding, torch.arange(9, 16).repeat(N, 1))
    with pytest.raises(ValueError, match="could not be run through the Sequential"):
        lyapunov_spectrum(embedding, draw(N, T))
    with pytest.raises(ValueError, match="must be finite"):
        lyapunov_spectrum(encoder, x * torch.nan)


def test_layer_that_is_never_called(x):
    net = Wrapper(nn.GRU(WIDTH, H), lambda net, x: x)
    with pytest.raises(ValueError, match="a Wrapper whose forward never calls its GRU"):
        lyapunov_spectrum(net, x)


def fingerprint(net):
    """Return what must not change, comparable by ``==``."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {
        "values": {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()},
        "addresses": {name: tensor.data_ptr() for name, tensor in tensors.items()},
        "grads": {n: None if p.grad is None else p.grad.numpy().tobytes() for n, p in net.named_parameters()},
        "flags": {name: p.requires_grad for name, p in net.named_parameters()},
        "training": [module.training for module in net.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()],
        "counts": getattr(net, "calls", None),
        "random": torch.get_rng_state().numpy().tobytes(),
        "random numpy": str(np.random.get_state()),
    }


def _counting(net, x):
    net.calls += 1
    noise = torch.randn_like(x) if net.training else 0
    return net.head(net.layer(net.norm(net.encoder(x) + noise.mean() if net.training else net.encoder(x)))[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("attached", [True, False])
def test_the_network_is_left_bit_identical(training, attached, x):
    net = Wrapper(
        nn.LSTM(6, H, 2, batch_first=True, dropout=0.3),
        _counting,
        encoder=nn.Linear(WIDTH, 6),
        norm=nn.BatchNorm1d(T),
        head=nn.Linear(H, 1),
    ).double()
    net.calls = 0
    net.encoder.weight.requires_grad_(False)
    loss = net(x).square().mean()
    loss.backward()
    if attached:  # a state kept for the next batch belongs to a graph, which copy.deepcopy refuses
        net.last = [net(x)]
    net.train(training)
    net.head.eval()
    before = fingerprint(net)
    for options in ({}, {"dtype": "float32"}, {"state": "hidden"}, {"n_exponents": 2, "batch_size": 3}):
        lyapunov_spectrum(net, x, **options)
    lyapunov_spectrum(net.layer, draw(N, T, 6))
    assert fingerprint(net) == before
    assert np.array_equal(lyapunov_spectrum(net, x).exponents, lyapunov_spectrum(net, x).exponents)


def test_estimators_are_left_as_they_were():
    X, y = draw(20, T, WIDTH).numpy(), np.arange(20) % 3
    network = RNNClassifier("gru", H, dropout=0.4, max_epochs=2, random_state=0).fit(X, y)
    module = network.net_.module_.train()
    before, attributes = fingerprint(module), set(vars(network))
    lyapunov_spectrum(network, X[:4])
    assert fingerprint(module) == before and set(vars(network)) == attributes


def test_users_own_cell_class():
    class Mine(RecurrentCell):
        def __init__(self, n_inputs, hidden_size):
            super().__init__()
            self.n_inputs, self.state_size, self.output_size = n_inputs, hidden_size, hidden_size
            self.inner = nn.GRUCell(n_inputs, hidden_size)

        def step(self, s, x):
            rows = self.inner(x.reshape(-1, self.n_inputs), s.reshape(-1, self.state_size))
            return 0.5 * (s + rows.reshape(s.shape))

    X, y = draw(20, T, WIDTH).numpy(), np.arange(20) % 3
    network = RNNClassifier(Mine, H, max_epochs=1, random_state=0).fit(X, y)
    assert lyapunov_spectrum(network, X[:4]).exponents.shape == (H,)
