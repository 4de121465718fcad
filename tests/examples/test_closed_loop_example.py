"""The study of closed loops runs, in a small size, and goes on where it stopped."""

import runpy
from pathlib import Path

import numpy as np
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "closed_loop.py"


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
def test_study(tmp_path, capsys):
    study = runpy.run_path(str(EXAMPLE))
    arguments = ["--quick", "--systems", "lorenz", "--output", str(tmp_path)]
    table = study["main"](arguments)
    assert len(table) == 6 and np.isfinite(table[["λ1", "± 1", "λ2", "λ3"]].to_numpy()).all()
    assert "| lorenz | the system itself |  | 0.90560 ± 0.00010 |" in (tmp_path / "table.md").read_text()
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.json"))]
    study["main"](arguments)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("*.json"))] == stamps
    assert study["kaplan_yorke"](np.array([0.9056, 0.0, -14.5723])) == pytest.approx(2.0621, abs=1e-4)
    assert study["kaplan_yorke"](np.array([-0.1, -0.2, -3.0])) == 0
    assert np.isnan(study["kaplan_yorke"](np.array([0.3, 0.2, 0.1])))
