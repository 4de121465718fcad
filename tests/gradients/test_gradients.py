"""The loss gradient from Q and R against automatic differentiation."""

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import sklyap.gradients.adjoint
from sklyap import RNNClassifier, as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import CELLS, FunctionCell, StackedCell
from sklyap.exceptions import DivergedError
from sklyap.gradients import default_ranks, gradient_from_qr, loss_gradient, parameter_names
from sklyap.tangent import qr_iteration

EXACT = 1e-10  # what is promised; what is met is some 1e-15


class Net(nn.Module):
    """A stack of cells with a readout of the last or of every step."""

    def __init__(self, cell, n_inputs, hidden_size, layers, n_outputs, every_step):
        super().__init__()
        cells = [CELLS[cell](n_inputs, hidden_size)]
        for _ in range(layers - 1):
            cells.append(CELLS[cell](cells[-1].output_size, hidden_size))
        self.recurrent = cells[0] if layers == 1 else StackedCell(cells)
        self.readout = nn.Linear(self.recurrent.output_size, n_outputs)
        self.every_step = every_step

    def forward(self, x):
        outputs, _ = self.recurrent(x)
        return self.readout(outputs if self.every_step else outputs[:, -1])


def gradients_in_torch(network, X, y):
    network = copy.deepcopy(network).double()
    outputs = network(torch.as_tensor(X).double())
    nn.functional.cross_entropy(outputs.flatten(0, -2), torch.as_tensor(y).flatten()).backward()
    return {name: p.grad.numpy() for name, p in network.recurrent.named_parameters()}


def random_task(seed, *, every_step=False, n_outputs=3, n_inputs=None):
    rng = np.random.default_rng(seed)
    n, T, width = rng.integers(1, 6), rng.integers(1, 40), n_inputs or rng.integers(1, 5)
    X = rng.normal(size=(n, T, width))
    return X, rng.integers(0, n_outputs, size=(n, T) if every_step else n)


