"""HyperparameterFeatures: the parameters of networks as numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator

from sklyap.exceptions import FailedNetworkWarning
from sklyap.population import HyperparameterFeatures
from sklyap.testing import check_network_transformer


class Made(BaseEstimator):
    """Whatever was made with parameters."""

    def __init__(self, cell="gru", size=8, scale=None, random_state=None, options=None):
        self.cell, self.size, self.scale, self.random_state, self.options = cell, size, scale, random_state, options


def test_numbers_categories_and_both():
    networks = [Made("gru", 4, 0.5, 1), Made("lstm", 8, 1.5, 2), Made(torch.nn.GRU, 8, None, 3)]
    features = HyperparameterFeatures().set_output(transform="pandas").fit(networks)
    table = features.transform(networks)
    assert list(table) == ["cell_GRU", "cell_gru", "cell_lstm", "scale_None", "scale", "size"]
    np.testing.assert_array_equal(table, [[0, 1, 0, 0, 0.5, 4], [0, 0, 1, 0, 1.5, 8], [1, 0, 0, 1, 1.0, 8]])
    # What fit has not seen has no column, and the number that is not there is the median.
    new = features.transform([Made("rnn", 16, "wide")]).to_numpy()
    np.testing.assert_array_equal(new, [[0, 0, 0, 0, 1.0, 16]])


def test_what_does_not_differ_is_left_out_unless_it_is_asked_for():
    networks = [Made(size=4, random_state=1), Made(size=8, random_state=2)]
    assert list(HyperparameterFeatures().fit(networks).get_feature_names_out()) == ["size"]
    chosen = HyperparameterFeatures(["cell", "size", "random_state"]).fit(networks)
    assert list(chosen.get_feature_names_out()) == ["cell_gru", "size", "random_state"]
    assert HyperparameterFeatures("options").fit([Made(options={"a": 1})]).columns_ == ["options"]


def test_of_a_population(population):
    features = HyperparameterFeatures().fit(population.networks(1))
    for name in population.params:
        assert any(column == name or column.startswith(f"{name}_") for column in features.get_feature_names_out())
    rows = features.transform(population.networks("last"))
    np.testing.assert_array_equal(rows, features.transform(population.networks(1)))  # whatever the epoch
    check_network_transformer(HyperparameterFeatures(), list(population.networks()))


def test_networks_without_parameters_are_refused():
    with pytest.raises(TypeError, match="get_params"):
        HyperparameterFeatures().fit([torch.nn.GRU(2, 3)])
    tolerant = HyperparameterFeatures(on_error="warn").fit([Made(size=4), Made(size=8)])
    with pytest.warns(FailedNetworkWarning, match="Network 1"):
        rows = tolerant.transform([Made(size=4), torch.nn.GRU(2, 3)])
    assert rows[0, 0] == 4 and np.isnan(rows[1, 0])


@pytest.mark.parametrize("columns", [[], 3, [1], ["weather"], "weather"])
def test_wrong_columns_are_named(columns):
    with pytest.raises(ValueError, match="'columns' parameter of HyperparameterFeatures"):
        HyperparameterFeatures(columns).fit([Made()])
