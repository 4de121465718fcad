"""Lyapunov spectra of single networks against their floor, the thesis' code and the textbook way."""

import time
import warnings

import torch

from benchmarks.measure import best, floor
from benchmarks.reference import diagonal_products, textbook
from sklyap import lyapunov_spectrum
from sklyap.orthonormalize import random_bases

KINDS = {"lstm": (torch.nn.LSTM, 4), "gru": (torch.nn.GRU, 3), "rnn": (torch.nn.RNN, 1)}


def network(kind="lstm", size=512, n_inputs=32):
    torch.manual_seed(0)
    return KINDS[kind][0](n_inputs, size, batch_first=True).requires_grad_(False)


def seconds_per_step(net, n, n_steps, repeats=1, **options):
    """Return seconds per step and the result; the random start of the basis is timed apart and taken off."""
    x = torch.randn(n, n_steps, net.input_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = lyapunov_spectrum(net, x[:1, :2], **options)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = lyapunov_spectrum(net, x, warmup=0, **options)
            times.append(time.perf_counter() - start)
    size = result.exponents.size if options.get("state") == "hidden" else None
    N = size or net.hidden_size * (2 if isinstance(net, torch.nn.LSTM) else 1)
    start = best(lambda: random_bases(N, len(result.exponents), 0, range(n)), 1)
    return (min(times) - start) / n_steps, result


def row(name, kind, size, n, n_steps, *, state="full", dtype="float32", k=None, repeats=1):
    """Measure one setting: a table row with its floor."""
    net = network(kind, size)
    options = {"state": state, "dtype": dtype} | ({} if k is None else {"n_exponents": k})
    seconds, result = seconds_per_step(net, n, n_steps, repeats, **options)
    blocks = 2 if kind == "lstm" and state == "full" else 1
    # As many exponents as there are columns, unless fewer were asked for; gates are read once for each block
    # of rows that they enter.
    N = blocks * size
    bound = floor(
        n=n,
        rows=N,
        columns=size,
        k=k or N,
        size=N,
        interval=result.qr_interval,
        dtype=getattr(torch, dtype),
        gates=KINDS[kind][1] * blocks,
    )
    return {
        "case": name,
        "ms per step": 1e3 * seconds,
        "floor ms": 1e3 * bound,
        "times floor": seconds / bound,
        "QR interval": result.qr_interval,
    }


def against(reference, net, n, n_steps, steps_of_reference):
    """Return seconds per step of a reference."""
    x = torch.randn(n, n_steps, net.input_size)[:, :steps_of_reference]
    start = time.perf_counter()
    reference(net, x)
    return (time.perf_counter() - start) / steps_of_reference


def overhead(n_steps=10_000, size=64):
    """Return µs per step beyond the raw product and QR calls, for one long sequence of an Elman network."""
    net = network("rnn", size, 3)
    seconds, result = seconds_per_step(net, 1, n_steps, dtype="float64")
    J, Q = torch.randn(1, size, size, dtype=torch.float64), torch.randn(1, size, size, dtype=torch.float64)

    def repeat(call, times=200):
        for _ in range(times):
            call()

    product = best(lambda: repeat(lambda: J @ Q)) / 200
    qr = best(lambda: repeat(lambda: torch.linalg.qr(Q))) / 200
    raw = product + qr / result.qr_interval
    return {
        "case": f"one sequence of {n_steps} steps, Elman {size}: µs per step beyond raw calls",
        "ms per step": 1e3 * seconds,
        "raw calls ms": 1e3 * raw,
        "overhead µs": 1e6 * (seconds - raw),
        "QR interval": result.qr_interval,
    }


def table(small=False):
    """Return all rows; `small` is for the tests."""
    H, n, steps = (24, 3, 8) if small else (512, 15, 24)
    rows = []
    for dtype in ("float32", "float64"):
        rows.append(row(f"LSTM-{H}, h-only, {dtype}", "lstm", H, n, steps, state="hidden", dtype=dtype))
    reference = against(diagonal_products, network("lstm", H), n, steps, 3)
    rows.append({"case": f"LSTM-{H}, h-only, float32: the thesis' code", "ms per step": 1e3 * reference})
    rows[0]["times faster"] = 1e3 * reference / rows[0]["ms per step"]
    for kind in KINDS:
        steps_here = steps // 2 if kind == "lstm" else steps
        rows.append(row(f"{kind.upper()}-{H}, full state, float32", kind, H, n, steps_here))
        if kind == "lstm":
            full = rows[-1]
            seconds = against(textbook, network("lstm", H), n, steps, 2)
            rows.append({"case": f"LSTM-{H}, full state, float32: textbook", "ms per step": 1e3 * seconds})
            full["times faster"] = 1e3 * seconds / full["ms per step"]
    k = 4 if small else 32
    rows.append(row(f"LSTM-{H}, leading {k} of {2 * H}, float32", "lstm", H, n, steps, k=k))
    rows[-1]["times faster"] = full["ms per step"] / rows[-1]["ms per step"]
    if not small:
        rows.append(row("LSTM-64, full state, float32", "lstm", 64, n, 100))
        seconds = against(textbook, network("lstm", 64), n, 20, 20)
        rows[-1]["times faster"] = 1e3 * seconds / rows[-1]["ms per step"]
        rows.append({"case": "LSTM-64, full state, float32: textbook", "ms per step": 1e3 * seconds})
    rows.append(overhead(500 if small else 10_000, 16 if small else 64))
    return rows
