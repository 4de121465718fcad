"""Closed loops: the tangent through the feedback, against the real network's own derivative and its own forecasts."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import RNNRegressor, closed_loop, finite_time_exponents, lyapunov_spectrum
from sklyap.cells import FunctionCell, GRUCell
from sklyap.gradients import loss_gradient
from sklyap.testing import check_cell
from tests.cells.networks import LAYERS, SINGLE, H, Wrapper, draw

D, N, T = 2, 3, 12


def forecaster(kind="gru", *, layers=1, time_first=False, single_output=False):
    """Return a network that predicts its next input at every step."""
    encoder, out = nn.Sequential(nn.Linear(D, 4), nn.Tanh()), nn.Sequential(nn.Linear(H, 8), nn.Tanh(), nn.Linear(8, D))

    def forward(net, x):
        y = net.out(net.layer(net.encoder(x))[0])
        return (y[-1] if time_first else y[:, -1]) if single_output else y

    layer = LAYERS[kind](4, H, layers, batch_first=not time_first)
    net = Wrapper(layer, forward, encoder=encoder, out=out).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(2)
    return net


def real_jacobian(net, s, kind, layers):
    """Return ∂s'/∂s (N, N) of the network itself, fed with its own output, at one state s (N,)."""
    n_parts = 2 if kind == "lstm" else 1

    def step(s):
        parts = s.reshape(1, layers, n_parts, H).permute(2, 1, 0, 3)
        u = net.out(parts[0][-1]).unsqueeze(0 if not net.layer.batch_first else 1)
        hx = (parts[0].contiguous(), parts[1].contiguous()) if n_parts > 1 else parts[0].contiguous()
        end = net.layer(net.encoder(u), hx)[1]
        end = torch.stack(end) if n_parts > 1 else end.unsqueeze(0)
        return end.permute(2, 1, 0, 3).reshape(-1)

    return torch.autograd.functional.jacobian(step, s)


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", LAYERS)
def test_jacobians_are_those_of_the_network_that_feeds_itself(kind, layers, time_first):
    net = forecaster(kind, layers=layers, time_first=time_first)
    loop = closed_loop(net, draw(N, T, D))
    states = loop.trajectory(loop.initial_state(N), 5)
    found = loop.jacobian(states, None)
    assert loop.state_size == layers * H * (2 if kind == "lstm" else 1)
    for t, row in ((0, 0), (2, 1), (5, 2)):
        expected = real_jacobian(net, states[t, row], kind, layers)
        torch.testing.assert_close(found[t, row], expected, rtol=0, atol=1e-12)
    Q = draw(5, N, loop.state_size, 2)
    lin = loop.linearize(states[:5], None)
    for k in (1, 2, loop.state_size):
        torch.testing.assert_close(lin.fold(k).push(Q), found[:5] @ Q, rtol=0, atol=1e-12)
    torch.testing.assert_close(lin[2].push(Q[2]), found[2] @ Q[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("single_output", [False, True])
@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_forecasts_are_those_of_the_network_on_longer_and_longer_sequences(kind, time_first, single_output):
    net, x = forecaster(kind, time_first=time_first, single_output=single_output), draw(N, T, D)
    found, longer = closed_loop(net, x).forecast(6), x
    with torch.no_grad():
        for _ in range(6):
            y = net(longer.transpose(0, 1) if time_first else longer)
            if not single_output:
                y = y[-1] if time_first else y[:, -1]
            longer = torch.cat([longer, y.unsqueeze(1)], 1)
    torch.testing.assert_close(found, longer[:, T:], rtol=0, atol=1e-12)


def test_the_fixed_point_whose_exponent_is_known():
    """h' = tanh(0.5 h + u), u' = 0.6 h': at its fixed point λ = ln 1.1 (1 - h²)."""
    cell = nn.RNNCell(1, 1, bias=False).double()
    nn.init.constant_(cell.weight_hh, 0.5)
    nn.init.constant_(cell.weight_ih, 1.0)

    def feeds_itself(net, x):
        h, u = x.new_zeros(len(x), 1), x[:, 0]
        for _ in range(x.shape[1]):
            h = net.layer(u, h)
            u = 0.6 * h
        return u

    x = torch.full((1, 30, 1), 0.1, dtype=torch.float64)
    h = torch.tensor(0.5, dtype=torch.float64)
    for _ in range(2000):
        h = torch.tanh(1.1 * h)
    expected = float(torch.log(1.1 * (1 - h**2)))
    net = Wrapper(cell, feeds_itself)
    with pytest.raises(ValueError, match="closed_loop"):
        lyapunov_spectrum(net, x)
    for loop in (closed_loop(net, x), closed_loop(cell, x, feedback=lambda h: 0.6 * h)):
        result = lyapunov_spectrum(loop, 1000, warmup=500)
        assert result.exponents[0] == pytest.approx(expected, abs=1e-10)


def test_a_feedback_that_is_a_known_system():
    """A cell that remembers its input, behind which the feedback is the Hénon map, is the Hénon map."""

    def henon(s):
        return torch.stack([1 - 1.4 * s[:, 0] ** 2 + s[:, 1], 0.3 * s[:, 0]], 1)

    delay = FunctionCell(lambda s, x: 1.0 * x, 2, n_inputs=2)
    result = lyapunov_spectrum(closed_loop(delay, 0.1 * draw(4, 3, 2), feedback=henon), 4000)
    assert result.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-12)
    assert abs(result.exponents[0] - 0.4192) < 4 * result.standard_error[0] + 1e-4


@pytest.mark.parametrize("kind", SINGLE)
def test_loops_inside_forward(kind):
    """Inputs of the layer are a function of the last state: of its output, of a normalised one, of both parts."""

    def forward(net, x):
        h, u = None, net.encoder(x[:, 0])
        for _ in range(x.shape[1]):
            h = net.layer(u, h)
            first = h[0] if kind == "lstm" else h
            u = net.encoder(torch.tanh(net.out(first)))
        return first

    layer = SINGLE[kind](4, H)
    net = Wrapper(layer, forward, encoder=nn.Linear(D, 4), out=nn.Linear(H, D)).double()
    loop = closed_loop(net, draw(N, T, D))
    states = loop.trajectory(loop.initial_state(N), 4)

    def step(s):
        parts = s.reshape(-1, 1, H)
        h = (parts[0], parts[1]) if kind == "lstm" else parts[0]
        end = layer(net.encoder(torch.tanh(net.out(parts[0]))), h)
        return (torch.cat(end, 1) if kind == "lstm" else end)[0]

    for t, row in ((0, 0), (3, 2)):
        expected = torch.autograd.functional.jacobian(step, states[t, row])
        torch.testing.assert_close(loop.jacobian(states[t, row], None), expected, rtol=0, atol=1e-12)
    longer = net(torch.cat([draw(N, T, D), torch.zeros(N, 4, D, dtype=torch.float64)], 1))
    torch.testing.assert_close(states[4][:, :H], longer, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="run its forward for a forecast"):
        loop.forecast(3)
    with pytest.raises(ValueError, match="'feedback' parameter must be None for a network whose forward feeds itself"):
        closed_loop(net, draw(N, T, D), feedback=lambda y: y)


def test_what_depends_on_more_than_the_last_state_is_refused():
    def driven(net, x):
        h, u = x.new_zeros(len(x), H), x[:, 0]
        for x_t in x.unbind(1):
            h = net.layer(x_t + u, h)
            u = net.out(h)
        return u

    def delayed(net, x):
        hs = [x.new_zeros(len(x), H)] * 2
        for _ in range(x.shape[1]):
            hs.append(net.layer(net.out(hs[-2]), hs[-1]))
        return hs[-1]

    for forward in (driven, delayed):
        net = Wrapper(nn.GRUCell(D, H), forward, out=nn.Linear(H, D)).double()
        with pytest.raises(ValueError, match=r"fed with more than a function of its last state.*ModuleCell"):
            closed_loop(net, draw(N, T, D))


def test_outputs_that_depend_on_more_than_the_state_are_refused():
    def attends(net, x):
        h = net.layer(x)[0]
        return net.out(torch.softmax(h @ h[:, -1].unsqueeze(-1), 1).mul(h).sum(1))

    def counts(net, x):
        time = torch.arange(x.shape[1], dtype=x.dtype).reshape(1, -1, 1)
        return net.out(net.layer(x + 0.1 * time)[0])

    def looks_back(net, x):
        return net.out(net.layer(net.conv(nn.functional.pad(x.transpose(1, 2), (2, 0))).transpose(1, 2))[0])

    for forward, message in (
        (attends, "whose output on a whole sequence is not that of its last state"),
        (counts, "gets other inputs on a whole sequence than on one step"),
        (looks_back, "gets other inputs on a whole sequence than on one step"),
    ):
        net = Wrapper(nn.GRU(D, H, batch_first=True), forward, out=nn.Linear(H, D), conv=nn.Conv1d(D, D, 3)).double()
        with pytest.raises(ValueError, match=f"{message}.*ModuleCell"):
            closed_loop(net, draw(N, T, D))


def test_a_skip_from_input_to_output_makes_the_input_a_part_of_the_state():
    """What it adds are directions that are forgotten at once; the forecast is the network's own."""
    net = Wrapper(
        nn.GRU(D, H, batch_first=True), lambda net, x: 0.5 * x + net.out(net.layer(x)[0]), out=nn.Linear(H, D)
    ).double()
    x = draw(N, T, D)
    loop = closed_loop(net, x)
    assert loop.state_size == H + D
    longer = x
    with torch.no_grad():
        for _ in range(5):
            longer = torch.cat([longer, net(longer)[:, -1:]], 1)
    torch.testing.assert_close(loop.forecast(5), longer[:, T:], rtol=0, atol=1e-12)

    def step(z):
        end = net.layer(z[H:].reshape(1, 1, D), z[:H].reshape(1, 1, H))[1].reshape(1, H)
        return torch.cat([end, 0.5 * z[H:].reshape(1, D) + net.out(end)], 1)[0]

    z = loop.trajectory(loop.initial_state(N), 3)[3, 1]
    expected = torch.autograd.functional.jacobian(step, z)
    torch.testing.assert_close(loop.jacobian(z, None), expected, rtol=0, atol=1e-12)


def test_a_feedback_with_a_memory_adds_its_state():
    net, x = forecaster(), draw(N, T, D)
    smooth = FunctionCell(lambda s, y: 0.7 * s + 0.3 * y, D, n_inputs=D)
    loop = closed_loop(net, x, feedback=smooth)
    assert loop.state_size == H + D
    h, m = net.layer(net.encoder(x))[1][0], torch.zeros(N, D, dtype=torch.float64)
    for y in net(x).unbind(1):
        m = 0.7 * m + 0.3 * y
    torch.testing.assert_close(loop.initial_state(N), torch.cat([h, m], 1).detach(), rtol=0, atol=1e-12)
    s_next = net.layer(net.encoder(m.unsqueeze(1)), h.unsqueeze(0))[1][0]
    m_next = 0.7 * m + 0.3 * net.out(s_next)
    found = loop.step(loop.initial_state(N))
    torch.testing.assert_close(found, torch.cat([s_next, m_next], 1).detach(), rtol=0, atol=1e-12)
    assert lyapunov_spectrum(loop, 100).exponents.shape == (H + D,)


def test_greedy_generation_of_tokens():
    """The most likely token does not move with the state: the tangent is that of the layer along its own text."""
    net = Wrapper(
        nn.GRU(4, H, batch_first=True),
        lambda net, x: net.out(net.layer(net.encoder(x))[0]),
        encoder=nn.Embedding(9, 4),
        out=nn.Linear(H, 9),
    ).double()
    tokens = torch.randint(0, 9, (N, T))
    with pytest.raises(ValueError, match=r"must return integer tokens .* feedback=lambda scores: scores.argmax"):
        closed_loop(net, tokens)
    loop = closed_loop(net, tokens, feedback=lambda scores: scores.argmax(-1))
    text = tokens
    for _ in range(8):
        text = torch.cat([text, net(text)[:, -1:].argmax(-1)], 1)
    h = net.layer(net.encoder(text))[0][:, -1].detach()
    torch.testing.assert_close(loop.trajectory(loop.initial_state(N), 8)[8], h, rtol=0, atol=1e-12)
    cell = GRUCell(4, H).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.layer.state_dict().items()})
    x = net.encoder(net.out(h).argmax(-1)).detach()
    torch.testing.assert_close(loop.jacobian(h, None), cell.jacobian(h, x).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "cornn"])
