"""What to do about a step that fails: the errors of torch and numpy as sentences."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from sklyap.cells.base import RecurrentCell

__all__ = ["advice"]

# What errors say, and what to do about it; the first that fits.
_ADVICE = [
    (
        r"more than 1 value per channel",
        "It normalises over the batch, whose rows are sequences of their own: bring its modules into evaluation mode.",
    ),
    (
        r"out of bounds|out of range|too many indices",
        "Rows are sequences: index entries as `s[..., i]` and put them together with torch.stack(..., dim=-1).",
    ),
    (
        r"same device|device-side|is on cpu|on different devices",
        "Its weights lie on another device than the state: bring them along with `W.to(s)`, pass a torch module, which "
        "is moved, or ask for device='cpu'.",
    ),
    (
        r"dtype|scalar type|should be the same|same type",
        "It computes in another dtype than that of the state. Bring weights and constants along with `W.to(s)` and "
        "`s.new_zeros(...)`, or pass a torch module, which is moved.",
    ),
    (
        r"numpy|data pointer|__array__|ufunc|can't convert",
        "It leaves torch, say for numpy or Python's math, where no derivative follows. Write it in torch operations.",
    ),
    (
        r"in-place|single memory location|inplace|a leaf Variable",
        "It changes its arguments in place: work on `s.clone()`, or build the new state with torch.stack or torch.cat.",
    ),
    (
        r"does not require grad|setup_context|jvp function|vmap support|derivative for",
        "It has no derivative: something in it cuts gradients (detach, no_grad, integers), or an operation has none. "
        "A torch.autograd.Function needs a `backward`, or `setup_context` and `jvp`.",
    ),
]


def advice(
    cell: RecurrentCell,
    subject: str,
    step: Callable[[Tensor, Tensor | None], Tensor],
    s: Tensor,
    x: Tensor | None,
    error: Exception,
    *,
    derivative: bool = False,
) -> str:
    """Return what is wrong with a step that raised `error` at (s, x), or whose derivative did, in a sentence or two."""
    given = f"`s` of shape {tuple(s.shape)}, {s.dtype}"
    given += ", without input" if x is None else f", `x` of shape {tuple(x.shape)}"
    what = "must be differentiable by torch" if derivative else f"must run for {given}"
    way_out = _what_to_do(cell, None if derivative else step, s, x, error)
    return f"{subject} {what}. Got {type(error).__name__}: {_brief(error)}. {way_out}"


def _what_to_do(
    cell: RecurrentCell,
    step: Callable[[Tensor, Tensor | None], Tensor] | None,
    s: Tensor,
    x: Tensor | None,
    error: Exception,
) -> str:
    text = str(error)
    if isinstance(error, TypeError) and re.search(r"positional argument|keyword argument", text):
        arguments = getattr(cell, "arguments", "the state, the input (None without one)")
        return f"It is called with {arguments} and, with n_noise, the noise."
    if x is None and "None" in text:
        return "It uses its input, but the cell has none: say how many inputs it takes with n_inputs=...."
    other = torch.float32 if s.dtype == torch.float64 else torch.float64
    if step is not None and _runs(step, s.to(other), None if x is None else x.to(other)):
        name = str(other).removeprefix("torch.")
        remedy = getattr(cell, "remedy", "Bring its weights along with `W.to(s)`")
        return f"It runs in {name} only. {remedy}, or ask for dtype={name!r}."
    for pattern, sentence in _ADVICE:
        if re.search(pattern, text):
            return sentence
    return f"The {type(cell).__name__} has state_size={cell.state_size} and n_inputs={cell.n_inputs}."


def _runs(step: Callable[[Tensor, Tensor | None], Tensor], s: Tensor, x: Tensor | None) -> bool:
    try:
        s_next = step(s, x)
    except Exception:
        return False
    return isinstance(s_next, Tensor)


def _brief(error: Exception) -> str:
    """Return the first sentence of an error."""
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".")
