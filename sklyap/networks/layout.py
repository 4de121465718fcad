"""What the weights of an architecture look like, known without allocating them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.networks.modules import RecurrentNetwork
from sklyap.runtime import kept_rng

__all__ = ["check_finite", "check_layout", "check_tensors", "layout_of", "parameter_names"]

Layout = Mapping[str, tuple[str, tuple[int, ...]]]

# As safetensors spells them.
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def check_layout(layout: Layout, architecture: Mapping[str, Any]) -> None:
    """Raise ValueError unless names, dtypes and shapes are those of the architecture's weights.

    A cell of a user's own that can't be built without memory is left to whoever builds it.
    """
    network = _skeleton(architecture)
    if network is not None:
        _compare(layout, layout_of(network.state_dict()))


def check_tensors(tensors: Mapping[str, Tensor], network: nn.Module) -> None:
    """Raise ValueError unless `tensors` are finite weights with the names, dtypes and shapes of those of `network`."""
    _compare(layout_of(tensors), layout_of(network.state_dict()))
    check_finite(tensors, [name for name, _ in network.named_parameters()])


def check_finite(tensors: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Raise ValueError if one of the named tensors has an entry that is NaN or infinite."""
    bad = [name for name in names if name in tensors and not bool(torch.isfinite(tensors[name]).all())]
    if bad:
        raise ValueError(f"it has NaN or infinite values in {', '.join(bad)}")


def parameter_names(architecture: Mapping[str, Any]) -> list[str] | None:
    """Return the names of what is trained, None where only a built network tells."""
    network = _skeleton(architecture)
    return None if network is None else [name for name, _ in network.named_parameters()]


def layout_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the dtype and the shape of each tensor."""
    return {name: (_DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape)) for name, t in tensors.items()}


def _compare(found: Layout, wanted: Layout) -> None:
    for name, (dtype, shape) in wanted.items():
        if name not in found:
            raise ValueError(f"it has no {name!r}")
        if tuple(found[name]) != (dtype, shape):
            got = "{} of shape {}".format(*found[name])
            raise ValueError(f"it has {name!r} as {got}, and not {dtype} of shape {shape}")
    extra = [name for name in found if name not in wanted]
    if extra:
        raise ValueError(f"it has {extra[0]!r:.80}, which the network has not")


def _skeleton(architecture: Mapping[str, Any]) -> nn.Module | None:
    """Return a network without memory, or None."""
    cell = architecture["cell"]
    try:
        key = json.dumps({name: value for name, value in architecture.items() if name != "cell"}, sort_keys=True)
    except TypeError:  # arrays or objects among the cell's parameters
        return _built(cell, {name: value for name, value in architecture.items() if name != "cell"})
    return _known(cell, key)


@lru_cache(maxsize=256)
def _known(cell: Any, key: str) -> nn.Module | None:
    return _built(cell, json.loads(key))


def _built(cell: Any, options: dict[str, Any]) -> nn.Module | None:
    try:
        with kept_rng(), torch.device("meta"):
            return RecurrentNetwork(cell, **options)
    except Exception:  # whatever a user's cell does with its weights that needs their values
        return None
