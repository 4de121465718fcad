"""Weights of sequences and of classes: their ratios, zeros, repetitions, validation, steps, routing."""

import numpy as np
import pytest
import sklearn
import torch
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.class_weight import compute_class_weight

from sklyap import NetworkPopulation, RNNClassifier, RNNRegressor, train_population
from sklyap.networks.weights import scaled
from sklyap.training import GradientFlossing, LyapunovMonitor
from tests.networks.helpers import small

WHOLE = {"batch_size": 10_000, "max_epochs": 3, "optimizer": "sgd", "lr": 0.5}


def same(a, b, X, **tolerance):
    predicted = [n.predict_proba(X) if hasattr(n, "predict_proba") else n.predict(X) for n in (a, b)]
    np.testing.assert_allclose(*predicted, **tolerance)


@pytest.mark.parametrize("weight", [1, 0.25, 7.0])
def test_equal_weights_are_none(weight, digits):
    X, y = digits
    plain = small().fit(X, y)
    same(small().fit(X, y, sample_weight=np.full(len(X), weight)), plain, X, rtol=0)
    same(small().fit(X, y, sample_weight=weight), plain, X, rtol=0)


def test_a_weight_of_zero_is_absence(digits):
    X, y = digits
    there = np.arange(len(X)) % 3 > 0
    for options in ({}, {"validation_fraction": 0.25}):
        weighted, without = small(**options).fit(X, y, sample_weight=there), small(**options).fit(X[there], y[there])
        same(weighted, without, X, rtol=0)
        assert weighted.history_[:, "train_loss"] == without.history_[:, "train_loss"]
    # A class that only they have is one all the same, as in scikit-learn.
    assert len(small().fit(X, y, sample_weight=y < 9).classes_) == 10


