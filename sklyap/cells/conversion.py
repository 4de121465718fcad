"""Anything recurrent as a cell: torch layers, modules that hold one, skorch nets, estimators."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod

from sklyap.cells.base import RecurrentCell
from sklyap.cells.elman import ElmanCell
from sklyap.cells.encoder import LayerInput, Observation
from sklyap.cells.gated import GatedCell
from sklyap.cells.gru import GRUCell
from sklyap.cells.lstm import LSTMCell
from sklyap.cells.observation import isolated, layer_kind, weights_of
from sklyap.cells.projected_lstm import ProjectedLSTMCell
from sklyap.cells.snapshot import snapshot
from sklyap.cells.stacked import StackedCell
from sklyap.cells.verification import check_steps
from sklyap.runtime import outside_inference_mode, undrawn
from sklyap.validation import how_to_load

__all__ = [
    "adopt",
    "as_recurrent_cell",
    "check_finite_weights",
    "find_layer",
    "install",
    "module_of",
    "name_in_layer",
    "opened",
]

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase, RecurrentCell)


@outside_inference_mode
def as_recurrent_cell(network: Any, *, layer: str | None = None, sequences: Any = None) -> RecurrentCell:
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
    sequences : array-like of shape (n_sequences, n_steps, ...), optional
        Where given, the network is run on them, and the cell gets the weights that it was seen to use. Whatever
        else takes sequences does so by itself.

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
        layer whose forward half is not asked for, or parameters that are not finite; without `sequences` for a layer
        whose weights are computed by the network around it; with them, for a network whose recurrent layer is not all
        that happens in a step.
    TypeError
        For an object that is no network at all.

    Examples
    --------
    >>> import torch
    >>> from sklyap import as_recurrent_cell
    >>> as_recurrent_cell(torch.nn.LSTM(3, 5)).state_size
    10
    """
    cell = opened(network, layer=layer)
    if sequences is not None:
        # Here, as what drives cells knows what a cell is.
        from sklyap.cells.drive import Drive

        Drive.of(cell, sequences)
    elif isinstance(cell.encoder, LayerInput):
        _check_known_unseen(cell, cell.encoder)
    return cell


def opened(network: Any, *, layer: str | None = None) -> RecurrentCell:
    """Return the cell of a network with the weights as they stand; `Drive.of` brings those that are used.

    Parameters
    ----------
    network, layer
        As of :func:`as_recurrent_cell`.
    """
    module = module_of(network)
    wanted, half = _without_half(layer)
    name, found = find_layer(module, wanted)
    _check_supported(name, found, half)
    whole = found is module
    memo = {id(module.encoder): module.encoder} if isinstance(module, RecurrentCell) else None
    module = snapshot(module, memo)
    found = module.get_submodule(name)
    if isinstance(found, RecurrentCell):
        cell = found if whole else copy.deepcopy(found)
    else:
        if found._forward_pre_hooks:
            _run_hooks(found)
        cell = _cell_of(found)
    check_finite_weights(cell, name)
    if not whole or _is_changed(found):
        standing = {name: tensor.detach().clone() for name, tensor in tensors_of(cell).items()}
        cell.encoder = LayerInput(module, found, alone=layer is not None, standing=standing)
    return cell


def tensors_of(cell: RecurrentCell) -> dict[str, Tensor]:
    """Return the parameters and buffers of a cell by their names."""
    return dict(cell.named_parameters()) | dict(cell.named_buffers())


def check_finite_weights(cell: RecurrentCell, layer: str = "") -> None:
    """Raise ValueError for a cell, of the layer of that name, with weights that are NaN or infinite."""
    bad = [n for n, p in cell.named_parameters() if not bool(torch.isfinite(p).all())]
    if bad:
        raise ValueError(
            f"The 'network' parameter has NaN or infinite values in {', '.join(bad)}"
            f"{f' of {layer!r}' if layer else ''}; its training has probably diverged."
        )


