"""Hashes of cells: of what they compute, and of that with their weights, the same in every process."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sklyap.cells import RecurrentCell
from sklyap.spectrum.digest import Digest, UnknownValueError, module_attributes

__all__ = ["UnknownValueError", "fingerprint", "structure"]

_NOT_COMPUTED_WITH = frozenset({"encoder", "_probed", "_by_forward_mode"})
"""Attributes of cells on which no step depends: what an encoder makes of sequences is known by itself."""


def structure(cell: RecurrentCell) -> str | None:
    """Return a hash of everything but weights: kinds of modules, their attributes, names and shapes of weights.

    Cells of one structure compute the same function of their weights. Classes and functions from elsewhere count with
    their code and with what it refers to. None where something has no hash.
    """
    try:
        return _structure(cell, Digest())
    except UnknownValueError:
        return None


def fingerprint(cell: RecurrentCell, *inputs: Any) -> str:
    """Return a hash of a cell, its weights and `inputs`.

    Raises
    ------
    UnknownValueError
        If the cell holds, or its code refers to, something of which nobody can say when two are the same.
    """
    digest = Digest()
    weights = [value for _, value in _weights(cell)]
    try:
        return digest.of([_structure(cell, digest), weights, inputs, torch.__version__, torch.get_default_dtype()])
    except UnknownValueError as error:
        raise UnknownValueError(f"the {type(cell).__name__} holds or refers to {error}") from error


def _structure(cell: RecurrentCell, digest: Digest) -> str:
    modules = [
        [name, type(module), {k: v for k, v in module_attributes(module).items() if k not in _NOT_COMPUTED_WITH}]
        for name, module in cell.named_modules()
    ]
    return digest.of([modules, [[name, str(value.dtype), tuple(value.shape)] for name, value in _weights(cell)]])


def _weights(cell: RecurrentCell) -> Iterator[tuple[str, Tensor]]:
    return chain(cell.named_parameters(), cell.named_buffers())
