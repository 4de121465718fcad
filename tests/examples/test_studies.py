"""The studies run at their smallest size, offline, and their tables hold together."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

STUDIES = Path(__file__).parents[2] / "examples" / "studies"


def run(study, output):
    command = [sys.executable, STUDIES / f"{study}.py", "--size", "smoke", "--jobs", "1", "--output", output]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=STUDIES.parents[1]).stdout


@pytest.mark.parametrize(
    "study,first",
    [("characters", 1), ("mnist", 1), ("motion", 1), ("sine_targets", 0), ("sine_targets_bptt", 0)],
)
def test_population_study(study, first, tmp_path):
    printed = run(study, tmp_path)
    assert "From which epoch on" in printed and "AUC" in printed
    correlations = pd.read_csv(tmp_path / "correlations.csv")
    assert correlations["r"].dropna().between(-1, 1).all() and str(first) in set(correlations["epoch"].astype(str))
    # Corrected over the epochs together, not one by one.
    assert (correlations["p_corrected"].dropna() >= correlations["p"].dropna()).all()
    prediction = pd.read_csv(tmp_path / "prediction.csv")
    assert prediction["auc"].between(0, 1).all()
    for name in ("correlations.png", "latent.png", "emergence.csv"):
        assert (tmp_path / name).stat().st_size > 0


def test_alignment(tmp_path):
    assert "multiples of chance" in run("alignment", tmp_path)
    table = pd.read_csv(tmp_path / "alignment.csv")
    assert len(table) == 4 and (table["low"] <= table["times"]).all() and (table["times"] <= table["high"]).all()


def test_fragility(tmp_path):
    assert "significantly more (+)" in run("fragility", tmp_path)
    table = pd.read_csv(tmp_path / "fragility.csv")
    assert set(table["score"]) == {"leading", "future", "late"} and set(table["stage"]) == {"0", "last"}
    assert (table["low"] <= table["value"] + 1e-12).all() and (table["value"] <= table["high"] + 1e-12).all()
