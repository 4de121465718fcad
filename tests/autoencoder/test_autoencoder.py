"""SpectrumAutoencoder: scikit-learn's checks, what it learns, determinism, settings, files."""

import io
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from sklyap.autoencoder import A24_SETTINGS, SpectrumAutoencoder
from sklyap.autoencoder.scaling import LossScaler, SpectrumScaler


def family(n, k=24, noise=0.0, random_state=0):
    """Spectra with two shape parameters, of which the loss is a curved function, and its noise."""
    rng = np.random.default_rng(random_state)
    top, depth = rng.uniform(-0.6, 0.4, n), rng.uniform(0.5, 4.0, n)
    u = np.linspace(0, 1, k)
    spectra = top[:, None] - depth[:, None] * u + 0.03 * rng.normal(size=(n, k))
    spectra = -np.sort(-spectra, axis=1)
    log_loss = 2 * np.abs(top + 0.1) + 0.4 * np.log(depth) + noise * rng.normal(size=n)
    return spectra, np.exp(log_loss)


@pytest.fixture(scope="module")
def data():
    return family(160)


@pytest.fixture(scope="module")
def fitted(data):
    return SpectrumAutoencoder(latent_dim=4, random_state=0).fit(*data)


def quick(**params):
    return SpectrumAutoencoder(**{"hidden_layer_sizes": (16,), "max_epochs": 10, "random_state": 0, **params})


