"""Optuna studies that are pruned by predicted loss."""

from __future__ import annotations

import numpy as np
import pytest

from sklyap import RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.search import LyapunovPruner, OptunaCallback

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)

X, y = make_recall(60, n_steps=4, random_state=0)
EPOCHS = 4


def objective(trial):
    options = {"cell": trial.suggest_categorical("cell", ["rnn", "gru"]), "lr": trial.suggest_float("lr", 1e-4, 0.1)}
    callback = OptunaCallback(trial, X[:2], epochs=(1, 2))
    network = RNNClassifier(
        hidden_size=3, max_epochs=EPOCHS, callbacks=[callback], random_state=trial.number, **options
    )
    network.fit(X[20:], y[20:], X[:20], y[:20])
    return min(network.history_[:, "valid_loss"])


def states(study):
    return [trial.state.name for trial in study.trials]


def test_trials_are_pruned_at_rungs_by_their_loss():
    study = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=0), pruner=LyapunovPruner(factor=2, max_epochs=EPOCHS)
    )
    study.optimize(objective, n_trials=12)
    ends = [max(trial.intermediate_values) for trial in study.trials]
    assert set(states(study)) == {"COMPLETE", "PRUNED"} and set(ends) <= {1, 2, EPOCHS}
    assert states(study)[0] == "COMPLETE"  # there was nobody to be worse than
    assert all(len(trial.user_attrs["sklyap:spectrum:1"]) == 32 for trial in study.trials)


def test_a_prior_decides_who_goes_on():
    prior = train_population(
        RNNClassifier(hidden_size=3, max_epochs=EPOCHS), {"cell": ["rnn", "gru"], "lr": [1e-4, 1e-2, 1e-1]}, X, y,
        n_networks=12, snapshot_epochs=(1, 2), random_state=0, verbose=0,
    )  # fmt: skip
    pruner = LyapunovPruner(prior, X[:2], factor=2, max_epochs=EPOCHS)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    study.optimize(objective, n_trials=10)
    assert "PRUNED" in states(study) and np.isfinite(study.best_value)
    # A trial whose hyperparameters have other names can't be predicted.
    other = optuna.create_study(pruner=pruner)
    trial = other.ask()
    trial.set_user_attr("sklyap:spectrum:1", [0.0] * 32)
    trial.report(1.0, 1)
    with pytest.raises(ValueError, match="no hyperparameter 'cell'"):
        trial.should_prune()


@pytest.mark.parametrize(
    "options,words",
    [
        ({"factor": 0.5}, "'factor' parameter of LyapunovPruner"),
        ({"min_epochs": 20}, "'min_epochs'"),
        ({"loss_share": 2.0}, "'loss_share'"),
    ],
)
def test_wrong_parameters_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        LyapunovPruner(**options)
