"""What a network does is observed: right to rounding against the real network's own Jacobians, or refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence

from sklyap import as_recurrent_cell, lyapunov_spectrum
from tests.cells.dense import dense_jacobians, found_jacobians
from tests.cells.networks import WIDTH, H, N, T, Wrapper, draw, gru, loop, lstm, whole


class WeightDrop(nn.Module):
    """As in AWD-LSTM: the recurrent weights are made of others in each forward."""

    def __init__(self, layer, p=0.5, names=("weight_hh_l0",)):
        super().__init__()
        self.layer, self.p, self.names = layer, p, names
        for name in names:
            weight = getattr(layer, name)
            del layer._parameters[name]
            self.register_parameter(f"{name}_raw", nn.Parameter(weight.data))
            setattr(layer, name, weight.data.clone())

    def forward(self, *args):
        for name in self.names:
            setattr(self.layer, name, F.dropout(getattr(self, f"{name}_raw"), self.p, self.training))
        return self.layer(*args)


def dropping_in_place(layer):
    """As in torchnlp: the layer's own forward is replaced by a function that refers to it."""
    original = layer.forward
    raw = nn.Parameter(layer.weight_hh_l0.data)
    del layer._parameters["weight_hh_l0"]
    layer.register_parameter("weight_hh_l0_raw", raw)
    layer.weight_hh_l0 = torch.zeros_like(raw.data)

    def forward(*args, **kwargs):
        layer.weight_hh_l0 = F.dropout(layer.weight_hh_l0_raw, 0.5, layer.training)
        return original(*args, **kwargs)

    layer.forward = forward
    return layer


