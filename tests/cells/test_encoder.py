"""as_recurrent_cell: what comes before the recurrent layer, and the order that a forward wants."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from sklyap import as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import ElmanCell, FunctionCell, GRUCell, LSTMCell, StackedCell
from tests.cells.networks import LAYERS, SINGLE, WIDTH, H, N, T, Wrapper, assert_drives, draw, same_spectrum

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


@pytest.mark.parametrize("n_sequences", [1, 4, T])
def test_sequences_come_first_also_for_a_time_first_network_with_an_encoder(n_sequences):
    x = draw(n_sequences, T, WIDTH)
    net = Wrapper(nn.GRU(6, H), lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, 6)).double()
    assert_drives(net, x, net(x.transpose(0, 1)).transpose(0, 1))
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
    same_spectrum(net, net.layer, x, [row[:n] for row, n in zip(x, net.lengths, strict=True)])


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
