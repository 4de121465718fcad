"""Exponents in the history of training: right numbers, at the right time, without a trace in the training."""

import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import PrintLog
from torch import nn

from sklyap import RNNClassifier, SpectrumStatistics, lyapunov_spectrum, train_population
from sklyap.datasets import make_recall
from sklyap.displays import TrainingDisplay
from sklyap.exceptions import SklyapWarning
from sklyap.training import LyapunovMonitor

pytestmark = pytest.mark.filterwarnings("ignore:Not converged")
X, Y = make_recall(96, n_steps=15, random_state=0)


def classifier(*callbacks, cell="gru", **options):
    options = {"max_epochs": 3, "batch_size": 32, "random_state": 0, "callbacks": list(callbacks)} | options
    return RNNClassifier(cell, 8, **options)


def test_numbers_are_those_of_the_spectrum():
    monitor = LyapunovMonitor(X[:6], n_sequences=None, n_exponents=None, statistics=["n_positive", "top_mean_0.5"])
    estimator = classifier(monitor).fit(X, Y)
    result = lyapunov_spectrum(estimator, X[:6])
    row = estimator.history_[-1]
    np.testing.assert_array_equal(row["lyapunov_exponents"], result.exponents)
    np.testing.assert_array_equal(row["lyapunov_standard_error"], result.standard_error)
    assert row["largest_exponent"] == result.exponents[0]
    expected = SpectrumStatistics(["n_positive", "top_mean_0.5"]).fit_transform(result.exponents[None])[0]
    np.testing.assert_array_equal([row["n_positive"], row["top_mean_0.5"]], expected)
    untrained = classifier(max_epochs=0).fit(X, Y)
    np.testing.assert_array_equal(monitor.spectra_[0].exponents, lyapunov_spectrum(untrained, X[:6]).exponents)
    assert [spectrum.epoch for spectrum in monitor.spectra_] == [0, 1, 2, 3]


def test_training_is_the_same_with_and_without():
    plain, watched = classifier().fit(X, Y), classifier(LyapunovMonitor(every=1, unit="batch")).fit(X, Y)
    assert plain.history_[:, "train_loss"] == watched.history_[:, "train_loss"]
    for a, b in zip(plain.net_.module_.parameters(), watched.net_.module_.parameters(), strict=True):
        assert torch.equal(a, b)


def test_as_often_as_five_percent_of_the_training_time_allow():
    """Three batches of 15 steps are five milliseconds of training, a look ten."""
    monitor = LyapunovMonitor(every="auto")
    classifier(monitor, max_epochs=1).fit(X, Y)
    assert monitor.every_ == 44 and monitor.every == "auto"
    assert [spectrum.epoch for spectrum in monitor.spectra_] == [0]
    monitor = LyapunovMonitor(every="auto", unit="batch")
    classifier(monitor, max_epochs=1).fit(X, Y)
    assert monitor.every_ == 131
    long = make_recall(640, n_steps=900, random_state=0)
    monitor = LyapunovMonitor(every="auto", n_exponents=1)
    classifier(monitor, max_epochs=0).fit(*long)
    assert monitor.every_ == 1


def test_every_so_many_epochs_or_batches():
    monitor = LyapunovMonitor(every=2)
    estimator = classifier(monitor, max_epochs=5).fit(X, Y)
    assert [spectrum.epoch for spectrum in monitor.spectra_] == [0, 2, 4]
    largest = estimator.history_[:, "largest_exponent"]
    assert [math.isnan(value) for value in largest] == [True, False, True, False, True]
    monitor = LyapunovMonitor(every=2, unit="batch")
    estimator = classifier(monitor, max_epochs=2).fit(X, Y)
    np.testing.assert_allclose([spectrum.epoch for spectrum in monitor.spectra_], [0, 2 / 3, 4 / 3, 2])
    watched = [["largest_exponent" in batch for batch in row["batches"]] for row in estimator.history_]
    assert watched == [[False, True, False], [True, False, True]]
    assert estimator.history_[-1, "largest_exponent"] == monitor.spectra_[-1].exponents[0]


def test_few_sequences_and_steps_by_default():
    long = np.concatenate([X] * 10, axis=1)
    monitor = LyapunovMonitor(n_steps=40)
    classifier(monitor, max_epochs=0).fit(long, Y)
    expected = lyapunov_spectrum(classifier(max_epochs=0).fit(long, Y), long[:2, :40], n_exponents=4).exponents
    np.testing.assert_array_equal(monitor.spectra_[0].exponents, expected)


def test_lists_are_not_printed(capsys):
    log = PrintLog()
    classifier(LyapunovMonitor(), log, verbose=1).fit(X, Y)
    printed = capsys.readouterr().out
    assert "largest_exponent" in printed and "lyapunov_exponents" not in printed


def test_any_skorch_net_and_populations():
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.RNN(4, 6, batch_first=True), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    net = NeuralNetClassifier(Module, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0,
                              callbacks=[LyapunovMonitor()])  # fmt: skip
    net.fit(X, Y)
    assert len(net.history[-1]["lyapunov_exponents"]) == 4
    population = train_population(classifier(LyapunovMonitor()), {"hidden_size": [4, 5]}, X, Y, verbose=0)
    assert all(np.isfinite(history["largest_exponent"]).all() for history in population.histories)


def test_a_network_that_cannot_be_looked_at():
    class Break(LyapunovMonitor):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 2:
                weight = net.module_.recurrent.weight_hh_l0
                kept = weight.detach().clone()
                with torch.no_grad():
                    weight.fill_(math.nan)
                    super().on_epoch_end(net, **kwargs)
                    weight.copy_(kept)
            else:
                super().on_epoch_end(net, **kwargs)

    monitor = Break()
    with pytest.warns(SklyapWarning, match="could not look at the network after 2 epochs: .*NaN.* Training goes on"):
        estimator = classifier(monitor).fit(X, Y)
    assert [math.isnan(v) for v in estimator.history_[:, "largest_exponent"]] == [False, True, False]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_exponents": 9}, ValueError, r"'n_exponents' parameter of LyapunovMonitor must be an int in .* 8\]"),
        ({"every": "often"}, ValueError, "'every' parameter of LyapunovMonitor must be an int or 'auto'"),
        ({"every": 0}, ValueError, "'every' parameter"),
        ({"unit": "step"}, ValueError, "'unit' parameter"),
        ({"statistics": ["largest"]}, ValueError, "'statistics' parameter of LyapunovMonitor"),
        ({"sequences": X[:, :, :3]}, ValueError, "Expected 4, got 3"),
        ({"n_sequences": 0}, ValueError, "'n_sequences' parameter"),
        ({"random_state": "a"}, TypeError, "'random_state' parameter"),
    ],
)
def test_errors_at_fit(options, error, message):
    with pytest.raises(error, match=message):
        classifier(LyapunovMonitor(**options)).fit(X, Y)


def test_display():
    mpl.use("Agg")
    monitor = LyapunovMonitor()
    with pytest.raises(ValueError, match="never trained with"):
        TrainingDisplay.from_monitor(monitor)
    classifier(monitor).fit(X, Y)
    display = TrainingDisplay.from_monitor(monitor)
    assert display.exponents.shape == (4, 4) and len(display.ax_.lines) == 5
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), display.exponents[:, 0])
