"""What the tests of cells share: every architecture with its options, and a derivative by reverse mode."""

import numpy as np
import pytest
import torch

from sklyap.cells import (
    AntisymmetricCell,
    CoRNNCell,
    ElmanCell,
    GRUCell,
    LayerNormLSTMCell,
    LeakyCell,
    LEMCell,
    LipschitzCell,
    LRUCell,
    LSTMCell,
    LTCCell,
    MGUCell,
    MinGRUCell,
    OrthogonalCell,
    PLRNNCell,
    RateCell,
)

# Every architecture with every option that changes its equations.
VARIANTS = [
    (ElmanCell, {}),
    (ElmanCell, {"nonlinearity": "relu"}),
    (ElmanCell, {"bias": False}),
    (GRUCell, {}),
    (GRUCell, {"bias": False}),
    (LSTMCell, {}),
    (LSTMCell, {"bias": False}),
    (AntisymmetricCell, {}),
    (AntisymmetricCell, {"gating": False, "epsilon": 0.5, "gamma": 0.2}),
    (AntisymmetricCell, {"bias": False}),
    (CoRNNCell, {}),
    (CoRNNCell, {"damping": "implicit", "dt": 0.3}),
    (CoRNNCell, {"bias": False}),
    (LipschitzCell, {}),
    (LipschitzCell, {"beta": (0.6, 0.9), "gamma": (0.1, 0.3), "epsilon": 0.2, "bias": False}),
    (LEMCell, {}),
    (LEMCell, {"dt": 0.4, "bias": False}),
    (OrthogonalCell, {}),
    (OrthogonalCell, {"nonlinearity": "relu"}),
    (OrthogonalCell, {"nonlinearity": "modrelu"}),
    (OrthogonalCell, {"nonlinearity": "identity", "bias": False}),
    (LeakyCell, {}),
    (LeakyCell, {"leak": 0.3, "nonlinearity": "identity", "bias": False}),
    (RateCell, {}),
    (RateCell, {"dt": 1.0, "nonlinearity": "relu", "bias": False}),
    (PLRNNCell, {}),
    (PLRNNCell, {"n_bases": 3, "bias": False}),
    (LayerNormLSTMCell, {}),
    (LayerNormLSTMCell, {"bias": False}),
    (MGUCell, {}),
    (MGUCell, {"bias": False}),
    (MinGRUCell, {}),
    (MinGRUCell, {"bias": False}),
    (LRUCell, {}),
    (LTCCell, {}),
    (LTCCell, {"dt": 2.0, "bias": False}),
]


variants = pytest.mark.parametrize(
    ("kind", "options"), VARIANTS, ids=lambda v: v.__name__ if isinstance(v, type) else ",".join(map(str, v.values()))
)


def make(kind, n_inputs, hidden_size, options=None, seed=0):
    """Return a cell in float64 whose parameters, biases included, are all away from zero."""
    torch.manual_seed(seed)
    cell = kind(n_inputs, hidden_size, **(options or {})).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return cell


def reverse_mode(cell, s, x):
    """Return ∂f/∂s at one point (N,), (n_inputs,) by reverse mode."""
    return torch.autograd.functional.jacobian(lambda s: cell.step(s, x), s)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def both_steps(cell, seed=1):
    """Return numpy arrays s, x, the next state by the cell, and its parameters by name."""
    generator = torch.Generator().manual_seed(seed)
    s = torch.randn(cell.state_size, generator=generator, dtype=torch.float64)
    x = torch.randn(cell.n_inputs, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        after = cell.step(s, x).numpy()
    return s.numpy(), x.numpy(), after, {name: p.detach().numpy() for name, p in cell.named_parameters()}


def with_parameters(cell, value=0.0):
    cell = cell.double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(value)
    return cell
