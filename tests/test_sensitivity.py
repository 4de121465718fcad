"""Input sensitivity: effects by hand, scores by definition, and a test that errs as often as it says."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import RNNClassifier, RNNRegressor, lyapunov_spectrum
from sklyap.exceptions import DivergedError
from sklyap.gradients import loss_gradient
from sklyap.networks.modules import OneHot
from sklyap.sensitivity import _compare, input_sensitivity

N, T, WIDTH = 8, 10, 3


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, T, WIDTH)).astype(np.float32), rng.integers(0, 4, size=N)


@pytest.fixture(scope="module")
def network(task):
    return RNNClassifier("gru", 7, max_epochs=3, random_state=0).fit(*task)


class OneStep(nn.Module):
    """Answers with the sum of the inputs at one step: all other steps do not matter."""

    def __init__(self, step):
        super().__init__()
        self.rnn, self.readout = nn.RNN(WIDTH, 1, batch_first=True), nn.Linear(1, 1)
        self.step = step

    def forward(self, x):
        return 0 * self.readout(self.rnn(x)[0][:, -1]) + x[:, self.step].sum(-1, keepdim=True)


def logits(network, X):
    return copy.deepcopy(network.net_.module_).double().eval()(torch.from_numpy(X).double()).detach()


def test_effects_by_hand(task, network):
    X, y = task
    score = np.random.default_rng(1).normal(size=(N, T))
    result = input_sensitivity(network, X, y, by=score, n_steps=[2, 5], n_random=3, every_step=True)
    order = np.argsort(-score, axis=1)
    clean, target = logits(network, X), torch.from_numpy(y)
    loss = nn.functional.cross_entropy(clean, target, reduction="none")
    for which, first in (("largest", order), ("smallest", order[:, ::-1])):
        for i, k in enumerate((2, 5)):
            changed = X.astype(float)
            for row, steps in zip(changed, first[:, :k], strict=True):
                row[steps] = X.astype(float).min() + X.astype(float).max() - row[steps]
            answers = logits(network, changed)
            moved = torch.linalg.vector_norm(answers - clean, dim=1)
            np.testing.assert_allclose(getattr(result.output, which)[:, i], moved, rtol=1e-9)
            more = nn.functional.cross_entropy(answers, target, reduction="none") - loss
            np.testing.assert_allclose(getattr(result.loss, which)[:, i], more, rtol=1e-7, atol=1e-12)
    changed = X.astype(float)
    changed[:, 4] = changed.min() + changed.max() - changed[:, 4]
    moved = torch.linalg.vector_norm(logits(network, changed) - clean, dim=1)
    np.testing.assert_allclose(result.output.by_step[:, 4], moved, rtol=1e-9)
    assert result.loss.by_step.shape == (N, T)
    assert result.by == "array" and result.n_steps.tolist() == [2, 5]
    mean = result.output.random.mean(1)
    np.testing.assert_allclose(result.output.largest_against_random.difference, (result.output.largest - mean).mean(0))


def test_it_finds_where_a_network_is_fragile(task):
    X, _ = task
    score = np.zeros((N, T))
    score[:, 6] = 1
    result = input_sensitivity(OneStep(6), X, np.zeros((N, 1)), by=score, n_random=30)
    output = result.output.largest_against_random
    assert result.output.by_step is None
    assert (result.output.smallest == 0).all()
    assert output.p_value[0] < 0.01 and output.p_adjusted[0] < 0.01
    assert output.interval[0, 0] > 0 and output.ratio[0] > 3
    everywhere = input_sensitivity(OneStep(6), X, np.zeros((N, 1)), by=score, n_random=5, n_steps=T)
    np.testing.assert_allclose(everywhere.output.largest, everywhere.output.smallest)
    assert everywhere.output.largest_against_random.p_value[0] == 1
    ignored = input_sensitivity(OneStep(6), X, np.zeros((N, 1)), by=-score, n_steps=1, n_random=30)
    assert ignored.output.largest_against_random.difference[0] <= 0
    assert ignored.output.smallest_against_random.p_value[0] < 0.01


def test_scores_by_definition(task, network):
    X, y = task

    def score(**options):
        return input_sensitivity(network, X, y, n_random=1, n_steps=1, **options).score

    local = lyapunov_spectrum(network, X, warmup=0, qr_interval=1, return_local=True).local
    np.testing.assert_allclose(score(by="sum"), local.sum(-1), rtol=1e-9)
    leading = score(by="leading", n_directions=3)
    np.testing.assert_allclose(leading.sum(1), local[..., :3].mean(-1).sum(1), rtol=1e-9)
    expected = np.stack([leading[:, t + 1 :].sum(1) for t in range(T)], 1)
    np.testing.assert_allclose(score(by="future", n_directions=3), expected, rtol=1e-9, atol=1e-12)
    g = loss_gradient(network, X, y).state_gradients[:, 1:]
    np.testing.assert_allclose(score(by="gradient"), np.linalg.norm(g, axis=2), rtol=1e-9)


def test_annihilated_directions_have_a_score(task):
    X, y = task
    network = RNNClassifier("rnn", 6, nonlinearity="relu", max_epochs=1, random_state=0).fit(X, y)
    result = input_sensitivity(network, X, y, by="sum", n_random=2)
    assert np.isfinite(result.score).all()


def test_first_order_theory_holds_for_small_noise(task, network):
    """Ranked by the exact gradient, tiny noise moves the loss more than at random steps."""
    X, y = task
    result = input_sensitivity(
        network, X, y, by="gradient", perturbation="gaussian", scale=1e-4, n_steps=1, n_random=80
    )
    largest, random = np.abs(result.loss.largest).mean(), np.abs(result.loss.random).mean()
    assert largest > 1.2 * random


@pytest.mark.parametrize("perturbation", ["flip", "gaussian", "zero"])
def test_perturbations(perturbation, task, network):
    X, y = task
    result = input_sensitivity(network, X, y, perturbation=perturbation, n_random=4)
    assert (result.output.largest > 0).all()
    assert np.isfinite(result.loss.random).all()
    assert result.perturbation == perturbation
    again = input_sensitivity(network, X, y, perturbation=perturbation, n_random=4, batch_size=7)
    np.testing.assert_allclose(again.output.random, result.output.random, rtol=1e-9)
    np.testing.assert_array_equal(again.loss.largest_against_random.p_value, result.loss.largest_against_random.p_value)
    other = input_sensitivity(network, X, y, perturbation=perturbation, n_random=4, random_state=1)
    assert not np.array_equal(other.output.random, result.output.random)


def test_zero_erases(task, network):
    X, y = task
    result = input_sensitivity(network, X, y, perturbation="zero", n_steps=T, n_random=1)
    moved = torch.linalg.vector_norm(logits(network, np.zeros_like(X)) - logits(network, X), dim=1)
    np.testing.assert_allclose(result.output.largest[:, 0], moved, rtol=1e-9)


def test_tokens(task, monkeypatch):
    rng = np.random.default_rng(0)
    tokens, y = rng.choice([1, 4, 5], size=(N, T)), rng.integers(0, 2, size=(N, T))
    network = RNNClassifier("lstm", 5, input_type="tokens", readout="all", max_epochs=1, random_state=0).fit(tokens, y)
    seen, forward = [], OneHot.forward
    # A hook of the network itself would be copied with it, and its list too.
    monkeypatch.setattr(OneHot, "forward", lambda self, tokens: seen.append(tokens.clone()) or forward(self, tokens))
    result = input_sensitivity(network, tokens, y, n_steps=T, n_random=1)
    assert (result.output.largest > 0).all()
    runs = [run.numpy() for run in seen if run.shape[1] == T]
    flipped = next(run for run in runs if not (run == tokens[np.arange(len(run)) * N // len(run)]).any())
    assert set(np.unique(flipped).tolist()) <= {1, 4, 5}  # every token another, all of them known ones
    for perturbation in ("gaussian", "zero"):
        with pytest.raises(ValueError, match="'perturbation' parameter must be 'flip' for tokens"):
            input_sensitivity(network, tokens, y, perturbation=perturbation)
    with pytest.raises(ValueError, match="at least two kinds of tokens"):
        input_sensitivity(network, np.ones_like(tokens), y)


def test_time_first_networks_and_numbers_at_every_step(task):
    X, _ = task
    y = X[..., :1].cumsum(1)
    network = RNNRegressor("rnn", 5, readout="all", max_epochs=1, random_state=0).fit(X, y)

    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            module = copy.deepcopy(network.net_.module_)
            self.rnn, self.readout = nn.RNN(WIDTH, 5), module.readout
            self.rnn.load_state_dict(module.recurrent.state_dict())

        def forward(self, x):
            return self.readout(self.rnn(x)[0])

    ours = input_sensitivity(network, X, y, n_random=3)
    theirs = input_sensitivity(TimeFirst(), X, y, n_random=3)
    np.testing.assert_allclose(theirs.output.random, ours.output.random, rtol=1e-6)
    np.testing.assert_allclose(theirs.loss.largest, ours.loss.largest, rtol=1e-5, atol=1e-9)


def test_p_values_are_right_when_there_is_nothing_to_find():
    """Exchangeable sets, skewed and dependent over k: p below 5 % in 5 % of the cases, adjusted over all k too."""
    generator = np.random.default_rng(1)
    p, adjusted = [], []
    for _ in range(600):
        sets = np.exp(generator.normal(size=(10, 21, 4)).cumsum(2))
        found = _compare(sets[:, 0], sets[:, 1:], generator)
        p.append(found.p_value[1])
        adjusted.append(found.p_adjusted.min())
    for rate in (np.mean(np.asarray(p) < 0.05), np.mean(np.asarray(adjusted) < 0.05)):
        assert rate < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)
    assert np.mean(np.asarray(p) < 0.5) > 0.4  # and not for being too cautious
    assert (np.asarray(adjusted) >= 1 / 2001).all()


def test_intervals_cover_the_true_difference():
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        random = generator.exponential(size=(25, 10, 1))
        chosen = 0.5 + generator.exponential(size=(25, 1))
        low, high = _compare(chosen, random, generator).interval[:, 0]
        covered += low <= 0.5 <= high
    assert 0.86 <= covered / 200 <= 0.99


def test_table_and_repr(task, network):
    result = input_sensitivity(network, *task, n_random=5)
    table = result.table()
    assert len(table) == 2 * 2 * 3 and set(table[0]) >= {"effect", "steps", "n_steps", "ratio", "p_adjusted"}
    assert "loss, k = 4" in repr(result) and "3 k" not in repr(result)


def test_one_sequence(task, network):
    X, y = task
    result = input_sensitivity(network, X[:1], y[:1], n_random=5)
    for row in result.table():
        assert all(np.isfinite(value) for value in row.values() if not isinstance(value, str))


def test_the_network_stays_as_it_is(task, network):
    module = network.net_.module_
    before, rng = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    training = [m.training for m in module.modules()]
    input_sensitivity(network, *task, n_random=2, by="gradient")
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state()) and training == [m.training for m in module.modules()]


def test_a_broken_network_is_refused(task):
    broken = RNNClassifier("gru", 4, max_epochs=1, random_state=0).fit(*task)
    with torch.no_grad():
        broken.net_.module_.readout.bias.fill_(np.inf)
    with pytest.raises(DivergedError, match="before any perturbation"):
        input_sensitivity(broken, *task)


def test_bad_input(task, network):
    X, y = task

    def raises(message, error=ValueError, network=network, targets=y, **options):
        with pytest.raises(error, match=message):
            input_sensitivity(network, X, targets, **options)

    raises("'perturbation' parameter must be one of 'flip', 'gaussian', 'zero'", perturbation="noise")
    raises(r"'n_steps' parameter must be an int in the range \[1, 10\]. Got 11", n_steps=[2, 11])
    raises("'n_random' parameter must be an int", n_random=0)
    raises("'by' parameter must be one of 'leading', 'sum', 'future', 'gradient'", by="trace")
    raises(r"'by' parameter must be a finite array of shape \(8, 10\). Got shape \(8, 9\)", by=np.zeros((N, 9)))
    raises(r"'n_directions' parameter must be an int in the range \[1, 7\]. Got 8", n_directions=8)
    raises("'scale' parameter must be a finite float", scale=-1.0)
    raises("'targets' parameter must hold one target for each of the 8", targets=y[:3])
    raises("must have a readout", network=nn.GRU(WIDTH, 4))
    raises(
        "must return a tensor of outputs. Got tuple", network=nn.GRU(WIDTH, 4), loss=lambda o, y: o[0].square().mean()
    )
