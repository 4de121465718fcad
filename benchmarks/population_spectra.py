"""Spectra of a whole population through the transformer: against raw calls, on one core and two."""

import time
import warnings

import torch

from benchmarks.measure import best
from sklyap import LyapunovSpectrumTransformer


def table(small=False):
    """Return rows for many LSTMs of one size, as after training a population."""
    count, H, n, steps = (4, 8, 2, 6) if small else (200, 64, 16, 28)
    torch.manual_seed(0)
    networks = [torch.nn.LSTM(28, H, batch_first=True) for _ in range(count)]
    x = torch.rand(n, steps, 28)
    warnings.simplefilter("ignore")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    single = LyapunovSpectrumTransformer(x).fit(networks)
    start = time.perf_counter()
    single.transform(networks)
    one = time.perf_counter() - start
    interval = single.results_[0].qr_interval
    J, Q = torch.randn(n, 2 * H, 2 * H, dtype=torch.float64), torch.randn(n, 2 * H, 2 * H, dtype=torch.float64)
    product = best(lambda: J @ Q)
    qr = best(lambda: torch.linalg.qr(Q))
    raw = count * steps * (product + qr / interval)
    torch.set_num_threads(threads)
    double = LyapunovSpectrumTransformer(x, n_jobs=2).fit(networks)
    double.transform(networks[:4])  # starts the workers
    start = time.perf_counter()
    double.transform(networks)
    two = time.perf_counter() - start
    name = f"{count} LSTM-{H}, {n} sequences of {steps} steps, full state, float64"
    return [
        {"case": f"{name}: one core", "seconds": one, "raw calls s": raw, "times raw": one / raw},
        {"case": f"{name}: two cores", "seconds": two, "times faster": one / two},
    ]