@pytest.mark.parametrize("readout", ["last", "all"])
def test_regressors_and_skorch_nets(cell, readout):
    series = np.sin(0.3 * np.arange(400))[:, None] * np.array([1.0, 0.5])
    X = np.stack([series[i : i + 20] for i in range(0, 360, 4)])
    y = np.stack([series[i + 1 : i + 21] for i in range(0, 360, 4)])
    network = RNNRegressor(cell, 6, readout=readout, max_epochs=2, random_state=0)
    network.fit(X, y if readout == "all" else y[:, -1])
    loop, longer = closed_loop(network, X[:3]), X[:3]
    for _ in range(4):
        predicted = network.predict(longer)
        longer = np.concatenate([longer, (predicted[:, -1] if readout == "all" else predicted)[:, None]], 1)
    np.testing.assert_allclose(loop.double().forecast(4), longer[:, 20:], rtol=0, atol=1e-6)
    np.testing.assert_allclose(network.forecast(X[:3], 4), longer[:, 20:], rtol=0, atol=1e-6)
    assert lyapunov_spectrum(loop, 60).exponents.shape == (loop.state_size,)
    torch.testing.assert_close(closed_loop(network.net_, X[:3]).forecast(4), loop.float().forecast(4))


def test_cells_pass_the_contract():
    torch.manual_seed(0)
    loop = closed_loop(forecaster("gru"), draw(1, T, D))
    check_cell(loop)
    loop = closed_loop(nn.GRU(H, H, batch_first=True).double(), draw(1, T, H))
    twin = pickle.loads(pickle.dumps(copy.deepcopy(loop)))
    assert torch.equal(twin.forecast(4), loop.forecast(4))


