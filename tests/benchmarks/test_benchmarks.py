"""Benchmarks run, at sizes that say nothing about speed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import autonomous, gpu, interval_figure
from benchmarks.reference import diagonal_products, textbook
from benchmarks.spectra import network
from sklyap import lyapunov_spectrum


def test_the_references_compute_the_same_spectrum():
    """A reference that computes something else would be no yardstick."""
    net = network("lstm", 6, 3).double()
    x = torch.randn(4, 400, 3, dtype=torch.float64)
    for reference, state in ((diagonal_products, "hidden"), (textbook, "full")):
        ours = lyapunov_spectrum(net, x, state=state, warmup=0)
        theirs = np.sort(reference(net, x).numpy())[::-1]
        np.testing.assert_allclose(theirs[:3], ours.exponents[:3], atol=0.02)  # other random starts
        assert theirs.sum() == pytest.approx(ours.log_abs_det, rel=1e-9)


def test_the_command_runs(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks", "--small", "--output", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert out.returncode == 0, out.stderr
    table = (tmp_path / "performance_table.md").read_text()
    for case in ("h-only, float32", "textbook", "leading 4 of 48", "beyond raw calls", "two cores", "peak memory"):
        assert table.count(case), case
    assert (tmp_path / "images" / "scaling.png").stat().st_size > 10_000


def test_the_figure_of_intervals(tmp_path):
    blocks = interval_figure.blocks_of(n_steps=300)
    lengths = {third: [b.stop - b.start for b in blocks if b.start // 100 == third] for third in range(3)}
    assert max(lengths[0]) > 2 * max(lengths[1][-10:])
    interval_figure.draw(blocks, tmp_path / "interval.png")
    assert (tmp_path / "interval.png").stat().st_size > 10_000


def test_the_benchmark_of_autonomous_systems(monkeypatch):
    monkeypatch.setattr(autonomous, "theirs", lambda make, n_steps: None)  # the peer may be absent
    rows = autonomous.table(small=True)
    assert len(rows) == 3 and all(np.isfinite(row["µs per step"]) and row["lyapax"] is None for row in rows)


def test_the_gpu_benchmark_runs_and_is_refused_without_one(monkeypatch):
    rows = gpu.table("cuda" if torch.cuda.is_available() else "cpu", small=True)
    assert len(rows) == 4 and all(row["times faster"] > 0 for row in rows)
    assert all(row["largest relative difference"] < 1e-9 for row in rows[2:])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main()
