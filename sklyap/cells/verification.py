"""A cell's own steps beside those that its network was seen to make."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sklyap.cells.base import RecurrentCell
from sklyap.cells.observation import Call

__all__ = ["check_steps"]

_N_CALLS = 16


def check_steps(cell: RecurrentCell, layer: nn.Module, calls: list[Call]) -> None:
    """Raise ValueError if a cell steps from a recorded state elsewhere than the layer that it stands for.

    Single steps from recorded states are compared: along a trajectory rounding may grow.

    Parameters
    ----------
    cell : RecurrentCell
        With the weights that the layer was seen to use.
    layer : torch.nn.Module
    calls : list of Call
    """
    twin = copy.deepcopy(cell, {id(cell.encoder): None}).double()
    gain = max((float(p.detach().abs().sum(-1).max()) for p in twin.parameters() if p.ndim > 1), default=1.0)
    for number, (s, x, outputs) in enumerate(_recorded(twin, calls)):
        with torch.no_grad():
            found = twin.output(twin.step(s.double(), x.double()))
        size = 1 + gain * max(float(s.abs().max()), float(x.abs().max()), 1.0)
        difference = (found - outputs.double()).abs()
        if float(difference.max()) > 64 * torch.finfo(outputs.dtype).eps * size:
            where = tuple(int(i) for i in (difference == difference.max()).nonzero()[0])
            raise ValueError(
                f"The 'network' parameter has a {type(layer).__name__} whose step is not that of its weights: at step "
                f"{number + 1}, output {where} is {float(outputs[where]):.6g} in the network and "
                f"{float(found[where]):.6g} in the {type(cell).__name__} made of it. Write the step as a ModuleCell."
            )


def _recorded(cell: RecurrentCell, calls: list[Call]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield states, inputs and the outputs one step later, where the states before are known whole."""
    for call in calls[:_N_CALLS]:
        outputs = call.outputs[..., : cell.output_size]  # without a backward half
        start = cell.initial_state(len(call.x)).to(call.x) if call.start is None else call.start
        yield start, call.x[:, 0], outputs[:, 0]
        if cell.state_size == cell.output_size and len(set(call.lengths)) == 1:
            for t in range(1, outputs.shape[1]):
                yield outputs[:, t - 1], call.x[:, t], outputs[:, t]
