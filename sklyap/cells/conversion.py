"""Anything recurrent as a cell: torch layers, modules that hold one, skorch nets, estimators."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.cells.elman import ElmanCell
from sklyap.cells.encoder import LayerInput
from sklyap.cells.gated import GatedCell
from sklyap.cells.gru import GRUCell
from sklyap.cells.lstm import LSTMCell
from sklyap.cells.projected_lstm import ProjectedLSTMCell
from sklyap.cells.stacked import StackedCell
from sklyap.runtime import undrawn

__all__ = ["as_recurrent_cell", "find_layer", "module_of", "name_in_layer"]

_TORCH = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase, RecurrentCell)


def as_recurrent_cell(network: Any, *, layer: str | None = None) -> RecurrentCell:
    """Return a cell with the weights of the recurrent layer that `network` holds.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
        A module must hold exactly one ``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` (any number of stacked layers),
        ``nn.RNNCell``, ``nn.GRUCell``, ``nn.LSTMCell`` or :class:`RecurrentCell`.
    layer : str, optional
        The name of the recurrent submodule to take where there are several. Of a bidirectional layer of one level,
        ``"<name>.forward"`` (``"forward"`` for a bare layer) is the forward half, which the backward half does not
        act on.

    Returns
    -------
    RecurrentCell
        A copy, in evaluation mode and without gradients: analysing it leaves the network bit-identical. Its
        `encoder` runs what comes before the recurrent layer in the network's `forward`, so that sequences go in
        at the network's input.

    Raises
    ------
    ValueError
        For a network that is not fitted, that holds no or several recurrent layers, a bidirectional
        layer whose forward half is not asked for, or parameters that are not finite.
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
    wanted, half = _without_half(layer)
    name, found = find_layer(module, wanted)
    _check_supported(name, found, half)
    module = _snapshot(module)
    whole = module.get_submodule(name) is module
    cell = _cell_of(module.get_submodule(name), alone=whole)
    bad = [n for n, p in cell.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ValueError(
            f"The 'network' parameter has NaN or infinite values in {', '.join(bad)}"
            f"{f' of {name!r}' if name else ''}; its training has probably diverged."
        )
    if not whole:
        cell.encoder = LayerInput(module, module.get_submodule(name))
    return cell


def module_of(network: Any) -> nn.Module:
    """Return the torch module inside an estimator (`net_`), a skorch net (`module_`), or the module itself."""
    if isinstance(network, nn.Module):
        return getattr(network, "_orig_mod", network)  # what torch.compile wraps
    for attribute in ("net_", "module_"):
        if hasattr(network, attribute):
            return module_of(getattr(network, attribute))
    if hasattr(network, "fit"):
        raise ValueError(
            f"The 'network' parameter must be a fitted network. Got a {type(network).__name__} without net_ or "
            "module_: call fit first, or hand over the network that it holds."
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


_HALF = "forward"


def _without_half(layer: str | None) -> tuple[str | None, bool]:
    """Return a layer's name without the half of it that is asked for, and whether one is."""
    if layer == _HALF:
        return None, True
    if isinstance(layer, str) and layer.endswith(f".{_HALF}"):
        return layer.removesuffix(f".{_HALF}"), True
    return layer, False


def _check_supported(name: str, layer: nn.Module, half: bool) -> None:
    where = f" {name!r}" if name else ""
    bidirectional = getattr(layer, "bidirectional", False)
    if bidirectional and not half:
        chosen = f"{name}.{_HALF}" if name else _HALF
        raise ValueError(
            f"The 'network' parameter has a bidirectional layer{where}, which is no dynamical system in time: "
            f"its backward half runs on the future. Its forward half is one: layer={chosen!r}."
        )
    if bidirectional and layer.num_layers > 1:  # type: ignore[operator]
        raise ValueError(
            f"The 'network' parameter has a bidirectional layer{where} of {layer.num_layers} levels, of which those "
            "above the first are driven by backward halves, so that its forward half is no layer by itself. Use a "
            "bidirectional layer with num_layers=1."
        )
    if half and not bidirectional:
        raise ValueError(
            f"The 'layer' parameter asks for the forward half of a layer{where} that is not bidirectional. "
            f"Use layer={name or None!r}."
        )
    kind = next((kind for kind in _TORCH if isinstance(layer, kind)), None)
    if kind is not None and type(layer).forward is not kind.forward:
        raise ValueError(
            f"The 'network' parameter has a {type(layer).__name__}{where} that overrides the forward of "
            f"nn.{kind.__name__}, so its step is not known. Write it as a RecurrentCell or a FunctionCell."
        )


def _snapshot(module: nn.Module) -> nn.Module:
    """Return a copy of a module in evaluation mode, without gradients; a cell's own encoder is shared."""
    memo: dict[int, Any] = {}
    if isinstance(module, RecurrentCell):
        memo[id(module.encoder)] = module.encoder
    for attached in _attached_tensors(module):
        memo[id(attached)] = attached.detach().clone()
    try:
        twin = copy.deepcopy(module, memo)
    except Exception as error:
        raise ValueError(
            f"The 'network' parameter must be a network that copy.deepcopy can copy, as it is analysed as a copy. "
            f"Copying the {type(module).__name__} failed: {error}"
        ) from error
    return twin.eval().requires_grad_(False)


def _attached_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors among a module's attributes that belong to a graph, which deepcopy refuses."""
    for submodule in module.modules():
        for value in vars(submodule).values():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Tensor) and not item.is_leaf:
                    yield item


def _cell_of(layer: Any, *, alone: bool) -> RecurrentCell:
    """Return a cell with the weights of `layer`: itself if it is one and `alone`, otherwise a copy."""
    if isinstance(layer, RecurrentCell):
        return layer if alone else copy.deepcopy(layer)
    _renew_weights(layer)
    kind, options = _kind_of(layer)
    cells: list[RecurrentCell] = []
    with undrawn():
        for _ in range(layer.num_layers if isinstance(layer, nn.RNNBase) else 1):
            n_inputs = cells[-1].output_size if cells else layer.input_size
            cells.append(kind(n_inputs, layer.hidden_size, bias=bool(layer.bias), **options))
    cell = cells[0] if len(cells) == 1 else StackedCell(cells)
    cell.to(getattr(layer, name_in_layer(layer, "weight_ih")))
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(getattr(layer, name_in_layer(layer, name)))
    return cell.eval().requires_grad_(False)


def name_in_layer(layer: nn.Module, name: str) -> str:
    """Return what torch calls a cell's parameter: ``cells.1.weight_hh`` is ``weight_hh_l1``."""
    if not isinstance(layer, nn.RNNBase):
        return name
    *stack, own = name.split(".")
    return f"{own}_l{stack[1] if stack else 0}"


def _renew_weights(layer: nn.Module) -> None:
    """Bring weights up to date that torch's old weight_norm and spectral_norm compute before each forward."""
    for hook in layer._forward_pre_hooks.values():
        if hasattr(hook, "compute_weight"):
            hook(layer, ())


def _kind_of(layer: Any) -> tuple[type[GatedCell], dict[str, Any]]:
    if getattr(layer, "proj_size", 0):
        return ProjectedLSTMCell, {"proj_size": layer.proj_size}
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return LSTMCell, {}
    if isinstance(layer, nn.GRU | nn.GRUCell):
        return GRUCell, {}
    return ElmanCell, {"nonlinearity": layer.nonlinearity}
