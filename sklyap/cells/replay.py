"""A forward pass of a network in which its recurrent layer is replaced by its cell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells.base import RecurrentCell

__all__ = ["Replay", "cast_inputs"]


def cast_inputs(dtype: torch.dtype, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """Return a layer's arguments with every tensor in `dtype`, as a forward pre-hook."""

    def cast(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(dtype) if value.is_floating_point() else value
        if isinstance(value, PackedSequence):
            return value.to(dtype)
        return tuple(map(cast, value)) if isinstance(value, tuple | list) else value

    return cast(args), {key: cast(value) for key, value in kwargs.items()}


class Replay:
    """A recurrent layer's `forward` that returns given states (n, t, state_size), in one call or in several."""

    def __init__(self, layer: nn.Module, states: Tensor) -> None:
        self._layer, self._states = layer, states
        self._done = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else kwargs["input"]
        states = self._states[:, self._done : self._done + _n_steps(x, self._layer)]
        self._done += states.shape[1]
        if isinstance(self._layer, RecurrentCell):
            return self._layer.output(states), states[:, -1]
        if isinstance(self._layer, nn.RNNCellBase):
            return states[:, 0].chunk(2, -1) if isinstance(self._layer, nn.LSTMCell) else states[:, 0]
        assert isinstance(self._layer, nn.RNNBase)
        output, last = _torch_output(self._layer, states, _lengths(x) if isinstance(x, PackedSequence) else None)
        return (x._replace(data=_packed(output, x, self._layer)) if isinstance(x, PackedSequence) else output), last

    def check_finished(self) -> None:
        if self._done != self._states.shape[1]:
            raise ValueError(
                f"The 'network' parameter must run its recurrent layer over all steps. On sequences of "
                f"{self._states.shape[1]} steps it ran over {self._done}."
            )


def _n_steps(x: Tensor | PackedSequence, layer: nn.Module) -> int:
    if isinstance(x, PackedSequence):
        return len(x.batch_sizes)
    if isinstance(layer, nn.RNNCellBase):
        return 1
    return x.shape[0 if isinstance(layer, nn.RNNBase) and not layer.batch_first else 1]


def _lengths(x: PackedSequence) -> Tensor:
    """Return how many steps each sequence of a packed one has, in the order before packing."""
    sizes = x.batch_sizes
    lengths = (sizes.unsqueeze(0) > torch.arange(int(sizes[0])).unsqueeze(1)).sum(1)
    return lengths if x.unsorted_indices is None else lengths[x.unsorted_indices.cpu()]


def _packed(output: Tensor, like: PackedSequence, layer: nn.RNNBase) -> Tensor:
    """Return the rows of outputs in the order of a packed sequence."""
    output = output.transpose(0, 1) if layer.batch_first else output
    output = output if like.sorted_indices is None else output[:, like.sorted_indices]
    return torch.cat([output[t, :size] for t, size in enumerate(like.batch_sizes.tolist())])


def _torch_output(layer: nn.RNNBase, states: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
    """Return states as nn.RNN, nn.GRU and nn.LSTM return them: ``(output, h_n)`` or ``(output, (h_n, c_n))``."""
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 2 if isinstance(layer, nn.LSTM) else 1]
    parts = states.unflatten(-1, (layer.num_layers, sum(widths))).split(widths, -1)  # each (n, t, layers, width)
    output = parts[0][:, :, -1]
    ends = torch.full((len(states),), states.shape[1]) if lengths is None else lengths
    last = [part[torch.arange(len(states)), ends - 1].transpose(0, 1) for part in parts]
    return (output if layer.batch_first else output.transpose(0, 1)), (tuple(last) if len(last) > 1 else last[0])
