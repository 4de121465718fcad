"""The study of gradients and sensitivity runs, in a small size, and finds numbers."""

import runpy
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "examples" / "gradient_alignment.py"


def test_study(tmp_path, capsys):
    main = runpy.run_path(str(EXAMPLE))["main"]
    small = {"seeds": 2, "epochs": 1, "hidden": 6, "sequences": 5, "examples": 150, "random": 3, "jobs": 1}
    arguments = [f"--{name}={value}" for name, value in small.items()]
    alignment, sensitivity = main([*arguments, "--output", str(tmp_path)])
    assert set(alignment["cell"]) == {"Elman", "GRU", "LSTM"} and set(alignment["task"]) == {"image rows", "characters"}
    numbers = alignment[["epoch 0", "epoch 1", "times", "low", "high"]].to_numpy()
    assert np.isfinite(numbers).all() and (numbers > 0).all()
    assert np.isfinite(sensitivity[["value", "low", "high"]].to_numpy()).all()
    assert set(sensitivity["ranked by"]) == {"leading", "sum", "future", "gradient", "late"}
    assert len(list(tmp_path.glob("*.png"))) == 6 and (tmp_path / "alignment.csv").exists()
    assert "Does alignment grow with training?" in capsys.readouterr().out
