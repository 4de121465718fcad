"""as_recurrent_cell: whatever holds a recurrent layer, with sequences at its input, left as it was."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence

from sklyap import RNNClassifier, RNNRegressor, as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import CELLS, ElmanCell, FunctionCell, GRUCell, LSTMCell, RecurrentCell, StackedCell
from sklyap.exceptions import ConvergenceWarning

LAYERS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
SINGLE = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
N, T, WIDTH, H = 4, 7, 3, 5


class Wrapper(nn.Module):
    """A network around a layer, whose forward is given."""

    def __init__(self, layer, forward, **submodules):
        super().__init__()
        self.layer = layer
        for name, module in submodules.items():
            setattr(self, name, module)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def draw(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return draw(N, T, WIDTH)


def outputs_of(network, sequences, **options):
    """Return outputs (N, T, H) of the cell inside a network that is driven at the network's input."""
    cell = as_recurrent_cell(network, **options)
    x, s = cell.encoder(sequences) if cell.encoder is not None else (sequences, None)
    return cell(x.to(next(cell.parameters()).dtype), s)[0]


def assert_drives(network, sequences, expected):
    torch.testing.assert_close(outputs_of(network, sequences), expected.detach(), rtol=0, atol=1e-12)


def same_spectrum(a, b, sequences, other_sequences=None):
    """Assert that two networks have one spectrum; it needs no convergence, hence no warning about it."""
    other_sequences = sequences if other_sequences is None else other_sequences
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        first, second = lyapunov_spectrum(a, sequences), lyapunov_spectrum(b, other_sequences)
    np.testing.assert_allclose(first.exponents, second.exponents, rtol=0, atol=1e-10)


# Layers of torch


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


# Networks without an encoder take (n_sequences, n_steps, n_inputs), whatever order their forward wants

ORDERS = {
    "batch first": (True, lambda net, x: net.layer(x)[0]),
    "time first": (False, lambda net, x: net.layer(x)[0]),
    "batch first, transposes itself": (False, lambda net, x: net.layer(x.transpose(0, 1))[0].transpose(0, 1)),
    "time first, transposes itself": (True, lambda net, x: net.layer(x.transpose(0, 1))[0].transpose(0, 1)),
}


@pytest.mark.parametrize("n_sequences", [1, 4, T])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_wrapper_takes_sequences_first(kind, order, n_sequences):
    batch_first, forward = ORDERS[order]
    layer = LAYERS[kind](WIDTH, H, 2, batch_first=batch_first).double()
    x = draw(n_sequences, T, WIDTH)
    expected = layer(x)[0] if batch_first else layer(x.transpose(0, 1))[0].transpose(0, 1)
    assert_drives(Wrapper(layer, forward), x, expected)
    same_spectrum(Wrapper(layer, forward), layer, x)


def test_time_first_network_makes_its_own_initial_state(x):
    """Its batch size is the second axis of what its forward takes."""
    layer = nn.GRU(WIDTH, H).double()
    net = Wrapper(layer, lambda net, x: net.layer(x, torch.full((1, x.shape[1], H), 0.5, dtype=x.dtype))[0])
    assert_drives(net, x, net(x.transpose(0, 1)).transpose(0, 1))


def test_sequential_and_dropout(x):
    layer = nn.GRU(WIDTH, H).double()
    same_spectrum(nn.Sequential(layer), layer, x)
    same_spectrum(nn.Sequential(nn.Dropout(0.5), layer).train(), layer, x)


def test_without_an_encoder_inputs_keep_their_digits():
    layer = nn.GRU(WIDTH, H, batch_first=True)
    x, _ = as_recurrent_cell(nn.Sequential(layer)).encoder(draw(N, T, WIDTH))
    assert torch.equal(x, draw(N, T, WIDTH))


def test_two_dimensions_are_one_input_per_step():
    layer = nn.GRU(1, H)
    same_spectrum(nn.Sequential(layer), layer, draw(N, T), draw(N, T, 1))
    flat = Wrapper(nn.GRU(1, H, batch_first=True), lambda net, x: net.layer(x.unsqueeze(-1))[0])
    same_spectrum(flat, flat.layer, draw(N, T), draw(N, T, 1))


