"""Every parameter of every public name, with wrong values: a TypeError or ValueError that names the parameter.

The core of the library here, searches, callbacks, displays and reports in test_bad_input_tools.py, whose
`test_every_public_signature_has_a_row` fails for a public name that is in no table. Add a call to `CALLS`, and the
parameter's kind to `BY_NAME` in wrong_values.py (or to `OWN_KINDS`, where the name means something else there).
"""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import sklyap
from sklyap import (
    RNNClassifier,
    RNNRegressor,
    SpectrumAutoencoder,
    lyapunov_spectrum,
    train_population,
)
from sklyap.cells import StackedCell
from tests.wrong_values import (
    KIND_OF,
    NESTED,
    NO_ARRAY,
    NO_CHECKPOINT,
    NO_NUMBERS,
    NO_SPECTRA,
    STATISTICS,
    assert_refused,
    cases,
    masked,
)  # fmt: skip

ROOMS = (
    "cells", "comparison", "covariant", "datasets", "displays", "gradients", "networks", "population", "statistics",
)  # fmt: skip

rng = np.random.default_rng(0)
X = rng.standard_normal((12, 6, 2)).astype(np.float32)
y = np.arange(12) % 3
SPECTRA = -np.sort(rng.random((20, 6)), axis=1)
LOSSES = rng.random(20)
GRU = torch.nn.GRU(2, 3, batch_first=True)
CLASSIFIER = RNNClassifier("gru", 4, max_epochs=1, device="cpu", random_state=0)


class Shared:
    """What takes a moment to make, made once."""

    fitted = CLASSIFIER.fit(X, y)
    regressor = RNNRegressor("rnn", 4, max_epochs=1, device="cpu", random_state=0).fit(X, X[:, -1, 0])
    population = train_population(CLASSIFIER, {"lr": [0.01, 0.02, 0.03, 0.04]}, X, y, random_state=0, verbose=0)
    factors = lyapunov_spectrum(regressor, X, return_basis=True, warmup=0, random_state=0)


# Where a name means something else.
OWN_KINDS = {
    ("SpectrumStatistics", "floor"): ["x", [1.0], True, np.nan, np.inf],
    ("RNNClassifier", "class_weight"): ["x", 3, True, [1.0], {0: -1.0}, {0: "x"}],
    ("lyapunov_spectrum", "resume"): ["x", 3, object(), True],
    ("loss_gradient", "checkpoint"): NO_CHECKPOINT,
    ("GradientAlignmentAnalyzer", "checkpoint"): NO_CHECKPOINT,
    **{(name, "spectra"): NO_SPECTRA for name in (*STATISTICS, "spectrum_quantile")},
    ("closed_loop", "spin_up"): {k: v for k, v in NO_ARRAY.items() if k not in ("meta", "nested", "masked", "sparse")},
    ("make_delayed_copy", "delay"): [*NO_NUMBERS, 1.5, -1],
}


def fitting(estimator, X, y=None, **fixed):
    """Return a call that constructs an estimator with parameters and fits it, transforming where it can."""

    def call(**params):
        made = estimator(**{**fixed, **params})
        return made.fit_transform(X) if y is None else made.fit(X, y)

    return call


def called(function, **fixed):
    return lambda **params: function(**{**fixed, **params})


def call_of(name):
    """Return the public object."""
    for room in ("sklyap", *(f"sklyap.{room}" for room in ROOMS)):
        module = importlib.import_module(room)
        if name in module.__all__:
            return getattr(module, name)
    raise KeyError(name)


