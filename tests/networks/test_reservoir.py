"""ESNRegressor: scikit-learn's checks, the reservoir that it says it draws, and what takes networks."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator

from sklyap import ESNRegressor, closed_loop, lyapunov_spectrum
from sklyap.cells import LeakyCell
from sklyap.gradients import loss_gradient

SERIES = np.sin(0.3 * np.arange(400)) + np.sin(0.17 * np.arange(400))
X = np.stack([SERIES[i : i + 100] for i in range(0, 280, 20)])[:, :, None]
Y = np.stack([SERIES[i + 1 : i + 101] for i in range(0, 280, 20)])[:, :, None]


def fitted(**options):
    defaults = {"n_units": 40, "leak": 0.7, "spin_up": 20, "readout": "all", "random_state": 0}
    return ESNRegressor(**(defaults | options)).fit(X, Y)


def test_scikit_learns_checks():
    results = check_estimator(ESNRegressor(20, random_state=0), on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert failed == {}
    assert {r["check_name"] for r in results if r["status"] == "skipped"} <= {"check_array_api_input"}
    assert sum(r["status"] == "passed" for r in results) >= 50


@pytest.mark.parametrize("quadratic", [False, True])
def test_the_equations(quadratic):
    network = fitted(quadratic=quadratic, bias_scale=0.3, density=0.3)
    cell, readout = network.net_.cell, network.net_.readout
    assert isinstance(cell, LeakyCell)
    W, W_in, b = (p.detach().numpy() for p in (cell.weight_hh, cell.weight_ih, cell.bias_ih))
    assert np.abs(np.linalg.eigvals(W)).max() == pytest.approx(0.9)
    h = np.zeros(40)
    for t in range(30):
        h = 0.3 * h + 0.7 * np.tanh(W @ h + W_in @ np.float32(X[0, t]) + b)
    seen = np.concatenate([h, h[:20] ** 2]) if quadratic else h
    expected = readout.weight.detach().numpy() @ seen + readout.bias.detach().numpy()
    np.testing.assert_allclose(network.predict(X[:1])[0, 29], expected, rtol=0, atol=1e-12)


def test_it_learns_and_goes_on_by_itself():
    network = fitted(n_units=100, input_scale=0.3, bias_scale=0.5, spin_up=40, alpha=1e-8)
    np.testing.assert_allclose(network.predict(X)[:, 40:], Y[:, 40:], atol=0.01)
    free = network.forecast(X[:1], 30)
    np.testing.assert_allclose(free[0, :, 0], SERIES[100:130], atol=0.05)


def test_the_last_step_and_lists():
    last = ESNRegressor(40, random_state=0).fit(X, Y[:, -1, 0])
    every = ESNRegressor(40, readout="all", random_state=0).fit(X, Y)
    assert last.predict(X).shape == (14,)
    rows = [x[: 50 + 3 * i] for i, x in enumerate(X)]
    predicted = every.predict(rows)
    assert [len(p) for p in predicted] == [len(x) for x in rows]
    np.testing.assert_allclose(predicted[2], every.predict(X[2:3, :56])[0], rtol=0, atol=1e-12)
    short = ESNRegressor(40, random_state=0).fit(rows, Y[:, -1, 0])
    np.testing.assert_allclose(short.predict(rows)[3], short.predict(X[3:4, :59])[0], rtol=0, atol=1e-12)
    again = ESNRegressor(40, spin_up=30, readout="all", random_state=0).fit(
        rows, [y[: len(x)] for x, y in zip(rows, Y, strict=True)]
    )
    assert again.score(X, Y) > 0.9


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")
def test_everything_that_takes_networks():
    network = fitted()
    driven = lyapunov_spectrum(network, X, n_exponents=3)
    bare = lyapunov_spectrum(network.net_.cell, np.float32(X), n_exponents=3)
    np.testing.assert_allclose(driven.exponents, bare.exponents, rtol=0, atol=1e-6)
    loop = closed_loop(network, X[:2])
    assert lyapunov_spectrum(loop, 200, n_exponents=2).exponents.shape == (2,)
    gradient = loss_gradient(network, X, Y, ranks=[40])
    assert gradient.relative_error[-1] < 1e-9


def test_bad_parameters():
    for options, message in (
        ({"n_units": 0}, "'n_units' parameter of ESNRegressor"),
        ({"leak": 0.0}, "'leak' parameter of ESNRegressor"),
        ({"readout": "some"}, "'readout' parameter of ESNRegressor"),
        ({"spin_up": 100}, "'spin_up' parameter of ESNRegressor must leave steps"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted(**options)
    with pytest.raises(ValueError, match="X has 2 inputs per step"):
        fitted().predict(np.zeros((1, 5, 2)))


def test_clones_draw_the_same_reservoir():
    a, b = fitted(), clone(fitted()).fit(X, Y)
    torch.testing.assert_close(a.net_.cell.weight_hh, b.net_.cell.weight_hh, rtol=0, atol=0)
    np.testing.assert_array_equal(a.predict(X), b.predict(X))


@pytest.mark.parametrize("readout", ["all", "last"])
def test_a_weight_is_a_number_of_repetitions(readout):
    targets = Y if readout == "all" else Y[:, -1]
    weight = np.arange(len(X)) % 3
    network = ESNRegressor(20, alpha=0.1, readout=readout, random_state=0)
    weighted = clone(network).fit(X, targets, sample_weight=weight).predict(X)
    repeated = clone(network).fit(np.repeat(X, weight, 0), np.repeat(targets, weight, 0)).predict(X)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9, atol=1e-10)
    with pytest.raises(ValueError, match=r"'sample_weight' parameter of ESNRegressor must have shape \(14,\)"):
        network.fit(X, targets, sample_weight=weight[1:])
