"""make_chaotic_series: the equations hold along the series, and their spectra are the known ones."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sklyap.datasets import make_chaotic_series


def test_lorenz_steps_are_the_flow():
    X, y = make_chaotic_series(n_samples=2, n_steps=50, standardize=False, random_state=0)
    assert X.shape == y.shape == (2, 50, 3) and X.dtype == y.dtype == np.float32

    def velocity(t, s):
        return [10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]]

    for i, t in ((0, 0), (1, 49)):
        end = solve_ivp(velocity, (0, 0.02), X[i, t].astype(float), rtol=1e-10, atol=1e-10).y[:, -1]
        np.testing.assert_allclose(y[i, t], end, atol=2e-5)
    assert 5 < X[..., 2].min() + 5 and X[..., 2].max() < 50  # on the attractor


def test_mackey_glass_obeys_its_delay_equation():
    tau, dt = 17.0, 0.05
    X, _ = make_chaotic_series("mackey_glass", 2, 2000, dt=dt, tau=tau, standardize=False, random_state=1)
    x = X[:, :, 0].astype(float)
    lag = round(tau / dt)
    slope = (x[:, lag + 1 :] - x[:, lag - 1 : -2]) / (2 * dt)
    delayed = x[:, : -lag - 1]
    expected = 0.2 * delayed / (1 + delayed**10) - 0.1 * x[:, lag:-1]
    np.testing.assert_allclose(slope, expected[:, : slope.shape[1]], atol=1e-4)
    assert 0.2 < x.min() and x.max() < 1.5


@pytest.mark.parametrize("system", ["lorenz", "mackey_glass"])
def test_series(system):
    X, y = make_chaotic_series(system, 3, 200, random_state=0)
    np.testing.assert_array_equal(X[:, 1:], y[:, :-1])
    again, _ = make_chaotic_series(system, 3, 200, random_state=0)
    np.testing.assert_array_equal(X, again)
    assert np.abs(X[0] - X[1]).max() > 0.1
    values = np.concatenate([X, y[:, -1:]], 1)
    np.testing.assert_allclose(values.std((0, 1)), 1, atol=1e-5)
    np.testing.assert_allclose(values.mean((0, 1)), 0, atol=1e-5)
    noisy, clean = make_chaotic_series(system, 3, 200, noise=0.1, random_state=0)
    np.testing.assert_array_equal(clean, y)
    assert abs((noisy - X).std() - 0.1) < 0.02


def test_series_ends_where_an_interval_ends():
    X, y = make_chaotic_series("mackey_glass", 1, 34, tau=10.0, dt=5.0, random_state=0)
    assert X.shape == y.shape == (1, 34, 1) and np.isfinite(y).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"system": "lorentz"}, ValueError, "'system' parameter of make_chaotic_series must be one of 'lorenz'"),
        ({"n_samples": 0}, ValueError, "'n_samples' parameter"),
        ({"n_steps": 1.5}, TypeError, "'n_steps' parameter"),
        ({"dt": 0.0}, ValueError, "'dt' and 'tau' parameters of make_chaotic_series must be positive"),
        ({"tau": -1.0}, ValueError, "'tau' parameter"),
        ({"noise": -0.1}, ValueError, "'noise' parameter"),
    ],
)
def test_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        make_chaotic_series(**options)
