"""Jacobians of a chunk of steps, folded and multiplied."""

from __future__ import annotations

from torch import Tensor

from sklyap.cells import Linearization

__all__ = ["FoldedJacobians"]

_CHUNK_BYTES, _CHUNK_BYTES_GPU = 2**24, 2**29
"""Of Jacobians that are folded at a time: what a CPU's cache holds, and what makes a GPU's calls worth their start."""
_SMALL = 2**14
"""Up to how many entries of Jacobians at a step these are multiplied with one another, for many blocks in a call."""


class FoldedJacobians:
    """A linearization folded a few steps at a time, so that memory does not grow with the chunk."""

    def __init__(self, linearization: Linearization, n_steps: int, Q: Tensor) -> None:
        n, N, self._k = Q.shape
        self._n_steps = n_steps
        self._small = n * N * N <= _SMALL and 2 * self._k >= N
        self._linearization = linearization
        self._width = max(1, (_CHUNK_BYTES_GPU if Q.is_cuda else _CHUNK_BYTES) // (n * N * N * Q.element_size()))
        self._first = self._last = 0
        self._part = linearization
        self._products: dict[range, Tensor] = {}

    def __getitem__(self, t: int) -> Linearization:
        self._fold(t)
        return self._part[t - self._first]

    def push(self, Q: Tensor, steps: range) -> Tensor:
        """Carry the basis over `steps`."""
        self._fold(steps.start)
        if self._small and len(steps) > 1 and steps.stop <= self._last:
            if steps not in self._products:
                self._multiply(steps)
            return self._products[steps] @ Q
        for t in steps:
            Q = self[t].push(Q)
        return Q

    def _multiply(self, steps: range) -> None:
        """Multiply the Jacobians of `steps`, and of all blocks of their length that follow in this part."""
        length, J = len(steps), self._part.dense()[steps.start - self._first :]
        blocks = J[: len(J) // length * length].unflatten(0, (-1, length))
        products = blocks[:, 0]
        for i in range(1, length):
            products = blocks[:, i] @ products
        starts = range(steps.start, self._last, length)
        self._products = {range(t, t + length): P for t, P in zip(starts, products.unbind(0), strict=False)}

    def _fold(self, t: int) -> None:
        if not self._first <= t < self._last:
            self._first, self._last = t, min(t + self._width, self._n_steps)
            self._part = self._linearization[t : self._last].fold(self._k, inputs=False)
            self._products = {}
