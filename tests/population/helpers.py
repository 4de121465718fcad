"""What the tests of populations share: a small task, an estimator, a comparison to the last bit."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import torch
from scipy.stats import loguniform
from skorch.callbacks import Callback

from sklyap.datasets import load_sequential_digits
from sklyap.networks import RNNClassifier
from sklyap.population import train_population

X, y = load_sequential_digits(n_class=3, return_X_y=True)


X, y = X[:120], y[:120]


GRID = [
    {"cell": ["lstm", "gru"], "hidden_size": [3, 4], "lr": loguniform(1e-3, 1e-1)},
    {"cell": ["rnn"], "nonlinearity": ["relu", "tanh"], "init": ["uniform"], "init_scale": [0.5, 1.0]},
]


EPOCHS = (0, 0.5, 1, "last")


def estimator(**params):
    return RNNClassifier(**{"hidden_size": 4, "max_epochs": 2, "device": "cpu", "batch_size": 32, **params})


def train(directory=None, *, data=(X, y), grid=GRID, base=None, **params):
    options = {"n_networks": 6, "snapshot_epochs": EPOCHS, "random_state": 0, "verbose": 0, **params}
    return train_population(base or estimator(), grid, *data, directory=directory, **options)


def assert_same(one, other, epochs=EPOCHS):
    """Two populations are equal to the last bit: parameters, losses, histories, weights."""
    assert [r.params for r in one.records] == [r.params for r in other.records]
    assert [r.seed for r in one.records] == [r.seed for r in other.records]
    assert [r.index for r in one.failures] == [r.index for r in other.failures]
    for a, b in zip(one.histories, other.histories, strict=True):
        pd.testing.assert_frame_equal(a.drop(columns="dur"), b.drop(columns="dur"), check_exact=True)
    for epoch in epochs:
        np.testing.assert_array_equal(one.losses(epoch), other.losses(epoch))
        for a, b in zip(one.networks(epoch), other.networks(epoch), strict=True):
            weights, others = a.export_state()[0], b.export_state()[0]
            assert weights.keys() == others.keys()
            assert all(torch.equal(weights[name], others[name]) for name in weights)


class Trouble(Callback):
    """Raises what is asked for in networks of some sizes."""

    def __init__(self, kind, sizes, when="on_epoch_end"):
        self.kind, self.sizes, self.when = kind, sizes, when

    def __getattribute__(self, name):
        if name == object.__getattribute__(self, "__dict__").get("when"):
            return self.strike
        return super().__getattribute__(name)

    def strike(self, net, **kwargs):
        if net.module_.recurrent.hidden_size in self.sizes:
            if self.kind == "exit":
                os._exit(3)
            raise self.kind("no more")
