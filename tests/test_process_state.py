"""Every public entry point: the same bits from threads as alone, and a process that is as it was before.

An entry point that is not listed here fails `test_every_public_name_is_listed`: add it to `ENTRIES`, or to `PASSIVE`
with the reason why there is nothing to run.
"""

from __future__ import annotations

import inspect
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from skorch.callbacks import Callback

import sklyap
from sklyap import (
    ESNRegressor,
    FunctionCell,
    GradientAlignmentAnalyzer,
    HistoryFeatures,
    HyperparameterFeatures,
    LyapunovHalvingSearch,
    LyapunovSpectrumTransformer,
    RNNClassifier,
    RNNRegressor,
    SpectrumAutoencoder,
    SpectrumStatistics,
    as_recurrent_cell,
    closed_loop,
    compare_loss_predictors,
    covariant_lyapunov_vectors,
    finite_time_exponents,
    gradient_from_qr,
    input_sensitivity,
    loss_gradient,
    lyapunov_spectrum,
    replay_search,
    spectrum_distance,
    spectrum_loss_correlation,
    train_population,
)
from sklyap.training import GradientFlossing, LyapunovMonitor

rng = np.random.default_rng(0)
X = rng.standard_normal((12, 6, 2)).astype(np.float32)
y = np.arange(12) % 3
SPECTRA = -np.sort(rng.random((20, 6)), axis=1)
LOSSES = rng.random(20)
LOOP = torch.nn.RNNCell(2, 2)


def network(seed=0, cell="lstm", **params):
    params = {"hidden_size": 4, "max_epochs": 1, "device": "cpu", "random_state": seed, **params}
    return RNNClassifier(cell, **params)


@pytest.fixture(scope="module", autouse=True)
def fitted():
    FITTED.extend(network(seed, cell).fit(X, y) for seed, cell in enumerate(["gru", "lstm", "rnn"]))
    POPULATION.append(train_population(network(), {"lr": [0.01, 0.02, 0.03, 0.04]}, X, y, random_state=0, verbose=0))


FITTED: list = []
POPULATION: list = []


def numbers(value):
    """Return everything in a result as arrays."""
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    if isinstance(value, np.ndarray | float | int | np.generic):
        return [np.asarray(value)]
    if isinstance(value, dict):
        return [a for item in value.values() for a in numbers(item)]
    if isinstance(value, list | tuple):
        return [a for item in value for a in numbers(item)]
    if isinstance(value, pd.DataFrame):
        return [value.select_dtypes("number").to_numpy(float)]
    if hasattr(value, "__dataclass_fields__"):
        return numbers({name: getattr(value, name) for name in value.__dataclass_fields__})
    return []


def weights(estimator):
    return list(estimator.net_.network.state_dict().values())


def logistic(s, x):
    return 3.9 * s * (1 - s)


def basis_and_factors():
    result = lyapunov_spectrum(FITTED[2], X, return_basis=True, warmup=0, random_state=0)
    return result.basis, result.r_factors


ENTRIES = {
    "RNNClassifier": lambda: weights(network(cell="lstm", num_layers=2, dropout=0.4, max_epochs=2).fit(X, y)),
    "RNNRegressor": lambda: weights(
        RNNRegressor("orthogonal", 4, max_epochs=1, random_state=1, validation_fraction=0.25).fit(X, X[:, -1, 0])
    ),
    "SpectrumAutoencoder": lambda: (
        SpectrumAutoencoder(2, max_epochs=3, random_state=0).fit(SPECTRA, LOSSES).predict(SPECTRA)
    ),
    "LyapunovSpectrumTransformer": lambda: LyapunovSpectrumTransformer(X).fit_transform(FITTED),
    "GradientAlignmentAnalyzer": lambda: GradientAlignmentAnalyzer(X, y, n_directions=2, n_singular=1).fit_transform(
        FITTED
    ),
    "SpectrumStatistics": lambda: SpectrumStatistics().fit_transform(SPECTRA),
    "HistoryFeatures": lambda: HistoryFeatures().fit_transform(POPULATION[0].networks()),
    "FunctionCell": lambda: lyapunov_spectrum(FunctionCell(logistic, 1, initial_state=[0.3]), 300),
    "LyapunovHalvingSearch": lambda: searched().population_.best_losses,
    "finite_time_exponents": lambda: finite_time_exponents(FITTED[0], X),
    "HyperparameterFeatures": lambda: HyperparameterFeatures().fit_transform(POPULATION[0].networks()),
    "closed_loop": lambda: lyapunov_spectrum(closed_loop(LOOP, X[:3]), 40),
    "as_recurrent_cell": lambda: list(as_recurrent_cell(torch.nn.Sequential(FITTED[1].net_.network)).parameters()),
    "lyapunov_spectrum": lambda: lyapunov_spectrum(FITTED[0], X),
    "covariant_lyapunov_vectors": lambda: covariant_lyapunov_vectors(FITTED[2], X, n_exponents=2),
    "loss_gradient": lambda: loss_gradient(FITTED[0], X, y),
    "gradient_from_qr": lambda: gradient_from_qr(*basis_and_factors(), rng_free()),
    "input_sensitivity": lambda: input_sensitivity(FITTED[0], X, y, random_state=0),
    "spectrum_distance": lambda: spectrum_distance(SPECTRA, SPECTRA[:3]),
    "spectrum_loss_correlation": lambda: spectrum_loss_correlation(SPECTRA, LOSSES, random_state=0),
    "train_population": lambda: [
        weights(n)
        for n in train_population(
            network(dropout=0.3, num_layers=2), {"lr": [0.01]}, X, y, n_networks=2, random_state=0, verbose=0
        ).networks()
    ],
    "compare_loss_predictors": lambda: compare_loss_predictors(
        POPULATION[0],
        X[:4],
        epoch=1,
        n_exponents=3,
        cv=2,
        random_state=0,
        predictors={"linear": Ridge(), "autoencoder": SpectrumAutoencoder(2, max_epochs=2, random_state=0)},
    ),
    "ESNRegressor": lambda: ESNRegressor(10, random_state=0).fit(X, X[:, -1]).predict(X),
    "replay_search": lambda: replay_search(POPULATION[0], "halving", n_repeats=3, random_state=0).curve(),
    "LyapunovMonitor": lambda: [spectrum.exponents for spectrum in watched(LyapunovMonitor(X[:3])).spectra_],
    "GradientFlossing": lambda: [
        round.after for round in watched(GradientFlossing(pretrain_epochs=1, every=2)).rounds_
    ],
    "NetworkPopulation": lambda: [weights(n) for n in POPULATION[0].networks(1)],
}
PASSIVE = {
    "__version__": "a string",
    "show_versions": "prints versions",
    "ModuleCell": "FunctionCell with the state of a module",
    "FlowCell": "FunctionCell with the step of a solver",
    "LyapunovResult": "a record",
    "loss_predictor": "puts SpectrumAutoencoder and others together, which takes them long",
    "NetworkTransformer": "a base class; LyapunovSpectrumTransformer is one",
    "RecurrentCell": "a base class",
}


