"""loss_predictor: scikit-learn's checks, what it learns, its weights, intervals that cover, networks in."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.utils.estimator_checks import check_estimator

from sklyap import RNNClassifier, loss_predictor, train_population
from sklyap.comparison import LossPredictor
from sklyap.comparison.stacking import OutOfFoldBlend
from sklyap.datasets import load_sequential_digits


def quick(*args, **params):
    """Return a predictor with small members."""
    predictor = loss_predictor(*args, random_state=0, **{"cv": 3, **params})
    few = {"max_epochs": 5, "n_estimators": 20}
    known = predictor.get_params()
    return predictor.set_params(**{k: v for end, v in few.items() for k in known if k.endswith(f"__{end}")})


def spectra_and_losses(n, noise, random_state=0, k=12):
    """Spectra that differ in offset and slope, and losses that follow the offset."""
    rng = np.random.default_rng(random_state)
    offset, slope = rng.uniform(-1, 0.2, n), rng.uniform(0.5, 2, n)
    spectra = offset[:, None] - slope[:, None] * np.linspace(0, 1, k) + 0.01 * rng.normal(size=(n, k))
    return -np.sort(-spectra, axis=1), np.exp(offset + noise * rng.normal(size=n))


@pytest.fixture(scope="module")
def digits():
    X, y = load_sequential_digits(n_class=3, return_X_y=True)
    return X[:200], y[:200]


@pytest.fixture(scope="module")
def population(digits):
    return train_population(
        RNNClassifier(max_epochs=2, batch_size=32, init="uniform"),
        {"cell": ["gru", "rnn"], "hidden_size": [4, 6], "init_scale": [0.1, 0.5, 1.5], "lr": [3e-3, 1e-2]},
        *digits, n_networks=16, random_state=0, verbose=0,
    )  # fmt: skip


def test_scikit_learns_checks():
    smallest = quick(cv=2).set_params(
        regressor__code__max_epochs=1, regressor__trees__extratreesregressor__n_estimators=2
    )
    results = check_estimator(smallest, on_fail=None, on_skip=None)
    assert {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"} == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert sum(r["status"] == "passed" for r in results) >= 50


def test_it_learns_from_spectra_and_weighs_its_members():
    X, y = spectra_and_losses(90, noise=0.1)
    predicted = cross_val_predict(quick(), X, y, cv=3)
    assert spearmanr(predicted, y)[0] > 0.85
    fitted = quick().fit(X, y)
    assert list(fitted.weights_) == ["code", "linear", "trees"]
    assert sum(fitted.weights_.values()) == pytest.approx(1) and min(fitted.weights_.values()) >= 0
    # A member of five epochs has learnt little: the others are trusted.
    assert fitted.weights_["code"] < 0.2
    assert y.min() <= fitted.predict(X).min() and fitted.predict(X).max() <= y.max()


def test_a_blend_trusts_skill_and_hedges_where_little_is_known():
    rng = np.random.default_rng(0)
    y = rng.normal(size=400)
    good, poor = y + 0.3 * rng.normal(size=400), y + 3 * rng.normal(size=400)
    blend = OutOfFoldBlend().fit(np.column_stack([poor, good]), y)
    assert blend.weights_[1] > 0.95 and blend.weights_.sum() == pytest.approx(1)
    np.testing.assert_allclose(blend.predict([[1.0, 1.0]]), 1.0)
    few = OutOfFoldBlend(n_prior=1e6).fit(np.column_stack([poor, good])[:5], y[:5])
    np.testing.assert_allclose(few.weights_, 0.5, atol=1e-3)
    alike = OutOfFoldBlend().fit(np.column_stack([good, good]), y)
    np.testing.assert_allclose(alike.weights_, 0.5, atol=1e-6)
    exact = OutOfFoldBlend().fit(np.column_stack([y, poor]), y)
    assert exact.weights_[0] > 0.99


@pytest.mark.parametrize("target_transform", ["rank", "log", None])
def test_intervals_cover_new_networks(target_transform):
    """At n = 120 the share that is covered spreads by 3 % between training sets, at 1500 new networks by 1 %."""
    shares = []
    for seed in range(4):
        X, y = spectra_and_losses(120, noise=0.4, random_state=seed)
        new, truth = spectra_and_losses(1500, noise=0.4, random_state=100 + seed)
        lower, upper = quick(target_transform=target_transform).fit(X, y).predict_interval(new, alpha=0.1)
        assert (lower < upper).all()
        shares.append(np.mean((lower <= truth) & (truth <= upper)))
    assert abs(np.mean(shares) - 0.9) < 0.05  # three standard errors of four training sets


def test_intervals_widen_with_the_level_and_hold_the_prediction():
    X, y = spectra_and_losses(60, noise=0.3)
    fitted = quick().fit(X, y)
    wide, narrow = fitted.predict_interval(X, 0.05), fitted.predict_interval(X, 0.5)
    assert (wide[0] < narrow[0]).all() and (narrow[1] < wide[1]).all() and (wide[0] > 0).all()
    assert (narrow[0] <= fitted.predict(X) + 1e-12).all() and (fitted.predict(X) <= narrow[1] + 1e-12).all()
    with pytest.raises(ValueError, match=r"'alpha' .* at least 1/61 after learning from 60"):
        fitted.predict_interval(X, 0.001)
    for alpha in (-0.1, 1.5, "a"):
        with pytest.raises((ValueError, TypeError), match="'alpha'"):
            fitted.predict_interval(X, alpha)


def test_networks_in_with_any_features(population, digits, tmp_path):
    networks, losses = population.networks(1), population.best_losses
    columns = {"spectrum": 8, "loss_so_far": 1, "hyperparameters": 5}
    for features in (["spectrum"], ["loss_so_far"], ["spectrum", "loss_so_far"], list(columns)):
        sequences = digits[0][:4] if "spectrum" in features else None
        predictor = quick(sequences, features=features, epoch=1, memory=str(tmp_path), n_exponents=8)
        predictor.fit(networks, losses)
        predicted = predictor.predict(networks)
        lower, upper = predictor.predict_interval(networks, alpha=0.2)
        assert predicted.shape == (16,) and (lower <= predicted).all() and (predicted <= upper).all()
        assert predictor.regressor_[0].transform(networks).shape == (16, sum(columns[f] for f in features))
    # Losses after the first epoch tell more than the spectra of networks that small.
    assert predictor.weights_.keys() == {"code", "linear", "trees", "without_spectrum"}


def test_it_composes_as_any_regressor(population, digits, tmp_path):
    networks, losses = population.networks(1), population.best_losses
    predictor = quick(digits[0][:4], memory=str(tmp_path), n_exponents=8)
    assert np.isfinite(cross_val_predict(predictor, networks, losses, cv=2)).all()
    grid = {"regressor__stack__code__latent_dim": [2, 4]}
    search = GridSearchCV(predictor, grid, cv=2).fit(networks, losses)
    best = search.best_estimator_
    lower, upper = best.predict_interval(networks, alpha=0.2)
    again = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(again.predict_interval(networks, alpha=0.2), [lower, upper])
    twin = clone(predictor)
    assert twin.regressor[0].sequences is predictor.regressor[0].sequences
    with pytest.raises(NotFittedError):
        twin.predict(networks)


def test_deterministic_and_in_the_order_of_the_folds():
    X, y = spectra_and_losses(40, noise=0.2)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two = quick().fit(X, y), quick(n_jobs=2).fit(X, y)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    # Sorted networks would make folds of one kind each.
    order = np.argsort(y)
    weights = quick().fit(X[order], y[order]).weights_
    assert max(weights.values()) < 1.0 or weights["linear"] > 0.5


def test_annihilated_directions_are_spectra_too():
    X, y = spectra_and_losses(40, noise=0.2)
    X[::3, -1] = -np.inf
    assert np.isfinite(quick().fit(X, y).predict(X)).all()


@pytest.mark.parametrize(
    "args, params, message",
    [
        ((), {"features": ()}, "'features'"),
        ((), {"features": ("spectrum", "spectrum")}, "'features'"),
        ((), {"features": "weather"}, "'features'"),
        ((), {"features": ("spectrum", "loss_so_far")}, "'sequences'"),
        ((), {"epoch": "first"}, "'epoch'"),
        ((), {"epoch": 0}, "'epoch'"),
        ((), {"cv": 1}, "'cv'"),
        ((), {"target_transform": "sqrt"}, "'target_transform'"),
    ],
)
def test_wrong_parameters_are_named_at_once(args, params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        loss_predictor(*args, **params)


def test_wrong_data_is_refused_before_spectra_are_computed(population, digits):
    X, y = spectra_and_losses(10, noise=0.2)
    y[4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        quick().fit(X, y)
    with pytest.raises(ValueError, match="at least 3 networks"):
        quick(digits[0][:4]).fit(population.networks(1)[:2], [1.0, 2.0])
    with pytest.raises(ValueError, match="inconsistent numbers"):
        quick(digits[0][:4]).fit(population.networks(1), [1.0] * 5)
    with pytest.raises(ValueError, match="needs positive losses"):
        quick(target_transform="log").fit(X, -np.ones(10))


def test_the_default_in_full_size():
    X, y = spectra_and_losses(60, noise=0.05)
    predictor = loss_predictor(random_state=0).fit(X[::2], y[::2])
    assert isinstance(predictor, LossPredictor)
    assert spearmanr(predictor.predict(X[1::2]), y[1::2])[0] > 0.95