def test_scikit_learns_checks():
    results = check_estimator(quick(max_epochs=20, lr=3e-3, n_folds=2), on_fail=None, on_skip=None)
    assert {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"} == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert sum(r["status"] == "passed" for r in results) >= 57


def test_it_learns_a_curved_relation_that_ridge_cannot(data):
    spectra, losses = data
    y = np.log(losses)
    folds = KFold(3, shuffle=True, random_state=0)
    ours = np.log(cross_val_predict(SpectrumAutoencoder(random_state=0), spectra, losses, cv=folds))
    ridge = cross_val_predict(make_pipeline(StandardScaler(), RidgeCV()), spectra, y, cv=folds)

    def r2(predicted):
        return 1 - np.mean((y - predicted) ** 2) / y.var()

    assert r2(ours) > 0.9 > 0.7 > r2(ridge)


def test_noise_is_mostly_not_learned():
    spectra, _ = family(120)
    losses = np.exp(np.random.default_rng(1).normal(size=120))
    folds = KFold(3, shuffle=True, random_state=0)
    predicted = cross_val_predict(SpectrumAutoencoder(random_state=0), spectra, losses, cv=folds)
    assert np.log(predicted).var() < 0.3 * np.log(losses).var()
    assert abs(spearmanr(predicted, losses)[0]) < 0.37  # 4 standard errors


def test_the_code_holds_the_spectrum(data, fitted):
    spectra, _ = data
    code = fitted.transform(spectra)
    assert code.shape == (160, 4) and code.dtype == np.float64
    assert (np.diff(code.var(axis=0)) <= 0).all()  # principal axes
    np.testing.assert_allclose(code.mean(axis=0), 0, atol=1e-9)
    rebuilt = fitted.inverse_transform(code)
    assert rebuilt.shape == spectra.shape
    error = np.abs(rebuilt - spectra).mean() / np.abs(spectra - spectra.mean(axis=0)).mean()
    assert error < 0.15


def test_codes_near_each_other_foretell_like_losses(data, fitted):
    """The leading axes are those of the spectra's shape, which decides the loss."""
    spectra, losses = data
    code = fitted.transform(spectra)
    distances = np.linalg.norm(code[:, None] - code, axis=-1) + np.diag(np.full(len(code), np.inf))
    neighbour = losses[distances.argmin(axis=1)]
    assert spearmanr(neighbour, losses)[0] > 0.8


def test_one_autoencoders_code_is_rotated_only(data):
    spectra, losses = data
    alone = quick(early_stopping=False, latent_dim=3).fit(spectra, losses)
    module = alone._module()
    with torch.no_grad():
        raw = module.encode(torch.as_tensor(alone._spectra.inputs(spectra)))[0].numpy()
    code = alone.transform(spectra)
    np.testing.assert_allclose(
        np.linalg.norm(code[:, None] - code, axis=-1), np.linalg.norm(raw[:, None] - raw, axis=-1), atol=1e-9
    )


def test_curves_are_reported_and_the_best_weights_are_kept(data, fitted):
    assert fitted.loss_curve_.shape == fitted.validation_curve_.shape == (len(fitted.net_.history),)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert fitted.best_epoch_ == fitted.validation_curve_.argmin() + 1
    assert fitted.validation_curve_.min() < 0.5 * fitted.validation_curve_[0]


def test_best_is_not_last():
    """On noise, training on makes it worse: the weights that are kept are a copy of earlier ones."""
    spectra, _ = family(60)
    losses = np.exp(np.random.default_rng(2).normal(size=60))
    kept = SpectrumAutoencoder(dropout=0.0, lr=5e-3, lr_schedule="constant", max_epochs=40, random_state=0)
    kept.fit(spectra, losses)
    assert kept.best_epoch_ < len(kept.loss_curve_)
    targets = kept._losses.targets(losses)
    learns = kept._folds(60, np.random.default_rng(0))
    with torch.no_grad():
        module = kept._module()
        guesses = module.head(module.encode(torch.as_tensor(kept._spectra.inputs(spectra))))[..., 0].numpy().T
    held_out = np.mean([((guesses[:, j] - targets)[~learns[:, j]] ** 2).mean() for j in range(5)])
    assert held_out == pytest.approx(kept.validation_curve_.min(), rel=1e-3)
    assert held_out < kept.validation_curve_[-1]


def test_stages_raise_the_prediction_weight(data):
    model = quick(prediction_weight=(0.0, 7.0), max_epochs=4, early_stopping=False).fit(*data)
    assert model.net_.criterion_.prediction_weight == 7.0
    # Without weight on the prediction in any stage, the head stays as it was drawn.
    model = quick(prediction_weight=0.0, weight_decay=0.0, early_stopping=False)
    first, last = (clone(model).set_params(max_epochs=n).fit(*data).net_.module_.head.weight for n in (1, 10))
    assert torch.equal(first, last)


@pytest.mark.parametrize("params", [{}, {"n_members": 3, "n_folds": 2}, {"early_stopping": False, "n_members": 2}])
def test_deterministic_and_global_generators_are_left_alone(data, params):
    torch.manual_seed(5)
    np.random.seed(5)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, two = (quick(**params).fit(*data) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    np.testing.assert_array_equal(one.predict(data[0]), two.predict(data[0]))
    np.testing.assert_array_equal(one.transform(data[0]), two.transform(data[0]))
    other = quick(**params).set_params(random_state=1).fit(*data)
    assert not np.array_equal(one.predict(data[0]), other.predict(data[0]))


def test_a_row_does_not_depend_on_the_rows_beside_it(data, fitted):
    spectra = data[0]
    np.testing.assert_allclose(fitted.predict(spectra[[7]]), fitted.predict(spectra)[[7]], rtol=1e-10)
    np.testing.assert_allclose(fitted.transform(spectra[[7]]), fitted.transform(spectra)[[7]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("transform", ["rank", "log", None])
def test_predictions_are_losses_whatever_the_target(data, transform):
    spectra, losses = data
    predicted = quick(target_transform=transform, max_epochs=150).fit(spectra, losses).predict(spectra)
    assert spearmanr(predicted, losses)[0] > 0.9
    assert 0.5 < np.median(predicted / losses) < 2
    if transform == "rank":
        assert losses.min() <= predicted.min() and predicted.max() <= losses.max()


@pytest.mark.parametrize("transform", ["rank", "log", None])
def test_target_scaling_is_undone(transform):
    losses = np.random.default_rng(0).lognormal(size=50).round(1) + 0.1  # with ties
    scaler = LossScaler(transform).fit(losses)
    targets = scaler.targets(losses)
    np.testing.assert_allclose(scaler.losses(targets), losses, rtol=1e-9)
    assert abs(targets.mean()) < 0.1 and abs(targets.std() - 1) < 0.15
    assert spearmanr(targets, losses)[0] == pytest.approx(1)


@pytest.mark.parametrize("transform", ["growth", None])
@pytest.mark.parametrize("n_components", [5, None])
def test_spectrum_scaling_is_undone(transform, n_components):
    spectra, _ = family(50)
    scaler = SpectrumScaler(transform, n_components).fit(spectra)
    np.testing.assert_allclose(scaler.spectra(scaler.curves(spectra)), spectra, rtol=1e-9, atol=1e-12)
    inputs = scaler.inputs(spectra)
    assert inputs.shape == (50, n_components or (48 if transform else 24))
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-9)
    if n_components:
        assert (inputs**2).mean() == pytest.approx(1)
        correlations = np.corrcoef(inputs.T) - np.eye(5)
        np.testing.assert_allclose(correlations, 0, atol=1e-8)


def test_constant_columns_and_losses():
    spectra, losses = family(40)
    spectra[:, 3] = -1.7
    model = quick().fit(spectra, losses)
    assert np.isfinite(model.inverse_transform(model.transform(spectra))).all()
    np.testing.assert_allclose(quick().fit(spectra, np.full(40, 0.3)).predict(spectra), 0.3)


def test_annihilated_directions(data):
    spectra, losses = data[0].copy(), data[1]
    spectra[:80, 12:] = -np.inf
    model = quick().fit(spectra, losses)
    for output in (model.predict(spectra), model.transform(spectra), model.inverse_transform(model.transform(spectra))):
        assert np.isfinite(output).all()


@pytest.mark.parametrize("n, k", [(2, 1), (3, 5), (30, 1), (30, 1024)])
def test_any_number_and_length_of_spectra(n, k):
    rng = np.random.default_rng(0)
    spectra = -np.sort(rng.exponential(size=(n, k)))
    model = quick(latent_dim=8).fit(spectra, rng.uniform(0.1, 1, n))
    assert model.transform(spectra).shape == (n, 8) and model.predict(spectra).shape == (n,)
    assert model.inverse_transform(model.transform(spectra)).shape == (n, k)


def test_the_model_of_a24_is_one_setting(data):
    model = SpectrumAutoencoder(**{**A24_SETTINGS, "max_epochs": 4}, random_state=0).fit(*data)
    module = model.net_.module_
    assert module.n == 1 and module.encoder.linear is None and model.transform(data[0]).shape == (160, 32)
    layers = [layer.weight.shape[1:] for layer in module.encoder.nonlinear if hasattr(layer, "weight")]
    assert [tuple(shape) for shape in layers] == [(24, 128), (128, 64), (64, 32)]
    assert model.net_.optimizer_.param_groups[0]["lr"] == 1e-4
    assert set(A24_SETTINGS) <= set(model.get_params())


def test_pandas_in_and_out(data):
    spectra = pd.DataFrame(data[0], columns=[f"lyapunov_{i}" for i in range(24)])
    model = quick(latent_dim=2).set_output(transform="pandas").fit(spectra, data[1])
    code = model.transform(spectra)
    assert list(code.columns) == ["spectrumautoencoder0", "spectrumautoencoder1"]
    assert list(model.feature_names_in_) == list(spectra.columns)


def test_files_hold_numbers_only(data):
    """Pickle and skops bring back the same model; skops trusts only this package's own classes."""
    pipeline = make_pipeline(StandardScaler(), quick(latent_dim=3)).fit(*data)
    assert all(name.startswith("sklyap.autoencoder") for name in _types(pipeline))
    for again in (pickle.loads(pickle.dumps(pipeline)), _through_skops(pipeline)):
        np.testing.assert_array_equal(again.predict(data[0]), pipeline.predict(data[0]))
        np.testing.assert_array_equal(again.transform(data[0]), pipeline.transform(data[0]))
        np.testing.assert_array_equal(again[-1].loss_curve_, pipeline[-1].loss_curve_)
        assert len(again[-1].net_.history) == 10


def _types(estimator):
    return skops.io.get_untrusted_types(file=io.BytesIO(skops.io.dumps(estimator)))


def _through_skops(estimator):
    return skops.io.loads(skops.io.dumps(estimator), trusted=_types(estimator))


def test_not_fitted(data):
    for method in ("predict", "transform", "inverse_transform"):
        with pytest.raises(NotFittedError):
            getattr(SpectrumAutoencoder(), method)(data[0])


@pytest.mark.parametrize(
    "params",
    [
        {"latent_dim": 0}, {"latent_dim": 2.5}, {"max_epochs": 0}, {"batch_size": 0}, {"n_members": 0}, {"n_folds": 1},
        {"n_components": 0}, {"lr": -1.0}, {"weight_decay": -1}, {"dropout": 1.0}, {"hidden_layer_sizes": (8, 0)},
        {"prediction_weight": ()}, {"prediction_weight": (1, -2)}, {"reconstruction_loss": "huber"},
        {"target_transform": "sqrt"}, {"input_transform": "log"}, {"activation": "sin"}, {"lr_schedule": "step"},
        {"device": "abacus"}, {"random_state": "now"},
    ],
)  # fmt: skip
def test_wrong_parameters_are_named(data, params):
    with pytest.raises((ValueError, TypeError), match=next(iter(params))):
        SpectrumAutoencoder(**params).fit(*data)


def test_wrong_data_is_refused(data, fitted):
    spectra, losses = data
    with pytest.raises(ValueError, match="needs positive losses"):
        quick(target_transform="log").fit(spectra, losses - 5)
    with pytest.raises(ValueError, match="codes of length 4"):
        fitted.inverse_transform(spectra)
    for bad in (np.nan, np.inf):
        broken = spectra.copy()
        broken[3, 2] = bad
        with pytest.raises(ValueError, match=r"index \(3, 2\)"):
            quick().fit(broken, losses)
        with pytest.raises(ValueError, match=r"index \(3, 2\)"):
            fitted.predict(broken)


def test_no_warnings(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick().fit(*data).score(*data)
