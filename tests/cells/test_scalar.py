"""Steps that are written out on Python's numbers are those of torch, to rounding, or are left to torch."""

import math

import numpy as np
import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import FlowCell, FunctionCell
from sklyap.cells.scalar import scalar_trajectory
from sklyap.datasets import systems

# Whether exponents have settled does not matter here.
pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.ConvergenceWarning")

SYSTEMS = {
    "henon": lambda: systems.henon().cell,
    "ikeda": lambda: systems.ikeda().cell,
    "lorenz": lambda: systems.lorenz().cell,
    "rossler": lambda: systems.rossler().cell,
    "tanh map": lambda: systems.tanh_map(n_units=5).cell,
}


def pendulum(s, x):
    a, b = s[..., 0], s[..., 1]
    return torch.stack([b, -torch.sin(a) - 0.1 * b + 0.3 * torch.relu(a).clamp(max=1.0)], -1)


def mixed(s, x):
    a, b, c = torch.split(s, 1, -1)
    low = torch.where(a > 0.2, a**2, -a / 3)
    return torch.cat([low + b.abs().sqrt() - 0.5, torch.cos(c) * 2**0.5, (a * s.sum(-1, keepdim=True)).tanh()], -1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_known_systems(name):
    cell = SYSTEMS[name]()
    s = cell.initial_state(1).double()
    run = scalar_trajectory(cell, s)
    assert run is not None
    torch.testing.assert_close(run(s, 30), cell.trajectory(s, 30), rtol=0, atol=1e-11)
    assert run(s, 30).shape == cell.trajectory(s, 30).shape


def test_operations_of_users():
    cell = FunctionCell(mixed, 3, initial_state=[0.3, 0.1, 0.2])
    s = cell.initial_state(1)
    run = scalar_trajectory(cell, s)
    assert run is not None
    torch.testing.assert_close(run(s, 20), cell.trajectory(s, 20), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "step",
    [
        lambda s, x: torch.linalg.matrix_exp(0.1 * torch.diag_embed(s)).sum(-1) - 1,
        lambda s, x: s.clone().mul_(0.5),
        lambda s, x: torch.as_tensor(np.tanh(s.numpy())),
        lambda s, x: 0.5 * s if float(s[0, 0]) > 0.01 else -0.5 * s,
        lambda s, x: (
            torch.tanh(s @ torch.ones(80, 80, dtype=s.dtype) / 100) if s.shape[-1] == 80 else s.sort(-1).values
        ),
    ],
)
def test_what_is_not_known_is_left_to_torch(step):
    cell = FunctionCell(step, 3, trust=("branches", "derivative"))
    run = scalar_trajectory(cell, torch.full((1, 3), 0.1, dtype=torch.float64))
    assert run is None


def test_large_steps_are_left_to_torch():
    W = torch.randn(80, 80, dtype=torch.float64) / 9
    cell = FunctionCell(lambda s, x: torch.tanh(s @ W.T), 80)
    assert scalar_trajectory(cell, cell.initial_state(1)) is None


def test_one_orbit_whichever_way_it_is_run(monkeypatch):
    """Where the dynamics contract, rounding is forgotten, and both ways give one spectrum."""
    cell = FlowCell(pendulum, 2, dt=0.1, initial_state=[1.0, 0.5])
    fast = lyapunov_spectrum(cell, 3000)
    monkeypatch.setattr("sklyap.tangent.iteration.scalar_trajectory", lambda cell, s: None)
    monkeypatch.setattr("sklyap.tangent.blocks.is_small", lambda Q: False)
    slow = lyapunov_spectrum(cell, 3000)
    np.testing.assert_allclose(fast.exponents, slow.exponents, rtol=0, atol=1e-9)
    np.testing.assert_allclose(fast.standard_error, slow.standard_error, rtol=0.5, atol=1e-9)


def test_what_leaves_pythons_numbers_goes_back_to_torch():
    """A division by zero is an error of Python's, and infinity in torch."""
    cell = FunctionCell(lambda s, x: 0.01 / (s - 2.0) + s + 0.125, 1, initial_state=[-3.0])
    s = torch.tensor([[-3.0]], dtype=torch.float64)
    run = scalar_trajectory(cell, s)
    assert run is not None
    s = torch.tensor([[2.0]], dtype=torch.float64)
    torch.testing.assert_close(run(s, 6), cell.trajectory(s, 6), equal_nan=True)


def test_a_full_spectrum_sums_to_the_log_determinant():
    result = lyapunov_spectrum(systems.henon().cell, 20_000)
    assert result.exponents.sum() == pytest.approx(np.log(0.3), abs=1e-11)
    assert abs(result.exponents[0] - 0.4192) < 4 * result.standard_error[0]
    lorenz = lyapunov_spectrum(systems.lorenz().cell, 20_000)
    assert abs(lorenz.per_time().exponents[0] - 0.9056) < 4 * lorenz.per_time().standard_error[0]


def test_directions_that_are_annihilated_are_found():
    cell = FunctionCell(lambda s, x: torch.stack([3.9 * s[..., 0] * (1 - s[..., 0]), 0 * s[..., 1]], -1), 2,
                        initial_state=[0.3, 0.1])  # fmt: skip
    with pytest.warns(UserWarning, match="annihilated"):
        result = lyapunov_spectrum(cell, 3000)
    assert np.isneginf(result.exponents[1]) and result.exponents[0] == pytest.approx(0.49, abs=0.03)


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")
@pytest.mark.parametrize("look", [lambda row: row.tolist()[0], lambda row: row.numpy()[0]], ids=["tolist", "numpy"])
def test_a_branch_that_torch_does_not_see_is_followed(look):
    """It is taken for the first time after eleven steps, when the step has long been written out."""

    def step(s, x):
        return torch.stack([0.51 * row + 0.1 if look(row.detach()) > 2 else 1.5 * row + 0.05 for row in s])

    s, growth = 0.01, []
    for _ in range(2000):
        growth.append(math.log(0.51 if s > 2 else 1.5))
        s = 0.51 * s + 0.1 if s > 2 else 1.5 * s + 0.05
    found = lyapunov_spectrum(FunctionCell(step, 1, initial_state=np.array([0.01])), 2000, warmup=20).exponents
    np.testing.assert_allclose(found, np.mean(growth[20:]), rtol=1e-9)
