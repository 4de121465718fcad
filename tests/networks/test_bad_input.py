"""The RNN estimators: what they refuse."""

import numpy as np
import pytest
from skorch.callbacks import EarlyStopping
from torch import nn

from sklyap import RNNRegressor
from tests.networks.helpers import Leaky, small


@pytest.mark.parametrize(
    "params,message",
    [
        ({"cell": "lstmm"}, r"'cell' parameter of RNNClassifier .* Got 'lstmm' instead. Did you mean 'lstm'"),
        ({"cell": 3}, r"'cell' parameter .* Got 3"),
        ({"cell": nn.LSTM}, r"'cell' parameter .* or a RecurrentCell subclass"),
        ({"cell_params": {"leak": 1}}, r"'cell_params' parameter .* GRUCell, which has none. Got 'leak'"),
        ({"cell": "cornn", "cell_params": {"gama": 1}}, "Did you mean 'gamma'"),
        ({"cell": Leaky, "bias": False}, "'bias' parameter .* must be True with Leaky"),
        ({"nonlinearity": "relu"}, r"'nonlinearity' parameter .* cell='rnn' only"),
        ({"cell": "rnn", "nonlinearity": "sigmoid"}, r"'nonlinearity' .* 'tanh', 'relu'. Got 'sigmoid'"),
        ({"hidden_size": 0}, r"'hidden_size' .* range \[1"),
        ({"num_layers": 0}, "'num_layers'"),
        ({"max_epochs": -1}, "'max_epochs'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"lr": -0.1}, "'lr'"),
        ({"dropout": 1.5}, "'dropout'"),
        ({"init": "unifrom"}, "'init'"),
        ({"init_scale": -1.0}, "'init_scale'"),
        ({"gradient_clip": float("nan")}, "'gradient_clip'"),
        ({"validation_fraction": 1.0}, r"'validation_fraction' .* \(0, 1\)"),
        ({"optimizer": "adan"}, "'optimizer' .* Did you mean 'adam'"),
        ({"readout": "first"}, "'readout'"),
        ({"input_type": "token"}, "'input_type'"),
        ({"embedding_dim": 4}, "'embedding_dim' .* needs input_type='tokens'"),
        ({"n_tokens": 4}, "'n_tokens' .* needs input_type='tokens'"),
        ({"device": "gpu"}, "'device'"),
        ({"callbacks": EarlyStopping()}, "'callbacks' .* list of skorch callbacks"),
        ({"net_params": [1]}, "'net_params' .* dict"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_parameters(digits, params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(*digits)


def test_parameters_of_the_wrong_type(digits):
    for params in ({"hidden_size": 8.0}, {"lr": "fast"}, {"max_epochs": True}):
        with pytest.raises(TypeError, match=f"'{next(iter(params))}' parameter of RNNClassifier must be"):
            small(**params).fit(*digits)


def spoiled(X):
    X = X.copy()
    X[3, 2, 1] = np.nan
    return X


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (spoiled(X), y), "Input X contains NaN"),
        (lambda X, y: (X[:, :, :, None], y), r"must have shape .* Got shape \(400, 8, 8, 1\)"),
        (lambda X, y: (X[:, :0], y), "empty|0 feature|minimum"),
        (lambda X, y: (X[0, 0], y), "Reshape your data"),
        (lambda X, y: (X, y / 7), "continuous"),
        (lambda X, y: (X, None), "requires y to be passed"),
        (lambda X, y: (X, y, X, None), "'X_val' and 'y_val' parameters must be given together"),
        (lambda X, y: (X, y, X[:, :, :5], y), "X_val has 5 inputs per step, but X has 8"),
        (lambda X, y: (X, y, spoiled(X), y), "Input X_val contains NaN"),
        (lambda X, y: (X, y, X, y[:-1]), "inconsistent numbers of samples"),
    ],
)
def test_bad_data(digits, change, message):
    with pytest.raises(ValueError, match=message):
        small().fit(*change(*digits))


def test_bad_data_after_fit(digits):
    X, y = digits
    network = small().fit(X, y)
    with pytest.raises(ValueError, match="X has 5 inputs per step, but RNNClassifier was fitted with 8"):
        network.predict(X[:, :, :5])
    with pytest.raises(ValueError, match="known classes"):
        network.bits_per_token(X, y + 1)
    with pytest.raises(ValueError, match="inconsistent"):
        network.score(X, y[:-1])
    with pytest.raises(ValueError, match="'X_val' parameter and net_params"):
        small(net_params={"train_split": lambda *a: None}).fit(X, y, X, y)


def test_targets_at_every_step(digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"Got shape \(400, 8\); readout='all' is for a class at every step"):
        small().fit(X, np.repeat(y[:, None], 8, 1))
    with pytest.raises(ValueError, match=r"'y' .* a target at every step, shape \(400, 8\).* Got shape \(400,\)"):
        small(readout="all").fit(X, y)
    steps = np.repeat(y[:, None], 8, 1)
    with pytest.raises(ValueError, match=r"Got shape \(400, 7\)"):
        small(readout="all").fit(X, steps[:, 1:])
    with pytest.raises(ValueError, match=r"'y' parameter of RNNRegressor must have shape \(n_sequences,\)"):
        RNNRegressor().fit(X, steps[:, :, None])
    with pytest.raises(ValueError, match=r"must have 2 outputs, as in fit\. Got 8"):
        RNNRegressor(max_epochs=1).partial_fit(X, steps[:, :2]).partial_fit(X, steps)