@pytest.mark.parametrize("readout", ["last", "all"])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", [RNNClassifier, RNNRegressor])
def test_whole_weights_are_repetitions(kind, ragged, readout, digits):
    X, y = digits[0][:60], digits[1][:60]
    if readout == "all":
        y = np.repeat(y[:, None], 8, 1)
    rng = np.random.default_rng(0)
    weight = rng.integers(0, 4, len(X))
    steps = rng.integers(2, 9, len(X)) if ragged else np.full(len(X), 8)
    X = [x[:n] for x, n in zip(X, steps, strict=True)]
    if readout == "all":
        y = [row[:n] for row, n in zip(y, steps, strict=True)]
    rows = np.repeat(np.arange(len(X)), weight)
    options = WHOLE | {"readout": readout, "random_state": 0} | ({"lr": 0.01} if kind is RNNRegressor else {})
    weighted = kind("gru", 8, **options).fit(X, y, sample_weight=weight)
    repeated = kind("gru", 8, **options).fit([X[i] for i in rows], [y[i] for i in rows])
    # One batch holds them all; float32 adds in another order.
    for a, b in zip(weighted.predict(X), repeated.predict(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    losses = [network.history_[:, "train_loss"] for network in (weighted, repeated)]
    if not (ragged and readout == "all"):  # skorch averages losses of batches by sequences
        np.testing.assert_allclose(*losses, rtol=1e-5)
    unweighted = kind("gru", 8, **options).fit(X, y).history_[:, "train_loss"]
    assert not np.allclose(losses[0], unweighted, rtol=1e-3)


def test_batches_have_the_gradient_of_the_whole_on_average(digits):
    """The weighted mean of a batch, divided by the mean weight of all and not by its own."""
    X, y = digits
    weight = np.where(y < 5, 10.0, 0.1)
    one = small(max_epochs=1, lr=0.0, batch_size=400).fit(X, y, sample_weight=weight)
    many = small(max_epochs=1, lr=0.0, batch_size=8).fit(X, y, sample_weight=weight)
    np.testing.assert_allclose(many.history_[:, "train_loss"], one.history_[:, "train_loss"], rtol=1e-5)
    logs = -np.log(one.predict_proba(X)[np.arange(len(X)), y])
    np.testing.assert_allclose(one.history_[-1, "train_loss"], np.average(logs, weights=weight), rtol=1e-5)


def test_validation_data_that_are_split_off_are_weighted(digits):
    X, y = digits
    weight = np.where(y < 5, 1.0, 1e-6)
    untrained = small(validation_fraction=0.25, max_epochs=1, lr=0.0)
    network = untrained.fit(X, y, sample_weight=weight)
    _, (rows, targets, _) = network._split(torch.tensor(X), torch.tensor(y), weight)
    low = targets < 5
    predicted = torch.tensor(network.predict_proba(rows[low]))
    losses = -predicted[torch.arange(int(low.sum())), targets[low]].log()
    assert network.history_[-1, "valid_loss"] == pytest.approx(float(losses.mean()), rel=1e-4)
    right = (predicted.argmax(1) == targets[low]).double().mean()
    assert network.history_[-1, "valid_accuracy"] == pytest.approx(float(right), abs=1e-4)


def test_validation_data_that_are_given_are_not_weighted(digits):
    X, y = digits
    weight = np.where(y < 5, 1.0, 1e-6)
    given = small(max_epochs=1).fit(X[:300], y[:300], X[300:], y[300:], sample_weight=weight[:300])
    expected = -np.log(given.predict_proba(X[300:])[np.arange(100), y[300:]]).mean()
    assert given.history_[-1, "valid_loss"] == pytest.approx(expected, rel=1e-5)


def test_scaled_weights_have_a_mean_of_one_over_targets():
    weight = scaled(np.array([1.0, 3.0, 0.5]), np.array([2, 5, 1]))
    assert (weight * torch.tensor([2, 5, 1])).sum() == pytest.approx(8)
    assert scaled(np.full(3, 0.3)) is None is scaled(None)


@pytest.mark.parametrize("readout", ["last", "all"])
def test_class_weights_are_weights_of_their_sequences(readout, digits):
    X, y = digits
    y = np.array([f"digit {i}" for i in y])
    factors = {"digit 1": 5.0, "digit 3": 0.0}
    of_rows = np.array([factors.get(label, 1.0) for label in y])
    given = np.random.default_rng(1).random(len(y)) + 0.1
    y = np.repeat(y[:, None], 8, 1) if readout == "all" else y
    options = WHOLE | {"readout": readout}
    by_class = small(**options, class_weight=factors).fit(X, y, sample_weight=given)
    by_rows = small(**options).fit(X, y, sample_weight=given * of_rows)
    same(by_class, by_rows, X, rtol=1e-3, atol=1e-5)


def test_balanced_classes(digits):
    X, y = digits
    few = np.concatenate([np.flatnonzero(y == 0)[:40], np.flatnonzero(y == 1)[:5]])
    X, y = X[few], y[few]
    balanced = small(**WHOLE, class_weight="balanced").fit(X, y)
    weights = dict(enumerate(compute_class_weight("balanced", classes=np.arange(2), y=y)))
    same(balanced, small(**WHOLE, class_weight=weights).fit(X, y), X, rtol=1e-5)
    # Whole weights are repetitions here too.
    repeated = np.repeat(np.arange(45), np.where(y == 1, 3, 1))
    same(
        small(**WHOLE, class_weight="balanced").fit(X, y, sample_weight=np.where(y == 1, 3, 1)),
        small(**WHOLE, class_weight="balanced").fit(X[repeated], y[repeated]),
        X, rtol=1e-4,
    )  # fmt: skip
    networks = [small(max_epochs=30, class_weight=w).fit(X, y) for w in (None, "balanced")]
    rare, rare_balanced = ((n.predict(X)[y == 1] == 1).mean() for n in networks)
    assert rare_balanced > rare


def test_losses_on_validation_data_know_no_class_weights(digits):
    X, y = digits
    network = small(class_weight={0: 100.0}).fit(X[:300], y[:300], X[300:], y[300:])
    expected = -np.log(network.predict_proba(X[300:])[np.arange(100), y[300:]]).mean()
    assert network.history_[-1, "valid_loss"] == pytest.approx(expected, rel=1e-5)


def test_wrong_weights_are_named(digits):
    X, y = digits
    for weight, message in [
        (np.ones(3), r"must have shape \(400,\), one weight per sequence\. Got shape \(3,\)"),
        (np.ones((400, 1)), r"Got shape \(400, 1\)"),
        (-np.ones(400), r"no negative weight\. Got -1"),
        (np.zeros(400), r"at least one weight that is not zero"),
        (np.full(400, np.nan), "'sample_weight' .* hold a finite number for each sequence.*contains NaN"),
        ("balanced", "'sample_weight' .* hold a finite number for each sequence.*'balanced'"),
        ({0: 1.0}, "'sample_weight' .* hold a finite number for each sequence"),
    ]:
        with pytest.raises(ValueError, match=message):
            small().fit(X, y, sample_weight=weight)
        with pytest.raises(ValueError, match=message):
            small().partial_fit(X, y, sample_weight=weight)
    for wrong in ("balance", 3, [1.0], {1: -1.0}, {1: np.inf}):
        with pytest.raises(ValueError, match=r"parameter of RNNClassifier must be .*Got"):
            small(class_weight=wrong).fit(X, y)
    for labels, message in [({77: 2.0}, "Got 77"), ({"0": 2.0}, "Got '0'")]:
        with pytest.raises(
            ValueError, match=f"'class_weight' .* weights of the classes of the targets, 0, 1, .*{message}"
        ):
            small(class_weight=labels).fit(X, y)
    with pytest.raises(ValueError, match=r"'class_weight' .* can't be 'balanced' in partial_fit"):
        small(class_weight="balanced").partial_fit(X, y)
    with pytest.raises(ValueError, match=r"'class_weight' .* must leave a class"):
        small(class_weight=dict.fromkeys(range(10), 0.0)).fit(X, y)
    with pytest.raises(ValueError, match=r"use class_weight in place of net_params\['criterion__weight'\]"):
        small(net_params={"criterion__weight": torch.ones(10)}).fit(X, y, sample_weight=1.0 + y)
    with pytest.raises(ValueError, match=r"needs a criterion with a 'reduction'"):
        small(net_params={"criterion": Own}).fit(X, y, sample_weight=1.0 + y)


class Own(torch.nn.Module):
    def forward(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets)


def test_a_keyword_that_fit_does_not_take(digits):
    X, y = digits
    for keyword, hint in [
        ("sample_weights", "Did you mean 'sample_weight'?"),
        ("x_val", "Did you mean 'X_val'?"),
        ("epochs", r"Did you mean 'max_epochs', which is a parameter of RNNClassifier\(...\)\?"),
        ("batchsize", r"Did you mean 'batch_size', which is a parameter of RNNClassifier\(...\)\?"),
    ]:
        with pytest.raises(TypeError, match=f"RNNClassifier.fit has no parameter '{keyword}'; it takes X, y.*{hint}"):
            small().fit(X, y, **{keyword: 1})
    with pytest.raises(TypeError, match=r"RNNRegressor.partial_fit has no parameter 'sample_weigth'.*'sample_weight'"):
        RNNRegressor().partial_fit(X, y, sample_weigth=1)


def test_meta_estimators_pass_weights_on(digits):
    X, y = digits
    weight = np.where(y < 5, 1.0, 0.0)
    search = GridSearchCV(small(), {"lr": [0.01, 0.02]}, cv=2).fit(X, y, sample_weight=weight)
    same(search.best_estimator_, small(**search.best_params_).fit(X, y, sample_weight=weight), X, rtol=0)
    flat = X[:, 0]
    bagged = BaggingClassifier(small(), n_estimators=2, random_state=0).fit(flat, y, sample_weight=1.0 + (y < 5))
    assert np.isfinite(bagged.predict_proba(flat)).all()


def test_weights_are_routed(digits):
    X, y = digits
    weight = np.where(y < 5, 1.0, 0.0)
    with sklearn.config_context(enable_metadata_routing=True):
        scores, others = (
            cross_val_score(
                small().set_fit_request(sample_weight=True).set_score_request(sample_weight=scored),
                X, y, cv=2, params={"sample_weight": weight},
            )
            for scored in (True, False)
        )  # fmt: skip
    assert np.isfinite(scores).all() and (scores > others).all()


def test_callbacks_and_populations_with_weights(digits):
    X, y = digits
    callbacks = [LyapunovMonitor(X[:2], n_exponents=2), GradientFlossing(n_exponents=1, every=2)]
    network = small(callbacks=callbacks, validation_fraction=0.25, class_weight="balanced")
    network.fit(X, y, sample_weight=1.0 + y)
    assert np.isfinite(network.history_[:, "train_loss"]).all()
    population = train_population(
        small(class_weight={0: 50.0}), {"lr": [0.01, 0.02]}, X, y, validation=None, snapshot_epochs=(0, 0.5, 1, "last"),
        random_state=0, verbose=0,
    )  # fmt: skip
    untrained = population.networks(0)[0]
    logs = -np.log(untrained.predict_proba(X)[np.arange(len(X)), y])
    weight = np.where(y == 0, 50.0, 1.0)
    assert population.losses(0)[0] == pytest.approx(np.average(logs, weights=weight), rel=1e-4)


def test_class_weights_of_a_population_come_back_from_disk(digits, tmp_path):
    X, y = digits
    choices = {"class_weight": [None, {0: 5.0, 3: 2}, "balanced"]}
    made = train_population(small(max_epochs=1), choices, X, y, directory=tmp_path, random_state=0, verbose=0)
    again = train_population(small(max_epochs=1), choices, X, y, directory=tmp_path, random_state=0, verbose=0)
    loaded = NetworkPopulation.load(tmp_path)
    for population in (made, again, loaded):
        assert [network.class_weight for network in population.networks()] == choices["class_weight"]
    np.testing.assert_array_equal(loaded.best_losses, made.best_losses)
