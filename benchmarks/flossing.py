"""What a step of gradient flossing costs, beside the textbook loop and a plain unrolling with Jacobians.

An Elman network with 80 units, k = 75 exponents, 55 steps, 16 sequences: the loss is the mean squared exponent, the
gradient that of all weights. Times are CPU seconds, the shortest of several, which other processes disturb less than
the clock on the wall. Run as

    python -m benchmarks.flossing [n_threads]
"""

from __future__ import annotations

import sys
import time

import torch
from torch import Tensor, nn

from benchmarks.measure import machine
from sklyap import finite_time_exponents
from sklyap.orthonormalize import random_bases


def textbook_exponents(layer: nn.RNN, x: Tensor, k: int) -> Tensor:
    """Return exponents (n, k) by autograd through a dense Jacobian and a QR at every step, as one writes it down."""
    W, U = layer.weight_ih_l0, layer.weight_hh_l0
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    h = x.new_zeros(len(x), len(U))
    Q = random_bases(len(U), k, 0, range(len(x)), dtype=x.dtype)
    total = x.new_zeros(len(x), k)
    for x_t in x.unbind(1):
        h = torch.tanh(x_t @ W.mT + h @ U.mT + bias)
        J = (1 - h**2).unsqueeze(-1) * U
        Q, R = torch.linalg.qr(J @ Q)
        total = total + R.diagonal(dim1=-2, dim2=-1).abs().log()
    return total / x.shape[1]


def unrolled_with_jacobians(layer: nn.RNN, x: Tensor, k: int) -> Tensor:
    """Return a number from a product of the Jacobians with k tangents: the same pass without any factorisation."""
    W, U = layer.weight_ih_l0, layer.weight_hh_l0
    bias = layer.bias_ih_l0 + layer.bias_hh_l0
    h = x.new_zeros(len(x), len(U))
    Q = random_bases(len(U), k, 0, range(len(x)), dtype=x.dtype)
    for x_t in x.unbind(1):
        h = torch.tanh(x_t @ W.mT + h @ U.mT + bias)
        J = (1 - h**2).unsqueeze(-1) * U
        Q = J @ Q
    return Q.sum() + h.sum()


def measure(*, units: int = 80, k: int = 75, n_steps: int = 55, n: int = 16, repeats: int = 10) -> dict[str, float]:
    """Return milliseconds of a forward and a backward pass of each."""
    torch.manual_seed(0)
    layers = {dtype: nn.RNN(1, units, batch_first=True).to(dtype) for dtype in (torch.float32, torch.float64)}
    x = torch.randn(n, n_steps, 1)

    def step(function, dtype):
        def run():
            layers[dtype].zero_grad()
            value = function(layers[dtype], x.to(dtype), k)
            (value.square().mean() if value.ndim else value).backward()

        return run

    cases = {
        "finite_time_exponents, in float64, of a float32 network": step(
            lambda layer, x, k: finite_time_exponents(layer, x, n_exponents=k), torch.float32
        ),
        "textbook loop, float64": step(textbook_exponents, torch.float64),
        "textbook loop, float32": step(textbook_exponents, torch.float32),
        "unrolled with Jacobians, no QR, float64": step(unrolled_with_jacobians, torch.float64),
        "unrolled with Jacobians, no QR, float32": step(unrolled_with_jacobians, torch.float32),
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for run in cases.values():
        run()
    for _ in range(repeats):  # in turn, so that drift hits all alike
        for name, run in cases.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: 1e3 * min(seconds) for name, seconds in times.items()}


def main(n_threads: int = 1) -> None:
    torch.set_num_threads(n_threads)
    print(machine())
    times = measure()
    ours = next(iter(times.values()))
    for name, milliseconds in times.items():
        print(f"{name:<58} {milliseconds:7.1f} ms   {milliseconds / ours:5.2f} × ours")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
