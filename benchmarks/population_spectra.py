"""Spectra of a whole population through the transformer: against raw calls, on one core and two."""

import time
import warnings

import joblib
import torch

from benchmarks.measure import best
from sklyap import LyapunovSpectrumTransformer
from sklyap.runtime import one_thread


def table(small=False):
    """Return rows for many LSTMs of one size, as after training a population."""
    count, H, n, steps = (4, 8, 2, 6) if small else (200, 64, 16, 28)
    torch.manual_seed(0)
    networks = [torch.nn.LSTM(28, H, batch_first=True) for _ in range(count)]
    x = torch.rand(n, steps, 28)
    warnings.simplefilter("ignore")
    with one_thread():
        single = LyapunovSpectrumTransformer(x).fit(networks)
        one = seconds(lambda: single.transform(networks))
        interval = single.results_[0].qr_interval
        J, Q = (torch.randn(n, 2 * H, 2 * H, dtype=torch.float64) for _ in range(2))
        raw = count * steps * (best(lambda: J @ Q) + best(lambda: torch.linalg.qr(Q)) / interval)
    double = LyapunovSpectrumTransformer(x, n_jobs=2).fit(networks)
    double.transform(networks[:4])  # starts the workers
    two = seconds(lambda: double.transform(networks))
    name = f"{count} LSTM-{H}, {n} sequences of {steps} steps, full state, float64"
    return [
        {"case": f"{name}: one core", "seconds": one, "raw calls s": raw, "times raw": one / raw},
        {"case": f"{name}: two cores", "seconds": two, "times faster": one / two},
        {"case": "raw calls alone: two cores", "times faster": raw_on_two_cores(n, 2 * H, 10 if small else 300)},
    ]


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def raw_on_two_cores(n, N, repeats):
    """Return how much faster this machine's two cores, which may share their parts, do raw calls than one."""

    def longest(tasks):
        return max(joblib.Parallel(n_jobs=2)(joblib.delayed(raw_calls)(n, N, repeats) for _ in range(tasks)))

    one, two = (min(longest(tasks) for _ in range(4)) for tasks in (1, 2))
    return 2 * one / two


def raw_calls(n, N, repeats):
    """Return the seconds of as many products and factorisations."""
    with one_thread():
        J, Q = (torch.randn(n, N, N, dtype=torch.float64) for _ in range(2))
        return seconds(lambda: [torch.linalg.lu_factor_ex(J @ Q) for _ in range(repeats)])