NETWORK = {"network": GRU, "sequences": X}
SUPERVISED = {"network": Shared.fitted, "sequences": X, "targets": y}
CELL = {"n_inputs": 2, "hidden_size": 3}
SMALL = {"hidden_size": 3, "max_epochs": 1, "device": "cpu"}
CALLS = {
    "RNNClassifier": fitting(RNNClassifier, X, y, **SMALL),
    "RNNRegressor": fitting(RNNRegressor, X, X[:, -1, 0], **SMALL),
    "SpectrumAutoencoder": fitting(SpectrumAutoencoder, SPECTRA, LOSSES, max_epochs=1),
    "LyapunovSpectrumTransformer": fitting(sklyap.LyapunovSpectrumTransformer, [GRU], sequences=X),
    "GradientAlignmentAnalyzer": fitting(
        sklyap.GradientAlignmentAnalyzer, [Shared.fitted], sequences=X, targets=y, n_directions=2, n_singular=1
    ),
    "SpectrumStatistics": fitting(sklyap.SpectrumStatistics, SPECTRA),
    "HistoryFeatures": fitting(sklyap.HistoryFeatures, Shared.population.networks()),
    "FunctionCell": called(sklyap.FunctionCell, step=lambda s, x: s / 2, state_size=2),
    "FlowCell": called(call_of("FlowCell"), field=lambda s: -s, state_size=2, dt=0.1),
    "ModuleCell": called(
        call_of("ModuleCell"), module=GRU, step=lambda m, s, x: s, initial_state=lambda n: torch.zeros(n, 2)
    ),
    "closed_loop": called(call_of("closed_loop"), network=torch.nn.RNNCell(2, 2), spin_up=X),
    "as_recurrent_cell": called(sklyap.as_recurrent_cell, network=GRU),
    "lyapunov_spectrum": called(lyapunov_spectrum, **NETWORK),
    "covariant_lyapunov_vectors": called(sklyap.covariant_lyapunov_vectors, **NETWORK, n_exponents=2),
    "loss_gradient": called(sklyap.loss_gradient, **SUPERVISED),
    "input_sensitivity": called(sklyap.input_sensitivity, **SUPERVISED, n_random=2),
    "spectrum_loss_correlation": called(
        sklyap.spectrum_loss_correlation, spectra=SPECTRA, losses=LOSSES, n_bootstrap=10
    ),
    "spectrum_distance": called(sklyap.spectrum_distance, A=SPECTRA, B=SPECTRA),
    "train_population": called(
        train_population, estimator=CLASSIFIER, param_distributions={"lr": [0.01]}, X=X, y=y, verbose=0
    ),
    "compare_loss_predictors": called(
        sklyap.compare_loss_predictors, population=Shared.population, sequences=X[:3], n_exponents=2, cv=2,
        n_bootstrap=5, predictors={"a": RNNRegressor()},
    ),
    **{
        name: called(call_of(name), **CELL)
        for name in ("AntisymmetricCell", "CoRNNCell", "ElmanCell", "GRUCell", "LEMCell", "LSTMCell", "OrthogonalCell",
            "LRUCell", "LTCCell", "LayerNormLSTMCell",
            "LeakyCell", "MGUCell", "MinGRUCell", "PLRNNCell", "RateCell",
        )
    },
    "ProjectedLSTMCell": called(call_of("ProjectedLSTMCell"), **CELL, proj_size=2),
    "LipschitzCell": called(call_of("LipschitzCell"), **CELL),
    "StackedCell": called(StackedCell, cells=[call_of("GRUCell")(2, 3)]),
    **{
        name: called(call_of(name), spectra=SPECTRA)
        for name in STATISTICS
    },
    "spectrum_quantile": called(call_of("spectrum_quantile"), spectra=SPECTRA, q=0.5),
    "make_recall": called(call_of("make_recall"), n_sequences=2),
    "make_adding": called(call_of("make_adding"), n_sequences=2),
    "make_copy": called(call_of("make_copy"), n_sequences=2),
    "make_delayed_copy": called(call_of("make_delayed_copy"), n_sequences=2),
    "make_delayed_xor": called(call_of("make_delayed_xor"), n_sequences=2),
    "make_sine_targets": called(call_of("make_sine_targets"), n_samples=1, n_steps=10),
    "load_sequential_digits": called(call_of("load_sequential_digits"), n_class=2),
}  # fmt: skip


# What has no wrong values of a kind: names that depend on the data, callables, parameters of other objects.
FREE = set(
    "cell cell_params net_params optimizer validation_fraction callbacks hidden_layer_sizes prediction_weight n_folds "
    "qr_interval base loss prefixes lengths forward_kwargs progress parameters ranks n_steps by statistics losses "
    "estimator param_distributions y validation snapshot_epochs population epoch predictors cv groups target reference "
    "transformer columns step state_size initial_state output_size trust n_inputs cells beta amplitudes start stop "
    "n_class module field feedback threshold".split()
)


def test_every_parameter_of_the_table_is_of_a_kind():
    for name in CALLS:
        for parameter in inspect.signature(call_of(name)).parameters:
            known = (name, parameter) in OWN_KINDS or parameter in KIND_OF or parameter in FREE
            assert known, f"say of which kind {parameter!r} of {name} is"


# -- wrong values that belong to one parameter of one name ------------------------------------------------

BASIS, R = Shared.factors.basis, Shared.factors.r_factors
DELTA = np.ones((12, 6, 4))
NAN = np.full_like(BASIS, np.nan)


def displays():
    return importlib.import_module("sklyap.displays")


def of(name):
    return lambda *args, **kwargs: call_of(name)(*args, **kwargs)


def analyzer():
    return sklyap.GradientAlignmentAnalyzer(X, y, n_directions=2, n_singular=1)


