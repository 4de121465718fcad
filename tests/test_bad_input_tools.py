"""Wrong values for searches, callbacks, displays, reports, populations and data sets; see test_bad_input.py."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tempfile
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge

import sklyap
from sklyap import (
    GradientAlignmentAnalyzer,
    LyapunovHalvingSearch,
    LyapunovSpectrumTransformer,
    NetworkPopulation,
    RNNClassifier,
    RNNRegressor,
    SpectrumAutoencoder,
    as_recurrent_cell,
    datasets,
    displays,
    lyapunov_spectrum,
    training,
)
from sklyap import search as searches
from sklyap.comparison import LossPredictor
from sklyap.population import train_population
from sklyap.report import write_report
from tests.wrong_values import KINDS, NO_MATRIX, NO_NUMBERS, assert_refused, cases

ROOMS = ("cells", "comparison", "datasets", "displays", "gradients", "report", "search", "training")

rng = np.random.default_rng(0)
X = rng.standard_normal((12, 6, 2)).astype(np.float32)
y = np.arange(12) % 3
SPECTRA = -np.sort(rng.random((20, 6)), axis=1)
LOSSES = rng.random(20)
GRU = torch.nn.GRU(2, 3, batch_first=True)
GROWTH = (displays.ConvergenceDisplay, displays.LocalExponentDisplay)
NETWORK = RNNClassifier("gru", 3, max_epochs=2, device="cpu", random_state=0)
GRID = {"lr": [0.01, 0.02, 0.03]}


def quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


class Made:
    """What takes a moment to make, made once."""

    fitted = NETWORK.fit(X, y)
    regressor = RNNRegressor("rnn", 3, max_epochs=1, device="cpu", random_state=0).fit(X, X[:, -1])
    population = quietly(
        train_population, NETWORK, {"lr": [0.01 * i for i in range(1, 13)]}, X, y, random_state=0, verbose=0,
        snapshot_epochs=(1, 2, "last"),
    )  # fmt: skip
    search = quietly(
        LyapunovHalvingSearch(
            NETWORK, GRID, X[:3], n_candidates=3, factor=2, promote_by="loss", random_state=0, verbose=0
        ).fit,
        X,
        y,
    )
    result = quietly(lyapunov_spectrum, regressor, X, return_local=True, random_state=0)
    analyzer = GradientAlignmentAnalyzer(X, y, n_directions=2, n_singular=1)
    alignment = quietly(analyzer.analyze, fitted)
    sensitivity = quietly(sklyap.input_sensitivity, fitted, X, y, n_random=2, random_state=0)
    autoencoder = SpectrumAutoencoder(2, max_epochs=1, random_state=0).fit(SPECTRA, LOSSES)
    transformer = LyapunovSpectrumTransformer(X[:3], n_exponents=2)
    used = LyapunovSpectrumTransformer(X[:3], n_exponents=2)
    quietly(used.fit_transform, [fitted])
    predictor = quietly(sklyap.loss_predictor(cv=2, random_state=0).fit, SPECTRA, LOSSES)
    monitor = training.LyapunovMonitor(X[:3])
    watched = quietly(RNNClassifier("rnn", 6, max_epochs=1, callbacks=[("look", monitor)]).fit, X, y)
    monitor = dict(watched.net_.callbacks_)["look"]
    scores = quietly(
        sklyap.compare_loss_predictors, population, X[:3], n_exponents=2, cv=2, n_bootstrap=5, random_state=0,
        predictors={"a": Ridge()},
    )  # fmt: skip
    replay = quietly(sklyap.replay_search, population, "random", n_repeats=2, random_state=0)


def fitted_with(callback, **fixed):
    """Return a call that fits a network with a callback of some parameters."""

    def call(**params):
        return RNNClassifier("rnn", 6, max_epochs=1, callbacks=[callback(**{**fixed, **params})]).fit(X, y)

    return call


def searched(**params):
    given = {"estimator": NETWORK, "param_distributions": GRID, "sequences": X[:3], "n_candidates": 2, "factor": 2,
             "promote_by": "loss", "verbose": 0, "n_labelled": 1}  # fmt: skip
    return LyapunovHalvingSearch(**{**given, **params}).fit(X, y)


def called(function, **fixed):
    return lambda **params: function(**{**fixed, **params})


def reported(**params):
    return write_report(
        **{"population_or_search": Made.population, "path": f"{tempfile.gettempdir()}/never-written.html", **params}
    )


def predictor(**params):
    return sklyap.loss_predictor(**params)


CALLS = {
    "LyapunovHalvingSearch": searched,
    "replay_search": called(sklyap.replay_search, population=Made.population, policy="random", n_repeats=1),
    "finite_time_exponents": called(sklyap.finite_time_exponents, network=Made.fitted, sequences=X),
    "HyperparameterFeatures": lambda **params: (
        sklyap.HyperparameterFeatures(**params).fit_transform(Made.population.networks())
    ),
    "loss_predictor": predictor,
    "LossPredictor": lambda **params: (
        LossPredictor(**{"regressor": Made.predictor.regressor, **params}).fit(SPECTRA, LOSSES)
    ),
    "score_predictions": called(
        sklyap.comparison.score_predictions, predictions=pd.DataFrame({"target": LOSSES, "a": LOSSES}), n_bootstrap=5
    ),
    "default_loss_predictors": called(sklyap.comparison.default_loss_predictors),
    "LyapunovMonitor": fitted_with(training.LyapunovMonitor, sequences=X[:3]),
    "GradientFlossing": fitted_with(training.GradientFlossing, sequences=X[:3], every=1),
    "StopHopeless": fitted_with(
        training.StopHopeless, predictor=DummyRegressor().fit(np.zeros((1, 6)), [1.0]), loss=1.0, sequences=X[:3],
        epochs=(1,),
    ),
    "write_report": reported,
    "ESNRegressor": lambda **params: sklyap.ESNRegressor(**{"n_units": 5, **params}).fit(X, X[:, -1]),
    "make_chaotic_series": called(datasets.make_chaotic_series, n_samples=1, n_steps=5),
    "gradient_alignment": called(
        sklyap.gradients.gradient_alignment, network=Made.fitted, sequences=X, targets=y, n_directions=2, n_singular=1
    ),
    "alignment_features": called(
        sklyap.gradients.alignment_features, network=Made.fitted, sequences=X, targets=y, n_directions=2, n_singular=1
    ),
    "DistancePolicy": called(searches.DistancePolicy, reference=SPECTRA[0], n_candidates=3),
    "LyapunovPruner": called(searches.LyapunovPruner, max_epochs=4),
    **{
        name: called(getattr(searches, name), n_candidates=3)
        for name in ("HalvingPolicy", "HyperbandPolicy", "RandomPolicy", "OraclePolicy", "ExtrapolationPolicy")
    },
    # displays
    "AlignmentDisplay": called(displays.AlignmentDisplay, alignment=np.ones((2, 3)), columns=["a", "b", "c"]),
    "AlignmentDisplay.from_training": called(displays.AlignmentDisplay.from_training, results={1: [Made.alignment]}),
    "AlignmentDisplay.from_population": called(
        displays.AlignmentDisplay.from_population, population=Made.population, analyzer=Made.analyzer, epochs=[1]
    ),
    "AlignmentDisplay.from_result": called(displays.AlignmentDisplay.from_result, result=Made.alignment),
    "ConvergenceDisplay": called(displays.ConvergenceDisplay, running=np.ones((4, 2))),
    "ConvergenceDisplay.from_result": called(displays.ConvergenceDisplay.from_result, result=Made.result),
    "GradientEnergyDisplay": called(displays.GradientEnergyDisplay, energies=[np.ones(3)], sizes=[3]),
    "GradientEnergyDisplay.from_results": called(
        displays.GradientEnergyDisplay.from_results, results=[Made.alignment]
    ),
    "LatentDisplay": called(displays.LatentDisplay, components=np.ones((3, 2)), losses=np.ones(3)),
    "LatentDisplay.from_estimator": called(
        displays.LatentDisplay.from_estimator, estimator=Made.autoencoder, X=SPECTRA, losses=LOSSES
    ),
    "LocalExponentDisplay": called(displays.LocalExponentDisplay, local=np.ones((4, 2))),
    "LocalExponentDisplay.from_result": called(displays.LocalExponentDisplay.from_result, result=Made.result),
    "LossPredictorsDisplay": called(
        displays.LossPredictorsDisplay, names=["a"], scores=[1.0], low=[0.5], high=[1.5]
    ),
    "LossPredictorsDisplay.from_table": called(displays.LossPredictorsDisplay.from_table, table=Made.scores),
    "RegretDisplay": called(displays.RegretDisplay, table=quietly(Made.replay.curve)),
    "RegretDisplay.from_replay": called(displays.RegretDisplay.from_replay, result=Made.replay),
    "SearchDisplay": called(displays.SearchDisplay, curves=[[1.0, 0.5]], rungs=[1, 2]),
    "SearchDisplay.from_search": called(displays.SearchDisplay.from_search, search=Made.search),
    "SensitivityDisplay": called(displays.SensitivityDisplay, sequence=np.ones(3), score=np.ones(3)),
    "SensitivityDisplay.from_result": called(
        displays.SensitivityDisplay.from_result, result=Made.sensitivity, sequences=X
    ),
    "SensitivitySweepDisplay": called(displays.SensitivitySweepDisplay, result=Made.sensitivity),
    "SensitivitySweepDisplay.from_result": called(
        displays.SensitivitySweepDisplay.from_result, result=Made.sensitivity
    ),
    "SpectrumDisplay": called(displays.SpectrumDisplay, spectra=SPECTRA),
    "SpectrumDisplay.from_results": called(displays.SpectrumDisplay.from_results, results=[Made.result]),
    "SpectrumDisplay.from_transformer": called(
        displays.SpectrumDisplay.from_transformer,
        transformer=Made.used,
    ),
    "SpectrumDisplay.from_population": called(
        displays.SpectrumDisplay.from_population, population=Made.population, transformer=Made.transformer
    ),
    "TrainingDisplay": called(displays.TrainingDisplay, epochs=[1.0, 2.0], exponents=np.ones((2, 3))),
    "TrainingDisplay.from_monitor": called(displays.TrainingDisplay.from_monitor, monitor=Made.monitor),
    "TrainingDisplay.from_results": called(displays.TrainingDisplay.from_results, results={0: Made.result}),
    "TrainingDisplay.from_population": called(
        displays.TrainingDisplay.from_population, population=Made.population, transformer=Made.transformer, epochs=[1]
    ),
    **{
        f"{display.__name__}.from_transformer": called(
            display.from_transformer, transformer=Made.transformer, network=Made.fitted
        )
        for display in GROWTH
    },
    **{
        f"{display.__name__}.from_population": called(
            display.from_population, population=Made.population, transformer=Made.transformer
        )
        for display in GROWTH
    },
    "AlignmentDisplay.from_transformer": called(
        displays.AlignmentDisplay.from_transformer, transformer=Made.analyzer, network=Made.fitted
    ),
    "GradientEnergyDisplay.from_transformer": called(
        displays.GradientEnergyDisplay.from_transformer, transformer=Made.analyzer, networks=[Made.fitted]
    ),
    "GradientEnergyDisplay.from_population": called(
        displays.GradientEnergyDisplay.from_population, population=Made.population, transformer=Made.analyzer
    ),
    **{
        f"{display.__name__}.from_estimator": called(
            display.from_estimator, network=Made.fitted, sequences=X, targets=y, n_random=1
        )
        for display in (displays.SensitivityDisplay, displays.SensitivitySweepDisplay)
    },
    "RegretDisplay.from_population": called(
        displays.RegretDisplay.from_population, population=Made.population, policy="random", n_repeats=1
    ),
    # methods
    "NetworkPopulation.load": called(NetworkPopulation.load),
    "NetworkPopulation.from_networks": called(NetworkPopulation.from_networks, networks=[GRU], losses=[0.5]),
    "NetworkPopulation.concatenate": called(NetworkPopulation.concatenate),
    "NetworkPopulation.networks": called(Made.population.networks),
    "NetworkPopulation.losses": called(Made.population.losses),
    "NetworkPopulation.groups": called(Made.population.groups),
    "LyapunovResult.per_time": called(Made.result.per_time),
    "LyapunovResult.to": called(Made.result.to),
    "RNNRegressor.forecast": called(Made.regressor.forecast, spin_up=X, n_steps=2),
    "GradientAlignmentAnalyzer.analyze_training": called(
        Made.analyzer.analyze_training, population=Made.population, epochs=[1]
    ),
    "LossPredictor.predict_interval": lambda **params: (
        Made.predictor.predict_interval(**{"X": SPECTRA, **params})
    ),
    "LeakyCell.from_weights": called(sklyap.cells.LeakyCell.from_weights, W=np.eye(2), W_in=np.ones((2, 1)), leak=0.5),
    "ReplayResult.curve": called(Made.replay.curve),
    "SpectrumAutoencoder.inverse_transform": called(Made.autoencoder.inverse_transform),
    "as_recurrent_cell": called(as_recurrent_cell, network=GRU),
}  # fmt: skip

NO_RESULT = [3, "x", None, object(), [1]]
DATA = "LatentDisplay.from_estimator LossPredictor.predict_interval SpectrumAutoencoder.inverse_transform".split()
NO_ESTIMATOR = [3, "x", object(), RNNClassifier]
NO_CHOICE = ["no such choice", 3, None, [1], object()]
NO_PLACE = [*NO_NUMBERS, -1, 99]
NOT_NEGATIVE = [*NO_NUMBERS, -1.0, np.nan]
LOCAL = {
    "alpha": NOT_NEGATIVE,
    "bias_scale": NOT_NEGATIVE,
    "budgets": [3, "x", None, [object()], [-1]],
    "comparison": [3, "x", object()],
    "cv": [*NO_NUMBERS, 1],
    "density": KINDS["share"],
    "effect": NO_CHOICE,
    "epoch": [object(), True, "first", [1], -3],
    "estimator": NO_ESTIMATOR,
    "factor": [*NO_NUMBERS, 1, 0.5, np.nan],
    "features": [3, None, object(), "no such feature", []],
    "index": NO_PLACE,
    "input_scale": NOT_NEGATIVE,
    "kind": NO_CHOICE,
    "against": NO_CHOICE,
    "loss": ["x", None, [1], object(), np.nan],
    "loss_share": KINDS["share"],
    "margin": NOT_NEGATIVE,
    "measure": NO_CHOICE,
    "min_epochs": KINDS["positive"],
    "n_candidates": [v for v in KINDS["positive"] if v is not None],
    "n_labelled": KINDS["count"],
    "n_repeats": KINDS["positive"],
    "n_screened": KINDS["positive or None"],
    "n_steps": [v for v in KINDS["positive"] if v is not None],
    "n_units": KINDS["positive"],
    "n_updates": KINDS["positive"],
    "param_distributions": [3, "x", None, [], {"no_such": [1]}],
    "path": [3, None, object(), True],
    "policy": [3, None, object(), "no such policy", [3]],
    "populations": [3, "x", [1], None],
    "population_or_search": NO_RESULT,
    "predictor": NO_ESTIMATOR,
    "pretrain_epochs": KINDS["count"],
    "prior": [3, "x", object(), [1]],
    "promote_by": NO_CHOICE,
    "quadratic": KINDS["flag"],
    "regressor": [None, *NO_ESTIMATOR],
    "sequence": [v for v in NO_PLACE if v is not None],
    "spectral_radius": NOT_NEGATIVE,
    "statistics": [3, object(), "no such statistic", ["no such statistic"]],
    "system": NO_CHOICE,
    "table": NO_RESULT,
    "target": [*NO_NUMBERS, np.nan],
    "tau": [*NOT_NEGATIVE, 0],
    "title": [3, object()],
    "until": KINDS["positive or None"],
    "W": ["x", None, object(), np.eye(2) * np.nan],
    "W_in": ["x", None, object(), np.ones((2, 1)) * np.nan],
}
OWN = {
    **{(name, parameter): NO_RESULT for name in CALLS for parameter in ("result", "population", "search", "monitor")},
    **{(name, "results"): [3, None, object(), [1], "x", []] for name in CALLS},
    **{(name, "ax"): [3, "x", object(), [1]] for name in CALLS},
    **{(name, "transformer"): [3, "x", object(), [1]] for name in CALLS},
    **{(name, "analyzer"): NO_RESULT for name in CALLS},
    # of a network that is not fitted scikit-learn's sentence says it
    **{(f"{display.__name__}.from_transformer", "network"): NO_RESULT for display in GROWTH},
    **{(name, "singular"): [*NO_NUMBERS, -1, 99] for name in CALLS},
    **{(name, "warmup"): KINDS["count"] for name in CALLS if "Display" in name},
    **{(name, "X"): [] for name in DATA},  # sentences of scikit-learn
    ("SpectrumDisplay", "spectra"): {k: v for k, v in NO_MATRIX.items() if k != "NaN"},  # NaN is not drawn
    ("AlignmentDisplay.from_population", "epochs"): [3, "x", None],
    ("LeakyCell.from_weights", "bias"): [object(), np.full(2, np.nan), np.ones(3)],
    ("LyapunovHalvingSearch", "max_epochs"): [v for v in KINDS["positive"] if v is not None],
    ("SensitivityDisplay", "sequence"): [],
    ("SensitivityDisplay", "effect"): [],
    ("NetworkPopulation.load", "estimator"): [],
    ("write_report", "epoch"): [object(), True, "first", [1]],
    ("StopHopeless", "epochs"): [3, "x", [0], [1.5], None],
    ("LyapunovMonitor", "n_sequences"): KINDS["positive or None"],
    ("GradientFlossing", "weight"): [*NO_NUMBERS, -1.0, np.nan],
    ("GradientFlossing", "every"): KINDS["positive or None"],
    ("make_chaotic_series", "dt"): KINDS["number or None"],
    ("LyapunovMonitor", "unit"): ["step", 3, None],
    ("GradientFlossing", "unit"): ["step", 3, None],
}


LOCAL_KINDS = {(name, parameter): values for name in CALLS for parameter, values in LOCAL.items()}

RECORDS = (
    "AlignmentResult", "Coefficients", "Comparison", "CovariantVectors", "DenseLinearization", "Effect", "Factors",
    "FlossingRound", "GrowthBlock", "GrowthRecord", "KnownSystem", "Linearization", "LossForecast", "LossGradient",
    "LyapunovResult", "MonitoredSpectrum", "NetworkRecord", "NetworkSequence", "QRBlock", "Ranking", "ReplayResult",
    "Request", "RunEnd", "SensitivityResult", "Snapshot",
)  # fmt: skip
EXEMPT = {
    "what a call returns; users do not make them": RECORDS,
    "bases and parts, which users get from a call or inherit from": (
        "ClosedLoopCell", "GatedCell", "NetworkPopulation", "NetworkTransformer", "Objective", "RecurrentCell",
        "RecurrentNetwork", "Policy", "Board", "Belief", "Knowledge", "EnsembleCell",
    ),
    "parts of the engine, which the entry points call with what they have checked": (
        "check_settings", "cholesky_qr2", "default_ranks", "eliminate", "ensemble_spectra", "factor_for_growth",
        "gram_schmidt", "growth_iteration", "log_range", "log_spread", "orthonormalize", "orthonormalize_graded",
        "parameter_names", "qr_iteration", "random_bases", "spread_budget", "standard_error", "state_gradients",
        "tangent_size", "time_bins",
    ),
    "tests of their own rooms have what is wrong for each file": (
        "fetch_sequential_mnist", "fetch_war_and_peace", "load_motion", "load_text",
    ),
    "take another object of which every kind is right somewhere; tests of their own": (
        "check_cell", "check_network_transformer", "OptunaCallback", "PredictorPolicy",
    ),
    "have no parameters": ("known_systems", "show_versions"),
}  # fmt: skip
NO_PACKAGES = ("__main__", "exceptions", "runtime", "storage", "validation")
# Methods that have rows under their class, or none.
METHODS = {
    "scikit-learn's, on data that tests of the rooms spoil": (
        "fit", "transform", "fit_transform", "predict", "predict_members", "predict_proba", "partial_fit", "score",
        "bits_per_token", "get_feature_names_out", "inverse_transform", "forecast",
    ),
    "called by the engine on tensors that it made": (
        "by_row", "coefficients", "features_of", "forward", "hidden_linearization", "initial_state", "input_gates",
        "jacobian", "linearize", "output", "push", "rates", "recurrent_gates", "slopes", "state", "step",
        "tangents_after", "trajectory", "update", "check_parameters",
    ),
    "called by a search or by skorch": (
        "requests", "rank", "epochs", "sizes", "start", "after", "climb", "prune", "on_train_begin", "on_epoch_begin",
        "on_batch_begin", "on_batch_end", "on_epoch_end",
    ),
    "tests of their own rooms": (
        "analyze", "filter", "LatentDisplay.from_population", "LossPredictorsDisplay.from_population",
    ),
}  # fmt: skip


def packages():
    names = (module.name for module in pkgutil.iter_modules(sklyap.__path__))
    return [importlib.import_module(f"sklyap.{name}") for name in names if name not in NO_PACKAGES]


def test_every_public_signature_has_a_row():
    """A new public function, class or method fails here until it has a call in a table, or a reason in `EXEMPT`."""
    from tests.test_bad_input import CALLS as CORE
    from tests.test_bad_input import OTHER

    rows = CALLS.keys() | CORE.keys() | OTHER.keys()
    exempt = {name for names in EXEMPT.values() for name in names}
    methods = {name for names in METHODS.values() for name in names}
    objects = {name: getattr(room, name) for room in (sklyap, *packages()) for name in room.__all__}
    missing = []
    for name, value in objects.items():
        if not inspect.isclass(value) and not inspect.isfunction(value):
            continue
        if name not in rows and name not in exempt:
            missing.append(name)
        if not inspect.isclass(value) or name in exempt - {"NetworkPopulation"}:
            continue
        for method, function in vars(value).items():
            function = getattr(function, "__func__", function)
            if method.startswith("_") or not inspect.isfunction(function):
                continue
            full = f"{name}.{method}"
            if len(inspect.signature(function).parameters) > 1 and not {full, method} & (rows | methods):
                missing.append(full)
    assert not missing, "add a call to CALLS, or the name to EXEMPT or METHODS with the reason"
    unknown = [name for name in exempt if name not in objects]
    assert not unknown, "EXEMPT names what is not public"


def public(name):
    """Return a public object, or a method of one."""
    name, _, method = name.partition(".")
    for room in (
        "",
        ".cells",
        ".comparison",
        ".datasets",
        ".displays",
        ".gradients",
        ".report",
        ".search",
        ".training",
    ):
        module = importlib.import_module(f"sklyap{room}")
        if name in module.__all__:
            value = getattr(module, name)
            return getattr(value, method) if method else value
    raise KeyError(name)


@pytest.mark.parametrize(("call", "parameter", "value"), list(cases(CALLS, public, {**LOCAL_KINDS, **OWN})))
@pytest.mark.filterwarnings("ignore")
def test_wrong_value_is_refused_by_name(call, parameter, value):
    assert_refused(parameter, call, **{parameter: value})
