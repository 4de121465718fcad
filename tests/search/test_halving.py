"""LyapunovHalvingSearch: rungs, bitwise continuation, results, scikit-learn's tools, and what it refuses."""

from __future__ import annotations

import pickle
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import loguniform
from sklearn.base import clone, is_classifier
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import EarlyStopping

from sklyap import LyapunovSpectrumTransformer, RNNClassifier, RNNRegressor, train_population
from sklyap.datasets import make_adding, make_recall
from sklyap.displays import SearchDisplay
from sklyap.exceptions import FailedNetworkWarning, SklyapWarning
from sklyap.search import LyapunovHalvingSearch
from sklyap.search.belief import default_model

matplotlib.use("Agg")

X, y = make_recall(120, n_steps=5, random_state=0)
DRAWN = {"lr": loguniform(1e-3, 1e-1), "cell": ["rnn", "gru"]}
FEW_TREES = {"extratreesregressor__n_estimators": 10}


def search_for(**options):
    given = {"n_candidates": 9, "max_epochs": 9, "promote_by": "loss", "random_state": 0, "verbose": 0, "refit": False}
    return LyapunovHalvingSearch(RNNClassifier(hidden_size=4), DRAWN, X[:3], **(given | options))


@pytest.fixture(scope="module")
def prior():
    shorter = make_recall(120, n_steps=4, random_state=1)
    return train_population(
        RNNClassifier(hidden_size=4, max_epochs=6),
        DRAWN,
        *shorter,
        n_networks=16,
        snapshot_epochs=(0, 1, 3, "last"),
        random_state=1,
        verbose=0,
    )


@pytest.fixture(scope="module")
def by_loss():
    return search_for().fit(X, y)


@pytest.fixture(scope="module")
def by_predictor(prior):
    return search_for(promote_by="predictor", prior=prior, predictor=default_model(0).set_params(**FEW_TREES)).fit(X, y)


def weights(network):
    return network.net_.network.state_dict()


def same(a, b):
    return all(torch.equal(x, b[name]) for name, x in a.items())


def test_rungs_and_their_cost(by_loss):
    counts = by_loss.decisions_.groupby("epoch")["candidate"].count()
    assert counts.to_dict() == {1: 9, 3: 3, 9: 1}
    assert by_loss.epochs_spent_ == 9 + 3 * 2 + 6
    promoted = by_loss.decisions_.query("epoch == 1 and promoted")["candidate"]
    lowest = by_loss.decisions_.query("epoch == 1").nsmallest(3, "loss")["candidate"]
    assert set(promoted) == set(lowest)
    assert set(by_loss.seconds_spent_) == {"training", "spectra", "refit"} and by_loss.seconds_spent_["spectra"] == 0


def test_a_candidate_promoted_in_steps_equals_one_trained_at_once(by_loss):
    record = by_loss.population_.records[by_loss.best_candidate_]
    assert len(record.losses) == 9
    X_train, X_val = _split(by_loss)
    at_once = RNNClassifier(hidden_size=4, max_epochs=9, **record.params, random_state=record.seed)
    at_once.fit(*X_train, *X_val)
    assert same(weights(at_once), weights(record.network("last")))
    assert np.array_equal(at_once.history_[:, "valid_loss"], record.losses)
    assert [row["valid_loss_best"] for row in at_once.history_] == [
        row["valid_loss_best"] for row in record.network().history_
    ]


def _split(search):
    from sklyap.population.plan import make_plan

    plan = make_plan(search.estimator, DRAWN, X, y, n_networks=9, validation=0.2, snapshot_epochs=(), random_state=0)
    return plan.data[:2], plan.data[2:]


def test_the_best_network_is_the_one_of_the_lowest_loss(by_loss):
    losses = np.array([record.best_loss for record in by_loss.population_.records])
    assert by_loss.best_loss_ == losses.min()
    assert by_loss.best_params_ == by_loss.population_.records[int(losses.argmin())].params
    _, (X_val, y_val) = _split(by_loss)
    probabilities = by_loss.predict_proba(X_val)
    loss = -np.log(probabilities[np.arange(len(y_val)), y_val]).mean()
    assert loss == pytest.approx(by_loss.best_loss_, rel=1e-4)


def test_cv_results_are_scikit_learns(by_loss):
    table = pd.DataFrame(by_loss.cv_results_)
    assert len(table) == 13 and {"param_lr", "param_cell", "params", "iter", "n_resources"} <= set(table.columns)
    assert table.loc[by_loss.best_index_, "candidate"] == by_loss.best_candidate_
    assert table.loc[by_loss.best_index_, "rank_test_score"] == 1
    assert -table["mean_test_score"].max() == by_loss.best_loss_


