"""A recurrence beside the recurrent layer: layers of other kinds whose later inputs depend on their earlier outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.comparison import same_to_rounding, tensors_in
from sklyap.cells.observation import eagerly, isolated, moved
from sklyap.cells.snapshot import duplicate

__all__ = ["other_recurrence"]

_FEWEST_STEPS = 4
"""Minimum steps for a layer that is called at each of them to be told from one that is used twice in a stack."""


def other_recurrence(
    module: nn.Module, layer: nn.Module, given: Tensor, arguments: Mapping[str, Any], n_steps: int
) -> str | None:
    """Return the name of a layer that feeds itself from step to step beside the recurrent one, None if there is none.

    What layers with weights return in the first half of their calls is moved, with the outputs of the recurrent layer
    held as they were: a layer whose inputs in the last quarter move carries a state of its own. Only what is called at
    each step is looked at; what lies between leaves room for a layer that is called several times in a step.

    Parameters
    ----------
    module, layer, given, arguments
        As for :func:`~sklyap.cells.observation.run_network`.
    n_steps : int
        How many steps the recurrent layer made.
    """
    if n_steps < _FEWEST_STEPS or not any(True for _ in _leaves(module, layer)):
        return None
    memo: dict[int, Any] = {id(p): p for p in module.parameters()}
    twin, inner = duplicate((module, layer), module, memo)
    answers: list[Any] = []
    seen = _inputs(twin, inner, given, arguments, module, answers, {})
    stepped = {name: len(calls) for name, calls in seen.items() if len(calls) >= n_steps}
    if not stepped:
        return None
    twin, inner = duplicate((module, layer), module, dict(memo))
    again = _inputs(twin, inner, given, arguments, module, answers, stepped)
    for name, n_calls in stepped.items():
        late = slice(3 * n_calls // 4, None)
        pairs = zip(seen[name][late], again.get(name, [])[late], strict=False)
        if any(not same_to_rounding(a, b) for before, after in pairs for a, b in zip(before, after, strict=False)):
            return name
    return None


def _leaves(module: nn.Module, layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules with weights and without parts, outside the recurrent layer."""
    inside = set(layer.modules())
    for name, part in module.named_modules():
        if part not in inside and not any(True for _ in part.children()) and any(True for _ in part.parameters()):
            yield name, part


def _inputs(
    twin: nn.Module,
    inner: nn.Module,
    given: Tensor,
    arguments: Mapping[str, Any],
    module: nn.Module,
    answers: list[Any],
    moving: Mapping[str, int],
) -> dict[str, list[list[Tensor]]]:
    """Run a copy of a network and return what its other layers get, call by call.

    Parameters
    ----------
    answers : list
        Gets the outputs of the recurrent layer, or, where there are some, holds them.
    moving : mapping of str to int
        Names of layers whose outputs are moved in the first half of that many calls.
    """
    found: dict[str, list[list[Tensor]]] = {}
    generator = torch.Generator().manual_seed(0)
    replies = iter(list(answers))
    replayed = bool(answers)
    handles = []
    for name, part in _leaves(twin, inner):

        def before(part: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            found.setdefault(name, []).append([t.clone() for t in tensors_in([*args, *kwargs.values()])])

        def after(part: nn.Module, args: Any, output: Any, name: str = name) -> Any:
            early = len(found[name]) <= moving.get(name, 0) // 2
            return moved(output, generator) if early and tensors_in(output) else output

        handles += [part.register_forward_pre_hook(before, with_kwargs=True), part.register_forward_hook(after)]
    with _answered(inner, replies if replayed else None, answers), isolated(module, 0), torch.no_grad(), eagerly():
        try:
            twin(given, **arguments)
        except Exception:  # a head that fails on these sequences comes after the steps, and was let pass before
            pass
    for handle in handles:
        handle.remove()
    return found


@contextmanager
def _answered(layer: nn.Module, replies: Iterator[Any] | None, answers: list[Any]) -> Iterator[None]:
    """Note what a layer returns, or make it return what is in `replies`."""
    own_forward = layer.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if replies is not None:
            return next(replies)
        answers.append(own_forward(*args, **kwargs))
        return answers[-1]

    before = vars(layer).get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        del layer.forward
        if before is not None:
            layer.forward = before
