"""Steps that users write: computed right, or refused with advice."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.cells import ElmanCell, FunctionCell, RecurrentCell, StackedCell
from sklyap.exceptions import DivergedError, StepError
from sklyap.testing import check_cell

N = 3
W = 1.2 * torch.randn(N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GENERATOR = np.random.default_rng(0)
CALLS = []
BUFFER = torch.zeros(64, N, dtype=torch.float64)


class Spike(torch.autograd.Function):
    """A threshold with a surrogate gradient, in the old style: no forward mode."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return (v > 0).to(v)

    @staticmethod
    def backward(ctx, g):
        return g / (1 + ctx.saved_tensors[0].abs()) ** 2


class Tanh(torch.autograd.Function):
    """Its own derivative, but in reverse mode only."""

    @staticmethod
    def forward(ctx, v):
        ctx.save_for_backward(v)
        return torch.tanh(v)

    @staticmethod
    def backward(ctx, g):
        return g * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2)


def good(s):
    return torch.tanh(s @ W)


def in_place(s, x):
    s *= 0.9
    return good(s)


def in_place_input(s, x):
    x[:, 0] = 0.0
    return good(s) + x


def counting(s, x):
    CALLS.append(1)
    return good(s) * math.sin(len(CALLS))


def into_a_buffer(s, x):
    BUFFER[: len(s)] = good(s)
    return BUFFER[: len(s)]


def branching(s, x):
    return good(s) if s.max() < 10 else s / 2


def scalars(s, x):
    return torch.stack([torch.tensor([math.tanh(float(a)) for a in row]).to(s) for row in s @ W])


def straight_through(s, x):
    return good(s) + (torch.round(10 * s) / 10 - s).detach()


DROPOUT = nn.Sequential(nn.Linear(N, N), nn.Dropout(0.5)).double()
BATCH_NORM = nn.BatchNorm1d(N).double()
LAYER = nn.Linear(N, N)

REFUSED = {
    "float32 weights": (lambda s, x: torch.tanh(s @ W.float()), r"runs in float32 only.*W\.to\(s\).*dtype='float32'"),
    "float32 layer": (lambda s, x: torch.tanh(LAYER(s)), r"runs in float32 only.*torch module"),
    "float32 result": (lambda s, x: good(s).float(), r"in the dtype .* of `s`, torch.float64.*Got torch.float32"),
    "integers": (lambda s, x: s.round().long(), "integers has no exponents"),
    "complex": (lambda s, x: s * torch.exp(1j * s), "pairs of reals.*ModuleCell"),
    "a vector": (lambda s, x: torch.stack([s[1], s[2], torch.sin(s[0])]), r"`s\[..., i\]`.*dim=-1"),
    "stacked along rows": (lambda s, x: torch.stack([s[:, 1], s[:, 2], s[:, 0]]), r"torch.stack\(..., dim=-1\)"),
    "one row": (lambda s, x: good(s[0]), r"Got shape \(3,\)"),
    "a tuple": (lambda s, x: (s, s), "Got tuple.*the state alone"),
    "nothing": (lambda s, x: None, "Got NoneType"),
    "an array": (lambda s, x: np.tanh(s.numpy()), "Got ndarray.*torch operations"),
    "numpy": (lambda s, x: torch.as_tensor(np.tanh(s)), "leaves torch.*torch operations"),
    "numpy, detached": (lambda s, x: torch.as_tensor(np.tanh(s.detach().numpy())), "finite differences.*numpy"),
    "one argument": (lambda s: good(s), "called with the state, the input"),
    "a wrong size": (lambda s, x: s @ torch.ones(4, 4).to(s), "state_size=3"),
    "a mean over rows": (lambda s, x: good(s) + s.mean(), "each row .* on its own.*dim=-1"),
    "a faint mean over rows": (lambda s, x: good(s) + 1e-4 * s.mean(), "each row .* on its own"),
    "softmax over rows": (lambda s, x: torch.softmax(s @ W, 0), "each row .* on its own"),
    "a sum along rows": (lambda s, x: good(s).cumsum(0), "each row .* on its own"),
    "batch statistics": (lambda s, x: BATCH_NORM(good(s)), "evaluation mode"),
    "dropout": (lambda s, x: DROPOUT(s), "same at every call.*evaluation mode"),
    "random numbers": (lambda s, x: good(s) + torch.randn_like(s), "random numbers.*n_noise=k"),
    "an own generator": (lambda s, x: good(s) + GENERATOR.normal(), "same at every call"),
    "rare random numbers": (lambda s, x: good(s) + (random.random() < 1e-9), "random numbers.*n_noise=k"),
    "a counter": (counting, "same at every call.*part of the state"),
    "a buffer": (into_a_buffer, "overwrites.*clone"),
    "in place": (in_place, r"writes into `s`.*s\.clone\(\)"),
    "a branch": (branching, r"torch\.where.*trust='branches'"),
    "item": (lambda s, x: good(s) * math.cos(s[0, 0].item()), "each row .* on its own"),
    "floats": (scalars, "look at values in Python"),
    "detach": (lambda s, x: good(s) * torch.sigmoid(s).detach(), "finite differences.*detach"),
    "a faint detach": (lambda s, x: good(s) * (1 + 1e-3 * torch.sigmoid(s).detach()), "finite differences.*detach"),
    "data": (lambda s, x: good(s) * torch.sigmoid(s.data), "finite differences"),
    "inference mode": (torch.inference_mode()(lambda s, x: good(s)), "finite differences"),
    "straight through": (straight_through, "straight-through.*trust='derivative'"),
    "a surrogate": (lambda s, x: 0.9 * good(s) + Spike.apply(s - 0.1), "surrogate.*trust='derivative'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_advice(name):
    step, message = REFUSED[name]
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with pytest.raises(StepError, match=r"(?s)'step' parameter of FunctionCell must .*" + message):
        lyapunov_spectrum(FunctionCell(step, N), 50)
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[2]
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])


