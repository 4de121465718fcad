"""Verdicts on networks near the edge of chaos: each says what its own numbers say."""

import warnings

import numpy as np
import pytest

from sklyap import RNNClassifier, lyapunov_spectrum
from sklyap.exceptions import ConvergenceWarning
from sklyap.lyapunov.verdict import ZERO_TOLERANCE


@pytest.fixture(scope="module")
def results():
    """Untrained networks with λ₁ near zero along the training data, on sequences of two lengths."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 25, 2)), np.arange(40) % 2
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for seed, cell in enumerate(["rnn", "gru"] * 3):
            network = RNNClassifier(cell, 12, init="critical", max_epochs=0, random_state=seed).fit(X, y)
            found += [lyapunov_spectrum(network, X[:n_sequences]) for n_sequences in (2, 20)]
    return found


def test_the_verdict_says_what_the_numbers_say(results):
    for result in results:
        first, error = result.exponents[0], result.standard_error[0]
        sign_is_settled = abs(first) > 2 * error
        is_zero = abs(first) + 2 * error <= ZERO_TOLERANCE
        assert result.converged == (sign_is_settled or is_zero)
        assert ("positive" in result.status) == (sign_is_settled and first > 0)
        assert ("negative" in result.status) == (sign_is_settled and first < 0)
        assert ("its sign cannot be told" in result.status) == (not result.converged)
        assert result.n_undecided == (np.abs(result.exponents) <= 2 * result.standard_error).sum()


def test_near_the_edge_some_are_undecided_and_say_so(results):
    undecided = [result for result in results if not result.converged]
    assert 0 < len(undecided) < len(results)
    # The most contracted exponent is known well, and excuses nothing.
    assert any(abs(r.exponents[-1]) > 100 * r.standard_error[0] for r in undecided)
