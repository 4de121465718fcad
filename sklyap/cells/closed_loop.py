"""A network that is fed with its own output, as an autonomous system."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells.base import DenseLinearization, JvpLinearization, Linearization, RecurrentCell
from sklyap.cells.batches import grouped
from sklyap.cells.conversion import adopt, opened
from sklyap.cells.drive import Drive, check_finite
from sklyap.cells.encoder import LayerInput, Observation
from sklyap.cells.loop_checks import check_generated, check_inner, check_outer
from sklyap.cells.loop_network import BareLoop, InnerLoop, OuterLoop, reverse_jacobian
from sklyap.cells.network_checks import FedBackError, check_chain
from sklyap.runtime import outside_inference_mode
from sklyap.validation import check_dense

__all__ = ["ClosedLoopCell", "closed_loop"]

_FOLD_UP_TO = 32
"""Up to this many dimensions one matrix per step costs less than two products."""


@dataclass(frozen=True)
class _LoopLinearization(Linearization):
    """``∂f/∂s + (∂f/∂x) C`` of a cell whose input is a function of its state.

    Attributes
    ----------
    inner : Linearization
        Of the cell.
    C : Tensor of shape (*batch, n_inputs, N)
        The derivative of the input with respect to the state.
    """

    inner: Linearization
    C: Tensor

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        return self.inner.push(Q, self.C @ Q)

    def dense(self) -> Tensor:
        N = self.C.shape[-1]
        eye = torch.eye(N, dtype=self.C.dtype, device=self.C.device).expand(*self.C.shape[:-2], N, N)
        return self.inner.fold(N).push(eye, self.C)

    def fold(self, k: int, *, inputs: bool = True) -> Linearization:
        N = self.C.shape[-1]
        if 2 * k >= N or N <= _FOLD_UP_TO:
            return DenseLinearization(self.dense())
        return replace(self, inner=self.inner.fold(k))

    def __getitem__(self, index: int | slice) -> _LoopLinearization:
        return _LoopLinearization(self.inner[index], self.C[index])


class ClosedLoopCell(RecurrentCell):
    """What :func:`~sklyap.closed_loop` returns.

    Attributes
    ----------
    cell : RecurrentCell
        The recurrent layer.
    loop : torch.nn.Module
        What lies between one of its outputs and its next input.
    n_starts : int
        How many sequences of `spin_up` there were.

    Examples
    --------
    >>> import torch
    >>> from sklyap import closed_loop
    >>> from sklyap.cells import GRUCell
    >>> loop = closed_loop(GRUCell(2, 4), torch.zeros(3, 10, 2), feedback=lambda h: h[..., :2])
    >>> loop.state_size, loop.forecast(5).shape
    (4, torch.Size([3, 5, 4]))
    """

    _starts: Tensor
    _first_output: Tensor

    def __init__(
        self, cell: RecurrentCell, loop: Any, starts: Tensor, first_output: Tensor | None, memory: str | None = None
    ) -> None:
        super().__init__()
        self.cell, self.loop, self.memory = cell, loop, memory
        self.n_inputs, self.state_size, self.output_size = None, starts.shape[1], cell.output_size
        self.register_buffer("_starts", starts, persistent=False)
        if first_output is not None:
            self.register_buffer("_first_output", first_output, persistent=False)

    @property
    def n_starts(self) -> int:
        return len(self._starts)

    def initial_state(self, n: int) -> Tensor:
        """Return the states that `spin_up` left; `n` must be their number, unless there is one."""
        if self.n_starts not in (1, n):
            raise ValueError(f"A closed loop starts from the {self.n_starts} states that spin_up left. Got n={n}.")
        return self._starts.to(self._like).expand(n, -1)

    @property
    def _like(self) -> Tensor:
        return next(iter([*self.cell.parameters(), *self.cell.buffers()]), self._starts)

    def step(self, s: Tensor, x: Tensor | None = None) -> Tensor:
        return self._advance(s.reshape(-1, self.state_size))[0].reshape(s.shape)

    def _advance(self, z: Tensor) -> tuple[Tensor, Any]:
        """Return the next state of rows (n, state_size), and what has to be known for the output of the step."""
        if self.memory is None:
            return self.cell.step(z, self.loop(z)), None
        s, m = z[:, : self.cell.state_size], z[:, self.cell.state_size :]
        feedback = self.loop.feedback
        u = feedback.output(m) if self.memory == "feedback" else m
        s = self.cell.step(s, self.loop.drive(u))
        y = self.loop.output(s, u)
        m = feedback.step(m, y) if self.memory == "feedback" else self.loop.next_input(y).reshape(m.shape)
        return torch.cat([s, m], 1), y

    def linearize(self, s: Tensor, x: Tensor | None = None) -> Linearization:
        if self.memory is not None:
            return JvpLinearization(self.step, s, None)
        # Rows are points: a whole trajectory is one batch to the network.
        inner = self.cell.linearize(s, self._drive(s))
        return _LoopLinearization(inner, self._derivative(s))

    def _drive(self, s: Tensor) -> Tensor:
        return self.loop(s.reshape(-1, s.shape[-1])).reshape(*s.shape[:-1], -1)

    def _derivative(self, s: Tensor) -> Tensor:
        """Return the derivative of what drives the cell (*batch, n_inputs, N)."""
        if self.loop.tokens:  # which do not move with the state
            return s.new_zeros(*s.shape[:-1], self.cell.n_inputs or 0, s.shape[-1])
        return reverse_jacobian(self._drive, s)

    @property
    def hidden_entries(self) -> list[int]:
        return self.cell.hidden_entries

    def hidden_linearization(self, s: Tensor, x: Tensor | None = None) -> Linearization:
        index = torch.as_tensor(self.hidden_entries, device=s.device)
        return DenseLinearization(self.linearize(s).dense().index_select(-2, index).index_select(-1, index))

    def forecast(self, n_steps: int) -> Tensor:
        """Return what the network puts out as it runs free, from the step after `spin_up` on.

        Parameters
        ----------
        n_steps : int
            How many steps.

        Returns
        -------
        Tensor of shape (n_starts, n_steps, n_outputs)
        """
        if isinstance(self.loop, InnerLoop):
            raise ValueError(
                "A network whose forward feeds itself knows its output alone: run its forward for a forecast."
            )
        z, outputs = self._starts.to(self._like), [self._first_output.to(self._like)]
        with torch.no_grad():
            for _ in range(n_steps - 1):
                z, y = self._advance(z)
                outputs.append(self.loop.output(z) if y is None else y)
        return torch.stack(outputs, 1)


@outside_inference_mode
def closed_loop(network: Any, spin_up: Any, *, feedback: Any = None, layer: str | None = None) -> ClosedLoopCell:
    """Return the autonomous system of a network that is fed with its own output.

    The state is that of the network's recurrent layer, ``s' = f(s, x(s))`` with ``x(s)`` what the network's output
    after `s` becomes on its way back to the layer, and the Jacobian is ``∂f/∂s + ∂f/∂x ∂x/∂s``.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
        Of three kinds: one that predicts its own next input (a forecaster, a language model); one whose `forward`
        feeds its output back by itself, a function of the last state; a bare layer or cell, whose output is its hidden
        state. It is not changed.
    spin_up : array-like of shape (n_sequences, n_steps, n_inputs) or list of arrays
        Sequences at the network's input, which is run on them first. The state after each is a start.
    feedback : callable or RecurrentCell, optional
        What makes the next input (n, n_inputs) out of the output of one step (n, n_outputs); of tokens, integers
        (n,), as ``lambda scores: scores.argmax(-1)``. None feeds the output back as it is. A RecurrentCell is one with
        a memory, driven by the outputs: its output is the next input, and its state is part of the loop's. Where a
        network returns several values, the first is its output.
    layer : str, optional
        The name of the recurrent submodule to take where there are several.

    Returns
    -------
    ClosedLoopCell
        An autonomous cell for :func:`~sklyap.lyapunov_spectrum` with a number of steps, that has
        ``forecast(n_steps)``. Its state is the recurrent layer's. It is longer where more is remembered: by a feedback
        that is a cell, or where the output depends on the input beside the state, by the input.

    Raises
    ------
    ValueError, TypeError
        If the output cannot be an input, if the feedback cuts the derivative, or if the network does otherwise on
        sequences that go on with its own output: its steps then depend on more than the state.

    References
    ----------
    Pathak, J., Lu, Z., Hunt, B. R., Girvan, M. and Ott, E. (2017). Using machine learning to replicate chaotic
    attractors and calculate Lyapunov exponents from data. Chaos 27, 121102.

    Examples
    --------
    A network with weights such that ``h' = tanh(0.5 h + 0.6 h)``, whose exponent at the fixed point h is
    ``ln 1.1 (1 - h²)``:

    >>> import torch
    >>> from sklyap import closed_loop, lyapunov_spectrum
    >>> cell = torch.nn.RNNCell(1, 1, bias=False).double()
    >>> _ = torch.nn.init.constant_(cell.weight_ih, 1.0), torch.nn.init.constant_(cell.weight_hh, 0.5)
    >>> loop = closed_loop(cell, 0.1 * torch.ones(1, 10, 1), feedback=lambda h: 0.6 * h)
    >>> print(f"{lyapunov_spectrum(loop, 2000).exponents[0]:.4f}")
    -0.1963
    """
    if not isinstance(spin_up, PackedSequence):
        check_dense(spin_up, "spin_up", caller="closed_loop", filled=True)
    cell = opened(network, layer=layer)
    if cell.n_inputs is None:
        raise ValueError("The 'network' parameter of closed_loop must take inputs. Got an autonomous cell.")
    encoder, cell.encoder = cell.encoder, None
    if not isinstance(encoder, LayerInput):
        return _around_cell(cell, spin_up, feedback)
    sequences = _one_length(spin_up)
    cell.encoder = encoder
    try:
        drive = Drive.of(cell, sequences)
    except FedBackError:
        return _inner(cell, encoder, sequences, feedback)
    cell.encoder = None
    seen = encoder.observe(sequences, checked=False)
    loop = OuterLoop(encoder, seen.given, seen.time_first, feedback)
    return _outer(cell, loop, drive, seen.given, encoder)


def _one_length(spin_up: Any) -> Tensor:
    groups = grouped(spin_up)
    if len(groups) > 1:
        raise ValueError(
            "The 'spin_up' parameter must have sequences of one length: cut them to their last steps. Got several."
        )
    return check_finite(groups[0][1])


def _around_cell(cell: RecurrentCell, spin_up: Any, feedback: Any) -> ClosedLoopCell:
    drive = Drive.of(cell, spin_up)
    return _outer(cell, BareLoop(cell, feedback), drive, None, None)


def _settled(cell: RecurrentCell, drive: Drive) -> tuple[Tensor, Tensor]:
    """Return the states of a cell along what drives it (n_sequences, n_steps + 1, N), in float64, and the last ones."""
    twin = copy.deepcopy(cell, {id(cell.encoder): None}).double()
    drive = drive.to(torch.float64, next(iter([*twin.parameters(), *twin.buffers()]), torch.empty(0)).device)
    x, s, lengths = drive.padded(twin, list(range(drive.n_sequences)))
    with torch.no_grad():
        states = twin.trajectory(s, x).transpose(0, 1)
    return states, states[torch.arange(len(lengths)), lengths]


def _outer(cell: RecurrentCell, loop: Any, drive: Drive, given: Tensor | None, encoder: Any) -> ClosedLoopCell:
    states, last = _settled(cell, drive)
    # What is checked is checked in float64, on a copy.
    twin = copy.deepcopy(loop).double()
    memory, first_output, m = check_outer(twin, last, cell, drive, given)
    if memory == "feedback":
        m = _remembered(twin, states, drive, given)
    starts = last if m is None else torch.cat([last, m], 1)
    found = ClosedLoopCell(cell, loop, starts, first_output, memory)
    if encoder is not None and given is not None:
        check_generated(found, encoder, given)
    return found


def _remembered(loop: Any, states: Tensor, drive: Drive, given: Tensor | None) -> Tensor:
    """Return the state of a feedback that remembers after it was driven by the outputs on `spin_up`."""
    n, T = states.shape[0], states.shape[1] - 1
    m = loop.feedback.initial_state(n)
    with torch.no_grad():
        for t in range(T):
            u = None if given is None else given[:, t]
            m = loop.feedback.step(m, loop.output(states[:, t + 1], u).to(m))
    return m


def _inner(cell: RecurrentCell, encoder: LayerInput, sequences: Tensor, feedback: Any) -> ClosedLoopCell:
    if feedback is not None:
        raise ValueError(
            f"The 'feedback' parameter must be None for a network whose forward feeds itself, as that of the "
            f"{type(encoder.module).__name__} does."
        )
    seen: Observation = encoder.observe(sequences, checked=False)
    check_chain(
        f"The 'network' parameter is a {type(encoder.module).__name__}", type(encoder.layer).__name__, seen.calls
    )
    adopt(cell, encoder, seen)
    cell.encoder = None
    loop = check_inner(encoder, seen)
    return ClosedLoopCell(cell, loop, seen.calls[-1].end.double(), None)