@pytest.mark.parametrize("name", sorted(set(REFUSED) - {"a faint detach"}))
def test_refused_when_driven_by_sequences(name):
    step = REFUSED[name][0]
    with pytest.raises(StepError, match="'step' parameter of FunctionCell must "):
        lyapunov_spectrum(FunctionCell(step, N, n_inputs=N), torch.randn(2, 30, N))


def test_inputs_are_not_written_to():
    x = torch.randn(2, 30, N, dtype=torch.float64)
    before = x.clone()
    with pytest.raises(StepError, match=r"writes into `x`.*x\.clone\(\)"):
        lyapunov_spectrum(FunctionCell(in_place_input, N, n_inputs=N), x)
    assert torch.equal(x, before)
    with pytest.raises(StepError, match="writes into `x`"):
        FunctionCell(in_place_input, N, n_inputs=N).step(before[:, 0], x[:, 0])


def test_a_change_in_place_is_found_at_any_step():
    def step(s, x):
        if float(x.detach()[0, 0]) > 0.5:
            s.mul_(0.9)
        return good(s)

    x = torch.zeros(1, 30, 1)
    x[:, 20] = 1.0
    with pytest.raises(StepError, match="writes into `s`"):
        lyapunov_spectrum(FunctionCell(step, N, n_inputs=1, trust="branches"), x)


def with_assertion(s, x):
    assert bool(torch.isfinite(s).all())
    return good(s)


def allocated(s, x):
    out = torch.zeros(len(s), N, dtype=s.dtype)
    for i in range(N):
        out[:, i] = good(s)[:, i]
    return out


def masked(s, x):
    out = s @ W
    above = out > 0
    out = out.clone()
    out[above] = torch.tanh(out[above])
    out[~above] = torch.tanh(out[~above])
    return out


EXPECTED = lyapunov_spectrum(FunctionCell(lambda s, x: good(s), N), 300).exponents


@pytest.mark.parametrize(
    "step",
    [
        allocated,
        masked,
        lambda s, x: Tanh.apply(s @ W),
        torch.no_grad()(lambda s, x: good(s)),
        lambda s, x: torch.stack([good(row) for row in s]),
        lambda s, x: good(s).contiguous().as_strided(s.shape, (N, 1)),
        torch.compile(lambda s, x: good(s), backend="eager"),
    ],
    ids=["written into zeros", "masked", "reverse mode only", "no_grad", "a loop over rows", "strided", "compiled"],
)
def test_computed_right(step):
    exponents = lyapunov_spectrum(FunctionCell(step, N), 300).exponents
    np.testing.assert_allclose(exponents, EXPECTED, atol=1e-12)


def test_assertions_can_be_trusted():
    with pytest.raises(StepError, match="trust='branches'"):
        lyapunov_spectrum(FunctionCell(with_assertion, N), 300)
    result = lyapunov_spectrum(FunctionCell(with_assertion, N, trust="branches"), 300)
    np.testing.assert_allclose(result.exponents, EXPECTED, atol=1e-12)


