"""Networks of mixed sizes, as lists, Series and columns of tables, in cross-validation, searches and unions."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from sklyap import LyapunovSpectrumTransformer, SpectrumStatistics, loss_predictor, lyapunov_spectrum
from sklyap.exceptions import PaddedSpectrumWarning


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [torch.nn.GRU(2, size) for size in (3, 8, 5, 4, 8, 6, 7, 5, 9, 6)]


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).normal(size=(2, 15, 2))


LOSSES = np.random.default_rng(1).random(10)


def test_a_network_smaller_than_the_columns_repeats_its_smallest_exponent(networks, sequences):
    transformer = LyapunovSpectrumTransformer(sequences).fit(networks[1:])
    assert transformer.n_exponents_ == 4
    with pytest.warns(PaddedSpectrumWarning, match=r"1 of 2 networks have fewer exponents than the 4 columns .*=3 or"):
        rows = transformer.transform(networks[:2])
    own = lyapunov_spectrum(networks[0], sequences).exponents
    np.testing.assert_allclose(rows[0], [*own, own[-1]], rtol=1e-12)
    np.testing.assert_allclose(rows[1], lyapunov_spectrum(networks[1], sequences, n_exponents=4).exponents, rtol=1e-12)
    with pytest.warns(PaddedSpectrumWarning):
        np.testing.assert_array_equal(transformer.features_of(networks[0]), rows[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", PaddedSpectrumWarning)
        transformer.transform(networks[1:])


def test_columns_that_were_asked_for_are_not_made_up(networks, sequences):
    with pytest.raises(ValueError, match=r"'n_exponents' parameter must be an int in the range \[1, 3\]\. Got 4"):
        LyapunovSpectrumTransformer(sequences, n_exponents=4).fit_transform(networks)


@pytest.mark.parametrize("align", ["truncate", "interpolate"])
@pytest.mark.filterwarnings("ignore::sklyap.exceptions.PaddedSpectrumWarning")
def test_no_fold_of_mixed_sizes_fails(align, networks, sequences, tmp_path):
    transformer = LyapunovSpectrumTransformer(sequences, align=align, memory=tmp_path)
    for behind in (Ridge(), make_pipeline(SpectrumStatistics(), Ridge())):
        scores = cross_val_score(
            make_pipeline(transformer, behind), networks, LOSSES, cv=5, scoring="neg_mean_squared_error",
            error_score="raise",
        )  # fmt: skip
        assert np.isfinite(scores).all()
    search = GridSearchCV(
        make_pipeline(transformer, Ridge()),
        {"lyapunovspectrumtransformer__state": ["full", "hidden"], "ridge__alpha": [0.1, 1.0]},
        cv=KFold(10), scoring="neg_mean_squared_error", error_score="raise",
    ).fit(networks, LOSSES)  # fmt: skip
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def containers(networks):
    column = np.empty(len(networks), dtype=object)
    column[:] = networks
    return {
        "series": pd.Series(networks, index=[f"run {i}" for i in range(len(networks))]),
        "array": column,
        "column": column[:, None],
        "table": pd.DataFrame({"network": networks}),
        "tuple": tuple(networks),
    }


@pytest.mark.parametrize("kind", ["series", "array", "column", "table", "tuple"])
def test_what_holds_networks(kind, networks, sequences):
    X = containers(networks)[kind]
    transformer = LyapunovSpectrumTransformer(sequences, n_exponents=3)
    expected = transformer.fit_transform(networks)
    np.testing.assert_array_equal(transformer.fit_transform(X), expected)
    np.testing.assert_array_equal(transformer.fit(X).transform(X), expected)
    pipeline = make_pipeline(transformer, Ridge())
    if kind != "tuple":  # scikit-learn slices lists, arrays and tables
        np.testing.assert_allclose(
            cross_val_predict(pipeline, X, LOSSES, cv=5), cross_val_predict(pipeline, networks, LOSSES, cv=5)
        )


def test_columns_of_a_table(networks, sequences):
    table = pd.DataFrame({"network": networks, "lr": np.linspace(0.1, 1, 10), "width": range(10)})
    spectrum = LyapunovSpectrumTransformer(sequences, n_exponents=3)
    expected = np.column_stack([spectrum.fit_transform(networks), table[["lr", "width"]]])
    for column in ("network", ["network"], 0, [0]):
        both = ColumnTransformer([("spectrum", spectrum, column)], remainder="passthrough")
        np.testing.assert_array_equal(both.fit_transform(table), expected)
    both.set_output(transform="pandas")
    assert list(both.fit_transform(table).columns) == [
        "spectrum__lyapunov_0", "spectrum__lyapunov_1", "spectrum__lyapunov_2", "remainder__lr", "remainder__width",
    ]  # fmt: skip
    model = make_pipeline(make_column_transformer((spectrum, "network"), remainder="passthrough"), Ridge())
    assert np.isfinite(cross_val_predict(model, table, LOSSES, cv=5)).all()


def test_a_loss_predictor_takes_a_series(networks, sequences):
    predictor = loss_predictor(sequences, random_state=0)
    series = pd.Series(networks)
    of_list, of_series = (cross_val_predict(predictor, X, LOSSES, cv=2) for X in (networks, series))
    np.testing.assert_array_equal(of_list, of_series)
    assert -1 <= spearmanr(of_list, LOSSES)[0] <= 1


@pytest.mark.parametrize(
    "wrong,words",
    [
        (lambda n: pd.DataFrame({"a": n, "b": n}), r"or one column of them. Got dtype object and shape \(10, 2\)"),
        (lambda n: pd.Series(np.arange(10.0)), r"Got dtype float64 and shape \(10,\)"),
        (lambda n: "runs/model.pt", r"Got a string instead. A path is no network: .*weights_only=True.*from_networks"),
        (lambda n: n[0], "Got GRU instead. Put a single network in a list"),
        (lambda n: n[0].state_dict(), r"Weights are no network: .*module.load_state_dict\(state\)"),
    ],
)
def test_what_holds_no_networks(wrong, words, networks, sequences):
    with pytest.raises((TypeError, ValueError), match=words):
        LyapunovSpectrumTransformer(sequences).fit(wrong(networks))


@pytest.mark.parametrize(
    "wrong,words",
    [
        (lambda n: "model.pt", r"Got str instead\. A path is no network"),
        (lambda n: n.state_dict(), r"load_state_dict\(state\)"),
        (lambda n: {"epoch": 3, "model": n.state_dict()}, r"load_state_dict\(state\['model'\]\)"),
        (lambda n: torch.nn.GRU, "That is a class: make an instance, and train it"),
    ],
)
def test_what_is_no_network_but_near_one(wrong, words, networks, sequences):
    given = wrong(networks[0])
    with pytest.raises(TypeError, match=words):
        lyapunov_spectrum(given, sequences)
    with pytest.raises(TypeError, match=words) as caught:
        LyapunovSpectrumTransformer(sequences).fit([networks[0], given])
    assert caught.value.__notes__ == ["This is network 1 of the list."]
