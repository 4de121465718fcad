"""What comes before the recurrent layer of a network: sequences at its input become what drives the layer."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from sklyap.cells.base import RecurrentCell
from sklyap.runtime import kept_rng

__all__ = ["LayerInput"]


@dataclass(frozen=True)
class LayerInput:
    """What a network hands to its recurrent layer.

    Attributes
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    layer : torch.nn.RNNBase, torch.nn.RNNCellBase or RecurrentCell
        Its recurrent layer.
    differentiable : bool
        Whether what it returns is attached to the network's weights.
    """

    module: nn.Module
    layer: nn.Module
    differentiable: bool = False

    def __call__(self, sequences: Any) -> tuple[Tensor, Tensor | None]:
        """Return what drives the layer when the network is given `sequences`, and where it starts.

        A network without an encoder, whose layer sees the sequences as they are or reshaped, is handed them in
        the order that its `forward` wants, and they keep the digits that its dtype lacks.

        Parameters
        ----------
        sequences : array-like of shape (n_sequences, n_steps, n_inputs), or what the network's `forward` takes

        Returns
        -------
        x : Tensor of shape (n_sequences, n_steps, n_inputs)
        s : Tensor of shape (n_sequences, state_size), or None for zeros

        Raises
        ------
        ValueError
            If the network cannot be run on the sequences, or if its recurrent layer is not all that happens
            from one step to the next.
        """
        sequences = torch.as_tensor(sequences)
        given, _, x, s = self._read(sequences)
        unencoded = x.numel() == given.numel() and _same(x.reshape(given.shape), given)
        return (sequences.reshape(x.shape) if unencoded else x), s

    def reading(self, sequences: Any) -> tuple[Tensor, bool]:
        """Return what the network's `forward` takes, but with sequences first, and whether it takes time first."""
        return self._read(torch.as_tensor(sequences))[:2]

    def _read(self, sequences: Tensor) -> tuple[Tensor, bool, Tensor, Tensor | None]:
        given, (x, s) = self._first_that_runs(sequences)
        time_first = given.ndim == 3 and not _same(x, given) and _same(x, given.transpose(0, 1))
        if time_first:
            x, s = self._run(given.transpose(0, 1))
        return given, time_first, x, s

    def _first_that_runs(self, sequences: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor | None]]:
        errors = []
        for given in self._readings(sequences):
            try:
                return given, self._run(given)
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def _readings(self, sequences: Tensor) -> Iterator[Tensor]:
        """Yield what sequences may mean to the network: tokens, values, and one value per step."""
        like = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))
        if not sequences.is_floating_point():
            yield sequences.to(like.device, torch.int64)
        yield sequences.to(like)
        if sequences.ndim == 2:
            yield sequences.to(like).unsqueeze(-1)

    def _run(self, given: Tensor) -> tuple[Tensor, Tensor | None]:
        calls = self._calls(given)
        for before, after in pairwise(calls):
            if after.start is None or not _same(before.end, after.start):
                raise ValueError(
                    f"The 'network' parameter is a {type(self.module).__name__} that calls its "
                    f"{type(self.layer).__name__} {len(calls)} times, not always from the state that the call "
                    "before left, so that the layer alone is not the step of the network. "
                    "Write the step as a FunctionCell."
                )
        return torch.cat([call.x for call in calls], 1), calls[0].start

    def _calls(self, given: Tensor) -> list[_Call]:
        calls: list[_Call] = []

        def record(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            calls.append(_Call.of(layer, args, kwargs, output))

        handle = self.layer.register_forward_hook(record, with_kwargs=True)
        cuda = any(p.is_cuda for p in self.module.parameters())
        attached = self.differentiable and torch.is_grad_enabled()
        try:
            with kept_rng("cuda" if cuda else "cpu"), torch.set_grad_enabled(attached):
                self.module(given)
        except Exception as error:
            # Once the layer has run over all steps, a head may fail, say on a number of steps it is not made for.
            if len(calls) != 1 or isinstance(self.layer, nn.RNNCellBase):
                values = f"values in [{given.min()}, {given.max()}]"
                raise ValueError(
                    f"The 'sequences' parameter, of shape {tuple(given.shape)}, {given.dtype} and {values}, could not "
                    f"be run through the {type(self.module).__name__} up to its recurrent layer: {error}"
                ) from error
        finally:
            handle.remove()
        if not calls:
            raise ValueError(
                f"The 'network' parameter is a {type(self.module).__name__} whose forward never calls its "
                f"{type(self.layer).__name__}."
            )
        return calls


@dataclass(frozen=True)
class _Call:
    """One call of a recurrent layer.

    Attributes
    ----------
    x : Tensor of shape (n_sequences, n_steps, n_inputs)
    start, end : Tensor of shape (n_sequences, state_size)
        States before and after; `start` is None for zeros.
    """

    x: Tensor
    start: Tensor | None
    end: Tensor

    @classmethod
    def of(cls, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> _Call:
        x, start = (*inspect.signature(layer.forward).bind(*args, **kwargs).arguments.values(), None)[:2]
        single = isinstance(layer, nn.RNNCellBase)
        end = output if single else output[1]
        if isinstance(x, PackedSequence):
            x = _unpacked(x, layer)
        if x.ndim != (2 if single else 3):
            raise ValueError(f"its recurrent layer got a single sequence, of shape {tuple(x.shape)}, not a batch")
        if single:
            x = x.unsqueeze(1)
        elif isinstance(layer, nn.RNNBase) and not layer.batch_first:
            x = x.transpose(0, 1)
        return cls(x, None if start is None else _joined(layer, start), _joined(layer, end))


def _unpacked(packed: PackedSequence, layer: nn.Module) -> Tensor:
    x, lengths = pad_packed_sequence(packed, batch_first=bool(layer.batch_first))
    if len(lengths.unique()) > 1:
        raise ValueError("it packs sequences to different lengths; give them as a list of sequences")
    return x


def _joined(layer: nn.Module, state: Any) -> Tensor:
    """Return a layer's own form of its state as one tensor (n_sequences, state_size)."""
    if isinstance(layer, RecurrentCell):
        return state
    parts = torch.cat(tuple(state), -1) if isinstance(state, tuple | list) else state
    if isinstance(layer, nn.RNNCellBase):
        return parts
    # (directions * layers, n, widths of parts): the forward half of a layer comes first
    return parts[:: 2 if layer.bidirectional else 1].transpose(0, 1).flatten(1)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
