"""Training in several pieces, through plain data, is training in one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import EpochScoring

from sklyap import RNNClassifier, RNNRegressor
from sklyap.datasets import make_adding, make_recall
from sklyap.networks.continuation import can_continue, export_optimizer, restore_optimizer

X, y = make_recall(90, n_steps=6, random_state=0)


def in_pieces(estimator, pieces, X, y):
    """Train epochs piece by piece; between pieces only tensors and JSON survive."""
    network = None
    for n_epochs in pieces:
        fresh = clone(estimator)
        if network is not None:
            tensors, attributes = network.export_state()
            optimizer = export_optimizer(network)
            plain = json.loads(json.dumps([attributes, optimizer[1]]))
            fresh.restore_state(tensors, plain[0])
            restore_optimizer(fresh, optimizer[0], plain[1])
        fresh.set_params(warm_start=True, max_epochs=n_epochs).fit(X[30:], y[30:], X[:30], y[:30])
        network = fresh
    return network


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "lstm", "dropout": 0.3, "num_layers": 2},
        {"cell": "gru", "optimizer": "rmsprop", "gradient_clip": 0.5},
        {"cell": "rnn", "optimizer": "sgd", "net_params": {"optimizer__momentum": 0.9}},
        {"cell": "lem", "optimizer": "adamw"},
        {"cell": "rnn", "optimizer": torch.optim.Adagrad},
        {"cell": "rnn", "optimizer": torch.optim.Adam, "net_params": {"optimizer__amsgrad": True}},
    ],
)
def test_pieces_are_the_whole(options):
    estimator = RNNClassifier(hidden_size=5, lr=0.01, random_state=3).set_params(**options)
    whole = clone(estimator).set_params(max_epochs=6).fit(X[30:], y[30:], X[:30], y[:30])
    pieces = in_pieces(estimator, (1, 2, 3), X, y)
    ours, theirs = whole.net_.network.state_dict(), pieces.net_.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = [
        [{k: v for k, v in row.items() if k not in ("dur", "batches")} for row in n.history_] for n in (whole, pieces)
    ]
    assert rows[0] == rows[1]


def test_pieces_of_a_regression_are_the_whole():
    X, y = make_adding(90, n_steps=6, random_state=0)
    estimator = RNNRegressor("gru", 5, lr=0.01, random_state=3)
    whole = clone(estimator).set_params(max_epochs=4).fit(X[30:], y[30:], X[:30], y[:30])
    pieces = in_pieces(estimator, (2, 2), X, y)
    assert np.array_equal(whole.predict(X), pieces.predict(X))


def test_without_the_optimizer_it_is_another_network():
    """The state matters: what this file tests could fail."""
    estimator = RNNClassifier("rnn", 5, lr=0.01, random_state=3)
    whole = clone(estimator).set_params(max_epochs=4).fit(X, y)
    half = clone(estimator).set_params(max_epochs=2).fit(X, y)
    other = clone(estimator).restore_state(*half.export_state()).set_params(warm_start=True, max_epochs=2).fit(X, y)
    weights = [n.net_.network.state_dict()["readout.weight"] for n in (whole, other)]
    assert not torch.equal(*weights)


def test_the_state_of_other_weights_is_refused():
    one = RNNClassifier("rnn", 5, max_epochs=1, random_state=0).fit(X, y)
    other = RNNClassifier("rnn", 5, max_epochs=1, random_state=1).fit(X, y)
    with pytest.raises(ValueError, match="not that of these weights"):
        restore_optimizer(other, *export_optimizer(one))


def test_a_malformed_state_is_refused():
    network = RNNClassifier("rnn", 5, max_epochs=1, random_state=0).fit(X, y)
    tensors, attributes = export_optimizer(network)
    with pytest.raises(ValueError, match="Adam can take"):
        restore_optimizer(network, {}, attributes)
    with pytest.raises(ValueError, match="Adam can take"):
        restore_optimizer(network, tensors, attributes | {"optimizer": {"__items__": [["state", {"__items__": []}]]}})


def test_callbacks_may_remember():
    assert can_continue(RNNClassifier())
    assert can_continue(RNNClassifier(callbacks=[], net_params={"optimizer__weight_decay": 1e-4}))
    assert not can_continue(RNNClassifier(callbacks=[EpochScoring("accuracy")]))
    assert not can_continue(RNNClassifier(net_params={"callbacks__print_log": None}))
