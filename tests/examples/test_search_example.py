"""The evidence for searches, at a size that says nothing about searches."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
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
    assert set(table["policy"]) == {"halving", "predictor"} and len(table) == 8 + 6
    assert set(table["budget_in"]) == {"epochs", "cost", "seconds"}
    assert np.isfinite(table.query("budget_in != 'seconds'")["regret"]).all()
    assert "10 networks (8 in each search)" in capsys.readouterr().out
    assert (tmp_path / "regret_adding-40.png").exists() and (tmp_path / "replays.csv").exists()


def test_between_two_budgets_the_regret_at_equal_seconds_is_a_straight_line(example):
    told = {name: [0.0, 1.0] for name in ("epochs", "cost", "spectra", "low", "high", "solved")}
    curve = pd.DataFrame({"policy": "halving", "seconds": [4.0, 16.0], "regret": [3.0, 1.0], **told})
    table = example.at_equal_seconds(curve, 100.0).set_index("budget")
    assert table.loc[0.1, ["regret", "solved"]].tolist() == pytest.approx([2.0, 0.5])
    assert np.isnan(table.loc[0.2, "regret"])  # more than the largest budget has spent


def test_pruners_are_replayed_on_a_population(example, tmp_path, capsys, monkeypatch):
    pytest.importorskip("optuna")
    options = ["--networks", "10", "--repeats", "2", "--jobs", "1", "--output", str(tmp_path)]
    example.main([*options, "--studies", "adding-40", "--policies", "halving"])
    monkeypatch.setitem(sys.modules, "search_evidence", example)
    pruners = runpy.run_path(str(EXAMPLE.with_name("search_pruners.py")))
    table = pruners["main"](["--study", "adding-40", "--epochs", "9", "--repeats", "2", "--output", str(tmp_path)])
    assert len(table) == 6 and table["regret"].ge(0).all() and table.set_index("pruner").loc["none", "trials"] == 3
