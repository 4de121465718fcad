"""Populations: networks that fail, workers that die, and input that is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.linear_model import Ridge

from sklyap.exceptions import FailedNetworkWarning, SklyapWarning
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation
from sklyap.population.parallel import run_all
from tests.population.helpers import Trouble, X, estimator, train, y


def test_failures_are_kept_apart_and_the_rest_goes_on(tmp_path):
    huge = {"cell": ["rnn"], "nonlinearity": ["relu"], "init": ["uniform"], "init_scale": [1e30]}
    grid = [{"hidden_size": [3, 5]}, huge, {"dropout": [2.0]}]
    base = estimator(callbacks=[Trouble(MemoryError, [5], "on_batch_begin")])
    with pytest.warns(FailedNetworkWarning) as caught:
        population = train(tmp_path, grid=grid, base=base, n_networks=None)
    assert len(caught) == 1 and "3 of 4 networks failed" in str(caught[0].message)
    assert len(population) == 1 and len(population.networks()) == 1 == len(population.losses())
    reasons = [record.reason for record in population.failures]
    assert [record.params for record in population.failures] == [
        {"hidden_size": 5},
        {name: value for name, (value,) in huge.items()},
        {"dropout": 2.0},
    ]
    assert reasons[0] == "MemoryError: no more"
    assert reasons[1].startswith("DivergedError: Training diverged")
    assert reasons[2].startswith("ValueError: The 'dropout' parameter")
    with pytest.warns(FailedNetworkWarning, match="3 of 4"):
        again = train(tmp_path, grid=grid, base=base, n_networks=None)
    assert [record.reason for record in again.failures] == reasons
    assert [record.reason for record in NetworkPopulation.load(tmp_path).failures] == reasons
    assert "3 failed" in repr(population) and "MemoryError" in population._repr_html_()


def test_failed_network_keeps_the_history_that_it_has():
    base = estimator(max_epochs=3, callbacks=[Trouble(RuntimeError, [4])])
    with pytest.warns(FailedNetworkWarning, match="RuntimeError: no more"):
        population = train(base=base, grid={}, n_networks=1)
    (failure,) = population.failures
    assert len(failure.losses) == 1 and set(failure.snapshots) == {"0", "0.5", "1"}
    assert len(population) == 0 and population.losses().shape == (0,) and "1 failed" in repr(population)


def test_worker_that_dies_takes_no_other_network_along(monkeypatch):
    monkeypatch.setattr("sklyap.population.parallel._PATIENCE", 1)  # each death costs new workers
    base = estimator(callbacks=[Trouble("exit", [5])])
    with pytest.warns(FailedNetworkWarning, match="its worker died"):
        population = train(base=base, grid={"hidden_size": [3, 4, 5, 6]}, n_networks=None, n_jobs=2)
    assert [record.params["hidden_size"] for record in population.records] == [3, 4, 6]
    assert [record.params["hidden_size"] for record in population.failures] == [5]


def test_exceptions_of_the_harness_are_not_taken_for_deaths():
    with pytest.raises(AttributeError):
        run_all([object()], (X, y, None, None), n_jobs=1, done=lambda record: None)


def test_interrupt_in_memory_keeps_the_finished_networks(population):
    base = estimator(callbacks=[Trouble(KeyboardInterrupt, [5], "on_batch_begin")])
    with pytest.warns(SklyapWarning, match="interrupted: the population has 2 of 4 networks"):
        partial = train(base=base, grid={"hidden_size": [3, 4, 5, 6]}, n_networks=None)
    assert len(partial) == 2 and partial[0].predict(X).shape == y.shape


def test_interrupt_with_a_directory_is_passed_on(tmp_path):
    base = estimator(callbacks=[Trouble(KeyboardInterrupt, [5], "on_batch_begin")])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, base=base, grid={"hidden_size": [3, 4, 5, 6]}, n_networks=None)
    assert len(NetworkPopulation.load(tmp_path)) == 2


BAD = [
    ({"grid": {"hiden_size": [3]}}, ValueError, "Got 'hiden_size' instead. Did you mean 'hidden_size'"),
    ({"grid": {"random_state": [1, 2]}}, ValueError, "must not set 'random_state'"),
    ({"grid": "hidden_size"}, TypeError, "must be a dict or a list of dicts"),
    ({"grid": [{}, 3]}, TypeError, "must be a dict or a list of dicts"),
    ({"grid": []}, TypeError, "must be a dict or a list of dicts"),
    ({"grid": {"lr": loguniform(1, 2)}, "n_networks": None}, ValueError, "n_networks.*must be an int when"),
    ({"n_networks": 0}, ValueError, r"n_networks.*Got 0"),
    ({"n_networks": 2.5}, TypeError, r"n_networks.*Got 2\.5"),
    ({"snapshot_epochs": 3}, ValueError, "snapshot_epochs.*max_epochs, which is 2 for network 0. Got 3"),
    ({"snapshot_epochs": (-1,)}, ValueError, "snapshot_epochs.*Got -1"),
    ({"snapshot_epochs": ("first",)}, ValueError, "snapshot_epochs.*Got 'first'"),
    ({"snapshot_epochs": (True,)}, ValueError, "snapshot_epochs.*Got True"),
    ({"data": (X, y[:-1])}, ValueError, "same length. Got 120 and 119"),
    ({"data": (np.full_like(X, np.nan), y)}, ValueError, "NaN"),
    ({"data": (X[:, :, :, None], y)}, ValueError, "X"),
    ({"validation": 1.5}, ValueError, "validation.*Got 1.5"),
    ({"validation": "some"}, TypeError, "validation.*Got 'some'"),
    ({"validation": (X, y, y)}, ValueError, "validation.*3 items"),
    ({"validation": (X, y[:-2])}, ValueError, "'X_val' and 'y_val'.*120 and 118"),
    ({"validation": (X[:, :, :3], y)}, ValueError, "X_val"),
    ({"validation": (X, None)}, TypeError, "'y_val' parameter.*Got None"),
    ({"data": (X, None)}, TypeError, "'y' parameter.*Got None"),
    ({"grid": {"optimizer__weight_decay": [0.1]}}, ValueError, r"'net_params': \[{'optimizer__weight_decay'"),
    ({"base": RNNClassifier}, TypeError, "must be an instance of"),
    ({"base": Ridge()}, TypeError, "must be an instance of RNNClassifier or RNNRegressor"),
    ({"base": estimator(max_epochs=0)}, ValueError, "max_epochs.*Got 0"),
    ({"grid": {"dropout": [2.0]}, "n_networks": 3}, ValueError, "dropout.*Got 2.0"),
    ({"random_state": "seed"}, TypeError, "random_state"),
]


@pytest.mark.parametrize(("change", "error", "match"), BAD)
def test_bad_input_is_refused_before_training(tmp_path, monkeypatch, change, error, match):
    monkeypatch.setattr("sklyap.population.training.run_all", lambda *args, **kwargs: pytest.fail("it was trained"))
    with pytest.raises(error, match=match):
        train(tmp_path / "new", **change)
    assert not (tmp_path / "new").exists()


def test_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="directory that one can write to"):
        train(tmp_path / "file")
    with pytest.raises(TypeError, match=r"'directory' parameter must be a path\. Got 3"):
        train(3)
