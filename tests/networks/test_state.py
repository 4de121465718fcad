"""The state of RNN estimators as plain data."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklyap import RNNRegressor
from tests.networks.helpers import Leaky, small


def round_trip(network):
    tensors, attributes = network.export_state()
    return load(save(tensors)), json.loads(json.dumps(attributes))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "network,columns",
    [
        (small(validation_fraction=0.2, num_layers=2), None),
        (small(cell=Leaky, cell_params={"leak": 0.3}), None),
        (small(cell="lipschitz", cell_params={"beta": (0.5, 0.75)}), None),
        (small(cell="lstm"), [f"c{i}" for i in range(8)]),
        (RNNRegressor("gru", 4, max_epochs=1, random_state=0), None),
    ],
)
def test_state_survives_json_and_safetensors(digits, network, columns):
    X, y = digits
    labels = np.array([f"digit {i}" for i in range(10)], dtype=object)[y]
    y = y if isinstance(network, RNNRegressor) else labels
    X = X if columns is None else pd.DataFrame(X[:, 3], columns=columns)
    network = clone(network).fit(X, y)
    restored = clone(network).restore_state(*round_trip(network))
    np.testing.assert_array_equal(restored.predict(X), network.predict(X))
    assert restored.history_[:, "train_loss"] == network.history_[:, "train_loss"]
    assert restored.n_features_in_ == network.n_features_in_
    assert restored.seed_ == network.seed_
    with pytest.raises(ValueError, match="X has"):
        restored.predict(np.zeros((2, 7, 3)) if columns is None else np.zeros((2, 7)))
    # It trains on, from the epoch where it stood.
    restored.partial_fit(X, y)
    assert restored.history_[:, "epoch"] == [*network.history_[:, "epoch"], len(network.history_) + 1]


def test_exported_tensors_do_not_alias(digits):
    X, y = digits
    network = small(warm_start=True).fit(X, y)
    tensors, attributes = network.export_state()
    before = {name: t.clone() for name, t in tensors.items()}
    network.fit(X, y)
    assert all(torch.equal(before[name], t) for name, t in tensors.items())
    assert len(attributes["history"]) == 2


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda t, a: a.pop("history"), "'history'"),
        (lambda t, a: a.update(history=[1, 2]), "not a mapping"),
        (lambda t, a: a.update(estimator="RNNRegressor"), "it is that of a RNNRegressor"),
        (lambda t, a: a.update(architecture=None), "subscriptable"),
        (lambda t, a: a["architecture"].update(hidden_size=9), "hidden_size=9, and not 8"),
        (lambda t, a: a["architecture"].update(n_inputs=7), "and not F32 of shape"),
        (lambda t, a: a["architecture"].update(n_inputs=10**15), "and not F32 of shape|overflow"),
        (lambda t, a: a.update(seed=-1), "'seed'"),
        (lambda t, a: a.update(n_columns="8"), "'n_columns'"),
        (lambda t, a: a["targets"].update(dtype="V8"), "dtype"),
        (lambda t, a: a["targets"].update(classes=[3, 2, 1]), "sorted"),
        (lambda t, a: t.popitem(), "it has no '"),
        (lambda t, a: t.update(extra=torch.zeros(1)), "'extra', which the network has not"),
        (lambda t, a: t.update({"readout.bias": torch.zeros(3)}), "and not F32 of shape"),
    ],
)
def test_malformed_states_are_refused(digits, spoil, message):
    network = small().fit(*digits)
    tensors, attributes = round_trip(network)
    spoil(tensors, attributes)
    fresh = clone(network)
    with pytest.raises(ValueError, match=rf"The state is not one that this RNNClassifier can take: .*{message}"):
        fresh.restore_state(tensors, attributes)
    with pytest.raises(NotFittedError):
        fresh.predict(digits[0])
