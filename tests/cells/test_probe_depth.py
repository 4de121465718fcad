"""How far the look at a step goes: small errors of a derivative, and what shows late in a run."""

import numpy as np
import pytest
import torch

from sklyap import covariant_lyapunov_vectors, finite_time_exponents, lyapunov_spectrum
from sklyap.cells import FlowCell, FunctionCell
from sklyap.exceptions import StepError

# Whether exponents have settled does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
N = 4


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


W = draw(N, N) / 2


def good(s, x=None):
    return torch.tanh(s @ W.to(s).T + (0.1 if x is None else x))


@pytest.mark.parametrize("share", [1e-4, 1e-6, 1e-7])
def test_a_derivative_with_a_small_part_cut(share):
    cell = FunctionCell(lambda s, x: good(s, x) + share * s.detach(), N, n_inputs=N)
    with pytest.raises(StepError, match="have the derivative of what it computes"):
        lyapunov_spectrum(cell, draw(3, 30, N))


@pytest.mark.parametrize("from_step", [20, 100, 500])
def test_a_derivative_that_is_cut_late(from_step):
    def step(s, x):
        h, t = s[..., :N], s[..., N:]
        h = good(h, x)
        return torch.cat([torch.where(t >= from_step, h.detach(), h), t + 1], -1)

    with pytest.raises(StepError, match="have the derivative of what it computes"):
        lyapunov_spectrum(FunctionCell(step, N + 1, n_inputs=N), draw(3, 700, N))


@pytest.mark.parametrize("function", [covariant_lyapunov_vectors, finite_time_exponents])
def test_other_analyses_look_as_far(function):
    def step(s, x):
        h, t = s[..., :N], s[..., N:]
        h = good(h, x)
        return torch.cat([torch.where(t >= 100, h.detach(), h), t + 1], -1)

    with pytest.raises(StepError, match="have the derivative of what it computes"):
        function(FunctionCell(step, N + 1, n_inputs=N), draw(3, 300, N))


def test_a_step_that_counts_its_calls():
    calls = []

    def step(s, x):
        calls.append(1)
        return good(s, x) * (0.5 if len(calls) > 300 else 1.0)

    with pytest.raises(StepError, match="same at every call with the same arguments"):
        lyapunov_spectrum(FunctionCell(step, N, n_inputs=N), draw(3, 400, N))


@pytest.mark.parametrize(
    "step",
    [
        lambda s, x: torch.relu(s @ W.T + x),
        lambda s, x: (s @ W.T + x).abs(),
        lambda s, x: (3 * s + x) % 1,
        lambda s, x: torch.sort(good(s, x), -1).values,
        lambda s, x: torch.where(s > 0, good(s, x), 0.5 * good(s, x)),
        lambda s, x: 30 * torch.sin(30 * s) + x,
        lambda s, x: torch.linalg.matrix_exp(0.1 * s.unsqueeze(-1) * W).sum(-1) + x,
        lambda s, x: good(s, x).float().double() * 0 + good(s, x),
        lambda s, x: 1e8 + good(s - 1e8, x),
        lambda s, x: 1e-9 * good(1e9 * s, x),
    ],
)
def test_steps_with_kinks_and_large_numbers_are_let_pass(step):
    lyapunov_spectrum(FunctionCell(step, N, n_inputs=N), draw(3, 300, N), resumable=False)


def test_adaptive_solvers_are_let_pass():
    pytest.importorskip("torchdiffeq")

    def field(s, x):
        a, b = s.unbind(-1)
        return torch.stack([b, 2 * (1 - a**2) * b - a], -1)

    lyapunov_spectrum(FlowCell(field, 2, dt=0.2, method="dopri5", initial_state=[1.0, 0.0]), 150)


def test_the_number_of_inputs_is_that_of_the_sequences():
    x = draw(3, 40, N)
    expected = lyapunov_spectrum(FunctionCell(good, N, n_inputs=N), x).exponents
    cell = FunctionCell(good, N)
    np.testing.assert_array_equal(lyapunov_spectrum(cell, x).exponents, expected)
    assert cell.n_inputs is None
    as_list = lyapunov_spectrum(cell, [x[0], x[1, :30]])
    np.testing.assert_array_equal(as_list.exponents, lyapunov_spectrum(FunctionCell(good, N, n_inputs=N),
                                                                       [x[0], x[1, :30]]).exponents)  # fmt: skip


def test_an_autonomous_step_is_not_driven_by_sequences():
    with pytest.raises(TypeError, match="number of steps for an autonomous system"):
        lyapunov_spectrum(FunctionCell(lambda s, x: good(s), N), draw(3, 40, N))
