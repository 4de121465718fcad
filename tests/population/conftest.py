"""Populations that tests share."""

from __future__ import annotations

import pytest

from tests.population.helpers import train


@pytest.fixture(scope="session")
def population():
    return train()


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stored") / "digits"
    return directory, train(directory)


@pytest.fixture
def directory(stored, tmp_path):
    """A copy of the stored population, to be damaged."""
    import shutil

    shutil.copytree(stored[0], tmp_path / "digits")
    return tmp_path / "digits"
