"""What a network does with its recurrent layer, seen in runs of a copy on given sequences."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from sklyap.cells.base import RecurrentCell
from sklyap.cells.comparison import same_to_rounding, same_weights, tensors_in
from sklyap.cells.snapshot import duplicate
from sklyap.runtime import isolated_rng

__all__ = [
    "Call",
    "eagerly",
    "isolated",
    "layer_input",
    "layer_kind",
    "moved",
    "run_network",
    "weights_of",
]

_KINDS = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell, RecurrentCell)
_KEPT = 16
"""How many steps of a layer's output are kept, to compare a cell's with."""
_DISTURBANCE = 0.5
"""How far states are moved, in units of one and their size, to see whether later inputs follow."""


@dataclass(frozen=True)
class Call:
    """One call of a recurrent layer.

    Attributes
    ----------
    x : Tensor of shape (n_sequences, n_steps, n_inputs)
        What the layer got, after hooks that change it.
    lengths : tuple of int
        How many steps of each sequence count.
    start : Tensor of shape (n_sequences, state_size) or None
        The state before; None for zeros.
    end : Tensor of shape (n_sequences, state_size)
        The state after, as the network got it.
    own_end : Tensor of shape (n_sequences, state_size)
        The state after, before hooks that change it.
    outputs : Tensor of shape (n_sequences, at most 16, output_size)
        What the layer returned at its first steps, before hooks that change it.
    weights : dict of str to Tensor
        What the layer computed with.
    """

    x: Tensor
    lengths: tuple[int, ...]
    start: Tensor | None
    end: Tensor
    own_end: Tensor
    outputs: Tensor
    weights: dict[str, Tensor]


def run_network(
    module: nn.Module,
    layer: nn.Module,
    given: Tensor,
    arguments: Mapping[str, Any],
    *,
    seed: int = 0,
    disturbed: bool = False,
    attached: bool = False,
    returned: list[Any] | None = None,
) -> list[Call]:
    """Run a copy of a network and return the calls of its recurrent layer.

    Parameters
    ----------
    module, layer : torch.nn.Module
        The network in evaluation mode, and its recurrent layer.
    given : Tensor
        What its `forward` takes.
    arguments : mapping
        Further arguments of `forward`.
    seed : int
        Of the generators, whose state comes out as it was.
    disturbed : bool
        Whether to move every state that the layer returns.
    attached : bool
        Whether to run the network itself, and keep the graph.
    returned : list, optional
        Gets what `forward` returns, if it does.

    Raises
    ------
    ValueError
        If the network cannot be run up to its recurrent layer, or never calls it.
    """
    # Weights are shared: a copy for each run would be all that a run costs.
    memo: dict[int, Any] = {id(p): p for p in module.parameters()}
    twin, inner = (module, layer) if attached else duplicate((module, layer), module, memo)
    calls: list[Call] = []
    disturbance = torch.Generator().manual_seed(seed) if disturbed else None
    try:
        with (
            _recorded(inner, calls, disturbance), isolated(module, seed), torch.set_grad_enabled(attached), eagerly()
        ):  # fmt: skip
            output = twin(given, **arguments)
        if returned is not None:
            returned.append(output)
    except _UnlikeItselfError as error:
        raise ValueError(str(error)) from None
    except Exception as error:
        # Once the layer has run over all steps, a head may fail, say on a number of steps it is not made for.
        if len(calls) != 1 or isinstance(layer, nn.RNNCellBase):
            values = f"values in [{given.min()}, {given.max()}]"
            raise ValueError(
                f"The 'sequences' parameter, of shape {tuple(given.shape)}, {given.dtype} and {values}, could not "
                f"be run through the {type(module).__name__} up to its recurrent layer: {error}"
            ) from error
    if not calls:
        raise ValueError(
            f"The 'network' parameter is a {type(module).__name__} whose forward never calls its "
            f"{type(layer).__name__}."
        )
    return calls


def eagerly() -> AbstractContextManager[Any]:
    """Run compiled parts of a network as they are written, so that its layers can be watched."""
    # Nothing is compiled where the compiler, which takes seconds to import, is not there yet.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def isolated(module: nn.Module, seed: int) -> Iterator[None]:
    """Seed every generator that a network may draw from, and leave them all as they were."""
    device = torch.device("cuda" if any(p.is_cuda for p in module.parameters()) else "cpu")
    with isolated_rng(device, seed):
        states = random.getstate(), np.random.get_state()
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def layer_kind(layer: nn.Module) -> Any:
    """Return the class of torch, or RecurrentCell, that a recurrent layer is an instance of."""
    return next(kind for kind in _KINDS if isinstance(layer, kind))


class _UnlikeItselfError(Exception):
    """A layer's forward is not that of its class."""


