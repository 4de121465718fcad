"""Gradient flossing: it moves exponents, leaves the training of the task alone, and says what it cannot do."""

import math
import warnings

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import LRScheduler
from torch import nn

from sklyap import RNNClassifier, RNNRegressor, lyapunov_spectrum
from sklyap.cells import ElmanCell
from sklyap.datasets import make_recall
from sklyap.exceptions import SklyapWarning
from sklyap.training import GradientFlossing

X, Y = make_recall(96, n_steps=15, random_state=0)


def classifier(*callbacks, cell="rnn", **options):
    options = {"max_epochs": 2, "batch_size": 32, "random_state": 0, "callbacks": list(callbacks)} | options
    return RNNClassifier(cell, 12, **options)


def largest(network, k=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklyapWarning)
        return lyapunov_spectrum(network, X[:16], n_exponents=k, warmup=0).exponents


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "antisymmetric"])
def test_before_training(cell):
    flossing = GradientFlossing(pretrain_epochs=10, every=None, weight=10, n_exponents=4, n_sequences=4)
    estimator = classifier(flossing, cell=cell, max_epochs=0).fit(X, Y)
    plain = classifier(cell=cell, max_epochs=0).fit(X, Y)
    assert np.square(largest(estimator, 4)).mean() < 0.5 * np.square(largest(plain, 4)).mean()
    assert len(flossing.rounds_) == 10
    assert all(done.epoch == 0 and done.before.shape == done.after.shape == (4,) for done in flossing.rounds_)
    losses = [done.loss for done in flossing.rounds_]
    assert losses[-1] < 0.5 * losses[0]


def test_a_target_is_reached():
    for target in (-0.5, 0.2):
        flossing = GradientFlossing(
            X, target=target, pretrain_epochs=40, every=None, weight=15, n_exponents=2, n_sequences=6
        )
        estimator = classifier(flossing, max_epochs=0).fit(X, Y)
        np.testing.assert_allclose(largest(estimator, 2), target, atol=0.1)


def test_within_the_tolerance_nothing_is_done():
    """Passes before training end where the exponents are close enough; rounds leave the weights as they are."""
    wide = GradientFlossing(pretrain_epochs=3, every=1, tolerance=100.0)
    plain, left = classifier(max_epochs=1).fit(X, Y), classifier(wide, max_epochs=1).fit(X, Y)
    for a, b in zip(plain.net_.module_.parameters(), left.net_.module_.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [done.epoch for done in wide.rounds_] == [0, 1, 1, 1]
    assert all(np.array_equal(done.before, done.after) for done in wide.rounds_)

    flossing = GradientFlossing(X[:6], pretrain_epochs=60, every=None, weight=15, n_exponents=2, tolerance=0.05)
    classifier(flossing, max_epochs=0).fit(X, Y)
    assert 1 < len(flossing.rounds_) < 60
    distances = [np.sqrt(np.square(done.after).mean()) for done in flossing.rounds_]
    assert distances[-1] < 0.05 and min(distances[:-1]) >= 0.05


def test_during_training_and_the_history():
    flossing = GradientFlossing(every=2, n_exponents=3, until=3)
    estimator = classifier(flossing, max_epochs=4).fit(X, Y)
    # Three batches per epoch: rounds before batches 1, 3; 2; 1, 3; none in epoch 4.
    assert [(done.epoch, done.batch) for done in flossing.rounds_] == [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3)]
    rows = estimator.history_
    assert [len([b for b in row["batches"] if "flossing_after" in b]) for row in rows] == [2, 1, 2, 0]
    first = rows[0]["batches"][0]
    assert first["flossing_before"] == flossing.rounds_[0].before.tolist() and len(first["flossing_after"]) == 3
    assert rows[0]["flossing_loss"] == pytest.approx(np.mean([done.loss for done in flossing.rounds_[:2]]))
    assert math.isnan(rows[3]["flossing_loss"])


def test_rounds_count_epochs_too():
    flossing = GradientFlossing(every=2, unit="epoch", n_updates=3)
    classifier(flossing, max_epochs=5).fit(X, Y)
    assert [(done.epoch, done.batch) for done in flossing.rounds_] == [(1, 1), (3, 1), (5, 1)]


def test_before_and_after_are_the_exponents_of_the_network():
    seen = []

    class Look(GradientFlossing):
        def _round(self, net, *args, **kwargs):
            seen.append(largest(net, 3))
            done = super()._round(net, *args, **kwargs)
            seen.append(largest(net, 3))
            return done

    flossing = Look(X[:16], every=3, n_exponents=3)
    classifier(flossing, max_epochs=1).fit(X, Y)
    (done,) = flossing.rounds_
    np.testing.assert_allclose(done.before, seen[0], atol=1e-10)
    np.testing.assert_allclose(done.after, seen[1], atol=1e-10)
    assert np.square(done.after).mean() < np.square(done.before).mean()