def test_the_number_of_processes_changes_no_bit(by_predictor):
    other = clone(by_predictor).set_params(n_jobs=2).fit(X, y)
    assert same(weights(other.best_estimator_), weights(by_predictor.best_estimator_))
    pd.testing.assert_frame_equal(other.decisions_, by_predictor.decisions_)


def test_with_a_prior_candidates_are_looked_at_before_they_are_trained(by_predictor):
    table = by_predictor.decisions_
    assert table.groupby("epoch")["candidate"].count().to_dict() == {0: 27, 1: 9, 3: 3, 9: 1}
    assert by_predictor.epochs_spent_ == 21
    assert by_predictor.seconds_spent_["spectra"] > 0
    seats = table.query("epoch == 0 and promoted")["reason"].value_counts()
    assert seats.to_dict() == {"predicted": 4, "chance": 5}
    known = table[table["epoch"] < 9]
    assert (known["low"] < known["predicted"]).all() and (known["predicted"] < known["high"]).all()


def test_displays_of_a_search(by_predictor, by_loss):
    display = SearchDisplay.from_search(by_predictor)
    assert display.ax_.get_yscale() == "log" and len(display.curves) == 9
    predictions = SearchDisplay.from_search(by_predictor, kind="predictions")
    assert predictions.ax_.get_ylabel() == "predicted final loss"
    with pytest.raises(ValueError, match="predicted nothing"):
        SearchDisplay.from_search(by_loss, kind="predictions")


def test_labels_are_finished_first(by_loss):
    search = search_for(promote_by="predictor", n_labelled=6).fit(X, y)
    finished = [r for r in search.population_.records if len(r.losses) == 9]
    assert len(finished) == 7 and search.epochs_spent_ > by_loss.epochs_spent_
    assert -max(search.cv_results_["mean_test_score"]) == search.best_loss_
    assert search.cv_results_["candidate"][search.best_index_] == search.best_candidate_


def test_a_predictor_may_take_networks(prior):
    spectra = LyapunovSpectrumTransformer(X[:2], n_exponents=3)
    predictor = make_pipeline(spectra, StandardScaler(), RidgeCV())
    search = search_for(promote_by="predictor", prior=prior, predictor=predictor).fit(X, y)
    assert search.decisions_["epoch"].min() == 1 and np.isfinite(search.best_loss_)
    # One that has been fitted to losses before needs no prior.
    predictor.fit(prior.networks(1), prior.best_losses)
    alone = search_for(promote_by="predictor", predictor=predictor).fit(X, y)
    assert "predicted" in set(alone.decisions_["reason"])


def test_without_anything_to_learn_from_the_loss_decides(by_loss):
    search = search_for(promote_by="predictor").fit(X, y)
    pd.testing.assert_frame_equal(search.decisions_, by_loss.decisions_)


def test_a_table_regressor_or_a_fitted_one_may_be_the_predictor(prior):
    trees = make_pipeline(FunctionTransformer(lambda t: t.select_dtypes("number")), ExtraTreesRegressor(5))
    search = search_for(promote_by="predictor", prior=prior, predictor=trees).fit(X, y)
    assert len(search.population_) == 9


def test_the_nearest_to_the_reference_goes_on(by_loss):
    reference = by_loss.population_[4]
    search = search_for(promote_by="distance", reference=reference).fit(X, y)
    assert set(search.decisions_.query("promoted")["reason"]) == {"distance"}
    # At the end of its own training it is at distance 0 of itself: nothing is nearer.
    board = search.decisions_.query("epoch == 9")
    assert len(board) == 1


def test_refitting_uses_all_data_and_keeps_the_better():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklyapWarning)
        search = search_for(refit=True).fit(X, y)
    record = search.population_.records[search.best_candidate_]
    refitted = search.best_estimator_
    assert refitted.seed_ == record.network("best").seed_
    if search.seconds_spent_["refit"]:
        assert len(refitted.history_) == record.snapshots["best"].epoch


def test_a_regression_is_searched_as_well():
    X, y = make_adding(100, n_steps=5, random_state=0)
    search = LyapunovHalvingSearch(
        RNNRegressor("gru", 4),
        {"lr": [1e-3, 1e-2, 1e-1]},
        None,
        n_candidates=3,
        max_epochs=3,
        random_state=0,
        verbose=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklyapWarning)
        search.fit(X, y)
    assert not is_classifier(search) and search.predict(X).shape == (100,)


