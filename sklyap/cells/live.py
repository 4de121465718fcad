"""The recurrent layer of a network as a cell on the network's own weights, so that gradients arrive in them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.cells.conversion import (
    _check_supported,
    _kind_of,
    _renew_weights,
    _without_half,
    as_recurrent_cell,
    find_layer,
    module_of,
)
from sklyap.cells.encoder import LayerInput
from sklyap.cells.stacked import StackedCell
from sklyap.runtime import transformed, undrawn

__all__ = ["LiveCell", "live_cell"]


@dataclass(frozen=True)
class LiveCell:
    """A cell without weights of its own, and the weights it runs with.

    Attributes
    ----------
    cell : RecurrentCell
        In evaluation mode. Its own parameters are placeholders, or share memory with the network's.
    weights : dict of str to Tensor
        By the names that they have in `cell`; attached to the network's parameters.
    """

    cell: RecurrentCell
    weights: dict[str, Tensor]

    def to(self, dtype: torch.dtype, device: torch.device) -> LiveCell:
        """Return the cell with its weights cast; gradients go through the cast."""
        cast = {
            name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
            for name, tensor in self.weights.items()
        }
        return LiveCell(self.cell, cast)

    def run(self, method: Callable[..., Any], *args: Any) -> Any:
        """Return ``method(cell, *args)`` with the weights in the cell's places."""
        return torch.func.functional_call(_Held(self.cell), _under(self.weights), (method, *args))


class _Held(nn.Module):
    """`torch.func.functional_call` calls `forward` only."""

    def __init__(self, cell: RecurrentCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, method: Callable[..., Any], *args: Any) -> Any:
        return method(self.cell, *args)


def _under(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"cell.{name}": tensor for name, tensor in weights.items()}


def live_cell(network: Any, layer: str | None = None) -> LiveCell:
    """Return the recurrent layer of `network` as :func:`as_recurrent_cell` does, but attached to its weights.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
    layer : str, optional
        Which recurrent layer, where there are several.

    Returns
    -------
    LiveCell
        The encoder of its cell runs the network's own weights too. Flags and buffers of the network stay as they are.

    Raises
    ------
    ValueError, TypeError
        As :func:`as_recurrent_cell`.
    """
    if not transformed():
        as_recurrent_cell(network, layer=layer)  # refuses what cannot be read
    module = module_of(network)
    wanted, half = _without_half(layer)
    name, found = find_layer(module, wanted)
    _check_supported(name, found, half)
    twin = _twin(module)
    recurrent = twin.get_submodule(name) if name else twin
    live = _live_layer(recurrent)
    if name:
        live.cell.encoder = LayerInput(twin, recurrent, differentiable=True)
    return live


def _live_layer(layer: Any) -> LiveCell:
    if isinstance(layer, RecurrentCell):
        return LiveCell(layer, dict(layer.named_parameters()) | dict(layer.named_buffers()))
    _renew_weights(layer)
    kind, options = _kind_of(layer)
    suffixes = [f"_l{i}" for i in range(layer.num_layers)] if isinstance(layer, nn.RNNBase) else [""]
    cells: list[RecurrentCell] = []
    weights: dict[str, Tensor] = {}
    for i, suffix in enumerate(suffixes):
        with torch.device("meta"), undrawn():  # placeholders
            cell = kind(cells[-1].output_size if cells else layer.input_size, layer.hidden_size,
                        bias=bool(layer.bias), **options)  # fmt: skip
        prefix = f"cells.{i}." if len(suffixes) > 1 else ""
        weights |= {prefix + name: getattr(layer, name + suffix) for name, _ in cell.named_parameters()}
        cells.append(cell)
    return LiveCell((cells[0] if len(cells) == 1 else StackedCell(cells)).eval(), weights)


def _twin(module: nn.Module) -> nn.Module:
    """Return a copy of a module, in evaluation mode, whose parameters are the module's own."""
    memo: dict[int, Any] = {}
    for submodule in module.modules():
        for shared in _shared(submodule):
            memo[id(shared)] = shared
    return copy.deepcopy(module, memo).eval()


def _shared(module: nn.Module) -> Iterator[Any]:
    """Yield what a copy of a module must share with it: whatever gradients go to, and functions that may hold such."""
    yield from module.parameters(recurse=False)
    for value in vars(module).values():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for item in items:
            if isinstance(item, Tensor) and (item.requires_grad or transformed()):
                yield item
            elif callable(item) and not isinstance(item, nn.Module | type):
                yield item
