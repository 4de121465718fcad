"""check_cell passes what keeps the contract and finds what breaks it."""

import threading

import pytest
import torch
from torch import nn

from sklyap.cells import (
    RecurrentCell,
)
from sklyap.cells.base import DenseLinearization
from sklyap.cells.gated import sech2
from sklyap.testing import check_cell


class Plain(RecurrentCell):
    """A correct cell with state (h, m), output h; the broken ones below change one thing."""

    def __init__(self):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = 2, 6, 3
        torch.manual_seed(0)
        self.U = nn.Parameter(torch.randn(6, 6) / 2)
        self.W = nn.Parameter(torch.randn(6, 2) / 2)

    def step(self, s, x):
        return torch.tanh(s @ self.U.T + x @ self.W.T)

    def linearize(self, s, x):
        slope = sech2(s @ self.U.T + x @ self.W.T).unsqueeze(-1)
        return DenseLinearization(slope * self.U, slope * self.W)


class Transposed(Plain):
    def linearize(self, s, x):
        return DenseLinearization(super().linearize(s, x).dense().mT, super().linearize(s, x).input_jacobian)


class WrongInput(Plain):
    def linearize(self, s, x):
        right = super().linearize(s, x)
        return DenseLinearization(right.jacobian, 1.001 * right.input_jacobian)


class WrongFold(Plain):
    class Linearized(DenseLinearization):
        def fold(self, k, *, inputs=True):
            return DenseLinearization(self.jacobian.tril(), self.input_jacobian)

    def linearize(self, s, x):
        right = super().linearize(s, x)
        return self.Linearized(right.jacobian, right.input_jacobian)


class WrongHidden(Plain):
    def hidden_linearization(self, s, x):
        right = super().linearize(s, x)
        return DenseLinearization(right.jacobian[..., 3:, 3:], right.input_jacobian[..., 3:, :])


class ChangesItsArgument(Plain):
    def step(self, s, x):
        return s.add_(x.sum(-1, keepdim=True)).tanh()


class Noisy(Plain):
    def step(self, s, x):
        return super().step(s, x) + 1e-3 * torch.randn_like(s)


class OneAxisOnly(Plain):
    def step(self, s, x):
        return torch.tanh(torch.einsum("nj,ij->ni", s, self.U) + x @ self.W.T)


class MixesSequences(Plain):
    def step(self, s, x):
        return super().step(s - s.mean(0), x)


class ForgetsItsDtype(Plain):
    def initial_state(self, n):
        return torch.zeros(n, 6, dtype=torch.float32)


class TrailingOutput(Plain):
    def output(self, s):
        return s[..., 3:]


class Detached(Plain):
    def step(self, s, x):
        return super().step(s, x).detach()


class Explodes(Plain):
    def step(self, s, x):
        return super().step(s, x) / 0.0


class WrongShape(Plain):
    def step(self, s, x):
        return super().step(s, x)[..., :3]


class WrongTrajectory(Plain):
    def trajectory(self, s, x):
        return super().trajectory(s, x) + 1e-6


class Locked(Plain):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class OutputTooWide(Plain):
    def __init__(self):
        super().__init__()
        self.output_size = 7


class Untrainable(Plain):
    def step(self, s, x):
        return torch.tanh(s @ self.U.detach().T + x @ self.W.detach().T)


BROKEN = {
    Transposed: "push, against reverse mode",
    WrongInput: r"linearize.push with tangents of the input is off by",
    WrongFold: r"linearize.fold\(1\).push along a trajectory is off",
    WrongHidden: "hidden_linearization.push along a trajectory is off",
    ChangesItsArgument: "step must not change its arguments",
    Noisy: "step must return the same at every call",
    OneAxisOnly: "step must work on a trajectory, with leading axes",
    MixesSequences: "step on a trajectory, with leading axes .* is off",
    ForgetsItsDtype: r"initial_state must follow cell.to\(dtype\)",
    TrailingOutput: "the Jacobian of a StackedCell with a layer on top is off",
    Detached: "step must be differentiable",
    Explodes: "step must return finite states, but not at step 0",
    WrongShape: r"step must return shape \(3, 6\)",
    WrongTrajectory: "trajectory is off by",
    Locked: "copy.deepcopy must copy the cell, but it raises",
    OutputTooWide: "output_size must not exceed state_size",
    Untrainable: "the outputs must depend on the parameters",
}


def test_a_correct_cell_passes():
    check_cell(Plain())


@pytest.mark.parametrize("kind", BROKEN, ids=lambda kind: kind.__name__)
def test_check_cell_finds(kind):
    with pytest.raises(AssertionError, match=BROKEN[kind]):
        check_cell(kind())


def test_check_cell_leaves_the_cell_and_chance_alone():
    cell = Plain().train()
    before, state = {name: p.clone() for name, p in cell.named_parameters()}, torch.get_rng_state()
    check_cell(cell)
    assert cell.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], p) and p.grad is None for name, p in cell.named_parameters())
