"""The study of flossing runs in a small size, and goes on from what is finished."""

import runpy
from pathlib import Path

import pandas as pd

EXAMPLE = Path(__file__).parents[2] / "examples" / "flossing.py"


def test_study(tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    arguments = ["--tasks", "recall", "copy", "xor", "--delays", "4", "--seeds", "1", "--hidden", "6", "--quiet",
                 "--epochs", "1", "--passes", "1", "--flossing", "none", "both", "--output", str(tmp_path)]  # fmt: skip
    table = main(arguments)
    assert len(table) == 6 and table["success"].between(0, 1).all()
    assert (table["low"] <= table["success"]).all() and (table["success"] <= table["high"]).all()
    files = sorted((tmp_path / "runs").glob("*.json"))
    stamps = [path.stat().st_mtime_ns for path in files]
    assert len(files) == 6
    main([*arguments, "--inits", "orthogonal", "--tasks", "recall"])
    assert [path.stat().st_mtime_ns for path in files] == stamps
    assert len(list((tmp_path / "runs").glob("*.json"))) == 8
    assert (tmp_path / "success.png").stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "Through training" in printed and "Tables and figure are" in printed
    course = pd.read_csv(tmp_path / "through_training.csv")
    assert (course["gradient"] > 0).all() and (course["largest"] >= course["smallest"]).all()
