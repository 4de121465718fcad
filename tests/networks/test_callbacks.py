"""Callbacks of skorch on our nets: scores by name and by function, stopping, schedules, averages."""

import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import skorch.callbacks
import torch
from sklearn.datasets import load_digits
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
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    MlflowLogger,
    NeptuneLogger,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    SacredLogger,
    TensorBoard,
    TrainEndCheckpoint,
    Unfreezer,
    WandbLogger,
    WarmRestartLR,
)

from sklyap import RNNRegressor
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


CALLBACKS = {
    "BatchScoring": lambda: BatchScoring("accuracy", name="own", lower_is_better=False),
    "Checkpoint": Checkpoint,
    "EarlyStopping": lambda: EarlyStopping(patience=5),
    "EpochScoring": lambda: EpochScoring("f1_macro", lower_is_better=False),
    "EpochTimer": EpochTimer,
    "Freezer": lambda: Freezer("readout.bias"),
    "GradientNormClipping": lambda: GradientNormClipping(1.0),
    "Initializer": lambda: Initializer("readout.weight", fn=torch.nn.init.zeros_),
    "InputShapeSetter": lambda: InputShapeSetter(param_name="n_inputs"),
    "LRScheduler": lambda: LRScheduler("StepLR", step_size=1),
    "LoadInitState": lambda: LoadInitState(checkpoint()),
    "MlflowLogger": lambda: MlflowLogger(MagicMock(), MagicMock()),
    "NeptuneLogger": lambda: NeptuneLogger(Recorder(), close_after_train=False),
    "ParamMapper": lambda: ParamMapper("readout.*", at=1),
    "PassthroughScoring": lambda: PassthroughScoring("train_loss", on_train=True),
    "PrintLog": lambda: PrintLog(sink=lambda line: None),
    "ProgressBar": lambda: ProgressBar(detect_notebook=False),
    "SacredLogger": lambda: SacredLogger(Recorder()),
    "TensorBoard": lambda: TensorBoard(Recorder()),
    "TrainEndCheckpoint": TrainEndCheckpoint,
    "Unfreezer": lambda: Unfreezer("readout.*", at=2),
    "WandbLogger": lambda: WandbLogger(Recorder()),
    "WarmRestartLR": lambda: LRScheduler(WarmRestartLR),
}


class Recorder:
    """Stands for the client of an experiment tracker: takes every call and item."""

    config = summary = property(lambda self: self)
    dir = "."

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self

    def __getitem__(self, key):
        return self

    def __setitem__(self, key, value):
        pass


def checkpoint():
    """Return what a run of the same net has saved."""
    saved = Checkpoint(dirname="saved", monitor="train_loss_best", load_best=False)
    small(callbacks=[saved]).fit(*digits_of_tests())
    return saved


def digits_of_tests():
    X, y = load_digits(return_X_y=True)
    return X[:400].reshape(-1, 8, 8) / 16, y[:400]


def test_the_list_of_callbacks_is_that_of_skorch():
    assert CALLBACKS.keys() == set(skorch.callbacks.__all__) - {"Callback"}


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_callback_of_skorch_runs(name, weighted, digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # checkpoints go where one is
    monkeypatch.setitem(sys.modules, "neptune", MagicMock())
    monkeypatch.setitem(sys.modules, "neptune.handler", SimpleNamespace(Handler=Recorder))
    monkeypatch.setitem(sys.modules, "neptune.types", MagicMock())
    X, y = digits
    weights = {"sample_weight": 1.0 + y} if weighted else {}
    network = small(validation_fraction=0.25, callbacks=[CALLBACKS[name]()]).fit(X, y, **weights)
    # A net that was loaded goes on after the two epochs of its checkpoint.
    assert len(network.history_) == (4 if name == "LoadInitState" else 2)
    assert np.isfinite(network.history_[:, "train_loss"]).all()
    assert network.predict(X).shape == y.shape
