"""Copies of networks, so that running one touches nothing of the user's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType
from typing import Any

from torch import Tensor, nn

__all__ = ["duplicate", "snapshot"]

_MUTABLE = (list, dict, set, Tensor, nn.Module, MethodType)
"""What the variables of a function may hold that running it may change."""


_COMPILED = "_torchdynamo_orig_callable"
"""Where torch.compile keeps the function that it compiled."""


class _Uncompiled:
    """The function that a compiled one stands for."""

    function: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def snapshot(module: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Return a copy of a module in evaluation mode, without gradients.

    Parameters
    ----------
    module : torch.nn.Module
    memo : dict, optional
        As of :func:`copy.deepcopy`: what the copy shares with the module.

    Raises
    ------
    ValueError
        If the module cannot be copied.
    """
    return duplicate(module, module, memo).eval().requires_grad_(False)


def duplicate(what: Any, module: nn.Module, memo: dict[int, Any] | None = None) -> Any:
    """Return a deep copy of a module, or of a tuple of a module and parts of it.

    ``copy.deepcopy`` shares functions, and refuses tensors that belong to a graph. Here hooks, and functions that
    take the place of a `forward`, are bound to the copy, and such tensors are detached.

    Parameters
    ----------
    what : Module or tuple
    module : torch.nn.Module
        The outermost module in it.
    memo : dict, optional
        What the copy shares with the original.
    """
    memo = {} if memo is None else memo
    for attached in _attached_tensors(module):
        memo[id(attached)] = attached.detach().clone()
    functions = list(_functions(module))
    try:
        for function in functions:
            memo[id(function)] = _Uncompiled() if hasattr(function, _COMPILED) else _unbound(function)
        twin = copy.deepcopy(what, memo)
        for function in functions:
            _bind(function, memo)
    except Exception as error:
        raise ValueError(
            f"The 'network' parameter must be a network that copy.deepcopy can copy, as it is analysed as a copy. "
            f"Copying the {type(module).__name__} failed: {error}"
        ) from error
    return twin


def _attached_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors among a module's attributes that belong to a graph, which deepcopy refuses."""
    for submodule in module.modules():
        for value in vars(submodule).values():
            items = value.values() if isinstance(value, dict) else value
            for item in items if isinstance(items, list | tuple | type({}.values())) else [items]:
                if isinstance(item, Tensor) and not item.is_leaf:
                    yield item


def _functions(module: nn.Module) -> Iterator[FunctionType]:
    """Yield the functions with variables of their own that a module's attributes, hooks among them, hold."""
    waiting: list[Any] = []
    for submodule in module.modules():
        for value in vars(submodule).values():
            waiting.extend(value.values() if isinstance(value, dict) else [value])
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, FunctionType) and value.__closure__ and id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting.extend(_contents(value))


def _contents(function: FunctionType) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:  # a variable that has no value yet
        return False
    return True


def _unbound(function: FunctionType) -> FunctionType:
    """Return a function like another whose own variables are still empty."""
    closure = tuple(CellType() for _ in function.__closure__ or ())
    twin = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, closure)
    twin.__kwdefaults__ = function.__kwdefaults__
    twin.__dict__.update(vars(function))
    return twin


def _bind(function: FunctionType, memo: dict[int, Any]) -> None:
    """Give the copy of a function copies of what can be changed, and everything else as it is."""
    twin = memo[id(function)]
    if isinstance(twin, _Uncompiled):
        twin.function = copy.deepcopy(getattr(function, _COMPILED), memo)
        return
    for cell, empty in zip(function.__closure__ or (), twin.__closure__, strict=True):
        if not _is_filled(cell):
            continue
        value = cell.cell_contents
        if isinstance(value, Tensor) and not value.is_leaf and id(value) not in memo:
            memo[id(value)] = value.detach().clone()
        copied = isinstance(value, _MUTABLE) or id(value) in memo
        empty.cell_contents = copy.deepcopy(value, memo) if copied else value
