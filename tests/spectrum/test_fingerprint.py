"""Fingerprints: the same for the same computation, in every process, and different for any other."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from sklyap import as_recurrent_cell
from sklyap.cells import CELLS, FunctionCell, RecurrentCell
from sklyap.spectrum.fingerprint import UnknownValueError, fingerprint, structure


class Scaled(RecurrentCell):
    _gain = 1.0

    def __init__(self, scale, n=3):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = 1, n, n
        self.scale = scale
        self.weight = torch.nn.Parameter(torch.ones(n))

    def step(self, s, x):
        return torch.tanh(self._gain * self.weight * s + x)


class Changed(Scaled):
    def step(self, s, x):
        return super().step(s, x) / 2


def test_cells_of_one_structure_differ_in_weights_only():
    one, other = (as_recurrent_cell(torch.nn.LSTM(3, 4)) for _ in range(2))
    assert structure(one) == structure(other) is not None
    assert fingerprint(one) != fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(other) != fingerprint(one, 1)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_one(name):
    assert structure(CELLS[name](3, 4)) == structure(CELLS[name](3, 4)) != structure(CELLS[name](3, 5))


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2.0),
        ((1, 2), (1, 3)),
        (np.arange(3), np.arange(4)),
        (torch.ones(2), torch.zeros(2)),
        ({"a": 1}, {"a": 2}),
        (torch.tanh, torch.relu),
        (lambda s: s, lambda s: 2 * s),
    ],
)
def test_attributes_count(values):
    one, other = map(Scaled, values)
    assert structure(one) == structure(Scaled(values[0])) is not None
    assert structure(one) != structure(other)


def test_code_and_what_it_refers_to_count(monkeypatch):
    before = structure(Scaled(1.0)), structure(Changed(1.0))
    assert len({*before}) == 2
    monkeypatch.setattr(Scaled, "_gain", 2.0)
    assert structure(Scaled(1.0)) != before[0] and structure(Changed(1.0)) != before[1]
    monkeypatch.undo()
    monkeypatch.setattr(Scaled, "step", lambda self, s, x: s)
    assert structure(Scaled(1.0)) != before[0]


def test_step_functions_differ_by_defaults_and_variables_around_them():
    by_default = [FunctionCell(lambda s, x, rate=rate: rate * s, 2) for rate in (0.5, 0.25)]
    by_closure = [(lambda rate: FunctionCell(lambda s, x: rate * s, 2))(rate) for rate in (0.5, 0.25)]  # noqa: B023
    assert len({*map(structure, by_default + by_closure)} - {None}) == 4


def test_what_has_no_hash_has_no_fingerprint():
    stream = (i for i in range(3))
    assert structure(Scaled(stream)) is None
    with pytest.raises(UnknownValueError, match="the Scaled holds or refers to a generator"):
        fingerprint(Scaled(stream))
    assert structure(Scaled({"stream": stream})) is None
    assert structure(FunctionCell(lambda s, x, stream=stream: s, 2)) is None


@pytest.mark.processes
def test_every_process_and_every_value_of_a_global_has_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys, torch
            from sklyap.cells import FunctionCell
            from sklyap.spectrum.fingerprint import fingerprint
            RATE = float(sys.argv[1])
            def half(s):
                return RATE * s if s.shape[-1] in {1, 2, 3} else s
            print(fingerprint(FunctionCell(lambda s, x: torch.sin(half(s)), 2)))
            """
        )
    )
    run = [
        subprocess.run(
            [sys.executable, str(script), rate],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for rate, seed in (("0.5", "1"), ("0.5", "2"), ("0.25", "1"))
    ]
    assert run[0] == run[1] != run[2] and "None" not in run[0]
