"""What a network does is observed: right to rounding against the real network's own Jacobians, or refused."""

import copy
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence

from sklyap import LyapunovSpectrumTransformer, as_recurrent_cell, covariant_lyapunov_vectors, lyapunov_spectrum
from sklyap.gradients import loss_gradient
from sklyap.sensitivity import input_sensitivity
from tests.cells.dense import dense_jacobians, found_jacobians
from tests.cells.networks import WIDTH, H, N, T, Wrapper, draw


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


# The order of axes


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


# Refused


def changed_between(change):
    def forward(net, x):
        h = x.new_zeros(len(x), H)
        for t, x_t in enumerate(x.unbind(1)):
            h = change(net, net.layer(x_t, h), h, t)
        return h

    return Wrapper(nn.GRUCell(WIDTH, H), forward, other=nn.Linear(H, H))


def fed_back(feed):
    """A loop whose next input is what `feed(net, x_t, hs)` makes of the states so far."""

    def forward(net, x):
        hs = [x.new_zeros(len(x), H)]
        for x_t in x.unbind(1):
            hs.append(net.layer(feed(net, x_t, hs), hs[-1]))
        return net.out(hs[-1])

    return Wrapper(nn.GRUCell(WIDTH, H), forward, out=nn.Linear(H, WIDTH), embedding=nn.Embedding(H, WIDTH))


def attention(net, x_t, hs):
    past = torch.stack(hs, 1)
    weights = torch.softmax((past @ hs[-1].unsqueeze(-1)).squeeze(-1), 1)
    return x_t + net.out((weights.unsqueeze(-1) * past).sum(1))


def hooked():
    net = Wrapper(nn.RNNCell(WIDTH, H), loop)
    net.layer.register_forward_hook(lambda layer, args, output: 0.5 * output)
    return net


def noisy(where):
    def forward(net, x):
        if where == "inputs":
            x = F.dropout(x, 0.3, True)
        if where == "layer":
            net.layer.train()
        if where == "weights":
            net.layer.weight_hh_l0.data.add_(torch.randn_like(net.layer.weight_hh_l0))
        return net.layer(x)[0]

    return Wrapper(gru(num_layers=2, dropout=0.4), forward)


def ponders(net, x):
    h = x.new_zeros(len(x), H)
    for x_t in x.unbind(1):
        h = net.layer(x_t, net.layer(x_t, h))
    return h


def forgets_its_input(net, x):
    """Fast weights: what the step multiplies with depends on the state."""
    h, weight = x.new_zeros(len(x), H), net.layer.weight_hh
    for x_t in x.unbind(1):
        h = torch.func.functional_call(net.layer, {"weight_hh": weight + 0.1 * h.mean()}, (x_t, h))
    return h


def halts(net, x):
    h = x.new_zeros(len(x), H)
    for x_t in x.unbind(1):
        h = net.layer(x_t, h)
        if float(h.abs().max()) > 0.9:
            break
    return h


class Hardened(nn.LSTM):
    def forward(self, input, hx=None):
        output, state = super().forward(input, hx)
        return output.clamp(-0.1, 0.1), state


class Twice(nn.GRU):
    def forward(self, input, hx=None):
        out, h = super().forward(input, hx)
        return super().forward(out, h)


def teacher_forced(net, x):
    h, u, seen = x.new_zeros(len(x), H), x[:, 0], []
    for t in range(x.shape[1]):
        h = net.layer(x[:, t] if net.training else u, h)
        u = net.out(h)
        seen.append(u)
    return torch.stack(seen, 1)


