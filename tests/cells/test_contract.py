"""Every cell keeps the contract; users' own steps; the registry and the documentation."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import (
    CELLS,
    AntisymmetricCell,
    CoRNNCell,
    ElmanCell,
    FunctionCell,
    GRUCell,
    LEMCell,
    LipschitzCell,
    LSTMCell,
    OrthogonalCell,
    StackedCell,
)
from sklyap.cells.base import DenseLinearization, JvpLinearization
from sklyap.testing import check_cell
from tests.cells.helpers import VARIANTS, make, variants


@variants
def test_contract(kind, options):
    check_cell(make(kind, 3, 5, options))
    check_cell(make(kind, 3, 5, options), dtype="float32")


@variants
def test_contract_of_two_layers(kind, options):
    below = make(kind, 2, 4, options)
    above = make(kind, below.output_size, 3, options, seed=1)
    check_cell(StackedCell([below, above]))
    check_cell(StackedCell([below, above]), dtype="float32")


@pytest.mark.parametrize(
    "kinds",
    [
        (LSTMCell, GRUCell, CoRNNCell),
        (LEMCell, AntisymmetricCell, LSTMCell),
        (CoRNNCell, OrthogonalCell, LipschitzCell),
    ],
)
def test_contract_of_mixed_layers(kinds):
    check_cell(StackedCell([make(kind, width, width + 1) for width, kind in enumerate(kinds, 2)]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    variant=st.sampled_from(VARIANTS),
    n_inputs=st.integers(1, 6),
    hidden_size=st.integers(1, 9),
    n_steps=st.integers(2, 5),
    n_sequences=st.integers(1, 4),
)
def test_contract_for_random_shapes(variant, n_inputs, hidden_size, n_steps, n_sequences):
    kind, options = variant
    check_cell(make(kind, n_inputs, hidden_size, options), n_sequences=n_sequences, n_steps=n_steps)


def test_contract_at_saturated_gates():
    for kind in CELLS.values():
        cell = make(kind, 3, 5)
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.mul_(10)
        check_cell(cell)


def test_nested_stacks_are_one_stack():
    inner = StackedCell([ElmanCell(2, 3), GRUCell(3, 4)])
    assert len(StackedCell([inner, LSTMCell(4, 5)]).cells) == 3
    with pytest.raises(ValueError, match="a cell with 3 outputs is followed by one with 4 inputs"):
        StackedCell([ElmanCell(2, 3), GRUCell(4, 4)])


def henon(s, x):
    return torch.stack([1 - 1.4 * s[:, 0] ** 2 + s[:, 1], 0.3 * s[:, 0]], -1)


class Pull(nn.Module):
    """A step with weights: s' = tanh(W s + x)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, s, x):
        return torch.tanh(self.linear(s) + x.sum(-1, keepdim=True))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "cell",
    [
        FunctionCell(henon, 2),
        FunctionCell(henon, 2, initial_state=[0.1, 0.2]),
        FunctionCell(henon, 2, initial_state=lambda n: torch.linspace(0, 0.2, n).unsqueeze(-1)),
        FunctionCell(lambda s, x: torch.sin(s) + x.mean(-1, keepdim=True), 4, n_inputs=2),
        FunctionCell(Pull(), 3, n_inputs=2, output_size=2),
    ],
    ids=["autonomous", "one start", "starts by a function", "driven", "a module"],
)
def test_contract_of_functions(cell, dtype):
    check_cell(cell, dtype=dtype)


def test_function_with_rows_of_initial_states():
    starts = [[0.1, 0.2], [0.3, -0.1], [0.0, 0.0], [0.2, 0.2]]
    cell = FunctionCell(henon, 2, initial_state=starts)
    check_cell(cell)
    np.testing.assert_array_equal(cell.initial_state(4), starts)
    assert lyapunov_spectrum(cell, 3000).per_sequence.shape == (4, 2)
    with pytest.raises(ValueError, match="has 4 rows, but there are 2 sequences"):
        cell.initial_state(2)


def test_function_takes_many_tangents_as_one_matrix():
    cell = FunctionCell(lambda s, x: torch.tanh(s), 80)
    linearization = cell.linearize(torch.randn(2, 80), None)
    assert isinstance(linearization, JvpLinearization)
    assert isinstance(linearization.fold(2), JvpLinearization)
    assert isinstance(linearization.fold(80), DenseLinearization)


@pytest.mark.parametrize(
    ("make_cell", "error", "message"),
    [
        (lambda: FunctionCell("henon", 2), TypeError, "'step' parameter of FunctionCell must be callable"),
        (lambda: FunctionCell(henon, 0), ValueError, "'state_size' parameter of FunctionCell"),
        (lambda: FunctionCell(henon, 2, n_inputs=0), ValueError, "'n_inputs' parameter of FunctionCell"),
        (lambda: FunctionCell(henon, 2, output_size=3), ValueError, "'output_size' parameter of FunctionCell"),
        (lambda: FunctionCell(henon, 2, initial_state=[1.0]), ValueError, r"must have shape \(2,\) or \(n, 2\)"),
        (
            lambda: FunctionCell(lambda s, x: s[:, 0], 2).step(torch.zeros(3, 2), None),
            ValueError,
            r"must return the next state, a tensor of shape \(3, 2\) as `s` has. Got shape \(3,\)",
        ),
        (
            lambda: FunctionCell(lambda s, x: (s, s), 2).step(torch.zeros(3, 2), None),
            ValueError,
            "Got tuple instead",
        ),
    ],
)
def test_wrong_functions(make_cell, error, message):
    with pytest.raises(error, match=message):
        make_cell()


@pytest.mark.parametrize("name", CELLS)
def test_every_registered_cell_keeps_the_contract_as_initialized(name):
    torch.manual_seed(0)
    cell = CELLS[name](3, 4)
    check_cell(cell)
    check_cell(StackedCell([cell, CELLS[name](cell.output_size, 4)]))


def test_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs" / "cells.md").read_text()
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, "docs/cells.md", "exec"), names)
    assert names["result"].exponents == pytest.approx([0.51, -0.72], abs=0.05)
    slow, fast = names["LeakyCell"](2, 4).double(), names["FastLeakyCell"](2, 4).double()
    fast.load_state_dict(
        {"weight_ih": slow.weight_ih.weight, "weight_hh": slow.weight_hh.weight, "bias_ih": slow.weight_ih.bias}
    )
    x = torch.randn(2, 30, 2, dtype=torch.float64)
    expected = lyapunov_spectrum(slow, x).exponents
    np.testing.assert_allclose(lyapunov_spectrum(fast, x).exponents, expected, rtol=0, atol=1e-12)
    assert names["spectrum"].exponents.shape == (8,)
    for name, kind in CELLS.items():
        assert f'`"{name}"`' in text and f"`{kind.__name__}`" in text
