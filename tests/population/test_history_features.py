"""HistoryFeatures: what training has recorded, as features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sklyap.population import HistoryFeatures
from tests.population.helpers import EPOCHS, X, estimator, y


def test_history_features_read_where_the_network_stands(population):
    for epoch in EPOCHS:
        features = HistoryFeatures().fit_transform(population.networks(epoch))
        np.testing.assert_array_equal(features[:, 0], population.losses(epoch))
    last = HistoryFeatures(("train_loss", "valid_accuracy"), epoch=[1, 2]).fit(population.networks())
    table = last.set_output(transform="pandas").transform(population.networks())
    assert list(table.columns) == [
        "train_loss_epoch_1",
        "train_loss_epoch_2",
        "valid_accuracy_epoch_1",
        "valid_accuracy_epoch_2",
    ]
    np.testing.assert_array_equal(table.iloc[:, 1], [h["train_loss"].iloc[-1] for h in population.histories])
    logs = HistoryFeatures(log=True).fit(population.networks())
    np.testing.assert_allclose(logs.transform(population.networks())[:, 0], np.log(population.losses()))
    assert logs.get_feature_names_out().tolist() == ["log_valid_loss"]


def test_history_features_of_any_trained_estimator():
    network = estimator(validation_fraction=0.2, random_state=0).fit(X, y)
    features = HistoryFeatures(("train_loss", "valid_loss")).fit_transform([network])
    np.testing.assert_array_equal(features, [[network.history_[-1, c] for c in ("train_loss", "valid_loss")]])


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"columns": ()}, "columns"),
        ({"columns": ("loss",)}, r"no column 'loss' at epoch last; it has \["),
        ({"epoch": 0}, r"epoch.*Got 0"),
        ({"epoch": 3}, "has trained for 2 epochs. HistoryFeatures needs epoch 3"),
        ({"epoch": "first"}, "epoch"),
    ],
)
def test_history_features_bad_input(population, params, match):
    with pytest.raises((ValueError, TypeError), match=match):
        HistoryFeatures(**params).fit(population.networks()).transform(population.networks())
    with pytest.raises((ValueError, TypeError)):
        HistoryFeatures().fit([])
    with pytest.raises(ValueError, match="have a history_"):
        HistoryFeatures().fit_transform([torch.nn.GRU(2, 3)])


def test_history_features_follow_the_contract_of_transformers(population):
    from sklyap.testing import check_network_transformer

    check_network_transformer(HistoryFeatures(("train_loss", "valid_loss")), list(population.networks()))