@contextmanager
def _recorded(layer: nn.Module, calls: list[Call], disturbance: torch.Generator | None) -> Iterator[None]:
    """Make a layer note its calls, and move the states that it returns if `disturbance` is given."""
    kind, own_forward = layer_kind(layer), layer.forward
    plain: Any = kind.forward
    overridden = getattr(own_forward, "__func__", None) is not plain

    def forward(*args: Any, **kwargs: Any) -> Any:
        output = own_forward(*args, **kwargs)
        arguments = [*inspect.signature(plain).bind(layer, *args, **kwargs).arguments.values(), None]
        if overridden:
            _check_plain(layer, output, plain(layer, *args, **kwargs))
        calls.append(_call(layer, arguments[1], arguments[2], output, calls[-1].weights if calls else {}))
        return output if disturbance is None else moved(output, disturbance)

    def after_hooks(layer: nn.Module, args: Any, output: Any) -> None:
        calls[-1] = replace(calls[-1], end=_joined(layer, _state(layer, output)))

    before = vars(layer).get("forward")
    layer.forward = forward
    handle = layer.register_forward_hook(after_hooks)
    try:
        yield
    finally:
        handle.remove()
        del layer.forward
        if before is not None:
            layer.forward = before


def _check_plain(layer: nn.Module, output: Any, plain: Any) -> None:
    pairs = zip(tensors_in(output), tensors_in(plain), strict=False)
    if len(tensors_in(output)) != len(tensors_in(plain)) or not all(same_to_rounding(a, b) for a, b in pairs):
        a, b = (float(tensors_in(o)[0].flatten()[-1]) for o in (output, plain))
        raise _UnlikeItselfError(
            f"The 'network' parameter has a {type(layer).__name__} whose forward is not that of "
            f"{layer_kind(layer).__name__} with the same weights (its last output is {a:.6g}, and not {b:.6g}), so "
            "that its step is not known. Write the step as a ModuleCell."
        )


def _call(layer: nn.Module, x: Any, start: Any, output: Any, last_weights: dict[str, Tensor]) -> Call:
    x, lengths = _sequences_first(layer, x)
    end = _joined(layer, _state(layer, output))
    counted = tuple(lengths.tolist()) if lengths is not None else (x.shape[1],) * x.shape[0]
    weights = weights_of(layer)
    if same_weights(weights, last_weights):
        weights = last_weights
    else:
        weights = {weight_name: value.detach().clone() for weight_name, value in weights.items()}
    start = None if start is None else _joined(layer, start)
    return Call(x.clone(), counted, start, end, end, _outputs(layer, output), weights)


def _outputs(layer: nn.Module, output: Any) -> Tensor:
    """Return what a layer returned at its first steps (n_sequences, n_steps, output_size)."""
    if isinstance(layer, nn.RNNCellBase):
        return (output[0] if isinstance(output, tuple) else output).unsqueeze(1).clone()
    output = output[0]
    if isinstance(output, PackedSequence):
        output = pad_packed_sequence(output, batch_first=bool(layer.batch_first))[0]
    if isinstance(layer, nn.RNNBase) and not layer.batch_first:
        output = output.transpose(0, 1)
    return output[:, :_KEPT].clone()


def _sequences_first(layer: nn.Module, x: Any) -> tuple[Tensor, Tensor | None]:
    """Return what a layer got as (n_sequences, n_steps, n_inputs), and the lengths that it was packed to."""
    single, lengths = isinstance(layer, nn.RNNCellBase), None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x, batch_first=bool(layer.batch_first))
    if x.ndim != (2 if single else 3):
        raise ValueError(f"its recurrent layer got a single sequence, of shape {tuple(x.shape)}, not a batch")
    if single:
        x = x.unsqueeze(1)
    elif isinstance(layer, nn.RNNBase) and not layer.batch_first:
        x = x.transpose(0, 1)
    return x, lengths


def layer_input(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return what a recurrent layer is called with as a tensor (n_sequences, n_steps, n_inputs)."""
    arguments = inspect.signature(layer_kind(layer).forward).bind(layer, *args, **kwargs).arguments
    return _sequences_first(layer, [*arguments.values()][1])[0]


def weights_of(layer: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a recurrent layer last computed with, by their names in it."""
    if isinstance(layer, nn.RNNBase):
        found = dict(zip(layer._flat_weights_names, layer._flat_weights, strict=True))
    elif isinstance(layer, nn.RNNCellBase):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        found = {name: getattr(layer, name, None) for name in names}
    else:
        found = dict(layer.named_parameters()) | dict(layer.named_buffers())
        for prefix, module in layer.named_modules():
            own = {name: value for name, value in vars(module).items() if isinstance(value, Tensor)}
            found |= {f"{prefix}.{name}" if prefix else name: value for name, value in own.items()}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _state(layer: nn.Module, output: Any) -> Any:
    return output if isinstance(layer, nn.RNNCellBase) else output[1]


def _joined(layer: nn.Module, state: Any) -> Tensor:
    """Return a layer's own form of its state as one tensor (n_sequences, state_size)."""
    if isinstance(layer, RecurrentCell):
        return state.clone()
    parts = torch.cat(tuple(state), -1) if isinstance(state, tuple | list) else state
    if isinstance(layer, nn.RNNCellBase):
        return parts.clone()
    # (directions * layers, n, widths of parts): the forward half of a layer comes first
    return parts[:: 2 if layer.bidirectional else 1].transpose(0, 1).flatten(1).clone()


def moved(value: Any, generator: torch.Generator) -> Any:
    """Return what a layer returned with noise of order one on every number."""
    if isinstance(value, PackedSequence):
        return value._replace(data=moved(value.data, generator))
    if isinstance(value, tuple | list):
        return tuple(moved(item, generator) for item in value)
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
    return value + _DISTURBANCE * (1 + value.abs()) * noise
