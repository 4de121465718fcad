"""Chrono initialisation: the biases of the gates, the memory that they give, and what it refuses."""

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import RNNClassifier, lyapunov_spectrum
from sklyap.cells import GRUCell, LSTMCell, StackedCell
from sklyap.networks.initialization import chrono_, initialize_


@pytest.mark.parametrize("layer", [nn.LSTM(3, 200, 2), nn.LSTMCell(3, 200), LSTMCell(3, 200)], ids=lambda m: type(m))
def test_gates_of_an_lstm(layer):
    before = {name: p.clone() for name, p in layer.named_parameters()}
    torch.manual_seed(0)
    chrono_(layer, 50)
    for name, p in layer.named_parameters():
        if name.startswith("weight"):
            assert torch.equal(p, before[name])
        elif name.startswith("bias_hh"):
            assert not p.any()
        else:
            i, f, g, o = p.detach().chunk(4)
            assert torch.equal(i, -f) and not g.any() and not o.any()
            u = f.double().exp()
            assert 1 <= u.min() < 3 and 47 < u.max() <= 49.0001
            assert abs(u.mean() - 25) < 4 * 48 / 12**0.5 / 200**0.5


@pytest.mark.parametrize("layer", [nn.GRU(3, 50), nn.GRUCell(3, 50), GRUCell(3, 50)], ids=lambda m: type(m))
def test_gates_of_a_gru(layer):
    chrono_(layer, 50)
    bias = dict(layer.named_parameters())
    ih = next(p for name, p in bias.items() if name.startswith("bias_ih")).detach()
    r, z, n = ih.chunk(3)
    assert not r.any() and not n.any() and bool((z >= 0).all()) and bool((z <= np.log(49.001)).all())


def test_layers_of_a_stack():
    stack = StackedCell([LSTMCell(2, 4), GRUCell(4, 3)])
    initialize_(stack, "chrono", 20)
    assert all((cell.bias_ih.abs() > 0).any() for cell in stack.cells)


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
def test_an_lstm_remembers_longer():
    """Without input from h the cell states forget with ln σ(b_f): exponents -ln(1 + 1/u), as the paper has it."""
    torch.manual_seed(0)
    layer = nn.LSTM(1, 20, batch_first=True)
    nn.init.zeros_(layer.weight_hh_l0)
    nn.init.zeros_(layer.weight_ih_l0)
    chrono_(layer, 40)
    forget = layer.bias_ih_l0.detach().double().chunk(4)[1]
    expected = nn.functional.logsigmoid(forget).sort(descending=True).values
    found = lyapunov_spectrum(layer, torch.zeros(1, 400, 1), n_exponents=20).exponents
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(expected, -np.log1p(np.exp(-forget.sort(descending=True).values.numpy())), atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_estimators_take_the_length_of_the_sequences(cell):
    X, y = np.random.default_rng(0).normal(size=(20, 30, 2)), np.arange(20) % 2
    options = {"max_epochs": 0, "random_state": 0, "init": "chrono"}
    for scale, longest in ((None, 30), (9.0, 9)):
        estimator = RNNClassifier(cell, 40, init_scale=scale, **options).fit(X, y)
        gate = estimator.net_.module_.recurrent.bias_ih_l0.detach().chunk(4 if cell == "lstm" else 3)[1]
        assert longest - 4 < gate.exp().max() <= longest - 0.999


def test_what_is_refused():
    X, y = np.zeros((4, 6, 2)), np.arange(4) % 2
    with pytest.raises(ValueError, match="'init' parameter of RNNClassifier can be 'chrono' for cell='lstm' and"):
        RNNClassifier("rnn", init="chrono").fit(X, y)
    with pytest.raises(ValueError, match="'chrono' with bias=True only"):
        RNNClassifier("gru", init="chrono", bias=False).fit(X, y)
    with pytest.raises(ValueError, match="'init_scale' parameter of RNNClassifier must be more than 2 steps"):
        RNNClassifier("gru", init="chrono", init_scale=1.5).fit(X, y)
    with pytest.raises(ValueError, match=r"for LSTM and GRU layers only.* Got a RNN"):
        chrono_(nn.RNN(2, 3), 10)
    with pytest.raises(ValueError, match=r"layers with biases only\. Got a LSTM without"):
        chrono_(nn.LSTM(2, 3, bias=False), 10)
    with pytest.raises(ValueError, match="'init_scale' parameter must be"):
        chrono_(nn.LSTM(2, 3), 2)
    with pytest.raises(ValueError, match="'init_scale' parameter must be the longest dependency"):
        initialize_(nn.LSTM(2, 3), "chrono")
