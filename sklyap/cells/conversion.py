"""Anything recurrent as a cell: torch layers, modules that hold one, skorch nets, estimators."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.cells.elman import ElmanCell
from sklyap.cells.gated import GatedCell
from sklyap.cells.gru import GRUCell
from sklyap.cells.lstm import LSTMCell
from sklyap.cells.stacked import StackedCell

__all__ = ["as_recurrent_cell", "find_layer", "module_of"]

_RECURRENT = (nn.RNNBase, nn.RNNCellBase, RecurrentCell)


def as_recurrent_cell(network: Any, *, layer: str | None = None) -> RecurrentCell:
    """Return a cell with the weights of the recurrent layer that `network` holds.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
        A module must hold exactly one ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` (any number of stacked layers),
        ``nn.RNNCell``, ``nn.GRUCell``, ``nn.LSTMCell`` or :class:`RecurrentCell`.
    layer : str, optional
        The name of the recurrent submodule to take where there are several.

    Returns
    -------
    RecurrentCell
        A copy: analysing it leaves the network bit-identical. Its `encoder` runs whatever comes before
        the recurrent layer in the network's `forward`, so that sequences go in at the network's input.

    Raises
    ------
    ValueError
        For a network that is not fitted, that holds no or several recurrent layers, a bidirectional
        layer, one with projections (`proj_size`), or parameters that are not finite.
    TypeError
        For an object that is no network at all.

    Examples
    --------
    >>> import torch
    >>> from sklyap import as_recurrent_cell
    >>> as_recurrent_cell(torch.nn.LSTM(3, 5)).state_size
    10
    """
    module = module_of(network)
    name, found = find_layer(module, layer)
    cell = _copy_layer(name, found)
    bad = [n for n, p in cell.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ValueError(
            f"The 'network' parameter has NaN or infinite values in {', '.join(bad)}"
            f"{f' of {name!r}' if name else ''}; its training has probably diverged."
        )
    if found is not module:
        cell.encoder = partial(_layer_input, module, found)
    return cell


def module_of(network: Any) -> nn.Module:
    """Return the torch module inside an estimator (`net_`), a skorch net (`module_`), or the module itself."""
    if isinstance(network, nn.Module):
        return network
    inner = getattr(network, "net_", network)
    module = getattr(inner, "module_", None)
    if isinstance(module, nn.Module):
        return module
    if hasattr(network, "fit"):
        raise ValueError(
            f"The 'network' parameter must be a fitted network. Got a {type(network).__name__} that is not "
            "fitted yet (it has no net_ or module_); call fit first."
        )
    raise TypeError(
        "The 'network' parameter must be a RecurrentCell, a torch module, or a fitted skorch net or sklyap "
        f"estimator. Got {type(network).__name__} instead."
    )


def _walk(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield recurrent submodules with their names, not looking inside them."""
    if isinstance(module, _RECURRENT):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _walk(child, f"{name}.{child_name}" if name else child_name)


def find_layer(module: nn.Module, layer: str | None = None) -> tuple[str, nn.Module]:
    """Return the one recurrent layer inside `module`, or the one called `layer`, and its name; or raise ValueError."""
    found = list({id(m): (n, m) for n, m in _walk(module)}.values())
    listed = ", ".join(f"{name!r} ({type(m).__name__})" for name, m in found)
    if layer is not None:
        chosen = [(name, m) for name, m in found if name == layer]
        if not chosen:
            raise ValueError(f"The 'layer' parameter must name one of {listed or 'no layers'}. Got {layer!r} instead.")
        return chosen[0]
    if not found:
        children = ", ".join(type(m).__name__ for m in module.children()) or "nothing"
        raise ValueError(
            "The 'network' parameter must hold a recurrent layer (nn.RNN, nn.GRU, nn.LSTM, an nn.*Cell or a "
            f"RecurrentCell). Got a {type(module).__name__} that holds {children}."
        )
    if len(found) > 1:
        raise ValueError(
            "The 'network' parameter must hold exactly one recurrent layer. "
            f"Got a {type(module).__name__} with {len(found)}: {listed}. "
            "Say which with as_recurrent_cell(network, layer=...)."
        )
    return found[0]


def _copy_layer(name: str, layer: nn.Module) -> RecurrentCell:
    """Return a cell with copies of the layer's weights, without gradients, in evaluation mode."""
    where = f" {name!r}" if name else ""
    if isinstance(layer, RecurrentCell):
        cell = _detached_copy(layer)
    elif getattr(layer, "bidirectional", False):
        raise ValueError(
            f"The 'network' parameter has a bidirectional layer{where}, which is no dynamical system in time: "
            "its backward half runs on the future. Use a unidirectional layer."
        )
    elif getattr(layer, "proj_size", 0):
        raise ValueError(
            f"The 'network' parameter has a layer{where} with proj_size={layer.proj_size}, which is not supported: "
            "the projected state breaks the square one-step map. Use proj_size=0."
        )
    else:
        cell = _from_torch(layer)
    return cell.eval().requires_grad_(False)


def _detached_copy(cell: RecurrentCell) -> RecurrentCell:
    """Return a deep copy with its own weights that still shares the network behind `encoder`."""
    memo: dict[int, Any] = {id(cell.encoder): cell.encoder}
    for parameter in cell.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    return copy.deepcopy(cell, memo)


def _from_torch(layer: nn.Module) -> RecurrentCell:
    kind, options = _kind_of(layer)
    suffixes = [f"_l{i}" for i in range(layer.num_layers)] if isinstance(layer, nn.RNNBase) else [""]
    cells = []
    for i, suffix in enumerate(suffixes):
        weights = getattr(layer, f"weight_ih{suffix}")
        n_inputs = layer.input_size if i == 0 else layer.hidden_size
        with torch.random.fork_rng(devices=[]):
            cell = kind(n_inputs, layer.hidden_size, bias=bool(layer.bias), **options)
        cell.to(dtype=weights.dtype, device=weights.device)
        with torch.no_grad():
            for parameter_name, parameter in cell.named_parameters():
                parameter.copy_(getattr(layer, parameter_name + suffix))
        cells.append(cell)
    return cells[0] if len(cells) == 1 else StackedCell(cells)


def _kind_of(layer: nn.Module) -> tuple[type[GatedCell], dict[str, str]]:
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return LSTMCell, {}
    if isinstance(layer, nn.GRU | nn.GRUCell):
        return GRUCell, {}
    return ElmanCell, {"nonlinearity": layer.nonlinearity}


class _InputSeenError(Exception):
    """Stops a forward pass once the recurrent layer's input is known."""


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Evaluate a module and leave its train/eval flags and the global random state as they were."""
    flags = {m: m.training for m in module.modules()}
    devices = sorted({p.device for p in module.parameters() if p.is_cuda}, key=str)
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            module.eval()
            yield
    finally:
        for submodule, training in flags.items():
            submodule.training = training


def _layer_input(module: nn.Module, layer: nn.Module, sequences: Any) -> tuple[Tensor, Tensor | None]:
    """Return what drives `layer` when `module` is given `sequences`, and the state it starts from.

    Returns
    -------
    x : Tensor of shape (n_sequences, n_steps, n_inputs)
    s : Tensor of shape (n_sequences, state_size), or None for zeros
    """
    given = _like_module(module, sequences)
    seen: list[Tensor] = []
    states: list[Any] = []
    whole = not isinstance(layer, nn.RNNCellBase)

    def look(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x, s = (*args, *kwargs.values(), None, None)[:2]
        if not isinstance(x, Tensor):
            raise TypeError(f"the recurrent layer must be called with a tensor, not {type(x).__name__}")
        seen.append(x.detach())
        states.append(s)
        if whole:
            raise _InputSeenError

    handle = layer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        with _untouched(module):
            module(given)
    except _InputSeenError:
        pass
    except Exception as error:
        raise ValueError(
            f"The 'sequences' parameter, of shape {tuple(given.shape)} and dtype {given.dtype}, could not be run "
            f"through the {type(module).__name__} up to its recurrent layer: {error}"
        ) from error
    finally:
        handle.remove()
    if not seen:
        raise ValueError(
            f"The 'network' parameter is a {type(module).__name__} whose forward never calls its recurrent layer."
        )
    start = None if states[0] is None else _joined_state(layer, states[0])
    if not whole:
        return torch.stack(seen, 1), start
    x = seen[0]
    # Handed through unchanged, sequences are ours (sequence first); otherwise the layer's own order counts.
    time_first = isinstance(layer, nn.RNNBase) and not layer.batch_first and not torch.equal(x, given)
    return (x.transpose(0, 1) if time_first else x), start


def _joined_state(layer: nn.Module, state: Any) -> Tensor:
    """Return a torch layer's initial state as one tensor (n_sequences, state_size)."""
    parts = torch.stack(tuple(state), -2) if isinstance(state, tuple | list) else state.unsqueeze(-2)
    if isinstance(layer, RecurrentCell):
        return state.detach()
    if isinstance(layer, nn.RNNCellBase):
        return parts.detach().flatten(1)
    # (layers, n, parts, H) -> (n, layers · parts · H)
    return parts.detach().transpose(0, 1).flatten(1)


def _like_module(module: nn.Module, sequences: Any) -> Tensor:
    """Return sequences on the module's device; floating ones in its dtype, tokens as int64."""
    tensor = torch.as_tensor(sequences)
    like = next((p for p in module.parameters() if p.is_floating_point()), tensor)
    if tensor.is_floating_point():
        return tensor.to(like)
    return tensor.to(like.device, torch.int64)
