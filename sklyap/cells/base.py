"""The contract of a recurrent cell: a one-step map of the state and its Jacobian action."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.runtime import pushforward

__all__ = ["DenseLinearization", "JvpLinearization", "Linearization", "RecurrentCell"]


_COPIED_UP_TO = 2**14
"""Maximum entries of a product that is copied into column order afterwards; larger ones are computed in that order."""
_FOLD_UP_TO = 32
"""Maximum dimension up to which Jacobians of many steps at once cost less than a forward-mode pass at each step."""
_FOLD_PRODUCTS = 2**25
"""Minimum multiplications in the product of a step's Jacobians with its tangents for a forward-mode pass at each step,
which saves this product, to be the faster; measured on a CPU core."""


class Linearization(abc.ABC):
    """The derivative of one step at given points of a trajectory.

    Points carry any leading axes ``(*batch)``: ``(n_sequences,)`` at one step, ``(T, n_sequences)``
    along a trajectory. Indexing takes points out along the first axis.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> derivative = GRUCell(3, 8).linearize(torch.zeros(5, 8), torch.zeros(5, 3))
    >>> tuple(derivative.push(torch.eye(8)[:, :2].expand(5, 8, 2)).shape)
    (5, 8, 2)
    """

    @abc.abstractmethod
    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        """Carry tangents one step forward.

        Parameters
        ----------
        Q : Tensor of shape (*batch, state_size, k)
            Tangents of the state.
        P : Tensor of shape (*batch, n_inputs, k), optional
            Tangents of the input; None for an input that does not vary.

        Returns
        -------
        Tensor of shape (*batch, state_size, k)
            ``(∂f/∂s) Q + (∂f/∂x) P``.
        """

    @abc.abstractmethod
    def dense(self) -> Tensor:
        """Return the Jacobian ``∂f/∂s`` as a tensor of shape (*batch, state_size, state_size)."""

    @abc.abstractmethod
    def __getitem__(self, index: int | slice) -> Linearization:
        """Return the linearization at one point, or at a slice of points, along the first axis."""

    def fold(self, k: int, *, inputs: bool = True) -> Linearization:
        """Return an equivalent linearization that is cheaper for pushing `k` tangents.

        Many tangents pay for one matrix per point. With ``inputs=False`` the derivative with respect to
        the input may be dropped.
        """
        return self


@dataclass(frozen=True)
class DenseLinearization(Linearization):
    """Plain matrices: `jacobian` (*batch, N, N) and, when inputs vary, `input_jacobian` (*batch, N, n_inputs).

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import DenseLinearization
    >>> DenseLinearization(2 * torch.eye(3)[None]).push(torch.ones(1, 3, 1))[0, :, 0]
    tensor([2., 2., 2.])
    """

    jacobian: Tensor
    input_jacobian: Tensor | None = None

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        Z = by_columns(self.jacobian, Q)
        if P is not None:
            assert self.input_jacobian is not None, "an autonomous cell has no input to vary"
            Z = Z + self.input_jacobian @ P
        return Z

    def dense(self) -> Tensor:
        return self.jacobian

    def __getitem__(self, index: int | slice) -> DenseLinearization:
        inputs = None if self.input_jacobian is None else self.input_jacobian[index]
        return DenseLinearization(self.jacobian[index], inputs)


@dataclass(frozen=True)
class JvpLinearization(Linearization):
    """The derivative of any differentiable step, by forward mode (`torch.func.jvp`), a pass per tangent."""

    step: Callable[[Tensor, Tensor | None], Tensor]
    s: Tensor
    x: Tensor | None

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        Z = _jvp_columns(lambda s: self.step(s, self.x), self.s, Q)
        if P is not None:
            assert self.x is not None, "an autonomous cell has no input to vary"
            Z = Z + _jvp_columns(lambda x: self.step(self.s, x), self.x, P)
        return Z

    def dense(self) -> Tensor:
        return self.push(_identity(self.s))

    def fold(self, k: int, *, inputs: bool = True) -> Linearization:
        N = self.s.shape[-1]
        n = self.s.shape[-2] if self.s.ndim > 1 else 1
        if (2 * k < N and N > _FOLD_UP_TO) or n * N * N * k > _FOLD_PRODUCTS:
            return self
        if self.x is None or not inputs:
            return DenseLinearization(self.dense())
        by_input = _jvp_columns(lambda x: self.step(self.s, x), self.x, _identity(self.x))
        return DenseLinearization(self.dense(), by_input)

    def __getitem__(self, index: int | slice) -> JvpLinearization:
        return JvpLinearization(self.step, self.s[index], None if self.x is None else self.x[index])


@dataclass(frozen=True)
class LeadingLinearization(Linearization):
    """The derivative of the first `n` of `N` entries of the state with respect to themselves, the others frozen."""

    whole: Linearization
    n: int
    N: int

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        padded = nn.functional.pad(Q, (0, 0, 0, self.N - self.n))
        return self.whole.push(padded, P)[..., : self.n, :]

    def dense(self) -> Tensor:
        return self.whole.dense()[..., : self.n, : self.n]

    def fold(self, k: int, *, inputs: bool = True) -> LeadingLinearization:
        return replace(self, whole=self.whole.fold(k, inputs=inputs))

    def __getitem__(self, index: int | slice) -> LeadingLinearization:
        return replace(self, whole=self.whole[index])


def by_columns(J: Tensor, Q: Tensor) -> Tensor:
    """Return ``J Q``, of large matrices with contiguous columns: what factorises it would copy it into this order."""
    return J @ Q if Q.numel() < _COPIED_UP_TO else (Q.mT @ J.mT).mT


def _jvp_columns(function: Callable[[Tensor], Tensor], point: Tensor, columns: Tensor) -> Tensor:
    """Return the derivative of `function` at `point` (*batch, n) times `columns` (*batch, n, k)."""

    def along(column: Tensor) -> Tensor:
        return pushforward(function, (point,), (column,))

    # Along the first axis, as vmap misplaces at the last one what does not depend on the point. In order, as matmul
    # would otherwise multiply column by column, with a copy of the weights for each.
    return torch.func.vmap(along)(columns.movedim(-1, 0).contiguous()).movedim(0, -1)


def _identity(point: Tensor) -> Tensor:
    n = point.shape[-1]
    return torch.eye(n, dtype=point.dtype, device=point.device).expand(*point.shape, n)


class RecurrentCell(nn.Module, abc.ABC):
    """A recurrent layer as a map ``s' = f(s, x)`` on its whole state.

    The state `s` is everything that is carried from step to step (``h`` for Elman and GRU, ``(h, c)``
    for LSTM), concatenated. Subclasses implement `step` and set `state_size`, `n_inputs` and
    `output_size`; everything else has a default, and `linearize` is worth a closed form.
    :func:`sklyap.testing.check_cell` checks an implementation.

    A subclass that :class:`~sklyap.RNNClassifier` can train is constructed as
    ``Cell(n_inputs, hidden_size, **cell_params)``.

    Attributes
    ----------
    state_size : int
        N, the length of the state vector.
    n_inputs : int or None
        Width of the input; None for an autonomous system.
    output_size : int
        Width of what a readout or a following layer sees, the first `output_size` entries of the state.
    encoder : callable or None
        Maps a network's own input to what drives the cell (n_sequences, n_steps, n_inputs), and to the
        initial state (n_sequences, state_size) or None; absent where the cell is driven directly.
    n_noise : int
        How many of the inputs, the last ones, are noise that the cell draws itself.
    trust : collection of str
        Which checks of a step from outside this package are left out, see :class:`FunctionCell`.

    Examples
    --------
    >>> import torch
    >>> from sklyap import RecurrentCell, lyapunov_spectrum
    >>> class Halving(RecurrentCell):
    ...     n_inputs, state_size, output_size = 1, 2, 2
    ...     def step(self, s, x):
    ...         return s / 2 + x
    >>> lyapunov_spectrum(Halving(), torch.zeros(1, 50, 1), random_state=0).exponents.round(6)
    array([-0.693147, -0.693147])
    """

    state_size: int
    n_inputs: int | None
    output_size: int
    encoder: Callable[[Any], tuple[Tensor, Tensor | None]] | None = None
    n_noise: int = 0
    trust: Collection[str] = ()
    _probed = False  # whether a step from outside this package was looked at
    _first_call: tuple[Tensor, Tensor | None, Tensor] | None = (
        None  # a state, an input and the next state, as seen then
    )

    @property
    def n_starts(self) -> int:
        """How many sequences an autonomous run has: one for each given initial state."""
        return 1

    @property
    def hidden_entries(self) -> list[int]:
        """Entries of the state that ``state="hidden"`` looks at: those that a readout or a following layer sees."""
        return list(range(self.output_size))

    @property
    def hidden_state_size(self) -> int:
        """How many entries ``state="hidden"`` looks at."""
        return len(self.hidden_entries)

    @abc.abstractmethod
    def step(self, s: Tensor, x: Tensor | None) -> Tensor:
        """Return the next state.

        Parameters
        ----------
        s : Tensor of shape (*batch, state_size)
            States.
        x : Tensor of shape (*batch, n_inputs), or None for an autonomous system
            Inputs.

        Returns
        -------
        Tensor of shape (*batch, state_size)
        """

    def initial_state(self, n: int) -> Tensor:
        """Return the initial state of `n` sequences, zeros (n, state_size) of the cell's dtype and device."""
        like = next(chain(self.parameters(), self.buffers()), torch.empty(0))
        return torch.zeros(n, self.state_size, dtype=like.dtype, device=like.device)

    def output(self, s: Tensor) -> Tensor:
        """Return the part of the state (..., output_size) that a readout or a following layer sees."""
        return s[..., : self.output_size]

    def trajectory(self, s: Tensor, x: Tensor | int) -> Tensor:
        """Return the states from `s` on, (n_steps + 1, n_sequences, state_size).

        Parameters
        ----------
        s : Tensor of shape (n_sequences, state_size)
            States.
        x : Tensor of shape (n_sequences, n_steps, n_inputs), or int
            Inputs, or the number of steps of an autonomous cell.
        """
        states = [s]
        for x_t in [None] * x if isinstance(x, int) else x.unbind(1):
            states.append(self.step(states[-1], x_t))
        return torch.stack(states)

    def linearize(self, s: Tensor, x: Tensor | None) -> Linearization:
        """Return the derivative of `step` at the points `s` (*batch, state_size), `x` (*batch, n_inputs).

        The default differentiates `step` in forward mode, once per tangent.
        """
        return JvpLinearization(self.step, s, x)

    def push(self, s: Tensor, x: Tensor | None, Q: Tensor) -> Tensor:
        """Return ``J Q`` (*batch, state_size, k), with ``J = ∂f/∂s`` at (s, x), for Q (*batch, state_size, k)."""
        return self.linearize(s, x).push(Q)

    def jacobian(self, s: Tensor, x: Tensor | None) -> Tensor:
        """Return ``∂f/∂s`` at (s, x) as a tensor of shape (*batch, state_size, state_size)."""
        return self.linearize(s, x).dense()

    def hidden_linearization(self, s: Tensor, x: Tensor | None) -> Linearization:
        """Return the derivative of the output with respect to the output alone, other state frozen.

        This is the h-only variant of the thesis (``state="hidden"``), the leading (output_size, output_size)
        block of the Jacobian.
        """
        whole = self.linearize(s, x)
        if self.output_size == self.state_size:
            return whole
        return LeadingLinearization(whole, self.output_size, self.state_size)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RecurrentCell:
        # Else .to(torch.float64) would drop the imaginary part of complex weights.
        def of_parts(t: Tensor) -> Tensor:
            return torch.view_as_complex(fn(torch.view_as_real(t.resolve_conj()))) if t.is_complex() else fn(t)

        return super()._apply(of_parts, recurse)

    def forward(self, x: Tensor, s: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over sequences.

        Parameters
        ----------
        x : Tensor of shape (n_sequences, n_steps, n_inputs)
            Inputs.
        s : Tensor of shape (n_sequences, state_size), optional
            Initial state; by default `initial_state`.

        Returns
        -------
        outputs : Tensor of shape (n_sequences, n_steps, output_size)
        s : Tensor of shape (n_sequences, state_size)
            The last state.
        """
        states = self.trajectory(self.initial_state(x.shape[0]) if s is None else s, x)
        return self.output(states[1:]).transpose(0, 1), states[-1]