def test_it_works_in_cross_validation_and_pipelines_and_can_be_cloned_and_pickled(by_loss):
    search = search_for(n_candidates=3, max_epochs=3)
    scores = cross_val_score(search, X, y, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    pipeline = make_pipeline(FunctionTransformer(lambda X: X * 2), search).fit(X, y)
    assert pipeline.predict(X).shape == (120,) and pipeline[-1].n_features_in_ == 4
    assert clone(by_loss).get_params()["n_candidates"] == 9
    again = pickle.loads(pickle.dumps(by_loss))
    assert np.array_equal(again.predict(X), by_loss.predict(X))
    with pytest.raises(NotFittedError):
        search_for().predict(X)


def test_callbacks_that_remember_are_trained_from_the_start(by_loss):
    estimator = RNNClassifier(hidden_size=4, callbacks=[EarlyStopping(patience=100)])
    search = clone(by_loss).set_params(estimator=estimator).fit(X, y)
    assert search.best_loss_ == by_loss.best_loss_
    assert search.epochs_spent_ == 9 + 3 * 3 + 9


def test_a_network_that_diverges_is_a_failed_candidate():
    search = search_for().set_params(param_distributions={"lr": [1e-2, 1e-3, 1e38]}, n_candidates=6)
    with pytest.warns(FailedNetworkWarning, match="2 of 6 candidates failed"):
        search.fit(X, y)
    assert len(search.population_.failures) == 2 and np.isfinite(search.best_loss_)


def test_candidates_that_all_fail_are_an_error():
    search = search_for(n_candidates=3).set_params(param_distributions={"lr": [1e38]})
    with (
        pytest.warns(FailedNetworkWarning),
        pytest.raises(ValueError, match=r"All 3 candidates .* failed; there is no best one"),
    ):
        search.fit(X, y)


@pytest.mark.parametrize(
    "options,error,words",
    [
        ({"min_epochs": 10}, ValueError, "'min_epochs' .* must not exceed max_epochs, which is 9"),
        ({"min_epochs": 0}, ValueError, "'min_epochs'"),
        ({"n_candidates": 0}, ValueError, "'n_candidates' parameter of LyapunovHalvingSearch"),
        ({"factor": 1}, ValueError, "'factor' .* above 1"),
        ({"promote_by": "luck"}, ValueError, "'promote_by'"),
        ({"promote_by": "distance"}, ValueError, "'reference' .* must be a network"),
        ({"predictor": object()}, TypeError, "'predictor' .* fit and predict"),
        ({"prior": "recall"}, TypeError, "'prior' .* NetworkPopulation"),
        ({"n_labelled": 10}, ValueError, "'n_labelled'"),
        ({"n_screened": 20}, ValueError, "'n_screened' .* needs a prior"),
        ({"sequences": np.zeros((2, 5, 3), np.float32)}, ValueError, "'sequences' .* 4 inputs per step"),
        ({"param_distributions": {"max_epochs": [1, 2]}}, ValueError, "must not set 'max_epochs'"),
        ({"param_distributions": {"learning_rate": [1]}}, ValueError, "of LyapunovHalvingSearch must name parameters"),
        ({"param_distributions": {"random_state": [1]}}, ValueError, "must not set 'random_state'"),
        ({"estimator": RNNClassifier}, TypeError, "'estimator' parameter of LyapunovHalvingSearch"),
        ({"validation": 2.0}, ValueError, "'validation' parameter of LyapunovHalvingSearch"),
    ],
)
def test_wrong_parameters_are_named_before_training(options, error, words, monkeypatch):
    monkeypatch.setattr("sklyap.search.live.run_all", lambda *args, **kwargs: pytest.fail("training has begun"))
    with pytest.raises(error, match=words):
        search_for().set_params(**options).fit(X, y)


def test_priors_that_do_not_fit_are_refused(prior):
    other = make_adding(60, n_steps=4, random_state=0)
    foreign = train_population(
        RNNRegressor(hidden_size=3, max_epochs=2), {"lr": loguniform(1e-3, 1e-1)}, *other, n_networks=10,
        snapshot_epochs=(1, "last"), random_state=0, verbose=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"'prior' .* 4 inputs per step"):
        search_for(promote_by="predictor", prior=foreign).fit(X, y)
    with pytest.raises(ValueError, match="at least 10 networks"):
        search_for(promote_by="predictor", prior=prior[:3]).fit(X, y)
    # With sequences of its own it may be of another width.
    options = {"prior": (foreign, other[0][:3]), "n_candidates": 3, "max_epochs": 3}
    found = search_for(promote_by="predictor", **options).fit(X, y)
    assert np.isfinite(found.best_loss_)
