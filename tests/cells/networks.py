"""What the tests of conversion share: a network around a layer, and comparisons."""

import warnings

import numpy as np
import torch
from torch import nn

from sklyap import as_recurrent_cell, lyapunov_spectrum
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


def loop(net, x):
    h, seen = x.new_zeros(len(x), H, requires_grad=True), []
    for x_t in x.unbind(1):
        h = net.layer(x_t, h)
        seen.append(h)
    return torch.stack(seen, 1)


def whole(net, x):
    return net.layer(x)[0]


def lstm(n_inputs=WIDTH, **options):
    return nn.LSTM(n_inputs, H, batch_first=True, **options)


def gru(n_inputs=WIDTH, **options):
    return nn.GRU(n_inputs, H, batch_first=True, **options)
