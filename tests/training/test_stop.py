"""Runs that will not beat a loss end early, and only these."""

import math
import pickle

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from skorch import NeuralNetClassifier
from torch import nn

from sklyap import RNNClassifier, loss_predictor, lyapunov_spectrum, train_population
from sklyap.datasets import make_recall
from sklyap.training import StopHopeless

pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
X, Y = make_recall(96, n_steps=15, random_state=0)


def classifier(*callbacks, **options):
    options = {"max_epochs": 6, "batch_size": 32, "random_state": 0, "callbacks": list(callbacks)} | options
    return RNNClassifier("rnn", 6, **options)


class Interval(DummyRegressor):
    """Predicts 1.0, between 1 - alpha and 1 + alpha."""

    def __init__(self):
        super().__init__(strategy="constant", constant=1.0)

    def predict_interval(self, X, alpha):
        return np.full(len(X), 1 - alpha), np.full(len(X), 1 + alpha)


@pytest.fixture
def predictor():
    return Interval().fit(np.zeros((1, 3)), [1.0])


def test_the_lower_end_of_the_interval_decides(predictor):
    for loss, alpha, stops in ((0.85, 0.1, True), (0.85, 0.2, False), (0.95, 0.1, False), (1.2, 0.0, False)):
        stop = StopHopeless(predictor, loss, epochs=(2, 4), alpha=alpha)
        estimator = classifier(stop).fit(X, Y)
        assert len(estimator.history_) == (2 if stops else 6) and stop.stopped_epoch_ == (2 if stops else None)
        assert [f.epoch for f in stop.forecasts_] == ([2] if stops else [2, 4])
        assert stop.forecasts_[0].lower == pytest.approx(1 - alpha)
    np.testing.assert_array_equal(np.isfinite(estimator.history_[:, "predicted_loss"]), [0, 1, 0, 1, 0, 0])


def test_point_predictions_and_their_margin():
    point = DummyRegressor(strategy="constant", constant=1.0).fit(np.zeros((1, 3)), [1.0])
    for loss, margin, stops in ((0.9, 0.0, True), (0.9, 0.2, False), (1.1, 0.0, False)):
        stop = StopHopeless(point, loss, epochs=(1,), margin=margin)
        classifier(stop).fit(X, Y)
        assert (stop.stopped_epoch_ == 1) is stops
        assert math.isinf(stop.forecasts_[0].lower)


def test_a_loss_that_changes_is_asked_for_at_every_look(predictor):
    best = iter([5.0, 0.5])
    stop = StopHopeless(predictor, lambda: next(best), epochs=(1, 3, 5))
    assert len(classifier(stop).fit(X, Y).history_) == 3
    assert [forecast.to_beat for forecast in stop.forecasts_] == [5.0, 0.5]


def test_spectra_are_those_of_the_network_at_that_epoch():
    seen = []

    class Look(LinearRegression):
        def predict(self, X):
            seen.append(X)
            return super().predict(X)

    look = Look().fit(np.zeros((3, 4)), np.zeros(3))
    classifier(StopHopeless(look, 1.0, epochs=(2,), sequences=X[:4])).fit(X, Y)
    expected = lyapunov_spectrum(classifier(max_epochs=2).fit(X, Y), X[:4], n_exponents=4).exponents
    np.testing.assert_array_equal(seen[0], expected[None])


def test_a_loss_predictor_inside_a_population():
    """The real thing: learn from finished networks, then stop those that look like the bad ones."""
    data, labels = make_recall(192, n_steps=8, random_state=1)
    base = RNNClassifier("rnn", 8, max_epochs=4, batch_size=32, random_state=0)
    choices = {"lr": [1e-5, 1e-2], "init_scale": [0.2, 0.4, 0.6], "init": ["uniform"]}
    finished = train_population(base, choices, data, labels, n_networks=18, verbose=0, random_state=0)
    predictor = loss_predictor(data[:4], features=("spectrum", "loss_so_far"), epoch=1, cv=3, random_state=0)
    predictor.fit(finished.networks(epoch=1), finished.best_losses)
    best = float(np.quantile(finished.best_losses, 0.4))
    stop = StopHopeless(predictor, best, epochs=(1,), alpha=0.5)
    base.set_params(callbacks=[pickle.loads(pickle.dumps(stop))])
    population = train_population(base, choices, data, labels, n_networks=6, verbose=0, random_state=5)
    assert not population.failures
    epochs = np.array([len(history["train_loss"]) for history in population.histories])
    slow = population.params["lr"].to_numpy(float) < 1e-3
    assert (epochs[slow] == 1).all() and (epochs[~slow] == 4).any()


def test_any_skorch_net(predictor):
    class Module(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.RNN(4, 6, batch_first=True), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    stop = StopHopeless(predictor, 0.1)
    net = NeuralNetClassifier(Module, criterion=nn.CrossEntropyLoss, max_epochs=5, verbose=0, callbacks=[stop])
    net.fit(X, Y)
    assert len(net.history) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"predictor": object()}, TypeError, "'predictor' parameter of StopHopeless must be a fitted regressor"),
        ({"predictor": LinearRegression()}, NotFittedError, "not fitted"),
        ({"loss": math.nan}, ValueError, "'loss' parameter of StopHopeless must be a finite float"),
        ({"epochs": (0,)}, ValueError, "'epochs' parameter of StopHopeless"),
        ({"alpha": 2.0}, ValueError, "'alpha' parameter of StopHopeless"),
        ({"margin": -0.1}, ValueError, "'margin' parameter of StopHopeless"),
    ],
)
def test_errors_at_fit(predictor, options, error, message):
    with pytest.raises(error, match=message):
        classifier(StopHopeless(**{"predictor": predictor, "loss": 1.0} | options)).fit(X, Y)
