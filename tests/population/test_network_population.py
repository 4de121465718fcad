"""A population as a container, and its networks as samples for scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_val_predict, train_test_split
from sklearn.pipeline import FeatureUnion, make_pipeline
from skorch.callbacks import EarlyStopping

from sklyap.networks import RNNClassifier
from sklyap.population import HistoryFeatures, NetworkPopulation, train_population
from tests.population.helpers import X, estimator, train, y


def test_indexing(population):
    assert len(population[1:3]) == 2 and len(population[[0, 5]]) == 2 and len(population[[]]) == 0
    assert population[-1].random_state == population.records[5].seed
    mask = population.params["cell"] == "rnn"
    assert len(population[mask]) == mask.sum()
    assert [n.random_state for n in population] == [r.seed for r in population.records]
    with pytest.raises(IndexError):
        population[6]
    with pytest.raises(IndexError, match="mask of 6"):
        population[[True]]
    with pytest.raises(IndexError, match="indexed by"):
        population["cell"]


def test_filter(population):
    few = population.filter(lambda record: record.best_loss < np.median(population.best_losses))
    assert len(few) == 3
    gated = population.filter(cell=["lstm", "gru"])
    assert set(gated.params["cell"]) <= {"lstm", "gru"} and 0 < len(gated) < 6
    assert len(population.filter(cell="rnn")) + len(gated) == 6
    assert len(population.filter(max_epochs=2)) == 6, "a parameter that does not vary"
    assert len((population + train(name="other", n_networks=2)).filter(population="other")) == 2
    with pytest.raises(ValueError, match="Got 'cel'"):
        population.filter(cel="rnn")


def test_concatenation(population):
    other = train(grid={"hidden_size": [6]}, n_networks=2, name="other", snapshot_epochs=(1, "last"))
    both = population + other
    assert len(both) == 8 and both.params["hidden_size"].tolist()[-2:] == [6, 6]
    assert both.groups("population").tolist() == ["population"] * 6 + ["other"] * 2
    assert both.networks(1)[7].predict(X).shape == y.shape
    np.testing.assert_array_equal(both.losses(1), np.concatenate([population.losses(1), other.losses(1)]))
    with pytest.raises(ValueError, match=r"of networks must be one that was kept: 1, last. Got 0\.5"):
        both.networks(0.5)
    assert len(NetworkPopulation.concatenate([other, other, population])) == 10
    with pytest.raises(TypeError):
        population + 1


def test_callbacks_of_the_grid_are_shared_by_no_networks(tmp_path):
    stop = EarlyStopping(patience=1, threshold=10)
    grid = {"callbacks": [None, [stop]], "hidden_size": [3, 4]}
    first = train(tmp_path, grid=grid, n_networks=4, base=estimator(max_epochs=4))
    assert [len(r.losses) for r in first.records] == [4, 4, 2, 2]
    assert stop.misses_ == 0, "the caller's own is not touched"
    again = train(tmp_path, grid=grid, n_networks=4, base=estimator(max_epochs=4))
    np.testing.assert_array_equal(again.losses(), first.losses())
    loaded = NetworkPopulation.load(tmp_path)
    assert loaded.params["hidden_size"].tolist() == [3, 4, 3, 4]
    np.testing.assert_array_equal(loaded[3].predict_proba(X), first[3].predict_proba(X))


def test_groups(population):
    assert set(population.groups("cell")) == set(population.params["cell"])
    assert population.groups("max_epochs").tolist() == [2] * 6
    with pytest.raises(ValueError, match="Got 'colour'"):
        population.groups("colour")
    with pytest.raises(ValueError, match="Got 'score'"):
        population.groups("score")  # an attribute, but no parameter


@pytest.mark.parametrize(
    ("method", "epoch"), [("networks", 2), ("networks", "first"), ("losses", 3), ("losses", 1.5), ("losses", True)]
)
def test_unknown_epoch_is_refused(population, method, epoch):
    with pytest.raises(ValueError, match=f"'epoch' parameter of {method} must be.*Got {epoch!r}"):
        getattr(population, method)(epoch)


def test_reprs(population):
    text = repr(population)
    assert text.startswith("NetworkPopulation of 6 networks") and "lr: 0.0" in text and "best loss" in text
    page = population._repr_html_()
    assert page.count("<tr>") == text.count("\n") and "NetworkPopulation of 6 networks" in page
    assert repr(population.networks(1)) == "<6 trained networks, epoch 1>"


def test_html_is_escaped():
    population = train(name="<script>", grid={"hidden_size": [3]}, n_networks=1)
    population.records[0].params["<b>"] = "<i>"
    population.records[0].origin.estimator.get_params = lambda deep=False: {"<b>": "<i>"}
    assert "<b>" not in population._repr_html_() and "&lt;i&gt;" in population._repr_html_()


def test_progress_bar_shows_best_loss(capsys):
    train(n_networks=2, verbose=1)
    shown = capsys.readouterr().err
    assert "2/2" in shown and "best loss" in shown


class WeightNorms(TransformerMixin, BaseEstimator):
    """A stand-in for a transformer of networks."""

    def __init__(self, power=1):
        self.power = power

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.array([[float(n.net_.module_.readout.weight.detach().norm()) ** self.power] for n in X])

    def get_feature_names_out(self, input_features=None):
        return np.array(["norm"], dtype=object)


def test_networks_work_as_X(stored):
    networks, losses = stored[1].networks(1), stored[1].best_losses
    model = make_pipeline(FeatureUnion([("norms", WeightNorms()), ("loss", HistoryFeatures())]), Ridge())
    search = GridSearchCV(model, {"featureunion__norms__power": [1, 2]}, cv=3, n_jobs=2, error_score="raise")
    search.fit(networks, losses)
    as_list = clone(search).set_params(n_jobs=1).fit(list(networks), losses)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], as_list.cv_results_["mean_test_score"])
    assert search.predict(networks).shape == (6,)
    train_part, test_part = train_test_split(networks, random_state=0, test_size=2)
    assert type(train_part) is type(networks) and len(test_part) == 2
    groups = stored[1].groups("cell")
    predicted = cross_val_predict(model, networks, losses, groups=groups, cv=LeaveOneGroupOut())
    assert np.isfinite(predicted).all()


def test_networks_of_two_populations_stay_lazy(stored):
    networks = stored[1].networks(0) + stored[1].networks("last")
    assert type(networks) is type(stored[1].networks()) and len(networks) == 12
    plain = list(networks[:2])
    assert len(networks + plain) == len(plain + networks) == 14
    assert len(networks[0].history_) == 0 and len(networks[11].history_) == 2


def test_joined_populations_differ_in_what_their_estimators_do(population):
    other = train_population(
        RNNClassifier("rnn", 3, max_epochs=1, batch_size=16), {"lr": [1e-3, 1e-2]}, X, y, random_state=3, verbose=0
    )
    both = population + other
    table = both.params
    assert table["cell"].tolist()[-2:] == ["rnn", "rnn"] and table["hidden_size"].tolist()[-2:] == [3, 3]
    assert "verbose" not in table and "random_state" not in table
    assert list(population[:3].params) == list(population.params)