CLOSED = {
    "feedback": lambda: fed_back(lambda net, x_t, hs: net.out(hs[-1])),
    "feedback beside the input": lambda: fed_back(lambda net, x_t, hs: x_t + 0.1 * net.out(hs[-1])),
    "attention over earlier states": lambda: fed_back(attention),
    "feedback of what was two steps ago": lambda: fed_back(lambda net, x_t, hs: x_t + net.out(hs[max(0, len(hs) - 3)])),
    "greedy tokens": lambda: fed_back(lambda net, x_t, hs: net.embedding(hs[-1].argmax(-1))),
    "teacher forcing in training only": lambda: Wrapper(nn.GRUCell(WIDTH, H), teacher_forced, out=nn.Linear(H, WIDTH)),
    "sparse feedback": lambda: fed_back(lambda net, x_t, hs: net.out(hs[-1]) if len(hs) % 3 == 0 else x_t),
}
REFUSED = {
    "state halved by a hook": (
        hooked,
        r"a forward hook that changes the state of its RNNCell: after call 1, .* Module",
    ),
    "normed": (lambda: changed_between(lambda net, new, h, t: F.layer_norm(new, (H,))), "not always from the state"),
    "zoneout": (lambda: changed_between(lambda net, new, h, t: 0.3 * h + 0.7 * new), "not always from the state"),
    "reset": (lambda: changed_between(lambda net, new, h, t: 0 * new if t == 3 else new), r"call 5 did not"),
    "residual": (lambda: changed_between(lambda net, new, h, t: new + h), "not always from the state"),
    "dropout that stays on": (lambda: noisy("inputs"), "draws random numbers in evaluation mode"),
    "dropout between layers that stays on": (lambda: noisy("layer"), "draws random numbers in evaluation mode"),
    "noise on weights": (lambda: noisy("weights"), "draws random numbers in evaluation mode"),
    "pondering": (lambda: Wrapper(nn.GRUCell(WIDTH, H), ponders), "14 steps in all, .* more than once per step"),
    "fast weights": (lambda: Wrapper(nn.RNNCell(WIDTH, H), forgets_its_input), "changes the weights of its RNNCell"),
    "halting": (lambda: Wrapper(nn.RNNCell(WIDTH, H), halts), "whose number of steps depends on the state"),
    "hardened": (lambda: Wrapper(Hardened(WIDTH, H, batch_first=True), whole), "forward is not that of LSTM"),
    "run twice": (lambda: Wrapper(Twice(WIDTH, WIDTH, batch_first=True), whole), "forward is not that of GRU"),
    "two passes": (lambda: Wrapper(gru(), lambda net, x: net.layer(x.flip(1), net.layer(x)[1])[0]), "14 steps in all"),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_loops_are_refused_by_name(name, x):
    with pytest.raises(
        ValueError, match=r"fed with its own output.*sklyap\.closed_loop\(network, spin_up\).*ModuleCell"
    ):
        lyapunov_spectrum(CLOSED[name]().double(), x)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_step_is_refused(name, x):
    make, message = REFUSED[name]
    net = make().double()
    if name == "halting":
        with torch.no_grad():
            net.layer.weight_hh.mul_(3)
    with pytest.raises(ValueError, match=message):
        lyapunov_spectrum(net, x)


def test_a_loop_that_is_not_fed_back_is_right(x):
    """Outputs are computed beside the loop, of earlier states too, and nothing of it comes back."""

    def forward(net, x):
        h, seen = x.new_zeros(len(x), H, requires_grad=True), []
        for t in range(x.shape[1]):
            h = net.layer(x[:, t], h)
            seen.append(net.out(torch.stack([*seen, h], 1).mean(1)) if not seen else h)
        return torch.stack(seen, 1)

    net = Wrapper(nn.GRUCell(WIDTH, H), forward, out=nn.Linear(H, H)).double()
    torch.testing.assert_close(found_jacobians(net, x), dense_jacobians(net, x, net.layer), rtol=0, atol=1e-10)


def test_coupled_layers_are_no_systems_of_their_own(x):
    def forward(net, x):
        a = b = x.new_zeros(len(x), H)
        for x_t in x.unbind(1):
            a = net.layer(net.mix(torch.cat([x_t, b], 1)), a)
            b = net.second(a, b)
        return b

    net = Wrapper(nn.GRUCell(WIDTH, H), forward, second=nn.GRUCell(H, H), mix=nn.Linear(WIDTH + H, WIDTH)).double()
    for name in ("layer", "second"):
        with pytest.raises(ValueError, match="fed with its own output"):
            lyapunov_spectrum(net, x, layer=name)


def test_every_analysis_refuses_alike(x):
    net = CLOSED["feedback"]().double()
    y = draw(N, WIDTH)
    calls = [
        lambda: covariant_lyapunov_vectors(net, x),
        lambda: LyapunovSpectrumTransformer(x).fit_transform([net]),
        lambda: loss_gradient(net, x, y),
        lambda: input_sensitivity(net, x, y),
        lambda: as_recurrent_cell(net, sequences=x),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed_loop"):
            call()


def test_outputs_that_are_drawn_have_no_gradient_but_a_spectrum(x):
    net = Wrapper(gru(), lambda net, x: net.out(F.dropout(net.layer(x)[0][:, -1], 0.5, True)), out=nn.Linear(H, 2))
    net = net.double()
    np.testing.assert_array_equal(lyapunov_spectrum(net, x).exponents, lyapunov_spectrum(net.layer, x).exponents)
    for function in (loss_gradient, input_sensitivity):
        with pytest.raises(ValueError, match="a Wrapper whose outputs are drawn in evaluation mode"):
            function(net, x, draw(N, 2))


def test_sequences_one_by_one_are_refused(x):
    net = Wrapper(gru(), lambda net, x: torch.cat([net.layer(row.unsqueeze(0))[0] for row in x])).double()
    with pytest.raises(ValueError, match=r"calls its GRU 4 times, not always from the state .* \(call 2 did not\)"):
        lyapunov_spectrum(net, x)


def test_quantised_layers_are_refused(x):
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LSTM(WIDTH, H))
    with pytest.warns(DeprecationWarning):
        net = torch.ao.quantization.quantize_dynamic(net, {nn.LSTM}, dtype=torch.qint8)
    with pytest.raises(ValueError, match="a Sequential with a quantised LSTM"):
        lyapunov_spectrum(net, x)


def test_modules_without_python_code_are_refused(x):
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.script(gru())
        holds = nn.Sequential(nn.Linear(3, 3), scripted)
    for net, message in ((scripted, "scripted or traced GRU, which hides"), (holds, "a Sequential with a scripted")):
        with pytest.raises(ValueError, match=message):
            lyapunov_spectrum(net, x)


def test_recurrences_made_of_linear_layers_are_refused(x):
    class Continuous(nn.Module):
        def __init__(self):
            super().__init__()
            self.input, self.hidden = nn.Linear(WIDTH, H), nn.Linear(H, H)

        def forward(self, x):
            h = x.new_zeros(len(x), H)
            for x_t in x.unbind(1):
                h = 0.8 * h + 0.2 * torch.relu(self.input(x_t) + self.hidden(h))
            return h

    with pytest.raises(ValueError, match=r"holds Linear, Linear\. A recurrence made of other layers .* ModuleCell"):
        lyapunov_spectrum(Continuous(), x)


def test_random_starts_are_drawn_the_same_each_time(x):
    net = Wrapper(gru(), lambda net, x: net.layer(x, torch.randn(1, len(x), H, dtype=x.dtype))[0]).double()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = lyapunov_spectrum(net, x).exponents
    torch.manual_seed(4)
    np.testing.assert_array_equal(first, lyapunov_spectrum(net, x).exponents)
    torch.manual_seed(3)
    lyapunov_spectrum(net, x)
    assert torch.equal(before, torch.get_rng_state())


def test_a_step_unlike_its_weights_names_both(x):
    """Whatever a layer computes otherwise than its class, the numbers of both are named."""
    net = Wrapper(nn.GRUCell(WIDTH, H), loop).double()
    net.layer.forward = types.MethodType(lambda self, x, h: 0.5 * nn.GRUCell.forward(self, x, h), net.layer)
    with pytest.raises(ValueError, match=r"forward is not that of GRUCell .* \(its last output is .*, and not .*\)"):
        lyapunov_spectrum(net, x)