def searched():
    grid = {"lr": [0.01, 0.02, 0.03], "dropout": [0.3], "num_layers": [2]}
    options = {"n_candidates": 3, "factor": 2, "max_epochs": 2, "promote_by": "loss", "verbose": 0}
    return LyapunovHalvingSearch(network(), grid, X[:4], random_state=0, **options).fit(X, y)


def watched(callback):
    """Return a callback after a training."""
    fitted = network(cell="rnn", max_epochs=2, callbacks=[("looks", callback)]).fit(X, y)
    return dict(fitted.net_.callbacks_)["looks"]


def rng_free():
    """Return a gradient with respect to states that no generator made."""
    Q, _ = basis_and_factors()
    return np.cos(np.arange(Q.shape[0] * (Q.shape[1] - 1) * Q.shape[2])).reshape(Q.shape[0], -1, Q.shape[2])


def state():
    """Return what belongs to the process, or to this thread, and is not sklyap's to change."""
    tiny = torch.tensor([torch.finfo(torch.float64).tiny], dtype=torch.float64)
    return {
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": repr(np.random.get_state()),
        "Python's random state": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "denormals": bool((tiny / 4 == 0).item()),
        "warning filters": list(warnings.filters),
        "functions of torch": len(torch.overrides._get_current_function_mode_stack()),
    }


def assert_unchanged(before, *, but=()):
    after = state()
    assert [name for name in before if before[name] != after[name] and name not in but] == []


# scikit-learn's own workers replace Python's filters of warnings and put them back, which races.
BUT = ("warning filters",)


def assert_same_bits(found, expected):
    found, expected = numbers(found), numbers(expected)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_every_public_name_is_listed():
    missing = set(sklyap.__all__) - ENTRIES.keys() - PASSIVE.keys()
    assert not missing, "add them to ENTRIES or, with the reason, to PASSIVE"


@pytest.fixture(params=ENTRIES)
def entry(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield ENTRIES[request.param]


def test_the_process_is_as_before(entry):
    before = state()
    entry()
    assert_unchanged(before)


def test_threads_give_the_same_bits(entry):
    expected, before = entry(), state()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: entry(), range(6)))
    assert_unchanged(before, but=BUT)
    for result in results:
        assert_same_bits(result, expected)


def parallel_calls():
    """Return what is computed in joblib's workers: spectra, alignments, a population."""
    networks = FITTED * 2
    rows = [
        LyapunovSpectrumTransformer(X, n_jobs=3).fit_transform(networks),
        GradientAlignmentAnalyzer(X, y, n_directions=2, n_singular=1, n_jobs=3).fit_transform(networks),
    ]
    grid = {"lr": [0.01, 0.02, 0.03]}
    population = train_population(network(dropout=0.3, num_layers=2), grid, X, y, random_state=0, verbose=0, n_jobs=3)
    return rows + [weights(n) for n in population.networks()]


