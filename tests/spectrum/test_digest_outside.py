"""Code that depends on more than itself and what it refers to: imports as it runs, and the world outside."""

import os
import sys
import time
import types
import warnings

import numpy as np
import pytest
import torch

from sklyap import FunctionCell, LyapunovSpectrumTransformer
from sklyap.spectrum.digest import Digest, UnknownValueError


@pytest.fixture
def settings():
    module = types.ModuleType("settings_of_a_test")
    module.rate = 1.4
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]


def imports(s, x):
    import settings_of_a_test

    return settings_of_a_test.rate * s


def imports_a_name(s, x):
    from settings_of_a_test import rate

    return rate * s


@pytest.mark.parametrize("step", [imports, imports_a_name])
def test_modules_that_are_imported_inside(step, settings):
    before = Digest().of(step)
    assert Digest().of(step) == before
    settings.other = 3
    assert Digest().of(step) == before
    settings.rate = 1.2
    assert Digest().of(step) != before


def test_modules_that_are_not_loaded_yet():
    with pytest.raises(UnknownValueError, match="imports settings_of_a_test"):
        Digest().of(imports)


@pytest.mark.parametrize(
    "step",
    [
        lambda s, x: float(os.environ["RATE"]) * s,
        lambda s, x: float(os.getenv("RATE", "1")) * s,
        lambda s, x: float(open("rate").read()) * s,
        lambda s, x: eval("0.5") * s,
        lambda s, x: globals()["RATE"] * s,
        lambda s, x: (time.time() > 0) * s,
    ],
)
def test_what_reads_from_outside_is_not_certain(step):
    with pytest.raises(UnknownValueError, match=r"a function that calls|code that uses"):
        Digest().of(step)


def test_such_steps_are_computed_anew(tmp_path, monkeypatch):
    def step(s, x):
        rate = float(os.environ["RATE_OF_A_TEST"])
        return torch.stack([1 - rate * s[..., 0] ** 2 + s[..., 1], 0.3 * s[..., 0]], -1)

    found = []
    for rate in ("1.4", "1.2"):
        monkeypatch.setenv("RATE_OF_A_TEST", rate)
        transformer = LyapunovSpectrumTransformer(600, memory=str(tmp_path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(transformer.fit_transform([FunctionCell(step, 2)]))
    assert np.abs(found[0] - found[1]).max() > 0.01
