"""Factorisations of small matrices, one after the other, as arithmetic on Python's own numbers.

Each basis follows from the one before, so that there is nothing to do at once; and on a few numbers a call of torch
costs far more than the arithmetic. What is written out here is the product with the next matrix and a Gram-Schmidt
pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

__all__ = ["is_small", "small_growth"]

_MOST_OPERATIONS = 600
"""Maximum multiplications in a product and its factorisation for Python's numbers to be faster than calls of torch."""


def is_small(Q: Tensor) -> bool:
    """Tell whether a basis (n_sequences, N, k) is that of a single small system in float64 on a CPU."""
    n, N, k = Q.shape
    return n == 1 and not Q.is_cuda and Q.dtype == torch.float64 and N * k * (N + k) <= _MOST_OPERATIONS


def small_growth(products: Tensor, Q: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Carry a basis over matrices, with a factorisation after each.

    Modified Gram-Schmidt: its R is that of Householder's method to rounding, and ``Z = Q R`` holds to rounding; Q
    departs from orthonormality by the condition of Z times rounding, which products of the factors do not feel.

    Parameters
    ----------
    products : Tensor of shape (n_blocks, 1, N, N)
    Q : Tensor of shape (1, N, k)

    Returns
    -------
    Q : Tensor of shape (1, N, k)
        The last basis.
    diagonal : Tensor of shape (n_blocks, 1, k)
        Of the factors R.
    peak : Tensor of shape (n_blocks, 1)
        The largest entry of each R.
        None instead of all three where a direction is annihilated.
    """
    _, N, k = Q.shape
    try:
        found = _kernel(N, k)(products.reshape(-1, N * N).tolist(), *Q.flatten().tolist())
    except ZeroDivisionError:
        return None
    last, diagonal, peaks = (torch.tensor(values, dtype=Q.dtype) for values in found)
    return last.reshape(1, N, k), diagonal.reshape(-1, 1, k), peaks.unsqueeze(1)


@lru_cache(maxsize=64)
def _kernel(N: int, k: int) -> Callable[..., Any]:
    """Return a function ``(matrices, q00, q01, …)`` that gives the last basis, the diagonals and the peaks."""
    basis = ", ".join(f"q{i}_{j}" for i in range(N) for j in range(k))
    lines = [f"z{i}_{j} = " + " + ".join(f"p{i}_{m} * q{m}_{j}" for m in range(N)) for j in range(k) for i in range(N)]
    sizes = []
    for j in range(k):
        for before in range(j):
            r = f"r{before}_{j}"
            sizes.append(f"abs({r})")
            lines.append(f"{r} = " + " + ".join(f"q{i}_{before} * z{i}_{j}" for i in range(N)))
            lines += [f"z{i}_{j} -= {r} * q{i}_{before}" for i in range(N)]
        sizes.append(f"r{j}_{j}")
        lines.append(f"r{j}_{j} = sqrt(" + " + ".join(f"z{i}_{j} * z{i}_{j}" for i in range(N)) + ")")
        lines += [f"q{i}_{j} = z{i}_{j} / r{j}_{j}" for i in range(N)]
    lines.append(f"extend(({', '.join(f'r{j}_{j}' for j in range(k))},))")
    lines.append(f"peak(max(({', '.join(sizes)},)))")
    matrix = ", ".join(f"p{i}_{m}" for i in range(N) for m in range(N))
    body = "\n        ".join(lines)
    code = (
        f"def run(matrices, {basis}):\n    diagonal, peaks = [], []\n    extend, peak = diagonal.extend, peaks.append\n"
        f"    for {matrix}, in matrices:\n        {body}\n    return ({basis},), diagonal, peaks\n"
    )
    scope: dict[str, Any] = {"sqrt": math.sqrt}
    exec(code, scope)
    return scope["run"]
