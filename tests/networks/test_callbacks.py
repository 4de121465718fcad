"""Callbacks of skorch on our nets: scores by name and by function, stopping, schedules, averages."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from skorch.callbacks import (
    BatchScoring,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    LRScheduler,
    ParamMapper,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
    Unfreezer,
    WarmRestartLR,
)

from sklyap import RNNClassifier, RNNRegressor
from tests.networks.helpers import small


def own_accuracy(net, X, y):
    return accuracy_score(y, net.predict(X))


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "neg_log_loss", "balanced_accuracy", own_accuracy, None])
@pytest.mark.parametrize("use_caching", [True, False])
def test_classifiers_are_scored_as_any_classifier(scoring, use_caching, digits):
    if scoring is None and not use_caching:
        return
    callback = EpochScoring(scoring, name="own", lower_is_better=False, use_caching=use_caching)
    network = small(validation_fraction=0.25, callbacks=[callback]).fit(*digits)
    scores = network.history_[:, "own"]
    assert len(scores) == 2 and np.isfinite(scores).all()
    if scoring in ("accuracy", own_accuracy, None):
        np.testing.assert_allclose(scores, network.history_[:, "valid_accuracy"], atol=1e-12)


def test_the_classes_of_a_net_are_numbers_of_its_outputs(digits):
    X, y = digits
    network = small().fit(X, np.array([f"digit {label}" for label in y]))
    np.testing.assert_array_equal(network.net_.classes_, np.arange(10))
    float32 = torch.as_tensor(np.asarray(X), dtype=torch.float32)
    predicted = network.classes_[network.net_.predict(float32)]
    assert (predicted == network.predict(X)).mean() > 0.99


@pytest.mark.parametrize("scoring", ["r2", "neg_mean_squared_error"])
def test_regressors_are_scored(scoring, digits):
    X, y = digits
    callback = EpochScoring(scoring, name="own", lower_is_better=False)
    network = RNNRegressor("gru", 4, max_epochs=2, validation_fraction=0.25, callbacks=[callback], random_state=0)
    assert np.isfinite(network.fit(X, y.astype(float)).history_[:, "own"]).all()


@pytest.mark.parametrize(
    "callback",
    [
        BatchScoring("accuracy", name="own", lower_is_better=False),
        EarlyStopping(patience=5),
        EpochTimer(),
        Freezer("readout.bias"),
        GradientNormClipping(1.0),
        LRScheduler("StepLR", step_size=1),
        ParamMapper("readout.*", at=1),
        PrintLog(sink=lambda line: None),
        ProgressBar(detect_notebook=False),
        Initializer("readout.weight", fn=torch.nn.init.zeros_),
        TrainEndCheckpoint(),
        Unfreezer("readout.*", at=2),
        LRScheduler(WarmRestartLR),
        Checkpoint(),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_every_callback_of_skorch_runs(callback, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # checkpoints go where one is
    network = small(validation_fraction=0.25, callbacks=[callback]).fit(*digits)
    assert len(network.history_) == 2 and isinstance(network, RNNClassifier)