def test_a_weight_of_zero_trains_the_same_network_to_the_last_bit():
    """With clipping and a schedule: nothing but the weights passes between flossing and the task."""
    options = {"gradient_clip": 0.1, "optimizer": "adamw", "max_epochs": 3}
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    plain = classifier(schedule, **options).fit(X, Y)
    flossed = classifier(schedule, GradientFlossing(every=1, weight=0.0), **options).fit(X, Y)
    assert plain.history_[:, "train_loss"] == flossed.history_[:, "train_loss"]
    for a, b in zip(plain.net_.module_.parameters(), flossed.net_.module_.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_follows_the_schedule_of_the_net():
    rates = []

    class Look(GradientFlossing):
        def _step(self, *args):
            super()._step(*args)
            rates.append(self._optimizer.param_groups[0]["lr"])

    classifier(LRScheduler("StepLR", step_size=1, gamma=0.5), Look(every=3, weight=2.0), max_epochs=3).fit(X, Y)
    np.testing.assert_allclose(rates, [2e-3, 1e-3, 5e-4])


def test_only_weights_that_exponents_depend_on_are_moved():
    before = classifier(max_epochs=0).fit(X, Y).net_.module_
    after = classifier(GradientFlossing(pretrain_epochs=1), max_epochs=0).fit(X, Y).net_.module_
    same = {name: torch.equal(a, b) for (name, a), b in zip(before.named_parameters(), after.parameters(), strict=True)}
    assert same["readout.weight"] and same["readout.bias"] and not same["recurrent.weight_hh_l0"]
    assert all(p.grad is None for p in after.parameters())


def test_training_goes_on_without_flossing_anew():
    flossing = GradientFlossing(pretrain_epochs=2, every=None)
    estimator = classifier(flossing)
    estimator.partial_fit(X, Y).partial_fit(X, Y)
    assert len(flossing.rounds_) == 2


def test_regression_and_the_same_result_again():
    target = X.sum((1, 2))
    fits = [
        RNNRegressor("gru", 6, max_epochs=2, callbacks=[GradientFlossing(pretrain_epochs=1)], random_state=1).fit(
            X, target
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(fits[0].predict(X), fits[1].predict(X))


class Module(nn.Module):
    def __init__(self, recurrent=True):
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.recurrent = nn.GRU(3, 5, batch_first=True) if recurrent else nn.Linear(3, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        h = self.recurrent(self.encoder(x))
        return self.head((h[0] if isinstance(h, tuple) else h)[:, -1])


def test_any_skorch_net():
    flossing = GradientFlossing(every=1, pretrain_epochs=1)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        Module, criterion=nn.CrossEntropyLoss, max_epochs=2, batch_size=32, verbose=0, callbacks=[flossing]
    )
    net.fit(X, Y)
    assert len(flossing.rounds_) > 3 and net.history[-1]["flossing_loss"] > 0
    net.fit(X, Y)  # anew: the callback has forgotten
    assert sum(done.epoch == 0 for done in flossing.rounds_) == 1

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = ElmanCell(4, 5), nn.Linear(5, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    target = X.sum((1, 2))[:, None].astype(np.float32)
    flossing = GradientFlossing()
    NeuralNetRegressor(Loop, max_epochs=1, verbose=0, callbacks=[flossing]).fit(X, target)
    assert len(flossing.rounds_) == 1


def test_given_sequences_and_options_by_name():
    flossing = GradientFlossing(X[:4])
    options = {"callbacks__GradientFlossing__n_exponents": 2}
    classifier(flossing, net_params=options, max_epochs=1).fit(X, Y)
    assert flossing.rounds_[0].before.shape == (2,)


def test_annihilated_directions_are_left_out():
    flossing = GradientFlossing(every=1)
    classifier(flossing, nonlinearity="relu", max_epochs=2).fit(X, Y)
    assert len(flossing.rounds_) == 6 and all(math.isfinite(done.loss) for done in flossing.rounds_)
    assert np.isneginf(flossing.rounds_[0].before).any()


def test_a_round_that_is_not_finite_is_left_and_training_goes_on():
    class Broken(GradientFlossing):
        def _exponents(self, net, sequences):
            exponents = super()._exponents(net, sequences)
            return exponents * math.nan if len(net.history) == 2 else exponents

    flossing = Broken(every=3)
    with pytest.warns(SklyapWarning, match="left at batch 1 of epoch 2: its exponents are NaN. Training goes on"):
        estimator = classifier(flossing, max_epochs=3).fit(X, Y)
    assert flossing.n_skipped_ == 1 and [done.epoch for done in flossing.rounds_] == [1, 3]
    assert len(estimator.history_) == 3 and all(np.isfinite(estimator.history_[:, "train_loss"]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_exponents": 13}, ValueError, r"'n_exponents' parameter of GradientFlossing must be an int in .* 12\]"),
        ({"target": math.nan}, ValueError, "'target' parameter of GradientFlossing must be a finite float"),
        ({"target": math.inf}, ValueError, "'target' parameter"),
        ({"target": "zero"}, TypeError, "'target' parameter"),
        ({"weight": -1.0}, ValueError, "'weight' parameter"),
        ({"tolerance": -1.0}, ValueError, "'tolerance' parameter"),
        ({"tolerance": math.nan}, ValueError, "'tolerance' parameter"),
        ({"every": 0}, ValueError, "'every' parameter"),
        ({"until": 0}, ValueError, "'until' parameter"),
        ({"unit": "step"}, ValueError, "'unit' parameter of GradientFlossing must be one of 'batch', 'epoch'"),
        ({"pretrain_epochs": -1}, ValueError, "'pretrain_epochs' parameter"),
        ({"n_updates": 0}, ValueError, "'n_updates' parameter"),
        ({"warmup": 15}, ValueError, r"'warmup' parameter must be an int in the range \[0, 14\]"),
        ({"sequences": X[:, :, :2]}, ValueError, "input.size.* Expected 4, got 2"),
        ({"sequences": 30}, TypeError, "'sequences' parameter of GradientFlossing must be an array"),
    ],
)
def test_errors_at_fit(options, error, message):
    with pytest.raises(error, match=message):
        classifier(GradientFlossing(**options)).fit(X, Y)


def test_a_net_without_a_recurrent_layer():
    net = NeuralNetClassifier(
        Module, module__recurrent=False, criterion=nn.CrossEntropyLoss, verbose=0, callbacks=[GradientFlossing()]
    )
    with pytest.raises(ValueError, match="must hold a recurrent layer"):
        net.fit(X, Y)
    assert len(net.history) == 0
