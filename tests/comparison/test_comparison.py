"""The honest table, and everything behind the spectrum composed as users compose it."""

import io
import pickle

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import BaggingRegressor, ExtraTreesRegressor, StackingRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    KFold,
    ShuffleSplit,
    cross_val_predict,
    learning_curve,
)
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import StandardScaler

from benchmarks import prediction_tables
from sklyap.autoencoder import SpectrumAutoencoder
from sklyap.comparison import (
    compare_loss_predictors,
    default_loss_predictors,
    score_predictions,
)
from sklyap.comparison.predictors import _rank_correlations
from sklyap.datasets import load_sequential_digits
from sklyap.displays import LossPredictorsDisplay
from sklyap.exceptions import FailedNetworkWarning
from sklyap.networks import RNNClassifier
from sklyap.population import HistoryFeatures, NetworkPopulation, train_population
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.statistics import SpectrumStatistics

pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.DegenerateSpectrumWarning")


@pytest.fixture(scope="module")
def digits():
    X, y = load_sequential_digits(n_class=3, return_X_y=True)
    return X[:240], y[:240]


@pytest.fixture(scope="module")
def population(digits):
    return train_population(
        RNNClassifier(max_epochs=2, batch_size=32, init="uniform"),
        {"cell": ["gru", "rnn"], "hidden_size": [4, 6, 8], "init_scale": [0.1, 0.5, 1.5], "lr": [3e-3, 1e-2]},
        *digits,
        n_networks=24,
        random_state=0,
        verbose=0,
    )


@pytest.fixture(scope="module")
def networks(population):
    return list(population.networks(epoch=1))


@pytest.fixture(scope="module")
def losses(population):
    return population.best_losses


@pytest.fixture(scope="module")
def transformer(digits, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("spectra"))
    return LyapunovSpectrumTransformer(digits[0][:4], n_exponents=8, align="interpolate", memory=cache)


@pytest.fixture(scope="module")
def spectra(transformer, networks):
    return transformer.fit_transform(networks)


def quick(**params):
    return SpectrumAutoencoder(
        **{"latent_dim": 3, "hidden_layer_sizes": (8,), "max_epochs": 5, "random_state": 0, **params}
    )


def pair(name, **predictors):
    """Return the named default rows, and others."""
    rows = shortened(default_loss_predictors(random_state=0))
    return {n: rows[n] for n in name} | predictors


def shortened(rows):
    """Return the rows with small members."""
    for _, estimator in rows.values():
        prediction_tables.shorten(estimator)
    return rows


FAST = ("constant", "loss so far", "best statistic", "spectrum, ridge")


# The table


def test_the_table_has_every_row_and_honest_columns(population, digits):
    rows = shortened(default_loss_predictors(random_state=0))
    table, predictions = compare_loss_predictors(
        population, digits[0][:4], n_exponents=8, predictors=rows, cv=4, n_bootstrap=50, random_state=0,
        return_predictions=True,
    )  # fmt: skip
    assert list(table.index) == list(default_loss_predictors())
    assert {"constant", "parameter count", "hyperparameters", "loss so far", "AeLLE"} <= set(table.index)
    assert predictions.shape == (24, 1 + len(rows)) and predictions.notna().all().all()
    np.testing.assert_allclose(predictions["target"], np.log(population.best_losses))
    for name in rows:
        assert table.loc[name, "r2"] == pytest.approx(r2_score(predictions["target"], predictions[name]))
    assert (table["r2_low"] <= table["r2_high"]).all()
    assert table.drop(columns=table.filter(like="_added").columns).notna().all().all()
    added = table["r2_added"].dropna()
    assert list(added.index) == ["spectrum + loss so far", "spectrum + hyperparameters", "all three"]
    expected = table.loc["all three", "r2"] - table.loc["hyperparameters + loss so far", "r2"]
    assert added["all three"] == pytest.approx(expected)
    assert population.best_losses.min() < table.attrs["threshold"] < population.best_losses.max()
    assert table.loc["constant", "r2"] < 0 < table.loc["loss so far", "r2"]
    assert table.loc["loss so far", "r2_gain"] == 0 == table.loc["loss so far", "spearman_gain_se"]


