"""Differentiable exponents: their values and their derivatives."""

import math

import numpy as np
import pytest
import torch

from sklyap import finite_time_exponents, lyapunov_spectrum
from sklyap.cells import (
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
from tests.lyapunov.differentiable import check_directional_derivatives, make, sequences, weighted

pytestmark = pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")  # short runs settle no sign

VARIANTS = [
    (ElmanCell, {}),
    (ElmanCell, {"bias": False}),
    (GRUCell, {}),
    (LSTMCell, {}),
    (AntisymmetricCell, {}),
    (AntisymmetricCell, {"gating": False, "epsilon": 0.5, "gamma": 0.2}),
    (CoRNNCell, {}),
    (CoRNNCell, {"damping": "implicit", "dt": 0.3}),
    (LipschitzCell, {}),
    (LEMCell, {}),
    (LEMCell, {"dt": 0.4, "bias": False}),
    (OrthogonalCell, {}),
    (OrthogonalCell, {"nonlinearity": "identity", "bias": False}),
]
variants = pytest.mark.parametrize(
    ("kind", "options"), VARIANTS, ids=lambda v: v.__name__ if isinstance(v, type) else ",".join(map(str, v.values()))
)


@variants
@pytest.mark.parametrize("state", ["full", "hidden"])
@pytest.mark.parametrize("k", [None, 2])
def test_values_are_those_of_the_spectrum(kind, options, state, k):
    cell, x = make(kind, 2, 5, options), sequences(n_steps=40)
    for warmup in (0, 7):
        found = finite_time_exponents(cell, x, n_exponents=k, state=state, warmup=warmup)
        result = lyapunov_spectrum(cell, x, n_exponents=k, state=state, warmup=warmup)
        np.testing.assert_allclose(found.detach(), result.per_sequence, rtol=1e-12, atol=1e-12)


def test_values_without_gradients_are_the_same():
    cell, x = make(GRUCell, 2, 5), sequences(n_steps=150)
    with torch.no_grad():
        plain = finite_time_exponents(cell, x)
    assert torch.equal(plain, finite_time_exponents(cell, x).detach())


def test_values_of_another_start_and_precision():
    cell, x = make(GRUCell, 2, 5), sequences()
    found = finite_time_exponents(cell, x, random_state=3)
    np.testing.assert_allclose(
        found.detach(), lyapunov_spectrum(cell, x, random_state=3, warmup=0).per_sequence, atol=1e-12
    )
    single = finite_time_exponents(cell, x, random_state=3, dtype="float32")
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), found, rtol=0, atol=1e-4)


def test_sequences_of_unequal_length():
    cell = make(ElmanCell, 2, 4)
    x = [sequences(1, n, seed=n)[0] for n in (9, 14, 9, 20)]
    found = finite_time_exponents(cell, x)
    expected = lyapunov_spectrum(cell, x, warmup=0).per_sequence
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)
    check_directional_derivatives(lambda: weighted(finite_time_exponents(cell, x)), list(cell.parameters()))


# Derivatives


@variants
def test_gradient_against_central_differences(kind, options):
    cell, x = make(kind, 2, 4, options), sequences()
    check_directional_derivatives(lambda: weighted(finite_time_exponents(cell, x)), list(cell.parameters()))
    check_directional_derivatives(
        lambda: weighted(finite_time_exponents(cell, x, n_exponents=1, warmup=4)), list(cell.parameters())
    )


@variants
def test_gradient_of_two_layers(kind, options):
    cell, x = StackedCell([make(kind, 2, 3, options), make(kind, 3, 2, options, seed=1)]), sequences()
    check_directional_derivatives(
        lambda: weighted(finite_time_exponents(cell, x, n_exponents=3)), list(cell.parameters())
    )


@pytest.mark.parametrize("kind", [LSTMCell, CoRNNCell, LEMCell])
def test_gradient_of_the_hidden_variant(kind):
    cell, x = make(kind, 2, 4), sequences()
    check_directional_derivatives(
        lambda: weighted(finite_time_exponents(cell, x, state="hidden")), list(cell.parameters())
    )


@pytest.mark.parametrize("kind", [OrthogonalCell, ElmanCell])
def test_gradient_with_annihilated_directions(kind):
    """A ReLU network loses directions: their exponents are -inf, and the others keep their derivative."""
    cell, x = make(kind, 2, 5, {"nonlinearity": "relu"}), sequences()

    def value():
        exponents = finite_time_exponents(cell, x)
        return weighted(torch.where(exponents.isfinite(), exponents, 0.0))

    exponents = finite_time_exponents(cell, x)
    np.testing.assert_array_equal(
        exponents.detach().isneginf(), np.isneginf(lyapunov_spectrum(cell, x, warmup=0).per_sequence)
    )
    assert exponents.isneginf().any() and exponents.isfinite().any()
    check_directional_derivatives(value, list(cell.parameters()))


def test_gradient_does_not_depend_on_where_segments_end():
    cell, x = make(GRUCell, 2, 4), sequences(2, 200)
    gradients = []
    for steps in (7, 64, 200):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sklyap.lyapunov.differentiable._SEGMENT_STEPS", steps)
            value = weighted(finite_time_exponents(cell, x, warmup=50))
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(cell.parameters()))]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-9, atol=1e-12)


def test_scaled_rotation():
    """The exponents of g Q are ln g, all equal: each has the derivative 1/g, to the last digit."""
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    for value in (0.3, 1.0, 1.7):
        g = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        exponents = finite_time_exponents(FunctionCell(lambda s, x, g=g: g * s @ rotation.mT, 6), 30)
        torch.testing.assert_close(exponents, torch.full_like(exponents, math.log(value)), rtol=0, atol=1e-13)
        for exponent in exponents.flatten():
            (gradient,) = torch.autograd.grad(exponent, g, retain_graph=True)
            assert gradient.item() == pytest.approx(1 / value, rel=1e-13)


@variants
def test_gradient_of_the_sum_is_that_of_the_determinant(kind, options):
    cell, x = make(kind, 2, 4, options), sequences()
    states = cell.trajectory(cell.initial_state(len(x)), x)
    jacobians = cell.linearize(states[:-1], x.transpose(0, 1)).dense()
    expected = torch.linalg.slogdet(jacobians)[1].mean()
    found = finite_time_exponents(cell, x).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    parameters = list(cell.parameters())
    options = {"allow_unused": True, "materialize_grads": True}
    gradients = (torch.autograd.grad(value, parameters, **options) for value in (found, expected))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * max(b.abs().max().item(), 1e-3))


def test_a_second_derivative_is_refused():
    cell = make(ElmanCell, 2, 4)
    value = finite_time_exponents(cell, sequences()).sum()
    (gradient,) = torch.autograd.grad(value, cell.weight_hh, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative is not implemented"):
        gradient.sum().backward()