def relative_error(ours, theirs):
    ours, theirs = (np.concatenate([d[name].ravel() for name in theirs]) for d in (ours, theirs))
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("every_step", [False, True], ids=["last step", "every step"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_of_every_cell(cell, layers, every_step):
    for seed in range(3):
        X, y = random_task(seed, every_step=every_step)
        torch.manual_seed(seed)
        network = Net(cell, X.shape[2], 3 + 2 * seed, layers, 3, every_step)
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(1 + seed)  # from contracting to expanding
        found = loss_gradient(network, X, y, parameters="all", ranks=[1])
        assert relative_error(found.parameters, gradients_in_torch(network, X, y)) < EXACT
        assert found.energy[-1] == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_gradients_with_respect_to_states(kind):
    torch.manual_seed(0)
    layer, x = kind(2, 6, 2, batch_first=True).double(), torch.randn(4, 15, 2, dtype=torch.float64)
    starts = [torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True) for _ in range(2 if kind is nn.LSTM else 1)]

    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            hx = tuple(s.detach() for s in starts) if kind is nn.LSTM else starts[0].detach()
            return self.layer(x, hx)[0][:, -1]

    layer(x, tuple(starts) if kind is nn.LSTM else starts[0])[0][:, -1].square().mean().backward()
    g_0 = torch.stack([s.grad for s in starts], 2).transpose(0, 1).flatten(1)  # (n, layers · parts · H)
    found = loss_gradient(Started(), x, np.zeros(4), loss=lambda o, y: o.square().mean())
    np.testing.assert_allclose(found.state_gradients[:, 0], g_0, rtol=0, atol=1e-12 * float(g_0.abs().max()))


@pytest.mark.parametrize("dead", [0.4, 0.9])
def test_annihilated_directions_do_no_harm(dead):
    """ReLU units that are off make R singular; it is multiplied by, never inverted."""
    torch.manual_seed(0)
    X, y = random_task(7)
    network = Net("rnn", X.shape[2], 12, 1, 3, False)
    network.recurrent.nonlinearity = "relu"
    with torch.no_grad():
        network.recurrent.bias_ih[: int(dead * 12)] = -50.0
    for checkpoint in (None, 3):
        found = loss_gradient(network, X, y, ranks="auto", checkpoint=checkpoint)
        assert (found.log_growth < -25).sum(-1).min() >= int(dead * 12)
        assert found.relative_error[-1] < EXACT
        assert np.isfinite(found.relative_error).all() and np.isfinite(found.cosine).all()


def test_a_dead_network_has_no_gradient_and_no_nan():
    X, y = random_task(1)
    network = Net("rnn", X.shape[2], 5, 1, 3, False)
    network.recurrent.nonlinearity = "relu"
    with torch.no_grad():
        network.recurrent.bias_ih.fill_(-50.0)
    found = loss_gradient(network, X, y, ranks="auto")
    assert not found.parameters["weight_hh"].any()
    for values in (found.relative_error, found.cosine, found.energy):
        assert np.isfinite(values).all()


def test_the_transposed_tangent_map_would_be_wrong():
    """The formula holds for J Q; with the factors of Jᵀ Q it fails at full rank."""
    torch.manual_seed(0)
    X, y = random_task(3)
    network = Net("rnn", X.shape[2], 8, 1, 3, False)
    transposed = copy.deepcopy(network)
    with torch.no_grad():
        transposed.recurrent.weight_hh.copy_(network.recurrent.weight_hh.T)
    found = loss_gradient(network, X, y)
    wrong = loss_gradient(transposed, X, y)
    assert np.abs(found.parameters["weight_hh"] - wrong.parameters["weight_hh"]).max() > 1e-3


def test_truncation_projects_the_exact_gradient_on_the_leading_directions():
    torch.manual_seed(2)
    X, y = random_task(5, every_step=True)
    network = Net("lstm", X.shape[2], 8, 1, 3, True)
    full = loss_gradient(network, X, y, ranks="auto")
    result = lyapunov_spectrum(network.recurrent, X, warmup=0, qr_interval=1, return_basis=True)
    Q = result.basis[:, 1:]
    for q in (1, 5, 16):
        truncated = loss_gradient(network, X, y, rank=q, ranks=[q])
        projected = np.einsum("ntik,ntjk,ntj->nti", Q[..., :q], Q[..., :q], full.state_gradients[:, 1:])
        np.testing.assert_allclose(truncated.state_gradients[:, 1:], projected, atol=1e-13)
        np.testing.assert_allclose(truncated.coefficients, full.coefficients[..., :q], atol=1e-13)
        np.testing.assert_allclose(truncated.energy, full.energy[:q], atol=1e-12)
        # One run at full rank gives the curve that separate truncated runs give.
        assert truncated.relative_error[0] == pytest.approx(full.relative_error[q - 1], rel=1e-6, abs=1e-12)
        assert truncated.cosine[0] == pytest.approx(full.cosine[q - 1], rel=1e-9)
    assert (np.diff(full.energy) >= -1e-15).all() and full.energy[0] > 0
    assert full.relative_error[7] > 1e-3  # half of the directions are not enough


def test_state_hidden_is_an_approximation_and_says_so():
    torch.manual_seed(0)
    X, y = random_task(4)
    for layers in (1, 2):
        network = Net("lstm", X.shape[2], 5, layers, 3, False)
        found = loss_gradient(network, X, y, state="hidden", ranks="auto")
        assert found.coefficients.shape[-1] == 5 * layers
        assert 1e-3 < found.relative_error[-1] < 1.5
        assert found.energy[-1] == pytest.approx(1, abs=1e-12)  # of the hidden part, which it spans
        frozen = np.setdiff1d(np.arange(10 * layers), as_recurrent_cell(network).hidden_entries)
        assert not found.state_gradients[..., frozen].any()
    gru = Net("gru", X.shape[2], 5, 1, 3, False)
    assert loss_gradient(gru, X, y, state="hidden", ranks="auto").relative_error[-1] < EXACT


@pytest.mark.parametrize(
    "options", [{"checkpoint": 1}, {"checkpoint": 7}, {"batch_size": 2}, {"orthonormalizer": "cholesky"}]
)
def test_memory_and_method_do_not_change_the_result(options):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(5, 33, 2)), rng.integers(0, 3, size=(5, 33))
    network = Net("gru", 2, 6, 2, 3, True)
    plain = loss_gradient(network, X, y, parameters="all", ranks="auto", checkpoint=None)
    other = loss_gradient(network, X, y, parameters="all", ranks="auto", **options)
    for name in ("state_gradients", "coefficients", "energy", "log_growth", "relative_error", "cosine"):
        np.testing.assert_allclose(getattr(other, name), getattr(plain, name), rtol=1e-9, atol=1e-12)
    for name, value in plain.parameters.items():
        np.testing.assert_allclose(other.parameters[name], value, rtol=1e-9, atol=1e-14)


def test_checkpointing_holds_few_bases_at_once(monkeypatch):
    """The factors alive at any time are those of about c + T/c steps, not of T."""
    factors = []
    most_alive = 0

    def watched(*args, **options):
        nonlocal most_alive
        for block in qr_iteration(*args, **options):
            factors.extend(map(weakref.ref, (block.Q, block.R)))
            most_alive = max(most_alive, sum(factor() is not None for factor in factors))
            yield block

    monkeypatch.setattr(sklyap.gradients.adjoint, "qr_iteration", watched)
    X, y = np.random.default_rng(0).normal(size=(2, 100, 3)), np.array([0, 1])
    network = Net("rnn", 3, 16, 1, 2, False)
    loss_gradient(network, X, y, checkpoint=None)
    assert most_alive >= 200
    factors.clear()
    most_alive = 0
    loss_gradient(network, X, y, checkpoint=10)
    assert 20 <= most_alive < 45


