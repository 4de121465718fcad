"""The gallery: an example for every subject, and each runs as it stands."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("plot_*.py"))


def test_there_is_one_for_every_subject():
    names = [script.stem.split("_", 2)[2] for script in SCRIPTS]
    wanted = ["one_spectrum", "reading", "population", "search", "flossing", "alignment", "sensitivity", "closed_loop"]
    assert names == [*wanted, "own_cell", "checkpoints"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_says_what_it_shows_and_draws(script):
    code = script.read_text()
    title, rule, *rest = ast.get_docstring(ast.parse(code)).splitlines()
    assert len(title) == len(rule) and set(rule) == {"="} and rest
    assert code.count("# %%\n") > 2 and ("display" in code.lower() or "plot" in code)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs(script, tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr[-2000:]
