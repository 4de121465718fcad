"""What drives a network, and what comes back."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from sklyap import lyapunov_spectrum
from sklyap.datasets import systems
from sklyap.lyapunov import LyapunovResult
from tests.lyapunov.helpers import dense_jacobians, inputs, network, quiet, torch_step


def test_sequences_of_unequal_length_are_averaged_each_over_its_own_steps():
    layer, X, lengths = network("gru"), inputs(5, 50), [20, 50, 35, 20, 41]
    ragged = quiet(layer, [x[:n] for x, n in zip(X, lengths, strict=True)], warmup=6, return_local=True)
    for i, n in enumerate(lengths):
        alone = quiet(layer, X[:, :n], warmup=6, qr_interval=1)
        np.testing.assert_allclose(np.sort(ragged.per_sequence[i]), np.sort(alone.per_sequence[i]), rtol=0, atol=1e-12)
        assert np.isnan(ragged.local[i, n - 6 :]).all() and np.isfinite(ragged.local[i, : n - 6]).all()
    np.testing.assert_allclose(ragged.exponents, ragged.per_sequence.mean(0), rtol=0, atol=1e-15)
    assert ragged.n_steps == 44


@pytest.mark.parametrize("lengths", [[40] * 5, [40, 25, 40, 33, 18]])
def test_batch_size_changes_nothing(lengths):
    layer, X = network("lstm"), inputs(5, 40)
    X = [x[:n] for x, n in zip(X, lengths, strict=True)]
    whole = quiet(layer, X, qr_interval=1, return_local=True)
    for size in (1, 2, 4, 99):
        parts = quiet(layer, X, qr_interval=1, return_local=True, batch_size=size)
        np.testing.assert_allclose(parts.per_sequence, whole.per_sequence, rtol=0, atol=1e-12)
        np.testing.assert_allclose(parts.standard_error, whole.standard_error, rtol=1e-6)
        np.testing.assert_allclose(parts.local, whole.local, rtol=0, atol=1e-9)
    assert quiet(layer, X, batch_size=2).exponents == pytest.approx(quiet(layer, X).exponents, abs=1e-7)


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"qr_interval": 7}])
def test_progress_counts_every_step_of_every_sequence(options):
    layer, X = network("gru"), [x[:n] for x, n in zip(inputs(3, 200), [200, 31, 90], strict=True)]
    done = []
    result = quiet(layer, X, progress=done.append, **options)
    assert sum(done) == 321 and len(done) > 2
    np.testing.assert_array_equal(result.exponents, quiet(layer, X, **options).exponents)


def test_autonomous_ensembles_have_a_sequence_for_each_start():
    ensemble, single = systems.henon(n_starts=3), systems.henon()
    many, one = (lyapunov_spectrum(system.cell, 400) for system in (ensemble, single))
    assert many.per_sequence.shape == (3, 2) and one.per_sequence.shape == (1, 2)
    # A chaotic trajectory, but bit by bit the same.
    np.testing.assert_allclose(many.per_sequence[0], one.exponents, rtol=0, atol=1e-9)
    assert np.unique(many.per_sequence[:, 0]).size == 3


def test_warmup_is_not_averaged():
    layer, X = network("gru"), inputs()
    whole = quiet(layer, X, warmup=0, return_local=True)
    late = quiet(layer, X, warmup=25, return_local=True)
    assert (whole.n_steps, late.n_steps, late.warmup) == (60, 35, 25)
    np.testing.assert_allclose(np.sort(late.exponents), np.sort(whole.local[:, 25:].mean((0, 1))), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_steps,warmup", [(1, 0), (2, 0), (4, 1), (8, 2), (28, 7), (100, 10), (3000, 300)])
def test_automatic_warmup(n_steps, warmup):
    result = quiet(systems.orthogonal_map(2).cell, n_steps)
    assert (result.warmup, result.n_steps) == (warmup, n_steps - warmup)


class TokenNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(11, 3), nn.GRU(3, 6, batch_first=True)
        self.readout = nn.Linear(6, 11)

    def forward(self, tokens):
        return self.readout(self.rnn(self.embedding(tokens))[0])


def test_integer_tokens_go_through_the_embedding():
    torch.manual_seed(0)
    module = TokenNetwork()
    tokens = torch.randint(11, (4, 30))
    direct = quiet(module.rnn, module.embedding(tokens).detach())
    np.testing.assert_allclose(quiet(module, tokens).exponents, direct.exponents, rtol=0, atol=1e-12)
    ragged = [np.asarray(row[:n]) for row, n in zip(tokens, (30, 20, 30, 11), strict=True)]
    assert quiet(module, ragged).per_sequence.shape == (4, 6)


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.PrecisionWarning")  # an interval chosen too long
def test_local_exponents_average_to_the_exponents():
    layer, X = network("lstm"), inputs()
    result = quiet(layer, X, return_local=True)
    assert result.local.shape == (4, result.n_steps, 12)
    np.testing.assert_allclose(result.local.mean((0, 1)), result.exponents, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.local.mean(1), result.per_sequence, rtol=0, atol=1e-12)
    # At an explicit interval every step of a block has the block's rate.
    coarse = quiet(layer, X, return_local=True, qr_interval=4, warmup=result.warmup)
    assert np.array_equal(coarse.local[:, 0], coarse.local[:, 3])
    np.testing.assert_allclose(coarse.local.mean((0, 1)), coarse.exponents, rtol=0, atol=1e-12)


@pytest.mark.parametrize("interval", ["auto", 4])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_bases_and_factors_rebuild_the_products_of_jacobians(interval, batch_size):
    layer, X = network("gru"), inputs()
    result = quiet(layer, X, warmup=6, qr_interval=interval, return_basis=True, batch_size=batch_size)
    jacobians = dense_jacobians(torch_step(layer, "gru"), torch.zeros(4, 6, dtype=torch.float64), X).numpy()
    assert result.block_steps.sum() == result.n_steps == 54
    assert result.basis.shape == (4, len(result.block_steps) + 1, 6, 6)
    t = 6
    for i, steps in enumerate(result.block_steps):
        pushed = result.basis[:, i]
        for J in jacobians[t : t + steps]:
            pushed = J @ pushed
        np.testing.assert_allclose(result.basis[:, i + 1] @ result.r_factors[:, i], pushed, rtol=0, atol=1e-13)
        t += steps
    diagonals = np.log(np.diagonal(result.r_factors, axis1=-2, axis2=-1)).sum(1) / 54
    np.testing.assert_allclose(np.sort(diagonals.mean(0))[::-1], result.exponents, rtol=0, atol=1e-12)


def test_units():
    result = quiet(network("gru"), inputs(), return_local=True)
    bits = result.to("bits")
    assert bits.unit == "bits" and result.unit == "nats" and result.to("nats") is result
    for name in ("exponents", "standard_error", "per_sequence", "local", "log_abs_det"):
        np.testing.assert_allclose(getattr(bits, name) * math.log(2), getattr(result, name), rtol=1e-14)
    np.testing.assert_allclose(bits.to("nats").exponents, result.exponents, rtol=1e-14)
    assert "bits per step" in repr(bits)
    with pytest.raises(ValueError, match="'unit' parameter"):
        result.to("bans")


def test_the_result_reads_well_and_cannot_be_changed():
    result = lyapunov_spectrum(network("gru", gain=0.5), inputs())
    text = repr(result)
    for part in (f"{result.exponents[0]:.4g} ± ", "4 sequence(s), 50 steps after 10", "Converged"):
        assert part in text
    assert isinstance(result, LyapunovResult)
    with pytest.raises(AttributeError):
        result.exponents = None
    assert (np.diff(result.exponents) <= 0).all()


def test_the_same_call_gives_the_same_bits_and_leaves_the_network_alone():
    layer, X = network("lstm"), inputs()
    layer.train()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, second = quiet(layer, X), quiet(layer, X)
    for name in ("exponents", "standard_error", "per_sequence"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.exponents, quiet(layer, X, random_state=1).exponents)
    assert np.array_equal(
        quiet(layer, X, random_state=np.random.default_rng(4)).exponents,
        quiet(layer, X, random_state=np.random.default_rng(4)).exponents,
    )
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])
    assert layer.training and all(p.requires_grad and p.grad is None for p in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


PEAKS = """
import resource, torch
from sklyap import lyapunov_spectrum

def peak(n_steps):
    lyapunov_spectrum(network, torch.randn(1, n_steps, 1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.manual_seed(0)
torch.set_num_threads(1)
network = torch.nn.GRU(1, 60)
print(peak(300), peak(8_000))
"""


def test_memory_does_not_grow_with_the_length():
    # In a process of its own, whose peak nothing else has raised. A number kept for every step and exponent
    # would show: 8 bytes · 8,000 steps · 60 exponents are 4 MB.
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAKS], capture_output=True, text=True, check=True)
    short, long = (int(kilobytes) for kilobytes in out.stdout.split())
    assert long - short < 2500
