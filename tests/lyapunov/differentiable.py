"""What the tests of differentiable exponents share: small cells, sequences, and central differences."""

import pytest
import torch


def make(kind, n_inputs, hidden_size, options=None, seed=0):
    torch.manual_seed(seed)
    cell = kind(n_inputs, hidden_size, **(options or {})).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return cell


def sequences(n=3, n_steps=14, n_inputs=2, seed=1):
    return torch.randn(n, n_steps, n_inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weighted(exponents):
    """Return a sum of exponents with different weights, so that no two of them can stand in for each other."""
    weights = torch.linspace(1, 2, exponents.numel(), dtype=exponents.dtype).reshape(exponents.shape)
    return (weights * exponents).sum()


def check_directional_derivatives(value, tensors, rtol=1e-6, h=1e-5):
    """Compare the gradient of `value()` with central differences along a random direction of each tensor.

    Differences of fourth order: their own error is below 1e-8 here.
    """
    # Exponents of linear cells do not depend on inputs, those of ReLU networks only through which units are active.
    gradients = torch.autograd.grad(value(), tensors, allow_unused=True, materialize_grads=True)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        direction = torch.randn(tensor.shape, dtype=tensor.dtype, generator=torch.Generator().manual_seed(7))
        expected = 0.0
        with torch.no_grad():
            original = tensor.clone()
            for shift, factor in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
                tensor.copy_(original + shift * h * direction)
                expected += factor * value().item() / (12 * h)
            tensor.copy_(original)
        assert (gradient * direction).sum().item() == pytest.approx(expected, rel=rtol, abs=1e-7)
