"""A misspelt keyword of `fit` is refused with the nearest that there is, by every estimator."""

import pytest

import sklyap

ESTIMATORS = sorted(
    name for name in sklyap.__all__ if hasattr(getattr(sklyap, name), "get_params") and name != "NetworkTransformer"
)


def test_no_estimator_is_left_out():
    assert len(ESTIMATORS) >= 10 and {"RNNClassifier", "ESNRegressor", "SpectrumAutoencoder"} <= set(ESTIMATORS)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fit_suggests(name):
    kind = getattr(sklyap, name)
    arguments = ("rnn", {"lr": [0.1]}, [[[0.0]]]) if name == "LyapunovHalvingSearch" else ()
    with pytest.raises(TypeError, match=rf"{name}\.fit has no parameter 'yy'; it takes .*y.*\. Did you mean 'y'\?"):
        kind(*arguments).fit([], yy=[])


def test_a_parameter_of_the_constructor_is_known():
    message = r"Did you mean 'sequences', which is a parameter of LyapunovSpectrumTransformer\(\.\.\.\)\?"
    with pytest.raises(TypeError, match=message):
        sklyap.LyapunovSpectrumTransformer().fit([], sequence=3)
