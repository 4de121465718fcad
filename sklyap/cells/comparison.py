"""When two runs of a network count as the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["equal", "rounding_of", "same_to_rounding", "same_weights", "tensors_in"]


def same_to_rounding(a: Tensor, b: Tensor) -> bool:
    """Tell whether tensors are equal up to the order of sums; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    if torch.equal(a, b):
        return True
    size = float(a.nan_to_num(0.0, 0.0, 0.0).abs().max())
    return torch.allclose(a, b, rtol=0.0, atol=rounding_of(a) * size, equal_nan=True)


def rounding_of(tensor: Tensor) -> float:
    """Return the relative difference that the order of sums may make in a tensor's dtype."""
    return 32 * torch.finfo(tensor.dtype).eps


def equal(a: Tensor, b: Tensor) -> bool:
    """Tell whether tensors are the same in shape, dtype and every number."""
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Tell whether two sets of weights have the same names and numbers."""
    return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors of what a layer returns."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    return [value] if isinstance(value, Tensor) else []
