"""The same code path on a GPU: numbers agree with the CPU's. Skipped where there is none."""

import numpy as np
import pytest
import torch

from sklyap import LyapunovSpectrumTransformer, lyapunov_spectrum
from sklyap.cells import CELLS
from sklyap.orthonormalize import orthonormalize

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(64, 16, 16), (32, 64, 8), (4, 200, 200)])
def test_orthonormalizer(shape, dtype):
    Z = torch.randn(shape, dtype=dtype)
    Z[0, :, -1] = Z[0, :, 0]  # one that Cholesky cannot factor
    Q, R = (part.cpu() for part in orthonormalize(Z.cuda()))
    tolerance = 200 * torch.finfo(dtype).eps * shape[1]
    torch.testing.assert_close(Q @ R, Z, rtol=0, atol=tolerance)
    eye = torch.eye(shape[2], dtype=dtype).expand(shape[0], -1, -1)
    torch.testing.assert_close(Q.mT @ Q, eye, rtol=0, atol=tolerance)


@pytest.mark.parametrize("state", ["full", "hidden"])
@pytest.mark.parametrize("name", CELLS)
def test_spectra_agree_with_the_cpu(name, state):
    cell, x = CELLS[name](3, 24), torch.randn(8, 100, 3)
    on_cpu = lyapunov_spectrum(cell, x, state=state, device="cpu")
    on_gpu = lyapunov_spectrum(cell, x, state=state, device="cuda")
    scale = np.abs(on_cpu.exponents).max()  # some exponents are nearly zero
    np.testing.assert_allclose(on_gpu.exponents, on_cpu.exponents, rtol=0, atol=1e-9 * scale)


def test_float32_agrees_in_the_leading_exponents():
    network, x = torch.nn.LSTM(3, 64, batch_first=True), torch.randn(8, 60, 3)
    on_cpu = lyapunov_spectrum(network, x, device="cpu")
    on_gpu = lyapunov_spectrum(network, x, device="cuda", dtype="float32")
    np.testing.assert_allclose(on_gpu.exponents[:8], on_cpu.exponents[:8], rtol=1e-5)


def test_local_growth_and_bases_agree():
    network, x = torch.nn.GRU(3, 16, batch_first=True), torch.randn(4, 40, 3)
    on_cpu = lyapunov_spectrum(network, x, device="cpu", return_local=True, return_basis=True)
    on_gpu = lyapunov_spectrum(network, x, device="cuda", return_local=True, return_basis=True)
    np.testing.assert_allclose(on_gpu.local, on_cpu.local, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(on_gpu.r_factors, on_cpu.r_factors, rtol=1e-7, atol=1e-9)


def test_a_population_in_batches_agrees_with_one_by_one():
    networks = [kind(3, 16, batch_first=True) for kind in (torch.nn.LSTM, torch.nn.GRU) for _ in range(10)]
    x = torch.randn(4, 30, 3)
    on_cpu = LyapunovSpectrumTransformer(x, device="cpu").fit_transform(networks)
    on_gpu = LyapunovSpectrumTransformer(x, device="cuda").fit_transform(networks)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-9)


def test_annihilated_directions_are_found():
    network = torch.nn.RNN(3, 6, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        network.weight_hh_l0[-2:] = 0
    x = torch.rand(4, 50, 3)
    with pytest.warns(match="annihilated"):
        result = lyapunov_spectrum(network, x, device="cuda")
    assert result.n_degenerate >= 2
