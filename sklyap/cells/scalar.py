"""Steps of small systems as arithmetic on Python's own numbers.

A torch operation on three numbers costs as much as one on a thousand, about a microsecond; one of Python's costs some
thirty nanoseconds. The operations of a step are recorded as it runs once, taken apart into single numbers, and written
out as one Python function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sklyap.cells.base import RecurrentCell

__all__ = ["scalar_trajectory"]

_MOST_OPERATIONS = 2000
"""Maximum operations on numbers in a step that is written out."""
_OPERATIONS_PER_CALL = 16
"""How many operations on numbers cost as much as a call of torch, or somewhat less."""
_AGREEMENT = 1e-12
"""Maximum relative difference between a step of torch and the one that is written out: that of rounding."""
_N_COMPARED = 4

aten = torch.ops.aten
_SHAPES = {
    aten.view, aten.unbind, aten.stack, aten.cat, aten.select, aten.slice, aten.unsqueeze, aten.squeeze, aten.expand,
    aten.permute, aten.transpose, aten.t, aten.clone, aten._unsafe_view, aten.split, aten.split_with_sizes, aten.alias,
    aten.detach, aten.flip, aten.roll, aten.reshape, aten.diagonal, aten.lift_fresh,
}  # fmt: skip
_INFIX = {aten.sub: "-", aten.mul: "*", aten.div: "/", aten.add: "+"}
_COMPARISONS = {aten.gt: ">", aten.lt: "<", aten.ge: ">=", aten.le: "<=", aten.eq: "==", aten.ne: "!="}
_UNARY = {
    aten.neg: "-{0}", aten.sin: "sin({0})", aten.cos: "cos({0})", aten.tan: "tan({0})", aten.tanh: "tanh({0})",
    aten.exp: "exp({0})", aten.log: "log({0})", aten.sqrt: "sqrt({0})", aten.abs: "abs({0})", aten.atan: "atan({0})",
    aten.sinh: "sinh({0})", aten.cosh: "cosh({0})", aten.reciprocal: "1.0/{0}", aten.floor: "float(floor({0}))",
    aten.sigmoid: "1.0/(1.0+exp(-{0}))",
}  # fmt: skip
_NAMES = ("sin", "cos", "tan", "tanh", "exp", "log", "sqrt", "atan", "sinh", "cosh", "floor")


class _UnknownOperationError(Exception):
    """An operation that is not written out."""


class _Recorder(TorchDispatchMode):
    """Writes a line of Python for each number that torch computes.

    Each tensor stands for a tensor of the same shape that holds the numbers of variables. Operations that only move
    numbers about are done on those; others become lines.
    """

    def __init__(self, s: Tensor) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.n_calls = 0
        self._constants: dict[float, int] = {}
        self._names = [f"s{i}" for i in range(s.numel())]
        self._kept: dict[int, tuple[Tensor, Tensor]] = {id(s): (s, torch.arange(s.numel()).reshape(s.shape))}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, which takes two seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.n_calls += 1
        if func._schema.is_mutable:
            raise _UnknownOperationError(str(func))
        known = [self._kept.get(id(t)) for t in _tensors(args)]
        if any(entry is not None for entry in known):
            self._keep(out, self._variables(func.overloadpacket, args, kwargs))
        return out

    def names(self, tensor: Tensor) -> list[str]:
        """Return the variables that a tensor stands for."""
        return [self._names[i] for i in self._of(tensor).flatten().tolist()]

    def _keep(self, out: Any, variables: Any) -> None:
        if isinstance(out, Tensor):
            self._kept[id(out)] = (out, variables)
        else:
            for tensor, part in zip(out, variables, strict=True):
                self._kept[id(tensor)] = (tensor, part)

    def _of(self, value: Any) -> Tensor:
        """Return the variables of a tensor or number; those of one that does not depend on the state are constants."""
        entry = self._kept.get(id(value)) if isinstance(value, Tensor) else None
        if entry is not None:
            return entry[1]
        constants = torch.as_tensor(value, dtype=torch.float64)
        if constants.numel() > _MOST_OPERATIONS:
            raise _UnknownOperationError("a large constant")
        return torch.tensor([self._constant(c) for c in constants.flatten().tolist()]).reshape(constants.shape)

    def _constant(self, value: float) -> int:
        if not math.isfinite(value):
            raise _UnknownOperationError(str(value))
        if value not in self._constants:
            self._names.append(f"({value!r})")
            self._constants[value] = len(self._names) - 1
        return self._constants[value]

    def _line(self, expression: str) -> int:
        if len(self.lines) >= _MOST_OPERATIONS:
            raise _UnknownOperationError("too many operations")
        name = f"v{len(self.lines)}"
        self.lines.append(f"{name} = {expression}")
        self._names.append(name)
        return len(self._names) - 1

    def _each(self, template: str, *operands: Any) -> Tensor:
        """Write a line for each entry of operands that are broadcast against each other."""
        parts = torch.broadcast_tensors(*map(self._of, operands))
        rows = zip(*(part.flatten().tolist() for part in parts), strict=True)
        found = [self._line(template.format(*(self._names[i] for i in row))) for row in rows]
        return torch.tensor(found, dtype=torch.int64).reshape(parts[0].shape)

    def _variables(self, packet: Any, args: Any, kwargs: Any) -> Any:
        if packet in _SHAPES:
            return packet(*map(self._mapped, args))
        if packet in _UNARY and not kwargs:
            return self._each(_UNARY[packet], args[0])
        if packet in _COMPARISONS:
            return self._each(f"{{0}} {_COMPARISONS[packet]} {{1}}", *args)
        scale = kwargs.get("alpha", args[2] if packet in (aten.add, aten.sub, aten.rsub) and len(args) > 2 else 1)
        if packet is aten.rsub and scale == 1:
            return self._each("{1} - {0}", *args[:2])
        if packet in _INFIX and set(kwargs) <= {"alpha"} and len(args) >= 2:
            second = "{1}" if scale == 1 else f"({float(scale)!r}) * {{1}}"
            return self._each(f"{{0}} {_INFIX[packet]} {second}", *args[:2])
        if packet is aten.pow and args[1] in (2, 3):
            return self._each(" * ".join(["{0}"] * int(args[1])), args[0])
        if packet is aten.where and len(args) == 3:
            return self._each("{1} if {0} else {2}", *args)
        if packet is aten.relu:
            return self._each("{0} if {0} > 0.0 else 0.0", *args)
        if packet is aten.mm:
            return self._product(*map(self._of, args))
        if packet is aten.sum and not kwargs and len(args) > 1:
            return self._sum(*args)
        raise _UnknownOperationError(str(packet))

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._of(value)
        tensors = isinstance(value, list | tuple) and any(isinstance(item, Tensor) for item in value)
        return [self._of(item) for item in value] if tensors else value

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        names = self._names
        rows = [
            [
                self._line(" + ".join(f"{names[i]} * {names[j]}" for i, j in zip(row, column, strict=True)))
                for column in b.T.tolist()
            ]
            for row in a.tolist()
        ]
        return torch.tensor(rows).reshape(len(a), b.shape[1])

    def _sum(self, tensor: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
        variables = self._of(tensor)
        (axis,) = dim
        moved = variables.movedim(axis, -1)
        flat = [
            self._line(" + ".join(self._names[i] for i in row)) for row in moved.reshape(-1, moved.shape[-1]).tolist()
        ]
        found = torch.tensor(flat).reshape(moved.shape[:-1])
        return found.unsqueeze(axis) if keepdim else found


def scalar_trajectory(cell: RecurrentCell, s: Tensor) -> Callable[[Tensor, int], Tensor] | None:
    """Return what runs an autonomous cell as ``cell.trajectory(s, n_steps)`` does, but for rounding, in less time.

    None where it would not be faster, where an operation is not known, and where it does not agree with the cell. A
    stretch in which a step disagrees later on is run by the cell.

    Parameters
    ----------
    cell : RecurrentCell
        Autonomous.
    s : Tensor of shape (1, state_size)
        A state on which the step is recorded, in float64.
    """
    if s.dtype != torch.float64 or s.shape[0] != 1 or s.is_cuda:
        return None
    with torch.no_grad():
        s = s.detach().clone()
        recorder = _Recorder(s)
        try:
            with recorder:
                s_next = cell.step(s, None)
            names = recorder.names(s_next)
        except Exception:  # an operation that is not known, or a step that cannot be recorded
            return None
        if len(recorder.lines) > _OPERATIONS_PER_CALL * recorder.n_calls:
            return None
        run = _written(recorder.lines, names)

        def written(s: Tensor, n_steps: int) -> Tensor | None:
            """Return the states (n_steps + 1, state_size), None where the cell goes elsewhere."""
            try:
                numbers = run(n_steps, *s[0].tolist())
            except (ArithmeticError, ValueError):  # where torch gives infinity or NaN
                return None
            states = torch.cat([s, torch.from_numpy(np.array(numbers)).reshape(n_steps, -1)])
            return states if _follows(cell, states) else None

        def trajectory(s: Tensor, n_steps: int) -> Tensor:
            states = written(s, n_steps)
            return cell.trajectory(s, n_steps) if states is None else states.unsqueeze(1)

        return None if written(s, _N_COMPARED) is None else trajectory


def _follows(cell: RecurrentCell, states: Tensor) -> bool:
    """Tell whether each state (n_steps + 1, state_size) is what the cell's own step makes of the one before.

    All steps are compared, in one call: a step that leaves torch to look at a value (``tolist``, ``numpy``) takes a
    branch that was not recorded.
    """
    expected, found = cell.step(states[:-1], None), states[1:]
    size = expected.abs().amax().clamp(min=1.0)
    return bool(((expected - found).abs() <= _AGREEMENT * size).all())


def _written(lines: list[str], names: list[str]) -> Callable[..., list[float]]:
    """Return a function ``(n_steps, s0, s1, …)`` that lists the states after each step, one number after the other."""
    state = ", ".join(f"s{i}" for i in range(len(names)))
    body = "\n        ".join([*lines, f"{state}, = {', '.join(names)},", f"extend(({state},))"])
    code = (
        f"def run(n_steps, {state}):\n    states = []\n    extend = states.extend\n"
        f"    for _ in range(n_steps):\n        {body}\n    return states\n"
    )
    scope: dict[str, Any] = {name: getattr(math, name) for name in _NAMES}
    exec(code, scope)
    return scope["run"]


def _tensors(args: Any) -> list[Tensor]:
    found = []
    for value in args:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found
