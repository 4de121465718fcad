"""Settings and data that tests of conversion share."""

import pytest
import torch

from tests.cells.networks import WIDTH, N, T, draw


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return draw(N, T, WIDTH)
