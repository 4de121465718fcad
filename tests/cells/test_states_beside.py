"""What else a network carries, shares or changes beside its recurrent layer: honoured, or refused by name."""

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import GradientAlignmentAnalyzer, lyapunov_spectrum
from sklyap.gradients import loss_gradient
from tests.cells.dense import dense_jacobians, found_jacobians
from tests.cells.networks import WIDTH, H, N, T, Wrapper, draw, gru, loop, whole

# Whether exponents have settled does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")


@pytest.fixture
def x():
    return draw(N, T, WIDTH)


def above(net, x):
    g, seen = x.new_zeros(len(x), H), []
    for y_t in net.layer(x)[0].unbind(1):
        g = torch.tanh(net.other(torch.cat([y_t, g], -1)))
        seen.append(g)
    return torch.stack(seen, 1)


def above_in_a_loop(net, x):
    h = g = x.new_zeros(len(x), H)
    for x_t in x.unbind(1):
        h = net.layer(x_t, h)
        g = torch.tanh(net.other(torch.cat([h, g], -1)))
    return g


def below(net, x):
    h = g = x.new_zeros(len(x), H)
    for x_t in x.unbind(1):
        g = torch.tanh(net.other(torch.cat([x_t, g], -1)))
        h = net.layer(g, h)
    return h


BESIDE = {
    "above": lambda: Wrapper(gru(), above, other=nn.Linear(2 * H, H)),
    "above, in one loop": lambda: Wrapper(nn.GRUCell(WIDTH, H), above_in_a_loop, other=nn.Linear(2 * H, H)),
    "below": lambda: Wrapper(nn.RNNCell(H, H), below, other=nn.Linear(WIDTH + H, H)),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_recurrence_of_other_layers_is_named(name, x):
    """Exponents of the layer alone would not be those of the network."""
    net = BESIDE[name]().double()
    with pytest.raises(ValueError, match=r"a recurrence beside its .*Linear 'other'.*layer='layer'.*ModuleCell"):
        lyapunov_spectrum(net, x)
    assert len(lyapunov_spectrum(net, x, layer="layer").exponents) == H


def test_layers_that_are_called_at_each_step_without_a_state_are_none(x):
    """An encoder of frames, a readout, and attention over what is given."""

    def forward(net, x):
        h, seen, keys = x.new_zeros(len(x), H, requires_grad=True), [], net.keys(x)
        for x_t in x.unbind(1):
            h = net.layer(net.deep(net.deep(torch.relu(net.frame(x_t)))), h)
            weights = torch.softmax((keys @ h.unsqueeze(-1)).squeeze(-1), -1)
            seen.append(net.out(torch.cat([h, (weights.unsqueeze(-1) * keys).sum(1)], -1)))
        return torch.stack(seen, 1)

    net = Wrapper(
        nn.GRUCell(H, H), forward, frame=nn.Linear(WIDTH, H), deep=nn.Linear(H, H), keys=nn.Linear(WIDTH, H),
        out=nn.Linear(2 * H, 2),
    ).double()  # fmt: skip
    torch.testing.assert_close(found_jacobians(net, x), dense_jacobians(net, x, net.layer), rtol=0, atol=1e-10)


def test_weights_that_forward_changes_in_place(x):
    def forward(net, x):
        with torch.no_grad():
            net.layer.weight_hh_l0.clamp_(-0.1, 0.1)
        return net.layer(x)[0]

    net = Wrapper(gru(), forward).double()
    before = net.layer.weight_hh_l0.detach().clone()
    found = found_jacobians(net, x)
    assert torch.equal(net.layer.weight_hh_l0, before)
    with torch.no_grad():
        net.layer.weight_hh_l0.clamp_(-0.1, 0.1)
    torch.testing.assert_close(found, found_jacobians(net.layer, x), rtol=0, atol=1e-12)


def test_weights_that_shrink_at_every_run_are_refused(x):
    net = Wrapper(gru(), whole).double()

    def decay(layer, args):
        layer.weight_hh_l0.data.mul_(0.9)

    net.layer.register_forward_pre_hook(decay)
    with pytest.raises(ValueError, match="or changes its own weights at every run"):
        lyapunov_spectrum(net, x)


def test_a_batch_in_parts_is_refused(x):
    net = Wrapper(gru(), lambda net, x: torch.cat([net.layer(x[:3])[0], net.layer(x[3:])[0]])).double()
    with pytest.raises(ValueError, match=r"not always from the state .* \(call 2 did not\)"):
        lyapunov_spectrum(net, x)


def test_a_single_step_of_several_is_refused(x):
    net = Wrapper(nn.GRUCell(WIDTH, H), lambda net, x: net.layer(x[:, 0])).double()
    with pytest.raises(ValueError, match=r"calls its GRUCell once on sequences of shape \(4, 7, 3\)"):
        lyapunov_spectrum(net, x)


def test_gradients_of_tied_weights_are_refused(x):
    net = Wrapper(gru(), lambda net, x: net.out(net.layer(x)[0] + net.second(x)[0]), second=gru(), out=nn.Linear(H, 2))
    net.second.weight_hh_l0 = net.layer.weight_hh_l0
    net, y = net.double(), draw(N, T, 2)
    with pytest.raises(ValueError, match=r"weight_hh_l0 of 'layer' is 'second.weight_hh_l0' too"):
        loss_gradient(net, x, y, layer="layer")
    with pytest.raises(ValueError, match=r"'second.weight_hh_l0' too"):
        GradientAlignmentAnalyzer(x, y, layer="layer").fit_transform([net])
    found = loss_gradient(net, x, y, layer="layer", parameters="weight_ih").parameters["weight_ih"]
    nn.functional.mse_loss(net(x), y).backward()
    np.testing.assert_allclose(found, net.layer.weight_ih_l0.grad.numpy(), rtol=0, atol=1e-12)


def test_a_reservoir_without_gradients_has_none(x):
    def forward(net, x):
        with torch.no_grad():
            h = net.layer(x)[0]
        return net.out(h)

    net = Wrapper(gru(), forward, out=nn.Linear(H, 2)).double()
    torch.testing.assert_close(found_jacobians(net, x), found_jacobians(net.layer, x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="must have outputs that depend differentiably on its recurrent layer"):
        loss_gradient(net, x, draw(N, T, 2))


def test_networks_that_remember_have_no_loss_gradient(x):
    def forward(net, x):
        y, net.h = net.layer(x, getattr(net, "h", None))
        return net.out(y)

    net = Wrapper(gru(), forward, out=nn.Linear(H, 2)).double()
    with pytest.raises(ValueError, match="keeps a state between calls"):
        loss_gradient(net, x, draw(N, T, 2))


def test_a_loop_with_a_readout_is_not_held_for_one(x):
    net = Wrapper(nn.GRUCell(WIDTH, H), lambda net, x: net.out(loop(net, x)), out=nn.Linear(H, 2)).double()
    torch.testing.assert_close(found_jacobians(net, x), dense_jacobians(net, x, net.layer), rtol=0, atol=1e-10)