def module_of(network: Any) -> nn.Module:
    """Return the torch module inside an estimator (`net_`), a skorch net (`module_`), or the module itself."""
    if isinstance(network, torch.jit.ScriptModule):
        raise ValueError(
            "The 'network' parameter must be a module of Python code. Got a scripted or traced "
            f"{network.original_name}, which hides its steps: hand over the module that it was made from."
        )
    if isinstance(network, _WRAPPERS):
        return module_of(network.module)
    if isinstance(network, nn.Module):
        inner = getattr(network, "_orig_mod", network)  # what torch.compile wraps
        return inner if inner is network else module_of(inner)
    for attribute in ("net_", "module_"):
        if hasattr(network, attribute):
            return module_of(getattr(network, attribute))
    if hasattr(network, "fit") and not isinstance(network, type):
        raise ValueError(
            f"The 'network' parameter must be a fitted network. Got a {type(network).__name__} without net_ or "
            "module_: call fit first, or hand over the network that it holds."
        )
    raise TypeError(
        "The 'network' parameter must be a RecurrentCell, a torch module, or a fitted skorch net or sklyap "
        f"estimator. Got {type(network).__name__} instead.{how_to_load(network)}"
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
        raise ValueError(_none_found(module))
    if len(found) > 1:
        raise ValueError(
            "The 'network' parameter must hold exactly one recurrent layer. "
            f"Got a {type(module).__name__} with {len(found)}: {listed}. "
            "Say which with as_recurrent_cell(network, layer=...), or, for all of them as one system, write their step "
            "as a ModuleCell."
        )
    return found[0]


def _none_found(module: nn.Module) -> str:
    opaque = [m for m in module.modules() if isinstance(m, torch.jit.ScriptModule)]
    if opaque:
        return (
            f"The 'network' parameter is a {type(module).__name__} with a scripted or traced "
            f"{opaque[0].original_name}, which hides its steps: hand over the module that it was made from."
        )
    quantised = [m for m in module.modules() if type(m).__module__.startswith(("torch.ao.nn", "torch.nn.quant"))]
    if quantised:
        return (
            f"The 'network' parameter is a {type(module).__name__} with a quantised {type(quantised[0]).__name__}, "
            "whose step has no derivative: hand over the network in floating point."
        )
    children = ", ".join(type(m).__name__ for m in module.children()) or "nothing"
    return (
        "The 'network' parameter must hold a recurrent layer (nn.RNN, nn.GRU, nn.LSTM, an nn.*Cell or a "
        f"RecurrentCell). Got a {type(module).__name__} that holds {children}. A recurrence made of other layers "
        "(Linear, Conv) is known when its step is written as a ModuleCell or a FunctionCell."
    )


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


def _check_known_unseen(cell: RecurrentCell, encoder: LayerInput) -> None:
    """Refuse a layer whose weights or step only a run of its network tells."""
    layer = encoder.layer
    if isinstance(layer, RecurrentCell):
        return
    way_out = "Hand over sequences to see it at work: as_recurrent_cell(network, sequences=...)."
    names = [name_in_layer(layer, name) for name, _ in cell.named_parameters()]
    computed = [name for name in names if _is_computed_outside(layer, name)]
    if computed:
        raise ValueError(
            f"The 'network' parameter is a {type(encoder.module).__name__} that computes {', '.join(computed)} of its "
            f"{type(layer).__name__} when it is run. {way_out}"
        )
    if "forward" in vars(layer) or type(layer).forward is not layer_kind(layer).forward:
        raise ValueError(
            f"The 'network' parameter has a {type(layer).__name__} that overrides the forward of "
            f"nn.{layer_kind(layer).__name__}, so its step is not known. {way_out}"
        )


def _is_changed(layer: nn.Module) -> bool:
    """Tell whether a layer does more than its class: hooks, or a forward of its own."""
    if isinstance(layer, RecurrentCell):
        return False
    hooks = layer._forward_hooks or layer._forward_pre_hooks
    return bool(hooks) or "forward" in vars(layer) or type(layer).forward is not layer_kind(layer).forward


def _is_computed_outside(layer: nn.Module, name: str) -> bool:
    """Tell whether a weight is an attribute, there or not, that neither the layer nor its own hooks compute."""
    if isinstance(layer, RecurrentCell) or layer._forward_pre_hooks:
        return False
    return name not in layer._parameters and not torch.nn.utils.parametrize.is_parametrized(layer, name)


def _renew_weights(layer: nn.Module) -> None:
    """Bring weights up to date that torch's pruning, old weight_norm and spectral_norm compute before each forward."""
    for hook in layer._forward_pre_hooks.values():
        if hasattr(hook, "compute_weight") or isinstance(hook, BasePruningMethod):
            hook(layer, ())


def _run_hooks(layer: Any) -> None:
    """Bring weights up to date that any hook of a layer computes before each forward, by a run on one step."""
    x = layer.weight_ih.new_zeros(1, layer.input_size) if isinstance(layer, nn.RNNCellBase) else None
    if x is None:
        x = layer._flat_weights[0].new_zeros(1, 1, layer.input_size)
    try:
        with isolated(layer, 0), torch.no_grad():
            layer(x)
    except Exception:  # hooks made for inputs of another kind: the run on sequences shows what they do
        return


def _cell_of(layer: Any) -> RecurrentCell:
    """Return a cell with the weights of a layer of torch as they stand."""
    kind, options = _kind_of(layer)
    n_layers = layer.num_layers if isinstance(layer, nn.RNNBase) else 1
    weights = weights_of(layer)
    cells: list[RecurrentCell] = []
    like = next(iter(weights.values()), torch.empty(0))
    for _ in range(n_layers):
        n_inputs = cells[-1].output_size if cells else layer.input_size
        with undrawn():
            cell = kind(n_inputs, layer.hidden_size, bias=bool(layer.bias), **options)
        cells.append(cell.to(like).eval().requires_grad_(False))
    found = cells[0] if n_layers == 1 else StackedCell(cells).eval()
    install(found, layer, weights, partly=True)
    return found


def install(cell: RecurrentCell, layer: nn.Module, weights: dict[str, Tensor], *, partly: bool = False) -> None:
    """Give a cell the weights of a layer, named as in it; `partly` leaves out those that it has not computed yet."""
    own = tensors_of(cell)
    with torch.no_grad():
        for name, tensor in own.items():
            if not partly or name_in_layer(layer, name) in weights:
                tensor.copy_(weights[name_in_layer(layer, name)])
        for name in weights.keys() - own.keys() if isinstance(layer, RecurrentCell) else ():
            prefix, _, attribute = name.rpartition(".")
            like = next(iter(own.values()), weights[name])
            setattr(cell.get_submodule(prefix), attribute, weights[name].clone().to(like.device, like.dtype))


def adopt(cell: RecurrentCell, encoder: LayerInput, seen: Observation) -> None:
    """Give a cell the weights that its network was seen to use, unless it was changed since it was made of it.

    Raises
    ------
    ValueError
        If the cell then steps elsewhere than the network did, or if weights are not finite.
    """
    layer, own = encoder.layer, tensors_of(cell)
    standing: Mapping[str, Tensor | None] = encoder.standing or {
        name: weights_of(layer).get(name_in_layer(layer, name)) for name in own
    }
    if all(value is None or torch.equal(own[name], value.to(own[name])) for name, value in standing.items()):
        install(cell, layer, seen.weights)
        check_finite_weights(cell)
        check_steps(cell, layer, seen.calls)


def check_standing(encoder: LayerInput, seen: Observation) -> None:
    """Raise ValueError if a layer holds other weights than its network was seen to use."""
    standing = weights_of(encoder.layer)
    other = [name for name, value in seen.weights.items() if not torch.equal(value, standing[name])]
    if other:
        raise ValueError(
            f"The 'network' parameter is a {type(encoder.module).__name__} that computes {', '.join(other)} of its "
            f"{type(encoder.layer).__name__} when it is run, so that no gradient can be told. Parametrise the weights "
            "with torch.nn.utils.parametrize."
        )


def name_in_layer(layer: nn.Module, name: str) -> str:
    """Return what torch calls a cell's parameter: ``cells.1.weight_hh`` is ``weight_hh_l1``."""
    if not isinstance(layer, nn.RNNBase):
        return name
    *stack, own = name.split(".")
    return f"{own}_l{stack[1] if stack else 0}"


def _kind_of(layer: Any) -> tuple[type[GatedCell], dict[str, Any]]:
    if getattr(layer, "proj_size", 0):
        return ProjectedLSTMCell, {"proj_size": layer.proj_size}
    if isinstance(layer, nn.LSTM | nn.LSTMCell):
        return LSTMCell, {}
    if isinstance(layer, nn.GRU | nn.GRUCell):
        return GRUCell, {}
    mode = getattr(layer, "mode", None)  # what nn.RNN's forward goes by
    return ElmanCell, {"nonlinearity": mode.removeprefix("RNN_").lower() if mode else layer.nonlinearity}
