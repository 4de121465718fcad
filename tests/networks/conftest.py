"""Data that tests of networks share."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="session")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400].reshape(-1, 8, 8) / 16, y[:400]


@pytest.fixture(scope="session")
def tokens():
    """Text in which every token is followed by the next one of five, from any start."""
    start = np.arange(60) % 5
    return (start[:, None] + np.arange(13)) % 5
