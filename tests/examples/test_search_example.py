"""The evidence for searches, at a size that says nothing about searches."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "search_evidence.py"


@pytest.fixture
def example(monkeypatch):
    spec = importlib.util.spec_from_file_location("search_evidence", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "N_SEQUENCES", 40)
    monkeypatch.setattr(module, "EPOCHS", 3)
    monkeypatch.setattr(module, "SNAPSHOTS", (0, 1, "last"))
    monkeypatch.setattr(module, "BUDGETS", (0.2, 0.5))
    return module


def test_it_replays_a_study(example, tmp_path, capsys):
    options = ["--networks", "10", "--repeats", "3", "--jobs", "1", "--output", str(tmp_path)]
    options += ["--studies", "adding-40", "--policies", "halving", "predictor"]
    (table,) = example.main(options)
    assert set(table["policy"]) == {"halving", "predictor"} and len(table) == 8
    assert set(table["budget_in"]) == {"epochs", "cost"} and np.isfinite(table["regret"]).all()
    assert "10 networks (8 in each search)" in capsys.readouterr().out
    assert (tmp_path / "regret_adding-40.png").exists() and (tmp_path / "replays.csv").exists()