class DropsItself(nn.LSTM):
    """A subclass that computes its weights and leaves the rest to torch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.raw = nn.Parameter(self.weight_hh_l0.data * 2)
        del self._parameters["weight_hh_l0"]
        self.weight_hh_l0 = torch.zeros_like(self.raw.data)

    def forward(self, input, hx=None):
        self.weight_hh_l0 = F.dropout(self.raw, 0.3, self.training)
        return super().forward(input, hx)


def applied(change, net, *args, **options):
    change(net.layer, *args, **options)
    return net


def scaled_inputs():
    net = Wrapper(gru(), whole)
    net.layer.register_forward_pre_hook(lambda layer, args: (3 * args[0], *args[1:]))
    return net


def dropped_outputs():
    """A hook on a layer that is called once sees its outputs only, and does not touch its states."""
    net = Wrapper(gru(), whole)
    net.layer.register_forward_hook(lambda layer, args, output: (0.5 * output[0], output[1]))
    return net


def weights_from_elsewhere():
    """Weights that a network of weights computes, put in for the call."""

    def forward(net, x):
        weights = {"weight_hh_l0": net.maker(net.code).reshape(3 * H, H)}
        return torch.func.functional_call(net.layer, weights, (x,))[0]

    net = Wrapper(gru(), forward, maker=nn.Linear(2, 3 * H * H))
    net.register_buffer("code", torch.tensor([0.3, -0.7]))
    return net


def normalised(old):
    net = Wrapper(lstm(num_layers=2), whole)
    for name in ("weight_hh_l0", "weight_ih_l1"):
        old(net.layer, name)
    return net


NETWORKS = {
    "weight drop": lambda: Wrapper(WeightDrop(lstm()), whole),
    "weight drop, all weights of two layers": lambda: Wrapper(
        WeightDrop(lstm(num_layers=2), names=("weight_hh_l0", "weight_ih_l1", "weight_hh_l1")), whole
    ),
    "weight drop in place": lambda: Wrapper(dropping_in_place(lstm()), whole),
    "weight drop by a subclass": lambda: Wrapper(DropsItself(WIDTH, H, batch_first=True), whole),
    "weights from elsewhere": weights_from_elsewhere,
    "pruned": lambda: applied(prune.random_unstructured, Wrapper(lstm(), whole), "weight_hh_l0", amount=0.5),
    "pruned single steps": lambda: applied(
        prune.l1_unstructured, Wrapper(nn.GRUCell(WIDTH, H), loop), "weight_hh", amount=0.5
    ),
    "weight norm": lambda: normalised(parametrizations.weight_norm),
    "spectral norm": lambda: normalised(parametrizations.spectral_norm),
    "orthogonal": lambda: applied(parametrizations.orthogonal, Wrapper(nn.RNNCell(WIDTH, H), loop), "weight_hh"),
    "weight norm by hooks": lambda: normalised(nn.utils.weight_norm),
    "spectral norm by hooks": lambda: normalised(nn.utils.spectral_norm),
    "inputs scaled by a hook": scaled_inputs,
    "outputs dropped by a hook": dropped_outputs,
    "residual": lambda: Wrapper(gru(), lambda net, x: x.sum(-1, keepdim=True) + net.layer(x)[0]),
    "normed inputs": lambda: Wrapper(gru(), lambda net, x: net.layer(net.norm(x))[0], norm=nn.BatchNorm1d(T)),
    "initial state": lambda: Wrapper(gru(), lambda net, x: net.layer(x, x.new_full((1, len(x), H), 0.5))[0]),
    "in parallel": lambda: nn.DataParallel(Wrapper(gru(), whole)),
}


def trained_a_little(net, x):
    """Let a training batch and an update pass, so that weights that are computed are those of training."""
    optimizer = torch.optim.SGD(net.parameters(), 0.3)
    net.train()
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()


def layer_of(net):
    return next(m for m in net.modules() if isinstance(m, nn.RNNBase | nn.RNNCellBase))


@pytest.mark.filterwarnings("ignore:.*(weight_norm|spectral_norm).* is deprecated")
@pytest.mark.parametrize("when", ["new", "from a checkpoint", "after training", "after evaluation"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")  # short sequences
def test_right_whenever_it_is_asked(name, when, x):
    net = NETWORKS[name]().double()
    if when == "from a checkpoint":
        torch.manual_seed(5)
        other = NETWORKS[name]().double()
        net.load_state_dict(other.state_dict())
    elif when == "after training":
        trained_a_little(net, x)
    elif when == "after evaluation":
        net.eval()(x)
    before = copy.deepcopy(net.state_dict())
    found = found_jacobians(net, x)
    exponents = lyapunov_spectrum(net, x, warmup=0).exponents
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    expected = dense_jacobians(net, x, layer_of(net)).detach()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(exponents.sum(), torch.linalg.slogdet(expected)[1].mean(), rtol=1e-10)


def test_weight_drop_has_one_exponent_before_and_after_training(x):
    """The largest exponent of one checkpoint does not depend on which forward came last."""
    torch.manual_seed(1)
    net = WeightDrop(nn.LSTM(3, 16, batch_first=True)).double()
    state, found = copy.deepcopy(net.state_dict()), []
    x = draw(4, 40, 3)
    fresh = WeightDrop(nn.LSTM(3, 16, batch_first=True)).double()
    fresh.load_state_dict(state)
    found.append(lyapunov_spectrum(fresh, x).exponents)
    net.train()(x)
    found.append(lyapunov_spectrum(net, x).exponents)
    net.eval()(x)
    found.append(lyapunov_spectrum(net, x).exponents)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_weights_that_only_a_run_tells_are_asked_for(x):
    net = Wrapper(WeightDrop(lstm()), whole).double()
    with pytest.raises(
        ValueError, match=r"a Wrapper that computes weight_hh_l0 of its LSTM when it is run\. Hand over"
    ):
        as_recurrent_cell(net)
    raw = net.layer.weight_hh_l0_raw
    assert torch.equal(as_recurrent_cell(net, sequences=x).weight_hh, raw)
    with torch.no_grad():
        net.layer.layer.weight_hh_l0.zero_()
    assert torch.equal(as_recurrent_cell(net, sequences=x).weight_hh, raw)


def test_a_cell_that_was_changed_keeps_its_weights(x):
    net = Wrapper(gru(), lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, WIDTH)).double()
    cell = as_recurrent_cell(net)
    with torch.no_grad():
        cell.weight_hh.mul_(2)
        net.layer.weight_hh_l0.mul_(2)
    np.testing.assert_array_equal(lyapunov_spectrum(cell, x).exponents, lyapunov_spectrum(net, x).exponents)


# Compiled and wrapped networks


@pytest.mark.parametrize("what", ["module", "layer", "forward", "in place"])
def test_compiled(what, x):
    net = Wrapper(gru(WIDTH), lambda net, x: net.layer(net.encoder(x))[0], encoder=nn.Linear(WIDTH, WIDTH)).double()
    bare = copy.deepcopy(net)
    expected = dense_jacobians(bare, x, bare.layer)
    if what == "module":
        net = torch.compile(net)
    elif what == "layer":
        net.layer = torch.compile(net.layer)
    elif what == "forward":
        net.forward = torch.compile(net.forward)
    else:
        net.compile()
    torch.testing.assert_close(found_jacobians(net, x), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype, x):
    layer = gru().to(dtype)
    net = Wrapper(layer, whole)
    found = lyapunov_spectrum(net, x).exponents
    np.testing.assert_allclose(found, lyapunov_spectrum(copy.deepcopy(layer).double(), x).exponents, atol=0.05)


def test_functions_of_the_network_are_bound_to_the_copy(x):
    """A forward that refers to the original module would run it, and change it."""
    net = Wrapper(gru(), lambda _, x: net.layer(net.norm(x))[0], norm=nn.BatchNorm1d(T)).double().train()
    seen = []
    net.norm.register_forward_hook(lambda module, args, output: seen.append(output))
    before = copy.deepcopy(net.state_dict())
    lyapunov_spectrum(net, x)
    assert not seen
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    torch.testing.assert_close(found_jacobians(net, x), dense_jacobians(net, x, net.layer), rtol=0, atol=1e-10)


# Packed sequences and arguments of forward


def test_lengths_as_an_argument_of_forward(x):
    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.encoder = gru(6), nn.Linear(WIDTH, 6)

        def forward(self, x, lengths, hidden=None):
            packed = pack_padded_sequence(self.encoder(x), lengths, batch_first=True, enforce_sorted=False)
            return self.layer(packed, hidden)[0].data

    net, lengths, hidden = Packs().double(), [T, 3, 5, 6], draw(1, N, H)
    found = lyapunov_spectrum(net, x, warmup=0, forward_kwargs={"lengths": lengths, "hidden": hidden.numpy()})
    inputs = net.encoder(x).detach()
    for i, n in enumerate(lengths):
        cell = Wrapper(net.layer, lambda net, x: net.layer(x, net.start)[0])
        cell.start = hidden[:, i : i + 1]
        one = lyapunov_spectrum(cell, inputs[i : i + 1, :n], warmup=0).exponents
        np.testing.assert_allclose(found.per_sequence[i].sum(), one.sum(), rtol=0, atol=1e-10)
