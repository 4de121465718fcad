"""Callbacks that compute exponents, in nets and with sequences of all kinds, and what they refuse."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn

from sklyap import RNNClassifier, as_recurrent_cell, finite_time_exponents, lyapunov_spectrum
from sklyap.datasets import make_recall
from sklyap.exceptions import DivergedError, SklyapWarning
from sklyap.training import GradientFlossing, LyapunovMonitor
from sklyap.training.setup import inputs_of
from tests.lyapunov.differentiable import check_directional_derivatives, weighted

pytestmark = pytest.mark.filterwarnings("ignore:Not converged")
X, Y = make_recall(48, n_steps=12, random_state=0)
callbacks = pytest.mark.parametrize("kind", [GradientFlossing, LyapunovMonitor])


class Two(nn.Module):
    """Two recurrent layers side by side."""

    def __init__(self, trained=True):
        super().__init__()
        self.a, self.b = nn.GRU(4, 5, batch_first=True), nn.LSTM(4, 3, batch_first=True, bidirectional=True)
        self.head = nn.Linear(11, 4)
        self.a.requires_grad_(trained)

    def forward(self, x):
        return self.head(torch.cat([self.a(x)[0][:, -1], self.b(x)[0][:, -1]], -1))


def fitted(callback, **options):
    net = NeuralNetClassifier(
        Two, criterion=nn.CrossEntropyLoss, max_epochs=2, batch_size=24, verbose=0, callbacks=[callback], **options
    )
    torch.manual_seed(0)
    return net.fit(X, Y)


def test_the_layer_that_is_steered():
    for layer, k, other in (("a", 5, "b"), ("b.forward", 6, "a")):
        flossing = GradientFlossing(every=None, pretrain_epochs=1, weight=0.1, layer=layer)
        net = fitted(flossing, lr=0.0)
        assert flossing.rounds_[0].before.shape == (k,)
        torch.manual_seed(0)
        untrained = Two()
        for name, parameter in net.module_.named_parameters():
            same = torch.equal(parameter, untrained.get_parameter(name))
            assert same or not name.startswith(other)


def test_the_layer_of_differentiable_exponents():
    torch.manual_seed(0)
    module, x = Two().double(), torch.as_tensor(X[:2, :6]).double()
    for layer in ("a", "b.forward"):
        exponents = finite_time_exponents(module, X[:3], layer=layer)
        expected = lyapunov_spectrum(as_recurrent_cell(module, layer=layer), X[:3], warmup=0).per_sequence
        np.testing.assert_allclose(exponents.detach(), expected, rtol=0, atol=1e-9)
        trained = [p for name, p in module.get_submodule(layer[0]).named_parameters() if "reverse" not in name]
        check_directional_derivatives(lambda at=layer: weighted(finite_time_exponents(module, x, layer=at)), trained)
    with pytest.raises(ValueError, match="'layer' parameter must name one of"):
        finite_time_exponents(module, X[:3], layer="c")


def test_the_layer_that_is_watched():
    monitor = LyapunovMonitor(X[:4], n_exponents=None, layer="a")
    net = fitted(monitor)
    expected = lyapunov_spectrum(as_recurrent_cell(net, layer="a"), X[:2])
    np.testing.assert_array_equal(monitor.spectra_[-1].exponents, expected.exponents)


@callbacks
def test_several_layers_and_none_is_chosen(kind):
    with pytest.raises(ValueError, match="exactly one recurrent layer"):
        fitted(kind())


@callbacks
@pytest.mark.parametrize("input_type", ["values", "tokens"])
def test_batches_of_unequal_lengths(kind, input_type):
    lengths = np.random.default_rng(0).integers(6, 12, len(X))
    rows = X if input_type == "values" else X.argmax(-1)
    ragged = [row[:n] for row, n in zip(rows, lengths, strict=True)]
    callback = kind()
    RNNClassifier(
        "gru", 5, max_epochs=2, batch_size=4, input_type=input_type, callbacks=[callback], random_state=0
    ).fit(ragged, Y)
    assert len(getattr(callback, "rounds_", None) or callback.spectra_) > 1


def test_exponents_of_unequal_lengths_are_those_of_the_sequences():
    lengths = [12, 7, 9, 5]
    ragged = [row[:n] for row, n in zip(X, lengths, strict=False)]
    flossing = GradientFlossing(every=1, weight=0.0)
    estimator = RNNClassifier(
        "gru",
        5,
        max_epochs=1,
        batch_size=4,
        lr=0.0,
        optimizer="sgd",
        callbacks=[flossing],
        random_state=0,
        net_params={"iterator_train__shuffle": False},
    )
    estimator.fit(ragged, Y[:4])
    expected = finite_time_exponents(estimator, ragged).detach().numpy().mean(0)
    np.testing.assert_allclose(flossing.rounds_[0].before, expected, atol=1e-9)


def test_only_what_trails_is_padding():
    batch = torch.tensor([[3, 1, -1, -1], [2, 2, 2, 2]]), torch.zeros(2)
    assert [row.tolist() for row in inputs_of(batch, "caller")] == [[3, 1], [2, 2, 2, 2]]
    batch = torch.tensor([[3, -1, 1, 0], [2, 2, 2, -2]]), torch.zeros(2)
    assert inputs_of(batch, "caller") is batch[0]


@callbacks
def test_a_single_sequence_without_its_axis_is_refused(kind):
    with pytest.raises(ValueError, match=r"must have shape \(n_sequences, n_steps, n_inputs\).* add an axis"):
        fitted(kind(X[0], layer="a"))


def test_weights_that_are_not_trained():
    with pytest.raises(ValueError, match="needs a net with weights that it can move"):
        fitted(GradientFlossing(layer="a"), module__trained=False)


def test_weights_that_become_nan_between_rounds():
    class Poison(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 2:
                with torch.no_grad():
                    net.module_.a.weight_hh_l0[0, 0] = torch.nan

    flossing = GradientFlossing(every=1, unit="epoch", layer="a")
    with pytest.warns(SklyapWarning, match="left at batch 1 of epoch 2: .*NaN.* Training goes on"):
        net = NeuralNetClassifier(
            Two, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0, callbacks=[Poison(), flossing]
        ).fit(X, Y)
    assert len(net.history) == 2 and flossing.n_skipped_ == 1
    with pytest.warns(SklyapWarning, match="Training goes on"), pytest.raises(DivergedError):
        # The estimators end a run whose loss is NaN.
        class Poisoned(Poison):
            def on_epoch_begin(self, net, **kwargs):
                if len(net.history) == 2:
                    with torch.no_grad():
                        net.module_.recurrent.weight_hh_l0[0, 0] = torch.nan

        RNNClassifier("gru", 5, callbacks=[Poisoned(), GradientFlossing(every=1)], random_state=0).fit(X, Y)
