"""Correlations inside architectures: what is left when the architecture alone explains what all networks show."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ANALYSIS = Path(__file__).parents[2] / "examples" / "studies" / "analysis.py"


@pytest.fixture(scope="module")
def analysis():
    spec = importlib.util.spec_from_file_location("analysis", ANALYSIS)
    module = importlib.util.module_from_spec(spec)
    sys.modules["analysis"] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    module.N_DRAWS = 400
    yield module
    del sys.modules["analysis"]


def population(slope, seed=0, n=20):
    """Two architectures, of which one has higher exponents and losses; inside, the loss goes with them by `slope`."""
    rng = np.random.default_rng(seed)
    families = np.repeat(["gru", "rnn"], n)
    level = np.where(families == "rnn", 0.0, -3.0)
    shift = rng.normal(0, 0.3, 2 * n)
    spectra = -np.sort(rng.random((2 * n, 6)), axis=1) + (level + shift)[:, None]
    losses = np.exp(level + slope * shift + rng.normal(0, 0.1, 2 * n))
    return {1: spectra, "last": spectra + 0.01 * rng.normal(size=spectra.shape)}, losses, families


@pytest.mark.parametrize("slope", [0.0, -1.0])
def test_what_the_architecture_explains_is_left_out(analysis, slope):
    spectra, losses, families = population(slope)
    assert analysis.correlations(spectra, losses).loc[("max", 1), "r"] > 0.5
    row = analysis.inside(spectra, losses, families).loc[("max", 1)]
    assert row["low"] <= row["r"] <= row["high"]
    if slope:
        assert row["r"] < -0.7 and row["p_corrected"] < 0.01
    else:
        assert abs(row["r"]) < 0.35 and row["p"] > 0.02


def test_p_is_uniform_where_there_is_nothing(analysis, monkeypatch):
    monkeypatch.setattr(analysis, "N_DRAWS", 199)
    found = [analysis.inside(*population(0.0, seed, 8)).loc[("max", 1), "p"] for seed in range(40)]
    assert 0.3 < np.mean(found) < 0.7


def test_small_families_are_left_out(analysis):
    spectra, losses, families = population(-1.0)
    families = families.copy()
    families[:3] = "lstm"
    assert len(analysis.inside(spectra, losses, families)) > 0
    assert len(analysis.inside(spectra, losses, np.arange(len(losses)).astype(str))) == 0
