"""Arrays that are given to displays directly are checked: an error names the parameter, before anything is drawn."""

import numpy as np
import pandas as pd
import pytest
import torch

from sklyap import displays

pytest.importorskip("matplotlib")

NAN = np.nan
TWO = {"policy": ["a", "a"], "epochs": [1, 2], "regret": [0.2, 0.1], "low": [0.1, 0.0], "high": [0.3, 0.2]}

GOOD = {
    displays.AlignmentDisplay: {"alignment": np.ones((3, 2)), "columns": ["a", "b", "c"], "baseline": 0.1},
    displays.ConvergenceDisplay: {"running": np.ones((9, 2)), "standard_error": np.ones((9, 2)), "indices": [0, 5]},
    displays.GradientEnergyDisplay: {"energies": [[0.5, 1.0], [1.0]], "sizes": [2, 1], "labels": ["a", "b"]},
    displays.LatentDisplay: {"components": np.eye(3, 2), "losses": [1.0, 2.0, NAN], "explained": [0.7, 0.2]},
    displays.LocalExponentDisplay: {"local": np.ones((9, 2)), "warmup": 2},
    displays.LossPredictorsDisplay: {"names": ["a", "b"], "scores": [0.1, NAN], "low": [0, 0], "high": [1, 1]},
    displays.RegretDisplay: {"table": pd.DataFrame(TWO)},
    displays.SearchDisplay: {"curves": [[1.0, 0.5], [0.9]], "rungs": [1, 2], "predicted": [0.4, 0.8]},
    displays.SensitivityDisplay: {"sequence": np.ones((5, 2)), "score": np.ones(5), "effect": np.ones(5)},
    displays.SpectrumDisplay: {
        "spectra": [[0.1, -0.2], [0.3]], "standard_error": [[0.1, 0.2], [0.1]], "labels": ["a", "b"], "color": [1, NAN],
    },
    displays.TrainingDisplay: {"epochs": [0, 1, 2], "exponents": np.ones((3, 2)), "standard_error": np.ones((3, 2))},
}  # fmt: skip

TEXT, DEEP, NONE, COMPLEX = "words", np.ones((2, 2, 2, 2)), None, np.ones((3, 2)) * 1j
SPARSE, OBJECTS = torch.eye(3).to_sparse(), [object()]
WRONG = {
    "AlignmentDisplay": {"alignment": [TEXT, DEEP, NONE, COMPLEX, np.ones((2, 2)), np.ones((3, 0))],
                         "columns": [TEXT, 3, NONE], "baseline": [TEXT, NAN, 2.0, -0.1], "column_label": [3, NONE]},
    "ConvergenceDisplay": {"running": [TEXT, DEEP, NONE, np.ones(3), np.ones((0, 2)), SPARSE],
                           "standard_error": [TEXT, np.ones((9, 3)), OBJECTS], "indices": [3, [0], [0, -1], [0, "x"]],
                           "warmup": [-1, 1.5, NONE], "unit": ["dits", NONE], "per": [3]},
    "GradientEnergyDisplay": {"energies": [TEXT, NONE, 3, [[1.0], []], [np.ones((2, 2)), [1.0]]],
                              "sizes": [3, NONE, [2], [2, "x"], [1, 1]], "labels": ["a", ["a"], 3]},
    "LatentDisplay": {"components": [TEXT, NONE, np.ones(3), np.ones((3, 3))], "losses": [TEXT, NONE, [1.0], [[1.0]]],
                      "explained": [TEXT, [0.5], 0.5]},
    "LocalExponentDisplay": {"local": [TEXT, NONE, np.ones(3), DEEP], "warmup": [-1, TEXT], "unit": [3]},
    "LossPredictorsDisplay": {"names": [3, "ab", NONE], "scores": [TEXT, NONE, [0.1], [[0.1, 0.2]]], "low": [[0.1]],
                              "high": [NONE, "x"], "label": [3], "lower": [NONE, NAN, "x"]},
    "RegretDisplay": {"table": [3, NONE, pd.DataFrame(), pd.DataFrame(TWO)[["policy", "regret"]]],
                      "against": ["money", None]},
    "SearchDisplay": {"curves": [TEXT, NONE, 3, [], [[]], [[[1.0]]]], "rungs": [3, NONE, ["x"], [-1]],
                      "predicted": [[0.4], TEXT], "low": [[0.4]], "high": [OBJECTS], "kind": ["x", NONE]},
    "SensitivityDisplay": {"sequence": [TEXT, NONE, 3, DEEP, [], [NAN]], "score": [NONE, np.ones(4), TEXT],
                           "effect": [np.ones(4), TEXT], "score_label": [3], "effect_label": [NONE]},
    "SpectrumDisplay": {"spectra": [TEXT, NONE, 3, [], [[]], [0.1, 0.2], [[0.1], ["x"]], SPARSE],
                        "standard_error": [3, [[0.1, 0.2]], [[0.1], [0.1]], TEXT], "labels": ["a", ["a"], 3],
                        "color": [TEXT, [1.0], [[1.0, 2.0]], ["red", "blue"]], "color_label": [3], "unit": ["x"],
                        "per": [NONE]},
    "TrainingDisplay": {"epochs": [TEXT, NONE, []], "exponents": [TEXT, NONE, [1, 2, 3], np.ones((2, 2))],
                        "standard_error": [np.ones((3, 3)), [1, 2, 3], TEXT]},
}  # fmt: skip
CASES = [(kind, name, value) for kind, given in WRONG.items() for name, values in given.items() for value in values]


@pytest.mark.parametrize("kind", GOOD, ids=lambda kind: kind.__name__)
def test_what_is_documented_is_drawn(kind):
    kind(**GOOD[kind]).plot().figure_.canvas.draw()


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_anything_else_is_refused_by_name(kind, name, value):
    kind = getattr(displays, kind)
    with pytest.raises((TypeError, ValueError), match=f"The '{name}' parameter of {kind.__name__} must"):
        kind(**{**GOOD[kind], name: value})


def test_every_display_has_wrong_values():
    # SensitivitySweepDisplay is given a result, and no array
    assert {*WRONG, "SensitivitySweepDisplay"} == set(displays.__all__)
