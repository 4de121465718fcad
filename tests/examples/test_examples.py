"""The main example, in a small size."""

import runpy
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def main():
    return runpy.run_path(str(ROOT / "examples" / "predict_loss.py"))["main"]


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
def test_main_example(main, tmp_path, capsys):
    arguments = ["--networks", "12", "--epochs", "1", "--output", str(tmp_path), "--jobs", "1", "--small"]
    tables = main(arguments)
    assert list(tables) == ["recall", "digits"]
    for name, table in tables.items():
        assert table[["r2", "auc"]].notna().all().all()
        assert {"constant", "hyperparameters", "loss so far", "spectrum", "all three"} <= set(table.index)
        for file in ("spectra.png", "predictions.png", "table.csv"):
            assert (tmp_path / name / file).stat().st_size > 0
    first = sorted(tmp_path.rglob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in first]
    assert len(first) >= 24  # of each network at least one snapshot
    again = main([*arguments, "--tasks", "digits"])  # everything is taken from the first run
    assert [path.stat().st_mtime_ns for path in first] == stamps
    np.testing.assert_allclose(again["digits"], tables["digits"])
    said = capsys.readouterr().out
    assert "run again to go on" in said and "R² added by the spectrum" in said


def test_latent_space(tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "examples" / "latent_space.py"))["main"]
    arguments = ["--networks", "15", "--epochs", "1", "--output", str(tmp_path), "--jobs", "1"]
    separated, scores = main(arguments)
    assert list(separated.index)[:2] == ["learnt from", "held out"] and "gru, learnt from the others" in separated.index
    assert separated["prediction"].between(0, 1).all()
    assert scores["rho"].between(-1, 1).all() and "autoencoder, out of fold" in scores.index
    for name in ("latent.png", "statistics.png", "latent.csv", "statistics.csv"):
        assert (tmp_path / name).stat().st_size > 0
    assert "first component" in capsys.readouterr().out