def test_integers_are_values_unless_they_are_looked_up():
    layer = nn.GRU(WIDTH, H)
    counts = torch.randint(0, 5, (N, T, WIDTH))
    same_spectrum(nn.Sequential(layer), layer, counts, counts.double())
    linear = nn.Sequential(nn.Linear(WIDTH, 4), nn.GRU(4, H, batch_first=True))
    same_spectrum(linear, linear, counts, counts.float())


# Encoders, initial states, steps in a loop


@pytest.mark.parametrize("kind", LAYERS)
def test_embedding_before_a_layer(kind):
    layer = LAYERS[kind](WIDTH, H, batch_first=True)
    net = Wrapper(layer, lambda net, x: net.layer(net.embedding(x))[0], embedding=nn.Embedding(11, WIDTH)).double()
    tokens = torch.randint(0, 11, (N, T))
    assert_drives(net, tokens, net(tokens))
    assert_drives(net, tokens.to(torch.int32), net(tokens))
    same_spectrum(net, layer, tokens, net.embedding(tokens).detach())
    assert_drives(nn.Sequential(net.embedding, layer), tokens, net(tokens))


def test_linear_encoder_before_lstm(x):
    encoder = nn.Sequential(nn.Linear(WIDTH, 6), nn.BatchNorm1d(T), nn.ReLU())
    layer = nn.LSTM(6, H, 2, batch_first=True)
    net = Wrapper(layer, lambda net, x: net.head(net.layer(net.encoder(x))[0]), encoder=encoder, head=nn.Linear(H, 2))
    net = net.double()
    net(x)  # moves the running statistics
    net.eval()
    expected = layer(encoder(x))[0]
    net.train()
    assert_drives(net, x, expected)


def test_encoder_of_a_time_first_network_takes_what_forward_takes(x):
    net = Wrapper(nn.GRU(6, H), lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, 6)).double()
    time_first = x.transpose(0, 1)
    assert_drives(net, time_first, net(time_first).transpose(0, 1))
    swaps = Wrapper(net.layer, lambda net, x: net.layer(net.encoder(x).transpose(0, 1))[0], encoder=net.encoder)
    assert_drives(swaps, x, swaps(x).transpose(0, 1))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_initial_state_of_the_network_is_honoured(kind, num_layers, x):
    layer = LAYERS[kind](WIDTH, H, num_layers, batch_first=True)
    start = nn.Parameter(draw(num_layers, 1, H))

    def forward(net, x):
        h = net.start.expand(-1, len(x), -1).contiguous()
        return net.layer(hx=(h, 2 * h) if kind == "lstm" else h, input=x)[0]

    net = Wrapper(layer, forward).double()
    net.start = start
    assert_drives(net, x, net(x))
    zeros = lyapunov_spectrum(layer, x, warmup=0).exponents
    assert np.abs(lyapunov_spectrum(net, x, warmup=0).exponents - zeros).max() > 1e-3


@pytest.mark.parametrize("time_first", [True, False])
@pytest.mark.parametrize("kind", SINGLE)
def test_single_steps_in_a_loop(kind, time_first, x):
    def forward(net, x):
        h, seen = None, []
        for x_t in x.unbind(0 if time_first else 1):
            h = net.layer(x_t, h)
            seen.append(h[0] if kind == "lstm" else h)
        return torch.stack(seen, 1)

    net = Wrapper(SINGLE[kind](WIDTH, H), forward).double()
    assert_drives(net, x, net(x.transpose(0, 1) if time_first else x))
    same_spectrum(net, net.layer, x)


def test_initial_state_in_a_loop(x):
    def forward(net, x):
        h = torch.full((len(x), H), 0.5, dtype=x.dtype)
        c, seen = -h, []
        for x_t in x.unbind(1):
            h, c = net.layer(net.encoder(x_t), (h, c))
            seen.append(h)
        return torch.stack(seen, 1)

    net = Wrapper(nn.LSTMCell(6, H), forward, encoder=nn.Linear(WIDTH, 6)).double()
    assert_drives(net, x, net(x))


def test_whole_layer_called_step_by_step(x):
    def forward(net, x):
        state, seen = None, []
        for t in range(x.shape[1]):
            out, state = net.layer(x[:, t : t + 1], state)
            seen.append(out)
        return torch.cat(seen, 1)

    net = Wrapper(nn.LSTM(WIDTH, H, 2, batch_first=True), forward).double()
    assert_drives(net, x, net(x))


