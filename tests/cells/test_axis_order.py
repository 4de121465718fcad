"""Which axis a network takes for time is seen, whatever it is given."""

import pytest
import torch
from torch import nn

from sklyap import lyapunov_spectrum
from tests.cells.dense import dense_jacobians, found_jacobians
from tests.cells.networks import WIDTH, H, T, Wrapper, draw, gru

TIME_FIRST = {
    "embedding": lambda net, x: net.layer(net.encoder(x))[0],
    "own transposition": lambda net, x: net.layer(net.encoder(x).transpose(0, 1))[0].transpose(0, 1),
}


@pytest.mark.parametrize("n_sequences", [1, 4, T])
@pytest.mark.parametrize("order", TIME_FIRST)
def test_order_behind_an_embedding(order, n_sequences):
    net = Wrapper(nn.GRU(WIDTH, H), TIME_FIRST[order], encoder=nn.Embedding(11, WIDTH)).double()
    tokens = torch.randint(0, 11, (n_sequences, T))
    given = tokens.T if order == "embedding" else tokens
    torch.testing.assert_close(found_jacobians(net, tokens), dense_jacobians(net, given, net.layer), rtol=0, atol=1e-10)


def test_order_behind_a_convolution(x):
    def forward(net, x):
        return net.layer(net.encoder(x.transpose(1, 2)).permute(2, 0, 1))[0]

    net = Wrapper(nn.GRU(6, H), forward, encoder=nn.Conv1d(WIDTH, 6, 3, padding=1, stride=2)).double()
    for sequences in (x, draw(T, T, WIDTH), draw(1, T, WIDTH)):
        found = found_jacobians(net, sequences)
        assert found.shape[1] == 4
        torch.testing.assert_close(found, dense_jacobians(net, sequences, net.layer), rtol=0, atol=1e-10)


def test_order_in_a_loop_over_time_first_features():
    def forward(net, x):
        h = x.new_zeros(x.shape[1], H, requires_grad=True)
        for x_t in net.encoder(x).unbind(0):
            h = net.layer(x_t, h)
        return h

    net = Wrapper(nn.GRUCell(6, H), forward, encoder=nn.Linear(WIDTH, 6)).double()
    for n in (1, 4, T):
        sequences = draw(n, T, WIDTH)
        expected = dense_jacobians(net, sequences.transpose(0, 1), net.layer)
        torch.testing.assert_close(found_jacobians(net, sequences), expected, rtol=0, atol=1e-10)


def test_rows_that_mix_in_a_square_batch_are_refused():
    net = Wrapper(gru(), lambda net, x: net.layer(net.norm(x))[0], norm=nn.BatchNorm1d(T, track_running_stats=False))
    with pytest.raises(ValueError, match=r"of shape \(7, 7, 3\), goes into a Wrapper that mixes its rows"):
        lyapunov_spectrum(net.double(), draw(T, T, WIDTH))
