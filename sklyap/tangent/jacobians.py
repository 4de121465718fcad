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
        self._products = Q.new_empty(0)
        self._multiplied = range(0)

    def __getitem__(self, t: int) -> Linearization:
        """Return the derivative of step `t`."""
        self._fold(t)
        return self._part[t - self._folded.start]

    def push(self, Q: Tensor, steps: range) -> Tensor:
        """Carry the basis Q (n_sequences, N, k) over `steps`."""
        self._fold(steps.start)
        if self._multiplies and len(steps) > 1 and steps.stop <= self._folded.stop:
            return self.products(steps.start, len(steps), 1)[0] @ Q
        for t in steps:
            Q = self[t].push(Q)
        return Q

    def products(self, start: int, length: int, n_blocks: int) -> Tensor:
        """Return the products (n_blocks, n_sequences, N, N) of the Jacobians over blocks of one length.

        They are fewer where the part that is folded with step `start` ends before. The products of all blocks of the
        part are made at once.
        """
        self._fold(start)
        if start not in self._multiplied or self._multiplied.step != length:
            self._multiply(start, length)
        first = (start - self._multiplied.start) // length
        return self._products[first : first + n_blocks]

    def _multiply(self, start: int, length: int) -> None:
        J = self._part.dense()[start - self._folded.start :]
        n_blocks = len(J) // length
        blocks = J[: n_blocks * length].unflatten(0, (n_blocks, length))
        products = blocks[:, 0]
        for i in range(1, length):
            products = blocks[:, i] @ products
        self._products, self._multiplied = products, range(start, start + n_blocks * length, length)

    def _fold(self, t: int) -> None:
        if t not in self._folded:
            self._folded = range(t, min(t + self._width, self.steps.stop))
            first = self.steps.start
            part = self._linearization[t - first : self._folded.stop - first]
            self._part = part.fold(self._k, inputs=False)
            self._multiplied = range(0)
