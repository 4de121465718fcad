"""A call to train_population in words that JSON can hold: compared when it is resumed, hashed for its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sklyap.cells import RecurrentCell

__all__ = ["Unknown", "describe", "differences", "digest", "identity", "recall"]

_CLASS, _OBJECT, _ITEMS = "__class__", "__object__", "__items__"
_MAX_DEPTH = 6  # of objects that are described
_MAX_NESTING = 50  # of what is recalled; more is not from here, and would exhaust the stack


@dataclass(frozen=True)
class Unknown:
    """Stands for a described object that can't be built again from its description."""

    name: str
    is_class: bool


def describe(value: Any, depth: int = 0) -> Any:
    """Return `value` as JSON would bring it back: numbers, strings, lists and dicts stay, classes are named.

    Other objects become the name of their class with their attributes, which tells most of them apart but
    can't be turned back.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):  # class_weight, say; keys of JSON are strings
            return {_ITEMS: [[describe(key, depth), describe(item, depth)] for key, item in value.items()]}
        return {key: describe(item, depth) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item, depth) for item in value]
    if isinstance(value, type):
        return {_CLASS: _qualified(value)}
    if isinstance(value, torch.Tensor):
        return {_OBJECT: "torch.Tensor", "value": value.tolist()}
    if hasattr(value, "__qualname__"):  # a function
        return {_OBJECT: _qualified(value)}
    state = vars(value) if hasattr(value, "__dict__") and depth < _MAX_DEPTH else {}
    return {_OBJECT: _qualified(type(value)), **{str(k): describe(v, depth + 1) for k, v in state.items()}}


def recall(description: Any, depth: int = 0) -> Any:
    """Return the value that `describe` described, or an `Unknown` instance.

    A class is looked up by name among the cells and optimizers that this process has loaded already;
    nothing is imported on the word of a file.
    """
    if depth > _MAX_NESTING:
        return Unknown("nested too deeply", is_class=False)
    if isinstance(description, Mapping):
        if _OBJECT in description:
            return Unknown(str(description[_OBJECT]), is_class=False)
        if _CLASS in description:
            name = str(description[_CLASS])
            return _loaded_classes().get(name, Unknown(name, is_class=True))
        if _ITEMS in description:
            return _recalled_items(description[_ITEMS], depth)
        values = {key: recall(item, depth + 1) for key, item in description.items()}
        return next((v for v in values.values() if isinstance(v, Unknown)), values)
    if isinstance(description, list):
        items = [recall(item, depth + 1) for item in description]
        return next((v for v in items if isinstance(v, Unknown)), items)
    return description


def _recalled_items(items: Any, depth: int) -> Any:
    """Return a dict whose keys are numbers, or an `Unknown` instance."""
    pairs = recall(items, depth + 1)
    if isinstance(pairs, Unknown):
        return pairs
    plain = isinstance(pairs, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs)
    if not plain or not all(isinstance(key, bool | int | float | str | None) for key, _ in pairs):
        return Unknown("no pairs of keys and values", is_class=False)
    return dict(pairs)


def digest(array: Any) -> str | None:
    """Return type, shape and SHA-256 of an array."""
    if array is None:
        return None
    array = np.ascontiguousarray(array)
    content = json.dumps(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return f"{array.dtype} {array.shape} with SHA-256 {hashlib.sha256(content).hexdigest()}"


def identity(call: Any) -> str:
    """Return a name of the call that no other call has."""
    return hashlib.sha256(json.dumps(call, sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return a sentence for every place where two descriptions differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        pairs: Iterable[tuple[str, Any, Any]] = (
            (f"{name}.{key}" if name else key, old.get(key), new.get(key)) for key in keys
        )
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = ((f"{name}[{i}]", *pair) for i, pair in enumerate(zip(old, new, strict=True)))
    else:
        same = old == new or (old != old and new != new)  # NaN equals itself here
        return [] if same else [f"{name} was {_short(old)} and is {_short(new)}"]
    return [sentence for key, a, b in pairs for sentence in differences(a, b, key)]


def _short(value: Any) -> str:
    text = f"a list of {len(value)}" if isinstance(value, Sequence) and len(value) > 8 else repr(value)
    if isinstance(value, str):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _qualified(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _loaded_classes() -> dict[str, type]:
    found: dict[str, type] = {}
    queue: list[type] = [RecurrentCell, torch.optim.Optimizer]
    while queue:
        kind = queue.pop()
        found[_qualified(kind)] = kind
        queue.extend(kind.__subclasses__())
    return found
