"""Jacobians of a chunk of steps, folded and multiplied."""

from __future__ import annotations

from torch import Tensor

from sklyap.cells import Linearization

__all__ = ["FoldedJacobians"]

_FOLDED_BYTES, _FOLDED_BYTES_GPU = 2**24, 2**29
"""Maximum bytes of Jacobians folded in one call: what a CPU's cache holds, and enough to fill a GPU."""
_MULTIPLY_ENTRIES = 2**14
"""Maximum entries of a step's Jacobians (all sequences) for multiplying them with one another first: one call then
serves many blocks, while for larger ones the extra products cost more than the calls; measured on two CPU cores."""


class FoldedJacobians:
    """The derivatives of the steps of a chunk, folded into matrices a few steps at a time.

    Memory so does not grow with the length of the chunk.

    Parameters
    ----------
    linearization : Linearization
        Of the steps of the chunk, along its first axis.
    steps : range
        The steps of the chunk, counted as the sequences count them.
    Q : Tensor of shape (n_sequences, N, k)
        A basis; only its shape, dtype and device matter.
    """

    def __init__(self, linearization: Linearization, steps: range, Q: Tensor) -> None:
        n, N, self._k = Q.shape
        self.steps = steps
        self._multiplies = n * N * N <= _MULTIPLY_ENTRIES and 2 * self._k >= N
        self._linearization = linearization
        self._width = max(1, (_FOLDED_BYTES_GPU if Q.is_cuda else _FOLDED_BYTES) // (n * N * N * Q.element_size()))
        self._folded = range(0)
        self._part = linearization
        self._products: dict[range, Tensor] = {}

    def __getitem__(self, t: int) -> Linearization:
        """Return the derivative of step `t`."""
        self._fold(t)
        return self._part[t - self._folded.start]

    def push(self, Q: Tensor, steps: range) -> Tensor:
        """Carry the basis Q (n_sequences, N, k) over `steps`."""
        self._fold(steps.start)
        if self._multiplies and len(steps) > 1 and steps.stop <= self._folded.stop:
            if steps not in self._products:
                self._multiply(steps)
            return self._products[steps] @ Q
        for t in steps:
            Q = self[t].push(Q)
        return Q

    def _multiply(self, steps: range) -> None:
        """Multiply the Jacobians of `steps`, and of all blocks of the same length that follow in the folded part."""
        length, J = len(steps), self._part.dense()[steps.start - self._folded.start :]
        blocks = J[: len(J) // length * length].unflatten(0, (-1, length))
        products = blocks[:, 0]
        for i in range(1, length):
            products = blocks[:, i] @ products
        starts = range(steps.start, self._folded.stop, length)
        self._products = {range(t, t + length): P for t, P in zip(starts, products.unbind(0), strict=False)}

    def _fold(self, t: int) -> None:
        if t not in self._folded:
            self._folded = range(t, min(t + self._width, self.steps.stop))
            first = self.steps.start
            part = self._linearization[t - first : self._folded.stop - first]
            self._part = part.fold(self._k, inputs=False)
            self._products = {}
