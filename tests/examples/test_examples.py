"""What a newcomer sees first runs as written: the main example in a small size, and the README's code."""

import re
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
    arguments = ["--networks", "15", "--epochs", "2", "--output", str(tmp_path), "--jobs", "2"]
    table = main(arguments)
    assert list(table.columns) == ["R²", "Spearman"] and np.isfinite(table["R²"]).all()
    assert {"constant", "hyperparameters", "loss after epoch 1", "spectrum + loss after epoch 1"} <= set(table.index)
    for name in ("spectra.png", "predictions.png", "table.csv"):
        assert (tmp_path / name).stat().st_size > 0
    first = sorted((tmp_path / "population").rglob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in first]
    assert len(first) >= 30  # two snapshots of each network
    again = main(arguments)  # everything is taken from the first run
    assert [path.stat().st_mtime_ns for path in first] == stamps
    np.testing.assert_allclose(again, table)
    assert "run again to go on" in capsys.readouterr().out


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


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
def test_readme_code_runs_as_written(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    score, spectrum = capsys.readouterr().out.split("\n", 1)
    assert float(score) < 1 and "64 exponents in nats per step" in spectrum
