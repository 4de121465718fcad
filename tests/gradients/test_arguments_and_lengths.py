"""Networks whose forward takes more than sequences, and sequences of unequal length: gradients are autograd's."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from sklyap import GradientAlignmentAnalyzer, RNNClassifier
from sklyap.gradients import loss_gradient
from sklyap.sensitivity import input_sensitivity
from tests.cells.networks import WIDTH, H, N, T, Wrapper, draw, gru, lstm, whole

LENGTHS = [T, 3, 5, 6]


class Packs(nn.Module):
    """Packs what it gets, and reads out the last state of each sequence or every step."""

    def __init__(self, layer, every_step=False):
        super().__init__()
        self.layer, self.encoder, self.out, self.every_step = layer, nn.Linear(WIDTH, 6), nn.Linear(H, 2), every_step

    def forward(self, x, lengths, hidden=None):
        packed = pack_padded_sequence(self.encoder(x), lengths, batch_first=True, enforce_sorted=False)
        y, last = self.layer(packed, hidden)
        if self.every_step:
            return self.out(pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0])
        return self.out((last[0] if isinstance(last, tuple) else last)[-1])


def reference(net, loss, names):
    net.zero_grad()
    loss.backward()
    return {name: getattr(net.layer, f"{name}_l0").grad.numpy() for name in names}


def check(found, expected):
    for name, grad in expected.items():
        np.testing.assert_allclose(found.parameters[name], grad, rtol=0, atol=1e-10 * np.abs(grad).max())


@pytest.fixture
def x():
    return draw(N, T, WIDTH)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("make", [gru, lstm])
def test_a_network_that_packs(make, every_step, x):
    torch.manual_seed(1)
    net = Packs(make(6), every_step).double()
    y = draw(N, T, 2) if every_step else draw(N, 2)
    kwargs = {"lengths": LENGTHS}
    found = loss_gradient(net, x, y, parameters="all", forward_kwargs=kwargs, loss=nn.MSELoss())
    check(found, reference(net, nn.functional.mse_loss(net(x, LENGTHS), y), found.parameters))
    for i, n in enumerate(LENGTHS):
        assert np.isnan(found.log_growth[i, n:]).all() and np.isfinite(found.log_growth[i, :n]).all()
        assert (found.state_gradients[i, n + 1 :] == 0).all()
    for function in (input_sensitivity, lambda *a, **k: GradientAlignmentAnalyzer(*a[1:], **k).fit_transform([a[0]])):
        with pytest.raises(ValueError, match=r"one length here. Got lengths \[7, 3, 5, 6\]"):
            function(net, x, y, forward_kwargs=kwargs, loss=nn.MSELoss())


def test_a_hidden_state(x):
    torch.manual_seed(1)
    net = Wrapper(gru(), None, out=nn.Linear(H, 2)).double()
    net.forward = lambda x, hidden: net.out(net.layer(x, hidden)[0])
    hidden, y = draw(1, N, H), draw(N, T, 2)
    found = loss_gradient(net, x, y, parameters="all", forward_kwargs={"hidden": hidden})
    check(found, reference(net, nn.functional.mse_loss(net(x, hidden), y), found.parameters))
    result = GradientAlignmentAnalyzer(x, y, forward_kwargs={"hidden": hidden}, n_directions=3).analyze(net)
    np.testing.assert_allclose(result.gradient, found.parameters["weight_hh"], rtol=0, atol=1e-12)
    assert result.relative_error < 1e-10
    scores = np.tile(np.arange(T, dtype=float), (N, 1))
    effects = input_sensitivity(
        net, x, y, forward_kwargs={"hidden": hidden}, by=scores, n_steps=1, n_random=2, perturbation="zero"
    )
    erased = x.clone()
    erased[:, -1] = 0
    expected = (net(erased, hidden) - net(x, hidden)).flatten(1).norm(dim=1).detach()
    np.testing.assert_allclose(effects.output.largest[:, 0], expected, rtol=1e-10)


@pytest.mark.parametrize("form", ["list", "padded", "packed"])
def test_sequences_of_unequal_length(form, x):
    torch.manual_seed(1)
    net = Wrapper(lstm(), lambda net, x: net.out(net.layer(x)[0][:, -1]), out=nn.Linear(H, 2)).double()
    y, rows = draw(N, 2), [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    options = {}
    if form == "padded":
        options["lengths"] = LENGTHS
    given = {"list": rows, "padded": x, "packed": pack_sequence(rows, enforce_sorted=False)}[form]
    found = loss_gradient(net, given, y, parameters="all", **options)
    loss = torch.stack([nn.functional.mse_loss(net(row[None]), y[i : i + 1]) for i, row in enumerate(rows)]).mean()
    check(found, reference(net, loss, found.parameters))
    assert found.loss == pytest.approx(loss.item(), rel=1e-12)
    assert found.energy[-1] == pytest.approx(1)
    assert found.log_growth.shape == (N, T, 2 * H) and np.isnan(found.log_growth[1, 3:]).all()


def test_targets_at_every_step_of_unequal_sequences(x):
    torch.manual_seed(1)
    net = Wrapper(gru(), lambda net, x: net.out(net.layer(x)[0]), out=nn.Linear(H, 2)).double()
    y, rows = draw(N, T, 2), [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    found = loss_gradient(net, x, y, parameters="all", lengths=LENGTHS)
    listed = loss_gradient(net, rows, [t[:n] for t, n in zip(y, LENGTHS, strict=True)], parameters="all")
    loss = torch.stack(
        [nn.functional.mse_loss(net(r[None]), y[i : i + 1, : len(r)]) for i, r in enumerate(rows)]
    ).mean()
    expected = reference(net, loss, found.parameters)
    check(found, expected)
    check(listed, expected)


def test_classifiers_that_were_fitted_on_lists():
    X = [np.random.default_rng(i).normal(size=(6 + i % 3, 2)) for i in range(12)]
    y = np.arange(12) % 2
    network = RNNClassifier("gru", 4, max_epochs=1, random_state=0).fit(X, y)
    found = loss_gradient(network, X, y)
    parts = [loss_gradient(network, [X[i]], y[i : i + 1]).parameters["weight_hh"] for i in range(12)]
    np.testing.assert_allclose(found.parameters["weight_hh"], np.mean(parts, 0), rtol=0, atol=1e-10)


def test_what_does_not_fit(x):
    net = Wrapper(gru(), whole).double()
    rows = [row[:n] for row, n in zip(x, LENGTHS, strict=True)]
    y = draw(N, H)
    with pytest.raises(ValueError, match="'ranks' parameter needs sequences of one length"):
        loss_gradient(net, rows, y, ranks=[1], loss=lambda out, y: out.mean())
    with pytest.raises(ValueError, match="'forward_kwargs' parameter needs sequences of one length"):
        loss_gradient(net, rows, y, forward_kwargs={"hidden": None}, loss=lambda out, y: out.mean())
    with pytest.raises(ValueError, match=r"one target for each of the 4 sequences\. Got 3"):
        loss_gradient(net, rows, y[:3])
    with pytest.raises(ValueError, match="Got a bare recurrent layer"):
        loss_gradient(gru().double(), x, y, forward_kwargs={"hidden": None}, loss=lambda out, y: out[0].mean())