def test_state_that_is_changed_between_steps_is_refused(x):
    def normed(net, x):
        h = x.new_zeros(len(x), H)
        for x_t in x.unbind(1):
            h = nn.functional.layer_norm(net.layer(x_t, h), (H,))
        return h

    net = Wrapper(nn.GRUCell(WIDTH, H), normed).double()
    with pytest.raises(ValueError, match=r"calls its GRUCell 7 times, not always from the state .* FunctionCell"):
        lyapunov_spectrum(net, x)
    anew = Wrapper(nn.GRUCell(WIDTH, H), lambda net, x: [net.layer(x_t) for x_t in x.unbind(1)]).double()
    with pytest.raises(ValueError, match="calls its GRUCell 7 times, not always from the state"):
        lyapunov_spectrum(anew, x)


def test_packed_sequences(x):
    def forward(net, x):
        return net.layer(pack_padded_sequence(x, net.lengths[: len(x)], batch_first=True, enforce_sorted=False))[0]

    net = Wrapper(nn.GRU(WIDTH, H, batch_first=True), forward).double()
    net.lengths = torch.tensor([T] * N)
    assert_drives(net, x, net.layer(x)[0])
    net.lengths = torch.tensor([T, 3, T, T])
    with pytest.raises(ValueError, match="packs sequences to different lengths; give them as a list"):
        lyapunov_spectrum(net, x)


def test_a_head_for_another_number_of_steps_does_not_matter(x):
    net = Wrapper(
        nn.GRU(WIDTH, H, batch_first=True),
        lambda net, x: net.head(net.layer(x)[0].flatten(1)),
        head=nn.Linear(3 * H, 1),
    ).double()
    assert_drives(net, x, net.layer(x)[0])


def test_cell_of_ours_inside_a_module(x):
    for cell in (LSTMCell(6, H), StackedCell([GRUCell(6, H), ElmanCell(H, 4)])):
        net = Wrapper(cell, lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, 6)).double()
        assert_drives(net, x, net(x))
        before = copy.deepcopy(net.state_dict())
        lyapunov_spectrum(net, x, dtype="float32")
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    started = Wrapper(GRUCell(WIDTH, H), lambda net, x: net.layer(x, torch.ones(len(x), H, dtype=x.dtype))[0]).double()
    assert_drives(started, x, started(x))


def test_cells_convert_to_copies_of_themselves(x):
    for cell in (GRUCell(WIDTH, H), FunctionCell(lambda s, x: torch.tanh(s), 3)):
        twin = as_recurrent_cell(cell)
        assert type(twin) is type(cell) and twin is not cell
    net = Wrapper(nn.GRU(6, H), lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, 6))
    once = as_recurrent_cell(net)
    twice = as_recurrent_cell(once)
    assert twice.encoder is once.encoder
    same_spectrum(once, net, x)


def test_a_cell_does_not_follow_its_network(x):
    net = Wrapper(nn.GRU(6, H), lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, 6))
    cell = as_recurrent_cell(net)
    before = lyapunov_spectrum(cell, x).exponents
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    np.testing.assert_array_equal(lyapunov_spectrum(cell, x).exponents, before)


def test_converted_cells_pickle(x):
    cell = as_recurrent_cell(nn.Sequential(nn.Linear(WIDTH, 6), nn.GRU(6, H)))
    same_spectrum(pickle.loads(pickle.dumps(cell)), cell, x)


# Reparametrised layers


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


# skorch nets, our estimators


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


# Errors


def assert_refused(network, message, error=ValueError, **options):
    with pytest.raises(error, match=message):
        as_recurrent_cell(network, **options)


def test_bidirectional():
    assert_refused(nn.LSTM(3, 5, bidirectional=True), "bidirectional layer, .* its backward half runs on the future")
    assert_refused(nn.Sequential(nn.GRU(3, 5, bidirectional=True)), "bidirectional layer '0'")


def test_proj_size():
    assert_refused(nn.LSTM(3, 5, proj_size=2), "proj_size=2, which is not supported.* Use proj_size=0")


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


# The network comes out as it went in


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