def test_predictions_are_out_of_fold(population, digits, transformer, losses, spectra):
    """A predictor that remembers its training data gains nothing from it."""
    from sklearn.neighbors import KNeighborsRegressor

    folds = list(KFold(6, shuffle=True, random_state=3).split(losses))
    _, predictions = compare_loss_predictors(
        population, None, transformer=transformer, predictors={"1-nn": KNeighborsRegressor(1)}, cv=folds,
        n_bootstrap=2, return_predictions=True,
    )  # fmt: skip
    expected = cross_val_predict(KNeighborsRegressor(1), spectra, np.log(losses), cv=folds)
    np.testing.assert_allclose(predictions["1-nn"], expected)


def test_deterministic_and_parallel(population, transformer):
    chosen = pair(FAST, aelle=quick())
    tables = [
        compare_loss_predictors(
            population, None, transformer=transformer, predictors=chosen, cv=3, n_bootstrap=20, random_state=5,
            n_jobs=n_jobs,
        )
        for n_jobs in (None, 2)
    ]  # fmt: skip
    pd.testing.assert_frame_equal(*tables)


def test_leaving_one_family_out(population, transformer):
    table, predictions = compare_loss_predictors(
        population, None, transformer=transformer, predictors=pair(FAST), groups="cell", n_bootstrap=20,
        return_predictions=True,
    )  # fmt: skip
    cells = population.groups("cell")
    for cell in ("gru", "rnn"):
        others = np.log(population.best_losses[cells != cell]).mean()
        np.testing.assert_allclose(predictions.loc[cells == cell, "constant"], others)
    within = [predictions[cells == c][["target", "loss so far"]].corr("spearman").iloc[0, 1] for c in ("gru", "rnn")]
    assert table.loc["loss so far", "spearman_within"] == pytest.approx(np.mean(within))
    by_label = compare_loss_predictors(
        population, None, transformer=transformer, predictors=pair(FAST), groups=cells, n_bootstrap=20
    )
    pd.testing.assert_frame_equal(table, by_label)


def test_one_network_never_straddles_folds(population, transformer):
    twice = population + population
    chosen = pair(["constant"])
    with pytest.raises(ValueError, match=r"positions \[\d+, \d+\] hold the same network"):
        compare_loss_predictors(twice, None, transformer=transformer, predictors=chosen, cv=KFold(4, shuffle=True))
    with pytest.raises(ValueError, match="hold the same network"):
        compare_loss_predictors(
            twice, None, transformer=transformer, predictors=chosen, groups=np.repeat([0, 1], len(population))
        )
    _, predictions = compare_loss_predictors(
        twice, None, transformer=transformer, predictors=chosen, cv=4, n_bootstrap=2, return_predictions=True
    )
    first, second = np.split(predictions["constant"].to_numpy(), 2)
    np.testing.assert_array_equal(first, second)  # both were left out of the same training set


def test_a_network_without_a_spectrum_is_reported_and_kept_apart(population, transformer, monkeypatch):
    good = transformer.fit_transform(population.networks(1))
    good[5] = np.nan
    monkeypatch.setattr(LyapunovSpectrumTransformer, "fit_transform", lambda self, X, y=None: good)
    monkeypatch.setattr(LyapunovSpectrumTransformer, "get_feature_names_out", lambda self: np.arange(8).astype(str))
    with pytest.warns(FailedNetworkWarning, match=r"\[5\]"):
        table, predictions = compare_loss_predictors(
            population, None, transformer=transformer, predictors=pair(FAST), cv=4, n_bootstrap=2,
            return_predictions=True,
        )  # fmt: skip
    assert predictions.index.tolist() == [i for i in range(24) if i != 5] and table.notna().all().all()


def test_features_are_what_they_say(population, transformer, losses):
    seen = {}

    class Spy(LinearRegression):
        def fit(self, X, y):
            seen["X"], seen["y"] = X, y
            return super().fit(X.fillna(0), y)

    chosen = {"spy": (("loss_so_far", "n_parameters"), Spy())}
    compare_loss_predictors(
        population, None, transformer=transformer, predictors=chosen, epoch="last", cv=2, n_bootstrap=2, target=None
    )
    rows = seen["X"].index
    np.testing.assert_allclose(seen["X"]["log_loss_last"], np.log(population.losses("last"))[rows])
    np.testing.assert_allclose(seen["y"], losses[rows])
    gru = population.groups("cell")[rows] == "gru"
    sizes = population.groups("hidden_size")[rows].astype(int)
    weights = np.where(gru, 3, 1) * (sizes * 8 + sizes**2 + 2 * sizes) + 3 * sizes + 3
    np.testing.assert_allclose(np.exp(seen["X"]["log_n_parameters"]), weights)


