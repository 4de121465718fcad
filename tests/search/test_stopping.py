"""One predictor for a search and for single runs; StopHopeless inside a search."""

from __future__ import annotations

import pytest
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline

from sklyap import LyapunovHalvingSearch, RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.population import HistoryFeatures
from sklyap.training import StopHopeless

X, y = make_recall(120, n_steps=5, random_state=0)
DRAWN = {"lr": [1e-4, 1e-3, 1e-2, 1e-1]}
NETWORK = RNNClassifier(hidden_size=4, max_epochs=4)


@pytest.fixture(scope="module")
def predictor():
    shorter = make_recall(120, n_steps=4, random_state=1)
    prior = train_population(
        NETWORK, DRAWN, *shorter, n_networks=10, snapshot_epochs=(1, "last"), random_state=1, verbose=0
    )
    return make_pipeline(HistoryFeatures(log=True, epoch=1), RidgeCV()).fit(prior.networks(1), prior.best_losses)


def search_for(estimator, **options):
    given = {"n_candidates": 6, "random_state": 0, "verbose": 0, "refit": False}
    return LyapunovHalvingSearch(estimator, DRAWN, X[:2], **(given | options)).fit(X, y)


def test_one_predictor_serves_searches_and_single_runs(predictor):
    search = search_for(NETWORK, predictor=predictor)
    assert "predicted" in set(search.decisions_["reason"])
    stop = StopHopeless(predictor, 1e-9, epochs=(1,))
    RNNClassifier(hidden_size=4, max_epochs=4, callbacks=[stop], random_state=0).fit(X[40:], y[40:], X[:40], y[:40])
    assert stop.stopped_epoch_ == 1 and len(stop.forecasts_) == 1


def test_hopeless_candidates_are_stopped_inside_a_search(predictor):
    """All are stopped after one epoch; the search goes on with the losses that they have and ends."""
    estimator = RNNClassifier(hidden_size=4, max_epochs=4, callbacks=[StopHopeless(predictor, 1e-9, epochs=(1,))])
    search = search_for(estimator, promote_by="loss")
    assert {len(record.losses) for record in search.population_.records} == {1}
    assert search.best_loss_ == min(record.best_loss for record in search.population_.records)


def test_candidates_that_it_lets_go_on_are_trained_on_and_not_again(predictor):
    """Nobody is stopped: the same networks for the same epochs as without, 6 + 2 x 2 + 1."""
    estimator = RNNClassifier(hidden_size=4, max_epochs=4, callbacks=[("hopeless", StopHopeless(predictor, 1e9))])
    searches = [search_for(e, promote_by="loss", factor=2.5) for e in (estimator, NETWORK)]
    assert [search.epochs_spent_ for search in searches] == [searches[1].epochs_spent_] * 2
    losses = [[record.losses.tolist() for record in search.population_.records] for search in searches]
    assert losses[0] == losses[1]


def test_one_that_was_stopped_stays_stopped_when_it_is_promoted(predictor, tmp_path):
    """Each of the six is stopped at epoch 1; two are promoted, and stopped there again; resumed, it is the same."""
    estimator = RNNClassifier(hidden_size=4, max_epochs=4, callbacks=[StopHopeless(predictor, 1e-9, epochs=(1,))])
    for _ in range(2):
        search = search_for(estimator, promote_by="loss", directory=tmp_path / "search")
        assert {len(record.losses) for record in search.population_.records} == {1}
        assert search.epochs_spent_ == 6 + 2
