"""Benchmarks run, at sizes that say nothing about speed."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import memory, population_spectra, scaling, spectra


@pytest.mark.parametrize("module", [spectra, population_spectra, memory], ids=lambda module: module.__name__)
def test_tables(module):
    table = pd.DataFrame(module.table(small=True))
    assert table["case"].is_unique and (table.drop(columns="case").stack().dropna() > -1).all()


def test_scaling_figure(tmp_path):
    scaling.draw(scaling.measure(small=True), tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


def test_the_references_compute_the_same_spectrum():
    """A reference that computes something else would be no yardstick."""
    import numpy as np
    import torch

    from benchmarks.reference import diagonal_products, textbook
    from sklyap import lyapunov_spectrum

    net = spectra.network("lstm", 6, 3).double()
    x = torch.randn(4, 400, 3, dtype=torch.float64)
    for reference, state in ((diagonal_products, "hidden"), (textbook, "full")):
        ours = lyapunov_spectrum(net, x, state=state, warmup=0)
        theirs = np.sort(reference(net, x).numpy())[::-1]
        np.testing.assert_allclose(theirs[:3], ours.exponents[:3], atol=0.02)  # other random starts
        assert theirs.sum() == pytest.approx(ours.log_abs_det, rel=1e-9)


def test_the_command_runs(tmp_path):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "benchmarks", "--small", "--output", str(tmp_path)]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "times floor" in (tmp_path / "performance_table.md").read_text()
