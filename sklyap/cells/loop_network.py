"""A network taken apart at its recurrent layer: its readout of a state, and what an input becomes for the layer."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.encoder import LayerInput
from sklyap.cells.observation import Call, layer_input
from sklyap.cells.replay import Replay
from sklyap.cells.snapshot import duplicate

__all__ = ["BareLoop", "InnerLoop", "OuterLoop", "reverse_jacobian"]

_answer: ContextVar[Callable[..., Any]] = ContextVar("_answer")


def _answered(*args: Any, **kwargs: Any) -> Any:
    """Stand in for the forward of a recurrent layer; who runs the network says what it returns."""
    return _answer.get()(*args, **kwargs)


def reverse_jacobian(function: Callable[[Tensor], Tensor], s: Tensor) -> Tensor:
    """Return the derivative (*batch, m, n) of a function of points (*batch, n), by a backward pass per entry."""
    attached = torch.is_grad_enabled()
    with torch.enable_grad():
        point = s if attached and s.requires_grad else s.detach().requires_grad_()
        x = function(point)
        if not x.requires_grad:  # nothing in it depends on the point
            return point.new_zeros(*x.shape, s.shape[-1])
        rows = [
            torch.autograd.grad(entry.sum(), point, retain_graph=True, create_graph=attached, allow_unused=True)[0]
            for entry in x.unbind(-1)
        ]
    return torch.stack([torch.zeros_like(s) if row is None else row for row in rows], -2)


class _ReachedError(BaseException):
    """The recurrent layer was called, and nothing after it matters. Networks may catch exceptions, but not this."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


class _Parts(nn.Module):
    """A copy of a network whose recurrent layer is answered for.

    Parameters
    ----------
    encoder : LayerInput
    given : Tensor of shape (n_sequences, n_steps, ...)
        Sequences as the network takes them, but with sequences first.
    time_first : bool
        Whether the network takes them with time first.
    """

    _given: Tensor

    def __init__(self, encoder: LayerInput, given: Tensor, time_first: bool) -> None:
        super().__init__()
        self.network, self._layer = duplicate((encoder.module, encoder.layer), encoder.module)
        self._layer.forward = _answered
        self.time_first = time_first
        self.register_buffer("_given", given[:1].clone(), persistent=False)

    def _run(self, given: Tensor, answer: Callable[..., Any]) -> Any:
        token = _answer.set(answer)
        try:
            return self.network(given.transpose(0, 1) if self.time_first else given)
        finally:
            _answer.reset(token)

    def _reach(self, given: Tensor, before: list[Tensor]) -> Tensor:
        """Return what the layer gets (n, n_inputs) in the call after those that return the states `before`."""
        replays = [Replay(self._layer, state.unsqueeze(1)) for state in before]

        def answer(*args: Any, **kwargs: Any) -> Any:
            if replays:
                return replays.pop(0)(*args, **kwargs)
            raise _ReachedError(layer_input(self._layer, args, kwargs))

        try:
            self._run(given, answer)
        except _ReachedError as reached:
            return reached.x[:, 0]
        raise ValueError("The 'network' parameter has a network that did not reach its recurrent layer again.")


class OuterLoop(_Parts):
    """A network whose output is fed back from outside: its next input is a function of its output.

    Parameters
    ----------
    encoder, given, time_first
        See :class:`_Parts`.
    feedback : callable or None
        From outputs (n, n_outputs) to the network's next input (n, ...).
    """

    def __init__(self, encoder: LayerInput, given: Tensor, time_first: bool, feedback: Any) -> None:
        super().__init__(encoder, given[:, :1], time_first)
        self.feedback = feedback
        self.tokens = not given.is_floating_point()

    def output(self, s: Tensor, u: Tensor | None = None) -> Any:
        """Return the network's output (n, n_outputs) after the states `s` (n, N), its input having been `u`."""
        given = self._step(u) if u is not None else self._given.expand(len(s), *self._given.shape[1:])
        return self.last_step(self._run(given, Replay(self._layer, s.unsqueeze(1))), len(s), 1)

    def last_step(self, output: Any, n: int, n_steps: int) -> Any:
        """Return the output (n, n_outputs) of the last of `n_steps` steps; of several outputs, the first."""
        if isinstance(output, tuple | list):
            output = output[0]
        if not isinstance(output, Tensor):
            return output
        if output.ndim > 2:
            return (output.transpose(0, 1) if self.time_first else output)[:, -1]
        if n_steps > 1 and output.ndim == 2 and output.shape in ((n, n_steps), (n_steps, n)):
            # One number at every step, without an axis of outputs.
            return (output.T if self.time_first and output.shape == (n_steps, n) else output)[:, -1:]
        return output.reshape(n, -1)

    def next_input(self, output: Any) -> Tensor:
        """Return the network's next input, one step (n, ...), that is made of its output."""
        return output if self.feedback is None else self.feedback(output)

    def drive(self, u: Tensor) -> Tensor:
        """Return what the layer gets (n, n_inputs) when the network gets `u`, one step (n, ...)."""
        return self._reach(self._step(u), [])

    def _step(self, u: Tensor) -> Tensor:
        if self.tokens:
            return u.reshape(len(u), *self._given.shape[1:])
        return u.to(self._given.dtype).reshape(len(u), *self._given.shape[1:])

    def forward(self, s: Tensor) -> Tensor:
        """Return what the layer gets next (n, n_inputs) after the states `s` (n, N)."""
        return self.drive(self.next_input(self.output(s)))


class InnerLoop(_Parts):
    """A network whose forward feeds its output back by itself.

    Parameters
    ----------
    encoder, given, time_first
        See :class:`_Parts`.
    calls : list of Call
        Those of a run on `given`.
    n_steps : int
        On how many steps of `given` the network is run to see the input of its last call.
    """

    tokens = False

    def __init__(self, encoder: LayerInput, given: Tensor, time_first: bool, calls: list[Call], n_steps: int) -> None:
        super().__init__(encoder, given[:, :n_steps], time_first)
        self.n_before = n_steps - 2
        for i in range(self.n_before):
            self.register_buffer(f"before_{i}", calls[i].end[:1].clone(), persistent=False)

    def forward(self, s: Tensor) -> Tensor:
        """Return what the layer gets next (n, n_inputs) after the states `s` (n, N)."""
        n = len(s)
        before = [getattr(self, f"before_{i}").expand(n, -1) for i in range(self.n_before)]
        return self._reach(self._given.expand(n, *self._given.shape[1:]), [*before, s])


class BareLoop(nn.Module):
    """A cell without a network around it: its output, through `feedback`, is what drives it.

    Parameters
    ----------
    cell : RecurrentCell
    feedback : callable or None
    """

    tokens = False

    def __init__(self, cell: Any, feedback: Any) -> None:
        super().__init__()
        self._cell = (cell,)  # registered by who owns this
        self.feedback = feedback

    def output(self, s: Tensor, u: Tensor | None = None) -> Tensor:
        """Return the cell's output (n, output_size)."""
        return self._cell[0].output(s)

    def next_input(self, output: Tensor) -> Tensor:
        """Return the next input (n, n_inputs) that is made of an output."""
        return output if self.feedback is None else self.feedback(output)

    def drive(self, u: Tensor) -> Tensor:
        """Return `u`."""
        return u

    def forward(self, s: Tensor) -> Tensor:
        """Return what drives the cell after the states `s` (n, N)."""
        return self.next_input(self.output(s))