@pytest.mark.parametrize(
    "params, message",
    [
        ({"predictors": {}}, "predictors"),
        ({"predictors": {"a": ("weather", Ridge())}}, "'weather'"),
        ({"predictors": {"a": StandardScaler()}}, "must hold regressors"),
        ({"predictors": {"target": Ridge()}}, "'target'"),
        ({"target": "rank"}, "target"),
        ({"cv": 1}, "cv"),
        ({"cv": 25}, "cv"),
        ({"cv": ShuffleSplit(2)}, "exactly once"),
        ({"epoch": 7}, "epoch"),
        ({"groups": "colour"}, "colour"),
        ({"confidence": 2.0}, "confidence"),
        ({"n_bootstrap": 0}, "n_bootstrap"),
    ],
)
def test_wrong_parameters_are_named(population, transformer, params, message):
    with pytest.raises((ValueError, TypeError), match=message):
        compare_loss_predictors(
            population, None, **{"transformer": transformer, "predictors": pair(["constant"]), **params}
        )


def test_scores_and_their_spread():
    rng = np.random.default_rng(0)
    y = rng.normal(size=200)
    predictions = pd.DataFrame({"target": y, "good": y + 0.5 * rng.normal(size=200), "none": np.zeros(200)})
    predictions["twin"] = predictions["good"]
    table = score_predictions(predictions, reference="good", random_state=0)
    assert table.loc["good", "r2"] == pytest.approx(r2_score(y, predictions["good"]))
    assert table.loc["none", "spearman"] == 0
    # 1 - r2 is the ratio of two mean squares of 200 normal numbers, each with a relative spread of 0.1.
    assert table.loc["good", "r2_se"] == pytest.approx(0.1 * 2**0.5 * (1 - table.loc["good", "r2"]), rel=0.3)
    assert table.loc["twin", "r2_gain"] == 0 == table.loc["twin", "r2_gain_se"]
    assert table.loc["none", "r2_gain_high"] < 0
    with pytest.raises(ValueError, match="reference"):
        score_predictions(predictions, reference="best")


def test_rank_correlations_are_spearmans():
    X = np.random.default_rng(0).normal(size=(30, 3))
    y = X[:, 0] ** 3
    X[:, 2] = 1.0
    expected = pd.DataFrame(X[:, :2]).corrwith(pd.Series(y), method="spearman").abs()
    np.testing.assert_allclose(_rank_correlations(X, y), [*expected, 0.0])


def test_the_table_as_a_figure(population, transformer):
    table = compare_loss_predictors(
        population, None, transformer=transformer, predictors=pair(FAST), cv=3, n_bootstrap=20, random_state=0
    )
    display = LossPredictorsDisplay.from_table(table)
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == list(FAST)
    np.testing.assert_array_equal(display.scores, table["r2"])
    assert "gained" in LossPredictorsDisplay.from_table(table, measure="spearman_gain").ax_.get_xlabel()
    with pytest.raises(ValueError, match="measure"):
        LossPredictorsDisplay.from_table(table, measure="mae")
    plt.close("all")


def test_the_benchmark_writes_its_tables_and_takes_up_what_is_there(population, digits, tmp_path):
    def study():
        return prediction_tables.Study("digits", population, digits[0][:4], 1, tmp_path / "spectra", small=True).run()

    text = prediction_tables.write([study()], tmp_path).read_text()
    for part in ("| AeLLE |", "spectrum − spectrum, ridge, R²", "all three − hyperparameters + loss so far, ρ", "AUC"):
        assert part in text
    assert (tmp_path / "images" / "prediction_scores.png").stat().st_size > 0
    stamp = (tmp_path / "table-digits-1-24-3.csv").stat().st_mtime_ns
    again = prediction_tables.write([study()], tmp_path).read_text()
    assert again.split("\n", 1)[1] == text.split("\n", 1)[1]
    assert (tmp_path / "table-digits-1-24-3.csv").stat().st_mtime_ns == stamp


# What users compose


def test_pipeline_and_cross_val_predict(transformer, networks, losses):
    predictor = make_pipeline(transformer, quick())
    predicted = cross_val_predict(predictor, networks, losses, cv=4)
    assert predicted.shape == (24,) and np.isfinite(predicted).all()
    assert np.isfinite(predictor.fit(networks, losses).score(networks, losses))


