"""What a closed loop must be: checks of a network that is fed with its own output, against the network itself."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

from sklyap.cells.base import RecurrentCell
from sklyap.cells.comparison import rounding_of
from sklyap.cells.differences import wrong_derivative
from sklyap.cells.drive import Drive
from sklyap.cells.encoder import LayerInput, Observation
from sklyap.cells.loop_network import InnerLoop, reverse_jacobian
from sklyap.cells.observation import run_network

__all__ = ["check_generated", "check_inner", "check_outer"]

_N_GENERATED = 3
"""How many steps a network goes on with its own output, to compare it with the loop."""
_N_COMPARED = 3
_MODULE_CELL = "Write what happens in one step as a ModuleCell."


def check_outer(
    loop: Any, s: Tensor, cell: RecurrentCell, drive: Drive, given: Tensor | None
) -> tuple[str | None, Tensor, Tensor | None]:
    """Return what the loop remembers beside the state, its first output, and its first memory.

    Parameters
    ----------
    loop : OuterLoop or BareLoop
        In float64.
    s : Tensor of shape (n_sequences, N)
        The states after `spin_up`.
    cell : RecurrentCell
    drive : Drive
    given : Tensor of shape (n_sequences, n_steps, ...) or None

    Returns
    -------
    memory : {"feedback", "input"} or None
    first_output : Tensor of shape (n_sequences, n_outputs)
    m : Tensor of shape (n_sequences, M) or None
    """
    with torch.no_grad():
        last = None if given is None else given[:, -1].to(s.dtype) if given.is_floating_point() else given[:, -1]
        y = _called("network", lambda: loop.output(s, last))
        skips = last is not None and not _equal(y, loop.output(s, _other(last)))
        if isinstance(loop.feedback, RecurrentCell):
            _check_width(loop.feedback.output_size, cell, loop, given, y)
            return "feedback", y, None
        u = _called("feedback", lambda: loop.next_input(y))
        _check_input(u, cell, loop, given, y)
        if skips and loop.tokens:
            raise ValueError(
                "The 'network' parameter of closed_loop has an output that depends on its token beside its state. "
                f"{_MODULE_CELL}"
            )
        if skips:
            return "input", y, u.reshape(len(s), -1)
        _check_rows(loop, s)
    if not loop.tokens:
        _check_derivative(loop, s)
    return None, y, None


def _called(name: str, function: Any) -> Any:
    try:
        return function()
    except Exception as error:
        raise ValueError(
            f"The {name!r} parameter of closed_loop could not be run on one step in float64: {error}. {_MODULE_CELL}"
        ) from error


def _other(given: Tensor) -> Tensor:
    """Return other inputs of the same kind: shifted numbers, or another token that occurs."""
    if given.is_floating_point():
        return given + 1 + given.abs()
    return torch.where(given == given.max(), given.min(), given.max())


def _equal(a: Any, b: Any) -> bool:
    return bool(torch.equal(a, b)) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b


def _check_input(u: Any, cell: RecurrentCell, loop: Any, given: Tensor | None, y: Any) -> None:
    if not isinstance(u, Tensor):
        kind = type(u).__name__
        raise TypeError(
            f"The 'feedback' parameter of closed_loop must return the next input as a tensor. Got {kind}."
            if loop.feedback is not None
            else f"The 'feedback' parameter of closed_loop must be given for a network that returns {kind}."
        )
    if loop.tokens and u.is_floating_point():
        raise ValueError(
            "The 'feedback' parameter of closed_loop must return integer tokens (n,), as the network takes. Got "
            f"{u.dtype}: for the most likely one, feedback=lambda scores: scores.argmax(-1)."
        )
    _check_width(u.numel() // len(y), cell, loop, given, y)


def _check_width(width: int, cell: RecurrentCell, loop: Any, given: Tensor | None, y: Any) -> None:
    wanted = cell.n_inputs if given is None else given[0, 0].numel()
    if width != wanted:
        shape = tuple(y.shape[1:]) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"The 'feedback' parameter of closed_loop must make the network's {wanted} inputs per step of its output "
            f"of shape {shape}. Got {width}{' without feedback' if loop.feedback is None else ''}."
        )


def _check_rows(loop: Any, s: Tensor) -> None:
    """Refuse a readout or a feedback that mixes sequences, as whole trajectories are one batch to it."""
    rows = torch.cat([s, 0.9 * s + 0.01])
    together, alone = loop(rows), torch.cat([loop(row.unsqueeze(0)) for row in rows])
    if not _close(together, alone, 1e-9):
        raise ValueError(
            "The 'network' parameter of closed_loop, or its feedback, mixes sequences of a batch (a mean over rows, "
            f"batch statistics): one row alone gives {float(alone.flatten()[0]):.6g}, among others "
            f"{float(together.flatten()[0]):.6g}. Reduce over the last axis."
        )


def _check_derivative(loop: Any, s: Tensor) -> None:
    """Hold the derivative of the feedback path against finite differences."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.cat([s, 0.9 * s + 0.01])
    v = torch.randn(rows.shape, generator=generator, dtype=s.dtype).to(s)
    with torch.no_grad():
        found = (reverse_jacobian(loop, rows) @ v.unsqueeze(-1)).squeeze(-1)
        wrong = wrong_derivative(lambda s, x: loop(s), rows, None, v, found)
    if wrong is not None:
        row, entry, by_differences = wrong
        raise ValueError(
            "The 'network' parameter of closed_loop, or its feedback, cuts the derivative of the next input by the "
            f"state (detach, .data, numpy, no_grad): in one direction it is {float(found[row, entry]):.8g}, and "
            f"{by_differences:.8g} by finite differences. Write it in torch operations."
        )


