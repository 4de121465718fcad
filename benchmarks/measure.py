"""Timing and the machine's own rates, from which floors follow."""

import platform
import time
from datetime import date

import torch

RATES: dict[tuple[torch.dtype, str], tuple[float, float]] = {}


def best(function, repeats=3):
    """Return the shortest time of `function` in seconds, after one call that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def alternate(*functions, repeats=3):
    """Return the shortest time of each function, measured in turn so that drift hits all alike."""
    times = [[] for _ in functions]
    for function in functions:
        function()
    for _ in range(repeats):
        for record, function in zip(times, functions, strict=True):
            synchronize()
            start = time.perf_counter()
            function()
            synchronize()
            record.append(time.perf_counter() - start)
    return [min(record) for record in times]


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def rates(dtype, device="cpu", size=2048):
    """Return the matrix rate in flop/s and the memory rate in byte/s of this machine, measured once."""
    key = (dtype, device)
    if key not in RATES:
        a = torch.randn(size, size, dtype=dtype, device=device)
        out = torch.empty_like(a)
        flops = 2 * size**3 / best(lambda: torch.mm(a, a, out=out), 5)
        big = torch.randn(64 * 2**20 // a.element_size(), dtype=dtype, device=device)
        copy = torch.empty_like(big)
        memory = 2 * big.nbytes / best(lambda: copy.copy_(big), 5)
        RATES[key] = (flops, memory)
    return RATES[key]


def floor(*, n, rows, columns, k, size, interval, dtype, gates, device="cpu"):
    """Return the floor of one step in seconds.

    The product of the recursion (n sequences, `rows` × `columns` times `columns` × k), the QR factorisation of
    (size, k) at ⁸⁄₃ size k² flops every `interval` steps, both at the matrix rate, and building the Jacobian:
    reading the weights of all gates and writing `rows` × `columns` per sequence at the memory rate.
    """
    flops, memory = rates(dtype, device)
    product = 2 * n * rows * columns * k
    qr = 8 / 3 * n * size * k**2 / interval
    item = torch.finfo(dtype).bits // 8
    building = item * (n * rows * columns + gates * columns * columns)
    return (product + qr) / flops + building / memory


def machine(device="cpu"):
    """Return a line about the machine, its rates, the versions and the date."""
    name = torch.cuda.get_device_name() if device == "cuda" else (platform.processor() or platform.machine())
    single, double = (rates(dtype, device)[0] / 1e9 for dtype in (torch.float32, torch.float64))
    return (
        f"{date.today()}, {name}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"Python {platform.python_version()}; 2048² product at {single:.0f} GFLOP/s in float32, {double:.0f} in float64"
    )