def test_the_network_is_left_as_it_was_and_not_followed():
    net, x = forecaster("lstm").train(), draw(N, T, D)
    before = copy.deepcopy(net.state_dict())
    loop = closed_loop(net, x)
    found = lyapunov_spectrum(loop, 50).exponents
    assert net.training and all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        net.layer.weight_hh_l0.zero_()
    np.testing.assert_array_equal(lyapunov_spectrum(loop, 50).exponents, found)
    together = finite_time_exponents(loop, 50, warmup=0).detach().mean(0).sum()
    assert together == pytest.approx(lyapunov_spectrum(loop, 50, warmup=0).exponents.sum(), rel=1e-9)


def test_float32_networks_run_in_float64():
    net, x = forecaster("gru").float(), draw(N, T, D)
    exact = lyapunov_spectrum(closed_loop(copy.deepcopy(net).double(), x), 40, warmup=0).exponents
    np.testing.assert_allclose(lyapunov_spectrum(closed_loop(net, x), 40, warmup=0).exponents, exact, atol=1e-4)


def mixing(y):
    return y - y.mean(0)


@pytest.mark.parametrize(
    ("feedback", "error", "message"),
    [
        (lambda y: y.detach(), ValueError, r"cuts the derivative of the next input .* by finite differences"),
        (lambda y: torch.as_tensor(y.detach().numpy()), ValueError, "cuts the derivative of the next input"),
        (mixing, ValueError, "mixes sequences of a batch"),
        (lambda y: y[:, :1], ValueError, r"must make the network's 2 inputs per step of its output of shape \(2,\)"),
        (lambda y: [y], TypeError, "must return the next input as a tensor. Got list"),
        (lambda y: y @ torch.eye(3), ValueError, "'feedback' parameter of closed_loop could not be run on one step"),
        (FunctionCell(lambda s, x: s, 3, n_inputs=2), ValueError, "must make the network's 2 inputs"),
    ],
)
def test_feedback_that_cannot_be(feedback, error, message):
    with pytest.raises(error, match=message):
        closed_loop(forecaster(), draw(N, T, D), feedback=feedback)


def test_bad_input():
    with pytest.raises(ValueError, match=r"the network's 2 inputs per step .* Got 5 without feedback"):
        closed_loop(nn.GRU(D, H).double(), draw(N, T, D))
    with pytest.raises(ValueError, match=r"must take inputs\. Got an autonomous cell"):
        closed_loop(FunctionCell(lambda s, x: s, 2), draw(N, T, D))
    with pytest.raises(ValueError, match="'spin_up' parameter must have sequences of one length"):
        closed_loop(forecaster(), [draw(4, D), draw(5, D)])
    loop = closed_loop(forecaster(), draw(N, T, D))
    with pytest.raises(ValueError, match="must take inputs; an autonomous system has no loss"):
        loss_gradient(loop, draw(N, T, D), draw(N, D))