def test_union_with_history(transformer, networks, losses):
    dynamics = make_pipeline(
        clone(transformer), FeatureUnion([("statistics", SpectrumStatistics()), ("code", quick())])
    )
    features = make_union(dynamics, HistoryFeatures(log=True)).set_output(transform="pandas")
    predictor = make_pipeline(features, ExtraTreesRegressor(10, random_state=0)).fit(networks, losses)
    names = list(predictor[:-1].get_feature_names_out())
    assert names[-1].endswith("log_valid_loss") and len(names) == len(SpectrumStatistics().fit([[0.0]]).statistics_) + 4
    table = features.transform(networks)
    assert list(table.columns) == names and table.notna().all().all()


def test_grid_search_in_two_processes(transformer, networks, losses):
    predictor = make_pipeline(transformer, quick())
    search = GridSearchCV(predictor, {"spectrumautoencoder__latent_dim": [1, 2]}, cv=3, n_jobs=2)
    search.fit(networks, losses)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(networks).shape == (24,)


@pytest.mark.filterwarnings("ignore:Some of the .*non-finite")
def test_halving_search_in_two_processes(transformer, networks, losses):
    predictor = make_pipeline(transformer, quick())
    search = HalvingGridSearchCV(
        predictor, {"spectrumautoencoder__latent_dim": [1, 2]}, cv=3, min_resources=12, factor=2, n_jobs=2,
        random_state=0,
    )  # fmt: skip
    assert search.fit(networks, losses).predict(networks).shape == (24,)


def test_stacking(transformer, networks, losses):
    members = [
        ("code", make_pipeline(transformer, quick())),
        ("ridge", make_pipeline(transformer, StandardScaler(), RidgeCV())),
        ("history", make_pipeline(HistoryFeatures(log=True), RidgeCV())),
    ]
    stack = StackingRegressor(members, RidgeCV(), cv=3).fit(networks, losses)
    assert stack.transform(networks).shape == (24, 3) and stack.predict(networks).shape == (24,)


def test_transformed_target(transformer, networks, losses):
    predictor = make_pipeline(transformer, quick(target_transform=None))
    logged = TransformedTargetRegressor(predictor, func=np.log, inverse_func=np.exp).fit(networks, losses)
    assert (logged.predict(networks) > 0).all()


def test_learning_curve(transformer, networks, losses):
    sizes, train, test = learning_curve(
        make_pipeline(transformer, quick()), networks, losses, train_sizes=[8, 16], cv=3, shuffle=True, random_state=0
    )
    assert sizes.tolist() == [8, 16] and np.isfinite(train).all() and np.isfinite(test).all()


def test_files_of_a_fitted_pipeline(transformer, networks, losses):
    predictor = make_pipeline(transformer, quick()).fit(networks, losses)
    expected = predictor.predict(networks)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(predictor)).predict(networks), expected)
    behind = predictor[1:]  # what is behind the spectra goes through skops as numbers
    stored = skops.io.dumps(behind)
    types = skops.io.get_untrusted_types(file=io.BytesIO(stored))
    assert all(name.startswith("sklyap.autoencoder") for name in types)
    again = skops.io.loads(stored, trusted=types)
    np.testing.assert_array_equal(again.predict(transformer.transform(networks)), expected)


def test_what_takes_no_lists_belongs_behind_the_transformer(transformer, networks, losses, spectra):
    with pytest.raises((ValueError, TypeError)):
        BaggingRegressor(make_pipeline(transformer, quick()), n_estimators=2).fit(networks, losses)
    bagged = BaggingRegressor(quick(), n_estimators=2, random_state=0)
    predictor = make_pipeline(transformer, bagged).fit(networks, losses)
    assert predictor.predict(networks).shape == (24,)
    importance = permutation_importance(bagged, spectra, losses, n_repeats=2, random_state=0)
    assert importance.importances_mean.shape == (8,)


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.DegenerateSpectrumWarning")  # a dead network is among them
def test_concatenated_populations_leave_one_task_out(population, transformer, digits):
    other = train_population(
        RNNClassifier("rnn", 5, max_epochs=2), {"lr": [1e-3, 1e-2, 3e-2]}, *digits, n_networks=6, name="other",
        random_state=1, verbose=0,
    )  # fmt: skip
    both = NetworkPopulation.concatenate([population, other])
    table = compare_loss_predictors(
        both, None, transformer=transformer, predictors=pair(["hyperparameters", "spectrum, ridge"]),
        groups="population", n_bootstrap=2,
    )  # fmt: skip
    assert table["r2"].notna().all()