def check_generated(found: Any, encoder: LayerInput, given: Tensor) -> None:
    """Compare a loop with its network, run on sequences that go on with its own output.

    Raises
    ------
    ValueError
        If the network's recurrent layer gets something else there than the loop says, so that its steps depend on more
        than the state: on the number of the step, or on earlier inputs.
    """
    twin = copy.deepcopy(found).double()
    z, inputs, drives = twin._starts, [], []
    with torch.no_grad():
        for _ in range(_N_GENERATED):
            u = _input_of(twin, z)
            inputs.append(u.reshape(len(u), 1, *given.shape[2:]).to(given))
            drives.append(twin.loop.drive(inputs[-1][:, 0].to(z.dtype) if given.is_floating_point() else u))
            z = twin._advance(z)[0]
    longer, T = torch.cat([given, *inputs], 1), given.shape[1]
    for n_steps in range(T, T + _N_GENERATED + 1):
        _check_prefix(twin.loop, encoder, longer[:, :n_steps], torch.stack(drives, 1)[:, : n_steps - T])


def _check_prefix(loop: Any, encoder: LayerInput, given: Tensor, drives: Tensor) -> None:
    """Compare a loop's output and its last inputs of the layer with those of the network on a whole sequence."""
    network = f"The 'network' parameter of closed_loop is a {type(encoder.module).__name__}"
    n, n_steps = given.shape[:2]
    returned: list[Any] = []
    calls = run_network(
        encoder.module, encoder.layer, given.transpose(0, 1) if loop.time_first else given, encoder.arguments,
        returned=returned,
    )  # fmt: skip
    x = torch.cat([call.x for call in calls], 1)[:, n_steps - drives.shape[1] :]
    tolerance = 1e3 * rounding_of(x)
    if x.shape != drives.shape or not _close(x.double(), drives.double(), tolerance):
        raise ValueError(
            f"{network} whose {type(encoder.layer).__name__} gets other inputs on a whole sequence than on one step "
            f"({_some(x)}, and {_some(drives)} from the step alone): they depend on the number of the step, or on "
            f"earlier inputs. {_MODULE_CELL}"
        )
    last = given[:, -1].to(drives.dtype) if given.is_floating_point() else given[:, -1]
    with torch.no_grad():
        expected = loop.output(calls[-1].end.to(drives.dtype), last)
    y = loop.last_step(returned[0], n, n_steps) if returned else None
    if not isinstance(y, Tensor) or not isinstance(expected, Tensor):
        return
    if y.shape != expected.shape or not _close(y.double(), expected, tolerance):
        raise ValueError(
            f"{network} whose output on a whole sequence is not that of its last state ({_some(y)}, and "
            f"{_some(expected)} from the state alone): it depends on the number of the step, or on earlier states. "
            f"{_MODULE_CELL}"
        )


def _some(tensor: Tensor) -> str:
    return f"{float(tensor.flatten()[0]):.6g}" if tensor.numel() else "nothing"


def _input_of(found: Any, z: Tensor) -> Tensor:
    """Return the network's next input (n, ...) in the state `z` of a closed loop."""
    N = found.cell.state_size
    if found.memory is None:
        return found.loop.next_input(found.loop.output(z))
    return found.loop.feedback.output(z[:, N:]) if found.memory == "feedback" else z[:, N:]


def check_inner(encoder: LayerInput, seen: Observation) -> InnerLoop:
    """Return the way back of a network whose forward feeds itself, if its inputs are a function of the last state.

    Raises
    ------
    ValueError
        If the last inputs of the recurrent layer are not what the state before them gives.
    """
    calls, given, T = seen.calls, seen.given, len(seen.calls)
    network = f"The 'network' parameter of closed_loop is a {type(encoder.module).__name__}"
    name = type(encoder.layer).__name__
    if any(call.x.shape[1] != 1 for call in calls) or T != given.shape[1] or T < 2 + _N_COMPARED:
        raise ValueError(
            f"{network} that feeds its {name} back in {T} calls on {given.shape[1]} steps. One call of one step each, "
            f"and at least {2 + _N_COMPARED} steps, are needed. {_MODULE_CELL}"
        )
    for n_steps in (2, T):
        loop = InnerLoop(encoder, given, seen.time_first, calls, n_steps)
        with torch.no_grad():
            found = [loop(calls[t - 1].end) for t in range(T - _N_COMPARED, T)]
        expected = [calls[t].x[:, 0] for t in range(T - _N_COMPARED, T)]
        if all(_close(a, b, 1e2 * rounding_of(b)) for a, b in zip(found, expected, strict=True)):
            twin, s = copy.deepcopy(loop).double(), calls[-1].end.double()
            with torch.no_grad():
                _check_rows(twin, s)
            _check_derivative(twin, s)
            return loop
    raise ValueError(
        f"{network} whose {name} is fed with more than a function of its last state (its input sequence, earlier "
        f"states): the state before call {T} gives {float(found[-1].flatten()[0]):.6g}, and the call got "
        f"{float(expected[-1].flatten()[0]):.6g}. {_MODULE_CELL}"
    )


def _close(a: Tensor, b: Tensor, rtol: float) -> bool:
    if a.shape != b.shape or not a.numel():
        return a.shape == b.shape
    size = 1 + float(b.abs().max())
    if not math.isfinite(size):
        return False
    return bool(torch.allclose(a, b, rtol=0.0, atol=rtol * size))
