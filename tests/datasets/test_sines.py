"""Sums of sines: the formula, where sequences begin, the baseline, bad input."""

import numpy as np
import pytest

from sklyap.datasets import make_sine_targets


def test_the_default_is_one_period_of_four_sines():
    X, y = make_sine_targets()
    t = 0.1 * np.arange(1201)
    w = 2 * np.pi / 120
    f = 1.3 / 1.5 * (np.sin(w * t) + np.sin(2 * w * t) / 2 + np.sin(3 * w * t) / 6 + np.sin(4 * w * t) / 3)
    np.testing.assert_allclose(X[0, :, 0], f[:-1], atol=1e-6)
    np.testing.assert_allclose(y[0, :, 0], f[1:], atol=1e-6)
    assert X.dtype == y.dtype == np.float32
    assert np.var(f[:-1]) == pytest.approx((1.3 / 1.5) ** 2 * (1 + 1 / 4 + 1 / 36 + 1 / 9) / 2, rel=1e-6)


def test_seeds_and_noise():
    a, b, c = (make_sine_targets(3, 50, noise=0.1, random_state=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.array_equal(a[0], c[0])
    clean, target = make_sine_targets(3, 50, random_state=0)
    np.testing.assert_array_equal(a[1], target)
    assert (a[0] - clean).std() == pytest.approx(0.1, rel=0.2)
    assert len({float(row[0, 0]) for row in clean}) == 3


@pytest.mark.parametrize(
    "wrong,named",
    [
        ({"n_samples": 0}, "n_samples"),
        ({"n_steps": 2.5}, "n_steps"),
        ({"dt": 0.0}, "dt"),
        ({"period": -1}, "period"),
        ({"amplitudes": ()}, "amplitudes"),
        ({"amplitudes": (1, "x")}, "amplitudes"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_bad_input_is_named(wrong, named):
    with pytest.raises((ValueError, TypeError), match=f"'{named}' parameter of make_sine_targets"):
        make_sine_targets(**wrong)
