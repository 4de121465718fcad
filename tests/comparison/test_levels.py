"""Members of the stack by themselves, and the study that compares the stack with the best of them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import prediction_levels
from sklyap import RNNClassifier, loss_predictor, train_population
from sklyap.datasets import make_recall


@pytest.fixture(scope="module")
def spectra_and_losses():
    rng = np.random.default_rng(0)
    slope = rng.uniform(0.5, 3, size=40)
    return -slope[:, None] * np.linspace(0, 1, 8) + 0.01 * rng.normal(size=(40, 8)), np.exp(-slope)


def test_members_predict_by_themselves_and_the_stack_is_their_mean_on_the_log_scale(spectra_and_losses):
    spectra, losses = spectra_and_losses
    model = prediction_levels.shorten(loss_predictor(target_transform="log", random_state=0)).fit(spectra, losses)
    members = model.predict_members(spectra)
    assert list(members) == list(model.weights_)
    mean = sum(model.weights_[name] * np.log(values) for name, values in members.items())
    np.testing.assert_allclose(np.log(model.predict(spectra)), mean, rtol=1e-6)


def test_intervals_out_of_fold_hold_the_share_they_say(spectra_and_losses):
    """90 % of 40 networks, give or take three standard errors."""
    predictions = prediction_levels.out_of_fold(*spectra_and_losses, small=True)
    held = (predictions["lower"] <= predictions["target"]) & (predictions["target"] <= predictions["upper"])
    assert 0.9 - 3 * 0.3 / np.sqrt(40) <= held.mean()
    assert {"stack", "code", "linear", "trees"} <= set(predictions)


def test_the_study_writes_its_table_and_goes_on(tmp_path, monkeypatch):
    X, y = make_recall(60, n_steps=4, random_state=0)
    monkeypatch.setattr(prediction_levels, "probes", lambda task: X[:2])
    train_population(
        RNNClassifier(hidden_size=3, max_epochs=2), {"lr": [1e-3, 1e-2, 1e-1]}, X, y, n_networks=12,
        snapshot_epochs=(0, 1, "last"), directory=tmp_path / "populations" / "short", random_state=0, verbose=0,
    )  # fmt: skip
    arguments = ["short", "--epochs", "0", "1", "--small", "--output", str(tmp_path)]
    arguments += ["--directory", str(tmp_path / "populations")]
    prediction_levels.main(arguments)
    text = (tmp_path / "prediction_levels_table.md").read_text()
    assert text.count("short (12)") == 2 and "90 % intervals hold" in text and "nan" not in text
    monkeypatch.setattr(prediction_levels, "out_of_fold", lambda *a, **k: pytest.fail("it was computed again"))
    prediction_levels.main(arguments)
