"""Denormal numbers are flushed while networks are analysed, and treated as before afterwards."""

from typing import ClassVar

import pytest
import torch

from sklyap import covariant_lyapunov_vectors, lyapunov_spectrum
from sklyap.cells import RecurrentCell
from sklyap.runtime import flushed_denormals


def flushes():
    tiny = torch.tensor([torch.finfo(torch.float64).tiny], dtype=torch.float64)
    return bool((tiny / 4 == 0).item())


@pytest.fixture(params=[False, True], ids=["kept before", "flushed before"])
def before(request):
    was = flushes()
    if not torch.set_flush_denormal(request.param):
        pytest.skip("this processor cannot flush denormals")
    yield request.param
    torch.set_flush_denormal(was)


def test_the_flag_comes_back(before):
    with flushed_denormals():
        assert flushes()
        with flushed_denormals():
            assert flushes()
        assert flushes()
    assert flushes() == before


def test_the_flag_comes_back_after_an_error(before):
    with pytest.raises(KeyError), flushed_denormals():
        raise KeyError
    assert flushes() == before


class Watched(RecurrentCell):
    """A contracting map that notes how denormals are treated while it runs."""

    state_size, n_inputs, output_size = 2, None, 2
    seen: ClassVar[list[bool]] = []

    def __init__(self):
        super().__init__()
        self.register_buffer("rate", torch.tensor(0.5, dtype=torch.float64))

    def step(self, s, x):
        self.seen.append(flushes())
        return s * self.rate


@pytest.mark.parametrize("call", [lyapunov_spectrum, covariant_lyapunov_vectors])
def test_a_run_leaves_the_flag_alone(call, before):
    Watched.seen.clear()
    call(Watched(), 50)
    assert any(Watched.seen), "a contracting network fills its basis with denormals, which are slow"
    assert flushes() == before