def test_from_the_factors_of_a_spectrum():
    torch.manual_seed(0)
    X, y = random_task(6)
    network = Net("lstm", X.shape[2], 4, 1, 3, False)
    result = lyapunov_spectrum(network.recurrent, X, warmup=0, qr_interval=1, return_basis=True, random_state=5)
    expected = loss_gradient(network, X, y, parameters="all", random_state=5)
    # A loss at the last step alone: δ_T is the gradient there.
    delta = expected.state_gradients[:, -1]
    cell = copy.deepcopy(network.recurrent).double()
    with torch.no_grad():
        states = cell.trajectory(cell.initial_state(len(X)), torch.from_numpy(X)).transpose(0, 1)
    for R in (result.r_factors, torch.from_numpy(result.r_factors)):
        found = gradient_from_qr(
            result.basis, R, delta, cell=network.recurrent, states=states, inputs=X, parameters="all"
        )
        for name, value in expected.parameters.items():
            np.testing.assert_allclose(found.parameters[name], value, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-10)
    truncated = gradient_from_qr(result.basis, result.r_factors, delta, rank=3)
    assert truncated.energy is None and truncated.parameters == {}
    assert truncated.coefficients.shape[-1] == 3


def test_ranks():
    assert default_ranks(5) == [1, 2, 3, 4, 5]
    assert len(default_ranks(1000)) <= 32 and default_ranks(1000)[-1] == 1000
    X, y = random_task(0)
    network = Net("gru", X.shape[2], 40, 1, 3, False)
    found = loss_gradient(network, X, y, ranks="auto")
    assert found.ranks.tolist() == default_ranks(40)
    assert found.relative_error.shape == found.cosine.shape == found.ranks.shape


def test_float32():
    torch.manual_seed(0)
    X, y = random_task(2)
    network = Net("gru", X.shape[2], 16, 1, 3, False)
    found = loss_gradient(network, X, y, ranks=[16], dtype="float32")
    assert found.parameters["weight_hh"].dtype == np.float32
    assert found.relative_error[0] < 1e-4


def test_fitted_networks_of_two_layers():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 12, 3)).astype("f4"), rng.integers(0, 3, size=20)
    network = RNNClassifier("lstm", 5, 2, dropout=0.3, max_epochs=2, random_state=0).fit(X, y)
    found = loss_gradient(network, X, y, ranks="auto")
    assert set(found.parameters) == {"cells.0.weight_hh", "cells.1.weight_hh"}
    assert found.parameters["cells.1.weight_hh"].shape == (20, 5)
    assert found.relative_error[-1] < EXACT


def test_bad_input():
    X, y = random_task(0)
    network = Net("gru", X.shape[2], 4, 1, 3, False)

    def raises(message, error=ValueError, **options):
        with pytest.raises(error, match=message):
            loss_gradient(network, X, y, **options)

    raises(r"'rank' parameter must be an int in the range \[1, 4\]. Got 5", rank=5)
    raises(r"'ranks' parameter must be an int in the range \[1, 4\]. Got 0", ranks=[0, 2])
    raises("'ranks' parameter must be one of 'auto'", ranks="all")
    raises("'parameters' parameter must be 'recurrent' .*, 'all', or names out of weight_ih", parameters="weight_xx")
    raises("'checkpoint' parameter must be an int", checkpoint=0)
    raises("'batch_size' parameter must be an int", TypeError, batch_size=2.5)
    raises("'state' parameter must be one of 'full', 'hidden'", state="h")
    raises("'orthonormalizer' parameter must be one of", orthonormalizer="svd")
    with pytest.raises(ValueError, match="none, as the cell has no parameters"):
        parameter_names(FunctionCell(lambda s, x: s, 2))
    with torch.no_grad():
        network.readout.bias.fill_(np.nan)
    raises("is not finite", DivergedError)


def test_factors_must_fit():
    Q, R, delta = torch.zeros(2, 5, 3, 3), torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"'Q' and 'R' parameters must have shapes .* Got \(2, 4, 3, 3\)"):
        gradient_from_qr(Q[:, :4], R, delta)
    with pytest.raises(ValueError, match=r"'delta' parameter must have shape \(2, 4, 3\), or \(2, 3\)"):
        gradient_from_qr(Q, R, delta[:, :3])
    with pytest.raises(ValueError, match="'R' parameter must be a floating array of 4 dimensions"):
        gradient_from_qr(Q, R[0], delta)
    with pytest.raises(ValueError, match="'states' parameter must be a floating array of 3"):
        gradient_from_qr(Q, R, delta, cell=as_recurrent_cell(nn.RNN(1, 3)), states=torch.zeros(2, 4))
