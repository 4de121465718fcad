"""Networks whose recurrent layer is not their step are refused, with what to do."""

import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sklyap import LyapunovSpectrumTransformer, as_recurrent_cell, covariant_lyapunov_vectors, lyapunov_spectrum
from sklyap.gradients import loss_gradient
from sklyap.sensitivity import input_sensitivity
from tests.cells.dense import dense_jacobians, found_jacobians
from tests.cells.networks import WIDTH, H, N, Wrapper, draw, gru, loop, whole


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer torch alone
        net = torch.ao.quantization.quantize_dynamic(net, {nn.LSTM}, dtype=torch.qint8)
    with pytest.raises(ValueError, match="a Sequential with a quantised LSTM"):
        lyapunov_spectrum(net, x)


def test_modules_without_python_code_are_refused(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of newer torch alone
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