OTHER = {
    "gradient_from_qr": [
        ("Q", lambda: sklyap.gradient_from_qr(NAN, R, DELTA)),
        ("R", lambda: sklyap.gradient_from_qr(BASIS, R * np.nan, DELTA)),
        ("delta", lambda: sklyap.gradient_from_qr(BASIS, R, DELTA * np.nan)),
        ("Q", lambda: sklyap.gradient_from_qr("x", R, DELTA)),
        ("rank", lambda: sklyap.gradient_from_qr(BASIS, R, DELTA, rank=9)),
    ],
    "covariant_from_qr": [
        ("Q", lambda: of("covariant_from_qr")(NAN, R)),
        ("R", lambda: of("covariant_from_qr")(BASIS, "x")),
    ],
    "decode": [
        ("tokens", lambda: of("decode")([0, 7], "abc")),
        ("tokens", lambda: of("decode")([-1], "abc")),
        ("tokens", lambda: of("decode")("ab", "abc")),
        ("vocabulary", lambda: of("decode")([0], 3)),
    ],
    "encode": [("vocabulary", lambda: of("encode")("xyz", "abc"))],
    "score_predictions": [
        ("predictions", lambda: of("score_predictions")(pd.DataFrame())),
        ("predictions", lambda: of("score_predictions")(3)),
        ("n_bootstrap", lambda: of("score_predictions")(pd.DataFrame({"target": LOSSES, "a": LOSSES}), n_bootstrap=0)),
    ],
    "RNNClassifier": [
        ("hidden_size", lambda: RNNClassifier("lstm", 10**9).fit(X, y)),
        ("cell_params", lambda: RNNClassifier(cell_params=3).fit(X, y)),
        ("callbacks", lambda: RNNClassifier(callbacks=[3]).fit(X, y)),
        ("net_params", lambda: RNNClassifier(net_params=3).fit(X, y)),
        ("X", lambda: RNNClassifier().fit(masked, y)),
        ("X", lambda: RNNClassifier().fit(torch.zeros(12, 3, device="meta"), y)),
        ("X", lambda: RNNClassifier().fit(scipy.sparse.csr_matrix(X[:, :, 0]), y)),
        ("X", lambda: RNNClassifier().fit(NESTED, y)),
    ],
    "input_sensitivity": [("n_steps", lambda: sklyap.input_sensitivity(Shared.fitted, X, y, n_steps=[]))],
    "spectrum_loss_correlation": [("losses", lambda: sklyap.spectrum_loss_correlation(SPECTRA, np.ones(20)))],
    "spectrum_slope": [("stop", lambda: of("spectrum_slope")(SPECTRA, 1.0, 0.0))],
    "top_mean": [("fraction", lambda: of("top_mean")(SPECTRA, 0))],
    "StackedCell": [("cells", lambda: StackedCell([])), ("cells", lambda: StackedCell([3]))],
    "compare_loss_predictors": [("population", lambda: sklyap.compare_loss_predictors([1], X))],
    "GradientAlignmentAnalyzer": [
        ("population", lambda: analyzer().analyze_training([1], [1])),
        ("epochs", lambda: analyzer().analyze_training(Shared.population, 1)),
        ("prefixes", lambda: analyzer().set_params(prefixes=3).analyze(Shared.fitted)),
    ],
    "GradientEnergyDisplay": [
        ("labels", lambda: displays().GradientEnergyDisplay(np.ones((3, 4)), [4, 5, 6], labels=["a"]))
    ],
    "SpectrumDisplay": [("ax", lambda: displays().SpectrumDisplay(SPECTRA).plot(ax=3))],
    "LatentDisplay": [("losses", lambda: displays().LatentDisplay(np.ones((3, 2)), np.ones(2)))],
    "LossPredictorsDisplay": [("scores", lambda: displays().LossPredictorsDisplay(["a"], [1, 2], [1], [1]))],
    "AlignmentDisplay": [("alignment", lambda: displays().AlignmentDisplay(np.ones(3), ["a"], baseline=0.1))],
    "ConvergenceDisplay": [("ax", lambda: displays().ConvergenceDisplay(np.ones((3, 2))).plot(ax="x"))],
    "LocalExponentDisplay": [("ax", lambda: displays().LocalExponentDisplay(np.ones((3, 2))).plot(ax="x"))],
    "SensitivityDisplay": [("ax", lambda: displays().SensitivityDisplay(np.ones(3), np.ones(3)).plot(ax="x"))],
}


@pytest.mark.parametrize(
    ("parameter", "call"),
    [pytest.param(*case, id=f"{name}-{case[0]}") for name, listed in OTHER.items() for case in listed],
)
@pytest.mark.filterwarnings("ignore")
def test_wrong_value_of_its_own_is_refused_by_name(parameter, call):
    assert_refused(parameter, call)


@pytest.mark.parametrize("change", [lambda x: x.astype(">f4"), lambda x: torch.tensor(x, requires_grad=True)])
def test_byte_order_and_graphs_do_not_matter(change):
    expected = lyapunov_spectrum(Shared.fitted, X).exponents
    np.testing.assert_array_equal(lyapunov_spectrum(Shared.fitted, change(X)).exponents, expected)


@pytest.mark.parametrize(("call", "parameter", "value"), list(cases(CALLS, call_of, OWN_KINDS)))
@pytest.mark.filterwarnings("ignore")
def test_wrong_value_is_refused_by_name(call, parameter, value):
    assert_refused(parameter, call, **{parameter: value})
