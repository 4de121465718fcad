"""check_network_transformer passes what keeps the contract and finds what breaks it."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from sklyap import LyapunovSpectrumTransformer, NetworkTransformer
from sklyap.testing import check_network_transformer
from sklyap.validation import check_networks

SEQUENCES = np.zeros((2, 3, 2))


class Norms(TransformerMixin, BaseEstimator):
    """A correct transformer: norms of the recurrent weights. The broken ones below change one thing."""

    def __init__(self, order=2):
        self.order = order

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags

    def fit(self, X, y=None):
        check_networks(X, caller="Norms")
        self.n_features_out_ = 2
        return self

    def transform(self, X):
        check_is_fitted(self)
        return np.array([self._row(network) for network in check_networks(X, caller="Norms")])

    def _row(self, network):
        with torch.no_grad():
            U = network.weight_hh_l0.double()
            return [torch.linalg.matrix_norm(U, self.order).item(), U.abs().max().item()]

    def get_feature_names_out(self, input_features=None):
        check_is_fitted(self)
        return np.array(["norm", "max"], dtype=object)


class ConstructorComputes(Norms):
    def __init__(self, order=2):
        super().__init__(order)
        self.half = order / 2


class ConstructorConverts(Norms):
    def __init__(self, order=2):
        self.order = float(order)


class FitReturnsNothing(Norms):
    def fit(self, X, y=None):
        super().fit(X)


class FitChangesParameters(Norms):
    def fit(self, X, y=None):
        self.order = 1
        return super().fit(X)


class FitNamesWrong(Norms):
    def fit(self, X, y=None):
        self.count = len(X)
        return super().fit(X)


class NotFittedUnnoticed(Norms):
    def transform(self, X):
        return np.array([self._row(network) for network in check_networks(X)])


class TakesNothing(Norms):
    def fit(self, X, y=None):
        self.n_features_out_ = 2
        return self


class DependsOnTheBatch(Norms):
    def transform(self, X):
        rows = super().transform(X)
        return rows - rows.mean(0)


class Noisy(Norms):
    def transform(self, X):
        rows = super().transform(X)
        return rows + np.random.default_rng().normal(size=rows.shape)


class DropsAFailure(Norms):
    def transform(self, X):
        return super().transform(X)[1:]


class TouchesTheRandomState(Norms):
    def transform(self, X):
        torch.rand(1)
        return super().transform(X)


class SetsEvalMode(Norms):
    def _row(self, network):
        return super()._row(network.eval())


class ClearsGradients(Norms):
    def _row(self, network):
        network.zero_grad()
        return super()._row(network)


class ChangesWeights(Norms):
    def _row(self, network):
        with torch.no_grad():
            network.bias_ih_l0.add_(1e-7)
        return super()._row(network)


class Unfreezes(Norms):
    def _row(self, network):
        network.requires_grad_(True)
        return super()._row(network)


class TooFewNames(Norms):
    def get_feature_names_out(self, input_features=None):
        return super().get_feature_names_out()[:1]


class EqualNames(Norms):
    def get_feature_names_out(self, input_features=None):
        check_is_fitted(self)
        return np.array(["norm", "norm"], dtype=object)


class NamesTooEarly(Norms):
    def get_feature_names_out(self, input_features=None):
        return np.array(["norm", "max"], dtype=object)


class NeedsTargets(Norms):
    def fit(self, X, y=None):
        if y is None:
            raise ValueError("y is required")
        return super().fit(X)


class SaysItTakesMatrices(Norms):
    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


class CopiesSequences(Norms):
    def __init__(self, sequences=SEQUENCES, order=2):
        super().__init__(order)
        self.sequences = sequences


class LenientNorms(NetworkTransformer):
    """The same on the base class."""

    def __init__(self, sequences=None, order=2, *, n_jobs=None, on_error="raise"):
        self.sequences = sequences
        self.order = order
        self.n_jobs = n_jobs
        self.on_error = on_error

    def feature_names(self):
        return ["norm", "max"]

    def features_of(self, network):
        return Norms._row(self, network)


class NamesNoIndex(LenientNorms):
    def transform(self, networks):
        check_is_fitted(self)
        return np.array([self.features_of(network) for network in check_networks(networks)])


class RaisesAllTheSame(LenientNorms):
    def transform(self, networks):
        self.set_params(on_error="raise")
        return super().transform(networks)


class LeavesZeros(LenientNorms):
    def transform(self, networks):
        return np.nan_to_num(super().transform(networks))


class ForgetsFailures(LenientNorms):
    def transform(self, networks):
        rows = super().transform(networks)
        self.failures_ = {}
        return rows


class ShiftsRows(LenientNorms):
    def transform(self, networks):
        rows = super().transform(networks)
        return rows + len(self.failures_)


class WarnsOfNothing(LenientNorms):
    def transform(self, networks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return super().transform(networks)


class TakesAnything(LenientNorms):
    def features_of(self, network):
        return super().features_of(network) if isinstance(network, nn.Module) else [0.0, 0.0]


BROKEN = {
    SaysItTakesMatrices: "tags must say that the input is no 2-D array",
    CopiesSequences: "clones must share the sequences",
    NamesNoIndex: "a note must name the network that failed by its index",
    RaisesAllTheSame: "with on_error='warn', no network may raise",
    LeavesZeros: "the row of a network that fails must be NaN",
    ForgetsFailures: "failures_ must hold the index of each network that failed",
    ShiftsRows: "the rows of other networks must stay as they are",
    WarnsOfNothing: "must be warned about by a FailedNetworkWarning",
    TakesAnything: "what is no network must be an error",
    ConstructorComputes: "the constructor must store its parameters and nothing else",
    ConstructorConverts: "the constructor must store order as it is",
    FitReturnsNothing: "fit must return the estimator",
    FitChangesParameters: "fit must not change the parameter order",
    FitNamesWrong: "must end in an underscore, but count do not",
    NotFittedUnnoticed: "transform before fit must raise NotFittedError",
    TakesNothing: "fit on an empty list must raise ValueError or TypeError",
    DependsOnTheBatch: "a row must not depend on the other networks",
    Noisy: "transform must return the same at every call",
    DropsAFailure: "transform must return a row for each network",
    TouchesTheRandomState: "must leave torch's random state as it was",
    SetsEvalMode: "must leave training flags of network 0 as it was",
    ClearsGradients: "must leave grad of weight_ih_l0 of network 0 as it was",
    ChangesWeights: "must leave bias_ih_l0 of network 0 as it was",
    Unfreezes: "must leave requires_grad of weight_hh_l0 of network 0 as it was",
    TooFewNames: "get_feature_names_out must name 2 features, not 1",
    EqualNames: "feature names must differ",
    NamesTooEarly: "get_feature_names_out before fit must raise NotFittedError",
    NeedsTargets: "fit must take a list of networks alone, but it raises",
}


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return [nn.GRU(2, 3) for _ in range(4)]


@pytest.mark.parametrize("kind", [Norms, LenientNorms])
def test_a_correct_transformer_passes(kind, networks):
    check_network_transformer(kind(), networks)


@pytest.mark.parametrize("base", ["align", "plain"])
def test_the_spectrum_transformer_passes(networks, base):
    options = {"align": "interpolate", "n_exponents": 5} if base == "align" else {"state": "full"}
    check_network_transformer(LyapunovSpectrumTransformer(torch.randn(3, 20, 2), **options), networks)


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_what_is_broken_is_found(kind, networks):
    with pytest.raises(AssertionError, match=BROKEN[kind]):
        check_network_transformer(kind(), networks)


def test_it_needs_several_networks(networks):
    with pytest.raises(AssertionError, match="networks must be a list of at least four"):
        check_network_transformer(Norms(), networks[:2])
