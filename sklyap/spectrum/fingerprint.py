"""Hashes of cells: of what they compute, and of that with their weights, the same in every process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import chain
from types import CodeType, FunctionType, ModuleType
from typing import Any

import joblib
from torch import Tensor, nn

from sklyap.cells import RecurrentCell

__all__ = ["fingerprint", "structure"]

_INTERNAL = frozenset(vars(nn.Module()))
_LIBRARIES = ("sklyap", "torch", "numpy", "builtins", "abc", "typing")
"""Packages whose code is known by its name."""


def structure(cell: RecurrentCell) -> str | None:
    """Return a hash of everything but weights: kinds of modules, their attributes, names and shapes of weights.

    Cells of one structure compute the same function of their weights. Classes and functions from elsewhere count with
    their code and with what it refers to. None where something has no hash.
    """
    try:
        modules = [
            (name, _value(type(module)), {key: _value(v) for key, v in vars(module).items() if key not in _INTERNAL})
            for name, module in cell.named_modules()
        ]
        pickle.dumps(modules)  # raises, where joblib.hash may pass over what is in a dictionary
        return joblib.hash((modules, [(name, tuple(value.shape)) for name, value in _weights(cell)]))
    except Exception:  # whatever pickling the attributes of a user's class raises
        return None


def fingerprint(cell: RecurrentCell, *inputs: Any) -> str | None:
    """Return a hash of a cell, its weights and `inputs`, or None for a cell without a `structure`."""
    kind = structure(cell)
    if kind is None:
        return None
    return joblib.hash((kind, [value.detach().cpu().numpy() for _, value in _weights(cell)], inputs))


def _weights(cell: RecurrentCell) -> Iterator[tuple[str, Tensor]]:
    return chain(cell.named_parameters(), cell.named_buffers())


def _value(value: Any, seen: frozenset[Any] = frozenset()) -> Any:
    """Return what stands for a value: data itself, code where pickle has only a name."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, list | tuple):
        return [_value(item, seen) for item in value]
    if isinstance(value, dict):
        return [(key, _value(item, seen)) for key, item in value.items()]
    if isinstance(value, ModuleType):
        return value.__name__
    if not isinstance(value, type | FunctionType):
        return value
    name = f"{value.__module__}.{value.__qualname__}"
    if value in seen or value.__module__.partition(".")[0] in _LIBRARIES:
        return name
    seen |= {value}
    if isinstance(value, FunctionType):
        return name, _code(value.__code__), *(_value(item, seen) for item in _surroundings(value))
    members = {
        key: getattr(member, "__func__", getattr(member, "fget", member))  # of static methods and properties
        for key, member in vars(value).items()
        if isinstance(member, FunctionType) or not (key.startswith("__") or key == "_abc_impl")
    }
    return name, _value(members, seen), _value(value.__bases__, seen)


def _surroundings(function: FunctionType) -> Iterator[Any]:
    """Yield what a function refers to beside its arguments: defaults, variables around it, globals."""
    yield function.__defaults__
    yield function.__kwdefaults__
    for cell in function.__closure__ or ():
        yield cell.cell_contents
    yield {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _code(code: CodeType) -> tuple[Any, ...]:
    constants = [
        _code(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return code.co_code, code.co_names, code.co_varnames, constants
