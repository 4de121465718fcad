"""Denormal numbers are flushed while networks are analysed, and treated as before afterwards."""

import pytest
import torch

from sklyap import covariant_lyapunov_vectors, lyapunov_spectrum
from sklyap.cells import FunctionCell
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


@pytest.mark.parametrize("call", [lyapunov_spectrum, covariant_lyapunov_vectors])
def test_a_run_leaves_the_flag_alone(call, before):
    seen = []

    def step(s, x):
        seen.append(flushes())
        return s / 2

    call(FunctionCell(step, 2, initial_state=[1.0, 1.0]), 200)
    assert any(seen), "a contracting network fills its basis with denormals, which are slow"
    assert flushes() == before
