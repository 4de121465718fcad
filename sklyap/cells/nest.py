"""States that are nests of tensors, as one row of real numbers for each sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sklyap.exceptions import StepError

__all__ = ["NestLayout"]

Path = tuple[Any, ...]


@dataclass(frozen=True)
class NestLayout:
    """Where the entries of a nest lie in a row: a nest of tuples, lists and dicts of tensors (n, ...) or None.

    Complex tensors lie as pairs of reals.

    Attributes
    ----------
    skeleton : nest
        With the number of each tensor in its place.
    paths : tuple of tuple
        Keys and indices that lead to each tensor.
    shapes : tuple of tuple of int
        Without the first axis.
    is_complex : tuple of bool
    """

    skeleton: Any
    paths: tuple[Path, ...]
    shapes: tuple[tuple[int, ...], ...]
    is_complex: tuple[bool, ...]

    @classmethod
    def of(cls, nest: Any, owner: str) -> NestLayout:
        """Return the layout of `nest`; errors call it `owner`.

        Raises
        ------
        TypeError
            If it holds anything but real or complex tensors and None.
        ValueError
            If it holds no tensor, one without a first axis, or several first axes.
        """
        leaves = list(_leaves(nest))
        for path, leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{owner} must be a nest of tensors. Got {type(leaf).__name__} at {_name(path)}.")
            if not (leaf.is_floating_point() or leaf.is_complex()):
                raise TypeError(
                    f"{owner} must hold real or complex numbers. Got {leaf.dtype} at {_name(path)}: integers have no "
                    "exponents. Give a counter or a token as an input of the step, or leave it out of the state."
                )
        if not leaves or any(leaf.ndim == 0 for _, leaf in leaves):
            raise ValueError(f"{owner} must be a nest of tensors (n, ...), one row for each sequence.")
        sizes = {len(leaf) for _, leaf in leaves}
        if len(sizes) > 1:
            listed = ", ".join(f"{_name(path)} {tuple(leaf.shape)}" for path, leaf in leaves)
            raise ValueError(
                f"{owner} must have one first axis, that of sequences (layers come after it). Got {listed}."
            )
        numbers = iter(range(len(leaves)))
        return cls(
            _rebuilt(nest, numbers),
            tuple(path for path, _ in leaves),
            tuple(tuple(leaf.shape[1:]) for _, leaf in leaves),
            tuple(leaf.is_complex() for _, leaf in leaves),
        )

    @property
    def sizes(self) -> list[int]:
        """How many entries of a row each tensor has."""
        return [
            torch.Size(shape).numel() * (2 if double else 1)
            for shape, double in zip(self.shapes, self.is_complex, strict=True)
        ]

    def flat(self, nest: Any, n: int, owner: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return rows (n, state_size) of a nest.

        Raises
        ------
        StepError
            If it is another nest than that of the layout, or in another real `dtype`, naming the place.
        """
        leaves = list(_leaves(nest))
        if tuple(path for path, _ in leaves) != self.paths:
            expected, got = (", ".join(map(_name, paths)) for paths in (self.paths, [path for path, _ in leaves]))
            raise StepError(f"{owner} must be a nest like the initial state, with {expected}. Got {got or 'nothing'}.")
        parts = []
        for (path, leaf), shape, double in zip(leaves, self.shapes, self.is_complex, strict=True):
            kind = "complex" if double else "real"
            if not isinstance(leaf, Tensor) or tuple(leaf.shape) != (n, *shape) or leaf.is_complex() != double:
                got = f"{leaf.dtype} {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else type(leaf).__name__
                raise StepError(
                    f"{owner} must have {kind} numbers of shape {(n, *shape)} at {_name(path)}, as the initial state "
                    f"has for {n} sequence(s). Got {got} instead."
                )
            if dtype is not None and leaf.real.dtype != dtype:
                raise StepError(
                    f"{owner} must be in {dtype}, as the state is. Got {leaf.dtype} at {_name(path)}: make tensors "
                    "like the state (`state.new_zeros(...)`) and use the module that the step is handed."
                )
            parts.append((torch.stack([leaf.real, leaf.imag], -1) if double else leaf).reshape(n, -1))
        return torch.cat(parts, -1)

    def nest(self, rows: Tensor) -> Any:
        """Return the nest of rows (n, state_size)."""
        leaves = []
        for part, shape, double in zip(rows.split(self.sizes, -1), self.shapes, self.is_complex, strict=True):
            leaf = part.reshape(len(rows), *shape, *([2] if double else []))
            leaves.append(torch.complex(leaf[..., 0], leaf[..., 1]) if double else leaf)
        return _filled(self.skeleton, leaves)


def _items(nest: Any) -> list[tuple[Any, Any]] | None:
    """Return keys and values of a node, None for a leaf."""
    if isinstance(nest, dict):
        return list(nest.items())
    return list(enumerate(nest)) if isinstance(nest, tuple | list) else None


def _like(node: Any, values: list[Any]) -> Any:
    """Return a node with other values."""
    if isinstance(node, dict):
        return dict(zip(node, values, strict=True))
    return type(node)(*values) if hasattr(node, "_fields") else type(node)(values)


def _leaves(nest: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    items = _items(nest)
    if items is not None:
        for key, value in sorted(items, key=lambda item: str(item[0])) if isinstance(nest, dict) else items:
            yield from _leaves(value, (*path, key))
    elif nest is not None:
        yield path, nest


def _rebuilt(nest: Any, numbers: Iterator[int]) -> Any:
    """Return the nest with the next number for each tensor, dicts by sorted keys, as `_leaves` goes."""
    items = _items(nest)
    if items is None:
        return None if nest is None else next(numbers)
    if isinstance(nest, dict):
        items = sorted(items, key=lambda item: str(item[0]))
        return {key: _rebuilt(value, numbers) for key, value in items}
    return _like(nest, [_rebuilt(value, numbers) for _, value in items])


def _filled(skeleton: Any, leaves: list[Tensor]) -> Any:
    items = _items(skeleton)
    if items is None:
        return None if skeleton is None else leaves[skeleton]
    return _like(skeleton, [_filled(value, leaves) for _, value in items])


def _name(path: Path) -> str:
    return "state" + "".join(f"[{key!r}]" for key in path)