@pytest.mark.filterwarnings("ignore")
def test_joblib_threads_give_the_same_bits():
    with joblib.parallel_config(backend="sequential"):
        expected, before = parallel_calls(), state()
    with joblib.parallel_config(backend="threading"):
        assert_same_bits(parallel_calls(), expected)
    assert_unchanged(before)


@pytest.mark.filterwarnings("ignore")
def test_dask_workers_of_several_threads_give_the_same_bits():
    distributed = pytest.importorskip("distributed")
    with joblib.parallel_config(backend="sequential"):
        expected = parallel_calls()
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=4, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        before = state()
        assert_same_bits(parallel_calls(), expected)
        assert_unchanged(before, but=("Python's random state", *BUT))  # dask's own


def test_different_entries_at_once_give_the_same_bits():
    """Trainings, which seed torch's generator, beside analyses, which put it back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, before = {name: entry() for name, entry in ENTRIES.items()}, state()
        with ThreadPoolExecutor(6) as pool:
            results = {name: pool.submit(entry) for name, entry in ENTRIES.items()}
        assert_unchanged(before, but=BUT)
    for name, result in results.items():
        assert_same_bits(result.result(), expected[name])


def test_the_default_dtype_changes_no_bit(entry):
    expected = entry()
    torch.set_default_dtype(torch.float64)
    try:
        assert_same_bits(entry(), expected)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_the_caller_change_no_bit(entry, mode):
    expected = entry()
    with mode():
        before = state()
        assert_same_bits(entry(), expected)
        assert_unchanged(before)


class Stop(Callback):
    def __init__(self, error):
        self.error = error

    def on_batch_end(self, net, training=False, **kwargs):
        raise self.error


class Stopping(FunctionCell):
    """A cell that stops after some steps."""

    def __init__(self, error):
        self.count = 0

        def step(s, x):
            self.count += 1
            if self.count > 3:
                raise error
            return torch.tanh(s + x)

        super().__init__(step, 2, n_inputs=2)


STOPPED = {
    "fit": lambda error: network(callbacks=[Stop(error)]).fit(X, y),
    "fit under no_grad": lambda error: torch.no_grad()(network(callbacks=[Stop(error)]).fit)(X, y),
    "train_population": lambda error: train_population(
        network(callbacks=[Stop(error)]), {"lr": [0.01]}, X, y, verbose=0
    ),
    "lyapunov_spectrum": lambda error: lyapunov_spectrum(Stopping(error), X),
    "transform": lambda error: LyapunovSpectrumTransformer(X, n_exponents=1).fit_transform([Stopping(error)]),
    "transform in threads": lambda error: (
        joblib.parallel_config(backend="threading").__enter__()
        and LyapunovSpectrumTransformer(X, n_exponents=1, n_jobs=2).fit_transform([Stopping(error), *FITTED])
    ),
    "encoder": lambda error: lyapunov_spectrum(raising(error), X),
    "gradient": lambda error: loss_gradient(FITTED[0], X, y, loss=lambda *_: (_ for _ in ()).throw(error)),
    "sensitivity": lambda error: input_sensitivity(FITTED[0], X, y, loss=lambda *_: (_ for _ in ()).throw(error)),
}


class Encoder(torch.nn.Module):
    def forward(self, x):
        torch.rand(3)
        raise self.error


RAISING_NETWORK = torch.nn.Sequential(Encoder(), torch.nn.GRU(2, 3, batch_first=True))


def raising(error):
    RAISING_NETWORK[0].error = error
    return RAISING_NETWORK


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no"), ValueError("no")], ids=repr)
@pytest.mark.parametrize("name", STOPPED)
def test_the_process_is_as_before_also_when_it_is_interrupted(name, error):
    config = joblib.parallel_config(backend="sequential")  # put back below, whatever an entry sets
    before = state()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            STOPPED[name](error)
    except BaseException as caught:
        assert isinstance(caught, type(error) | ValueError), caught
    finally:
        config.unregister()
    assert_unchanged(before)
    # No lock is held by anyone.
    done = threading.Thread(target=lambda: network().fit(X, y), daemon=True)
    done.start()
    done.join(timeout=60)
    assert not done.is_alive()


class Analyse(Callback):
    """Analyses networks in threads in the middle of a training."""

    def on_epoch_end(self, net, **kwargs):
        with joblib.parallel_config(backend="threading"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            analyzer = GradientAlignmentAnalyzer(X, y, n_directions=2, n_singular=1, n_jobs=2)
            self.rows_ = analyzer.fit_transform(FITTED)


def test_callbacks_that_analyse_in_threads_neither_hang_nor_change_training():
    options = {"dropout": 0.4, "num_layers": 2, "max_epochs": 3}
    expected = weights(network(**options).fit(X, y))
    found = []
    thread = threading.Thread(
        target=lambda: found.append(weights(network(callbacks=[Analyse()], **options).fit(X, y))), daemon=True
    )
    thread.start()
    thread.join(timeout=120)
    assert not thread.is_alive(), "it waits for itself"
    assert_same_bits(found[0], expected)


def test_tests_name_what_they_run():
    assert all(callable(entry) and not inspect.signature(entry).parameters for entry in ENTRIES.values())