def test_surrogate_exponents_can_be_asked_for():
    """Of a linear surrogate the exponents are known: of s / 2 + 0.2 round(s), those of a factor 0.7."""

    def step(s, x):
        return 0.5 * s + 0.2 * (s + (torch.round(s) - s).detach())

    exponents = lyapunov_spectrum(FunctionCell(step, N, trust=("derivative",)), 50).exponents
    np.testing.assert_allclose(exponents, math.log(0.7), atol=1e-12)
    spiking = FunctionCell(lambda s, x: 0.9 * good(s) + Spike.apply(s - 0.1), N, trust="derivative")
    assert np.isfinite(lyapunov_spectrum(spiking, 100).exponents).all()
    with pytest.raises(ValueError, match="'trust' parameter of FunctionCell must be one of 'derivative', 'branches'"):
        FunctionCell(step, N, trust="rows")


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")  # short runs, annihilated directions
@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (lambda s, x: (2 * s) % 1, math.log(2)),
        (lambda s, x: 1 - 1.4 * s.abs(), math.log(1.4)),
        (lambda s, x: torch.ones_like(s), -math.inf),
        (lambda s, x: torch.round(s), -math.inf),
        (lambda s, x: s, 0.0),
        (lambda s, x: torch.tanh((s.float() / 2).to(s)) * 0 + (0.3 * s.float()).to(s), math.log(0.3)),
    ],
    ids=["doubling", "tent", "constant", "rounded", "identity", "float32 inside"],
)
def test_kinks_jumps_and_coarse_arithmetic_are_no_error(step, expected):
    exponents = lyapunov_spectrum(FunctionCell(step, 2), 40, warmup=2).exponents
    np.testing.assert_allclose(exponents, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.DegenerateSpectrumWarning")  # no unit moves
def test_relu_at_rest_is_no_error():
    """At zero every unit sits on its kink."""
    step = FunctionCell(lambda s, x: torch.relu(s @ W + x) @ W.T, N, n_inputs=N)
    assert lyapunov_spectrum(step, torch.zeros(2, 20, N)).n_steps == 15


def test_float32_steps_in_float32():
    result = lyapunov_spectrum(FunctionCell(lambda s, x: torch.tanh(s @ W.float()), N), 300, dtype="float32")
    np.testing.assert_allclose(result.exponents, EXPECTED, atol=1e-2)
    with pytest.raises(StepError, match="finite differences"):
        step = REFUSED["straight through"][0]
        lyapunov_spectrum(FunctionCell(lambda s, x: step(s.double(), x).float(), N), 50, dtype="float32")


def test_not_finite_at_the_start():
    with pytest.raises(DivergedError, match=r"sequence 1 is not finite after its first step. It started from \[-1\]"):
        lyapunov_spectrum(FunctionCell(lambda s, x: torch.sqrt(s), 1, initial_state=[[1.0], [-1.0]]), 20)


def test_missing_n_inputs():
    cell = FunctionCell(lambda s, x: good(s) + x, N)
    with pytest.raises(StepError, match="say how many inputs it takes with n_inputs="):
        lyapunov_spectrum(cell, 20)


@pytest.mark.parametrize(
    ("start", "error", "message"),
    [
        (torch.zeros(3, dtype=torch.complex64), TypeError, "real numbers. Got torch.complex64.*ModuleCell"),
        ([0.0, math.nan, 1.0], ValueError, "must be finite. Got nan"),
        (["a", "b", "c"], TypeError, "array of numbers"),
        (lambda n: torch.randn(n, 3), ValueError, "same at every call.*rows"),
        (lambda n: torch.zeros(n, 2), ValueError, r"shape \(3,\) or \(n, 3\). Got shape \(2, 2\)"),
        (lambda n: torch.zeros(n + 1, 3), ValueError, "has 3 rows, but there are 2 sequences"),
    ],
)
def test_wrong_initial_states(start, error, message):
    with pytest.raises(error, match="(?s)'initial_state' parameter of FunctionCell.*" + message):
        FunctionCell(lambda s, x: good(s), 3, initial_state=start).initial_state(2)


def test_initial_states_of_integers_and_with_gradients():
    for start in ([0, 1, 2], torch.tensor([0.0, 1.0, 2.0], requires_grad=True)):
        state = FunctionCell(lambda s, x: good(s), 3, initial_state=start).initial_state(2)
        assert state.dtype == torch.float64 and state.tolist() == [[0, 1, 2]] * 2
        assert state.requires_grad == getattr(start, "requires_grad", False)


# Noise


def test_noise_is_frozen():
    """Of s' = xi s the exponent is the mean of ln|xi| along the realisation."""
    cell = FunctionCell(lambda s, x, xi: s * xi, 1, n_noise=1, initial_state=[[1.0]] * 3, random_state=5)
    result = lyapunov_spectrum(cell, 400, warmup=0)
    noise = cell.with_noise(400)
    np.testing.assert_allclose(result.per_sequence[:, 0], noise[..., 0].abs().log().mean(1), atol=1e-12)
    assert len(set(result.per_sequence[:, 0])) == 3
    again = lyapunov_spectrum(cell, 400, warmup=0, batch_size=1)
    np.testing.assert_allclose(again.per_sequence, result.per_sequence, atol=1e-13)
    assert torch.equal(cell.with_noise(100), noise[:, :100])
    with pytest.raises(ValueError, match=r"'resume' parameter cannot go on .* noise"):
        lyapunov_spectrum(cell, 400, resume=result)
    other = FunctionCell(lambda s, x, xi: s * xi, 1, n_noise=1, random_state=6)
    assert not torch.equal(other.with_noise(400)[0], noise[0])
    assert abs(float(noise.mean())) < 0.1 and abs(float(noise.std()) - 1) < 0.1


@pytest.mark.parametrize("as_list", [False, True])
def test_noise_beside_inputs(as_list):
    def step(s, x, xi):
        return s * x * xi[..., :1] * xi[..., 1:]

    x = torch.randn(3, 50, 1, dtype=torch.float64)
    cell = FunctionCell(step, 1, n_inputs=1, n_noise=2, initial_state=[1.0])
    sequences = [x[0], x[1, :40], x[2, :30]] if as_list else x
    result = lyapunov_spectrum(cell, sequences, warmup=0)
    for i, (own, noise) in enumerate(zip(sequences, cell.with_noise(sequences), strict=True)):
        assert torch.equal(noise[:, :1], own)
        assert result.per_sequence[i, 0] == pytest.approx(float(noise.abs().log().sum(1).mean()), abs=1e-12)
    packed = nn.utils.rnn.pack_sequence([*x], enforce_sorted=False)
    np.testing.assert_array_equal(
        lyapunov_spectrum(cell, packed, warmup=0).exponents, lyapunov_spectrum(cell, x, warmup=0).exponents
    )
    shortened = lyapunov_spectrum(cell, x, lengths=[50, 40, 30], warmup=0)
    assert shortened.per_sequence[2, 0] == lyapunov_spectrum(cell, [x[0], x[1], x[2, :30]], warmup=0).per_sequence[2, 0]
    with pytest.raises(ValueError, match="must have 1 inputs per step"):
        lyapunov_spectrum(cell, torch.zeros(3, 50, 3))
    with pytest.raises(TypeError, match="driven by noise alone"):
        lyapunov_spectrum(FunctionCell(lambda s, x, xi: s * xi, 1, n_noise=1), x)


def test_contract_with_noise_and_reverse_mode():
    check_cell(FunctionCell(lambda s, x, xi: torch.tanh(s + x + xi), 1, n_inputs=1, n_noise=1))
    check_cell(FunctionCell(lambda s, x: Tanh.apply(s @ W.to(s)) + torch.sin(x) * s, N, n_inputs=1))


# Classes of one's own


class Own(RecurrentCell):
    def __init__(self, change=None):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = N, N, N
        self.weight = nn.Parameter(W.clone())
        self.change = change
        self.register_buffer("count", torch.zeros(()))

    def step(self, s, x):
        s_next = torch.tanh(s @ self.weight + x)
        if self.change == "mean":
            return s_next + s.mean()
        if self.change == "random":
            return s_next + torch.randn_like(s)
        if self.change == "buffer":
            self.count += 1
        return s_next

    def linearize(self, s, x):
        linearization = super().linearize(s, x)
        if self.change == "linearize":
            return (
                linearization.fold(N)[...] if s.ndim < 2 else FunctionCell(lambda s, x: 2 * good(s), N).linearize(s, x)
            )
        return linearization


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("mean", "each row"),
        ("random", "random numbers"),
        ("buffer", "leave weights and buffers alone. Got a step that changes count"),
        ("linearize", "linearization of its own"),
    ],
)
def test_classes_are_looked_at_too(change, message):
    x = torch.randn(2, 20, N)
    assert lyapunov_spectrum(Own(), x).n_steps == 15
    for cell in (Own(change), StackedCell([ElmanCell(N, N), Own(change)])):
        with pytest.raises(StepError, match="'step' method of Own must .*" + message):
            lyapunov_spectrum(cell, x)
