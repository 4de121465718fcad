"""Whether a recurrent layer, with the weights and inputs that were seen, is the step of its network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from sklyap.cells.comparison import equal, same_to_rounding, same_weights
from sklyap.cells.observation import Call, run_network
from sklyap.cells.other_recurrence import other_recurrence

__all__ = ["FedBackError", "check_calls", "check_chain"]


def check_calls(
    module: nn.Module,
    layer: nn.Module,
    given: Tensor,
    arguments: Mapping[str, Any],
    calls: list[Call],
    *,
    alone: bool = False,
) -> None:
    """Raise ValueError unless the layer, with the weights and inputs that were seen, is the network's step.

    Two runs with other random numbers have to be the same. In a network that calls the layer step by step, a run in
    which each state is moved has to leave the layer's inputs where they were, or they depend on the state: it is a
    closed loop. Unless the layer was asked for by its name (`alone`), no other layer may carry a state beside it.
    """
    network, name = f"The 'network' parameter is a {type(module).__name__}", type(layer).__name__
    _check_repeatable(network, name, calls, run_network(module, layer, given, arguments, seed=1))
    if len(calls) > 1 or isinstance(layer, nn.RNNCellBase):
        try:
            disturbed = run_network(module, layer, given, arguments, disturbed=True)
        except ValueError as error:
            raise ValueError(
                f"{network} that could not be run with the states of its {name} moved, which shows whether its inputs "
                f"depend on them. Write the step as a ModuleCell. {error}"
            ) from error
        _check_open(network, name, calls, disturbed)
        check_chain(network, name, calls)
        steps = sum(call.x.shape[1] for call in calls)
        if steps > max(given.shape[:2]):
            raise ValueError(
                f"{network} that calls its {name} {len(calls)} times, {steps} steps in all, on sequences of shape "
                f"{tuple(given.shape)}: more than once per step. Write what happens in one step as a ModuleCell."
            )
    if isinstance(layer, nn.RNNCellBase) and len(calls) == 1 < given.shape[:2].numel() // len(calls[0].x):
        raise ValueError(
            f"{network} that calls its {name} once on sequences of shape {tuple(given.shape)}. Its forward must run "
            "over all steps of a sequence."
        )
    other = None if alone else other_recurrence(module, layer, given, arguments, sum(c.x.shape[1] for c in calls))
    if other is not None:
        own = next(n for n, part in module.named_modules() if part is layer)
        raise ValueError(
            f"{network} with a recurrence beside its {name}: what its {type(module.get_submodule(other)).__name__} "
            f"{other!r} gets depends on what it returned at earlier steps. Ask for the exponents of the {name} alone "
            f"with layer={own!r}, or write the step of both as a ModuleCell."
        )


def _check_repeatable(network: str, name: str, calls: list[Call], again: list[Call]) -> None:
    if not _alike(calls, again):
        raise ValueError(
            f"{network} that draws random numbers in evaluation mode (dropout that stays on, noise, sampling), or "
            f"changes its own weights at every run: two runs on the same sequences gave its {name} other inputs, "
            "weights or states. Switch the noise off in evaluation mode, or hand it over as an input of a FunctionCell "
            "or ModuleCell."
        )


class FedBackError(ValueError):
    """The inputs of a network's recurrent layer depend on its state."""


def _check_open(network: str, name: str, calls: list[Call], disturbed: list[Call]) -> None:
    if len(disturbed) != len(calls):
        raise ValueError(
            f"{network} whose number of steps depends on the state of its {name}: {len(calls)} calls, and "
            f"{len(disturbed)} when the state is moved. Write what happens in one step as a ModuleCell."
        )
    moved = [i for i, (a, b) in enumerate(zip(calls, disturbed, strict=True)) if not same_to_rounding(a.x, b.x)]
    if moved:
        raise FedBackError(
            f"{network} whose {name} is fed with its own output: the input of call {moved[0] + 1} of {len(calls)} "
            "moves when an earlier state is moved, so that the layer alone is not the step of the network. Hand over "
            "sklyap.closed_loop(network, spin_up) for the system that feeds itself, or, where sequences come in too, "
            "write the step as a ModuleCell."
        )
    if not all(same_weights(a.weights, b.weights) for a, b in zip(calls, disturbed, strict=True)):
        raise ValueError(
            f"{network} that changes the weights of its {name} with its state, so that the layer alone is not the "
            "step of the network. Write the step as a ModuleCell, with the weights in its state."
        )


def check_chain(network: str, name: str, calls: list[Call]) -> None:
    """Raise ValueError unless each call starts from the state that the one before left, with the same weights."""
    for i, (before, after) in enumerate(pairwise(calls)):
        if not same_weights(before.weights, after.weights):
            raise ValueError(
                f"{network} that gives its {name} other weights in call {i + 2} than in call {i + 1}, so that it is "
                "not one step. Write the step as a ModuleCell, with what changes as its input or in its state."
            )
        if after.start is None or not equal(before.end, after.start):
            raise ValueError(
                f"{network} that calls its {name} {len(calls)} times, not always from the state that the call "
                f"before left (call {i + 2} did not), so that the layer alone is not the step of the network. "
                "Write the step as a ModuleCell or a FunctionCell; give sequences of unequal length as a list."
            )
    changed = [i for i, call in enumerate(calls) if not equal(call.end, call.own_end)]
    if changed:
        call = calls[changed[0]]
        where = tuple(int(i) for i in (call.end != call.own_end).nonzero()[0])
        raise ValueError(
            f"{network} with a forward hook that changes the state of its {name}: after call {changed[0] + 1}, entry "
            f"{where} is {float(call.end[where]):.6g} in the network and {float(call.own_end[where]):.6g} by the "
            "layer itself. Write the step, hook included, as a ModuleCell."
        )


def _alike(calls: list[Call], again: list[Call]) -> bool:
    """Tell whether two runs drove the layer alike; where it starts from may be drawn."""
    if len(calls) != len(again):
        return False
    for a, b in zip(calls, again, strict=True):
        if not same_to_rounding(a.x, b.x) or not same_weights(a.weights, b.weights):
            return False
        same_start = a.start is b.start if a.start is None or b.start is None else equal(a.start, b.start)
        if same_start and not same_to_rounding(a.end, b.end):
            return False
    return True
