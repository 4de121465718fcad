"""NetworkTransformer: what a transformer of networks gets from its base."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from sklyap import LyapunovSpectrumTransformer, NetworkTransformer, RNNClassifier
from sklyap.cells import conversion
from sklyap.exceptions import FailedNetworkWarning


class Sizes(NetworkTransformer):
    """Numbers of units; fails for LSTMs."""

    def __init__(self, sequences=None, targets=None, *, n_jobs=None, verbose=0, on_error="raise"):
        self.sequences = sequences
        self.targets = targets
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.on_error = on_error

    def feature_names(self):
        return ["size"]

    def features_of(self, network):
        if isinstance(network, nn.LSTM):
            raise ValueError("an LSTM")
        return [network.hidden_size]


@pytest.fixture
def networks():
    return [nn.GRU(2, size) for size in (3, 5, 4)]


def test_features_in_the_order_of_networks(networks):
    transformer = Sizes().fit(networks)
    assert transformer.transform(networks).tolist() == [[3.0], [5.0], [4.0]]
    assert transformer.transform(networks).dtype == np.float64
    assert transformer.get_feature_names_out().tolist() == ["size"]
    assert transformer.n_features_out_ == 1 and transformer.failures_ == {}


def test_clones_share_sequences_and_targets_but_nothing_else(networks):
    sequences, targets = np.zeros((2, 3)), np.zeros(2)
    transformer = Sizes(sequences, targets, n_jobs=2).set_output(transform="pandas").fit(networks)
    twin = clone(transformer)
    assert twin.sequences is sequences and twin.targets is targets and twin.n_jobs == 2
    assert transformer.sequences is sequences and transformer.targets is targets
    assert not hasattr(twin, "n_features_out_")
    assert twin.set_params(n_jobs=1).fit_transform(networks).columns.tolist() == ["size"]


@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.processes)])
def test_what_is_raised_names_the_network(networks, n_jobs):
    mixed = [*networks, nn.LSTM(2, 3)]
    with pytest.raises(ValueError, match="an LSTM") as caught:
        Sizes(n_jobs=n_jobs).fit_transform(mixed)
    assert caught.value.__notes__ == ["This is network 3 of the list."]


@pytest.mark.parametrize("n_jobs", [None, pytest.param(2, marks=pytest.mark.processes)])
def test_failures_become_rows_of_nan(networks, n_jobs):
    mixed = [nn.LSTM(2, 3), *networks]
    transformer = Sizes(n_jobs=n_jobs, on_error="warn")
    with pytest.warns(FailedNetworkWarning, match=r"Network 0 of 4 failed, its row is NaN: ValueError: an LSTM"):
        rows = transformer.fit_transform(mixed)
    np.testing.assert_array_equal(rows, [[np.nan], [3.0], [5.0], [4.0]])
    assert transformer.failures_ == {0: "ValueError: an LSTM"}
    transformer.transform(networks)
    assert transformer.failures_ == {}


def test_a_bar_runs_over_networks(networks, capsys):
    Sizes(verbose=1).fit_transform(networks)
    assert "Sizes: 100%" in capsys.readouterr().err
    Sizes().fit_transform(networks)
    assert not capsys.readouterr().err


def test_on_error_is_checked(networks):
    with pytest.raises(ValueError, match=r"'on_error' parameter of Sizes must be one of .* Got 'skip'"):
        Sizes(on_error="skip").fit(networks)


def test_it_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        NetworkTransformer()


@pytest.mark.parametrize("kind", ["module", "estimator"])
def test_a_network_is_copied_once(kind, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 12, 2)).astype("f4"), np.arange(8) % 2
    if kind == "module":
        networks = [nn.GRU(2, size) for size in (3, 4)]
    else:
        networks = [RNNClassifier("gru", size, max_epochs=1, random_state=0).fit(X, y) for size in (3, 4)]
    copied = []
    snapshot = conversion.snapshot
    monkeypatch.setattr(conversion, "snapshot", lambda module, memo: copied.append(module) or snapshot(module, memo))
    rows = LyapunovSpectrumTransformer(X).fit_transform(networks)
    assert len(copied) == len(networks)
    np.testing.assert_array_equal(rows, LyapunovSpectrumTransformer(X).fit(networks).transform(networks))


def test_a_layer_is_chosen_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.GRU(2, 3, batch_first=True), nn.GRU(3, 4, batch_first=True)

        def forward(self, x):
            return self.second(self.first(x)[0])[0][:, -1]

    torch.manual_seed(0)
    network, X = Two(), torch.randn(4, 20, 2)
    with pytest.raises(ValueError, match="exactly one recurrent layer"):
        LyapunovSpectrumTransformer(X).fit_transform([network])
    rows = LyapunovSpectrumTransformer(X, layer="second").fit_transform([network])
    with torch.no_grad():
        expected = LyapunovSpectrumTransformer(network.first(X)[0]).fit_transform([network.second])
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
