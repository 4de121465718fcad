"""What comes before the recurrent layer of a network: sequences at its input become what drives the layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells.batches import ambiguous
from sklyap.cells.network_checks import check_calls, check_chain
from sklyap.cells.observation import Call, run_network

__all__ = ["LayerInput", "Observation"]


@dataclass(frozen=True)
class Observation:
    """What a network was seen to do with its recurrent layer.

    Attributes
    ----------
    x : Tensor of shape (n_sequences, n_steps, n_inputs)
        What drives the layer.
    lengths : list of int
        How many steps of each sequence count.
    start : Tensor of shape (n_sequences, state_size) or None
        Where it starts; None for zeros.
    calls : list of Call
    given : Tensor
        The sequences as the network's `forward` takes them, but with sequences first.
    time_first : bool
        Whether `forward` takes time first.
    """

    x: Tensor
    lengths: list[int]
    start: Tensor | None
    calls: list[Call]
    given: Tensor
    time_first: bool

    @property
    def weights(self) -> dict[str, Tensor]:
        """What the layer computed with, by the names in it."""
        return self.calls[0].weights


@dataclass(frozen=True)
class LayerInput:
    """What a network hands to its recurrent layer.

    Attributes
    ----------
    module : torch.nn.Module
        The network, in evaluation mode.
    layer : torch.nn.RNNBase, torch.nn.RNNCellBase or RecurrentCell
        Its recurrent layer.
    arguments : dict
        Further arguments of the network's `forward`.
    differentiable : bool
        Whether what drives the layer is attached to the network's weights.
    alone : bool
        Whether the layer was asked for by its name, whatever else in the network carries a state.
    standing : dict of str to Tensor or None
        The weights of the cell as it was made of the layer, by their names in the cell.
    """

    module: nn.Module
    layer: nn.Module
    arguments: Mapping[str, Any] = field(default_factory=dict)
    differentiable: bool = False
    alone: bool = False
    standing: Mapping[str, Tensor] | None = None

    def __call__(self, sequences: Any) -> tuple[Tensor, Tensor | None]:
        """Return what drives the layer when the network is given `sequences`, and where it starts.

        Parameters
        ----------
        sequences : array-like of shape (n_sequences, n_steps, ...)

        Returns
        -------
        x : Tensor of shape (n_sequences, n_steps, n_inputs)
        s : Tensor of shape (n_sequences, state_size), or None for zeros
        """
        seen = self.observe(sequences)
        return seen.x, seen.start

    def observe(self, sequences: Any, *, checked: bool = True) -> Observation:
        """Run the network on sequences and return what it was seen to do.

        A network without an encoder, whose layer sees the sequences as they are or reshaped, is handed them in
        the order that its `forward` wants, and they keep the digits that its dtype lacks.

        Parameters
        ----------
        sequences : array-like of shape (n_sequences, n_steps, ...)
            Of numbers or tokens; two dimensions are one input per step, or a single series of several.
        checked : bool, default=True
            Whether to refuse a network whose recurrent layer is not all that happens from one step to the next.

        Raises
        ------
        ValueError
            If the network cannot be run on the sequences, if they can be read in two ways, or if the layer is not
            the network's step.
        """
        sequences = torch.as_tensor(sequences)
        given, calls = self._readable(sequences)
        time_first = self._takes_time_first(given, calls)
        as_taken = given.transpose(0, 1) if time_first else given
        if time_first:
            calls = self._run(as_taken)
        if checked:
            check_calls(self.module, self.layer, as_taken, self.arguments, calls, alone=self.alone)
        if self.differentiable and torch.is_grad_enabled():
            calls = run_network(self.module, self.layer, as_taken, self.arguments, attached=True)
        x = torch.cat([call.x for call in calls], 1)
        lengths = list(calls[0].lengths) if len(calls) == 1 else [x.shape[1]] * len(x)
        unencoded = x.numel() == sequences.numel() and _same(x.reshape(given.shape), given)
        return Observation(
            sequences.reshape(x.shape) if unencoded else x, lengths, calls[0].start, calls, given, time_first
        )

    def _readable(self, sequences: Tensor) -> tuple[Tensor, list[Call]]:
        """Return the one reading of sequences on which the network runs, and its calls."""
        errors: list[ValueError] = []
        for given in self._readings(sequences):
            try:
                calls = self._run(given)
            except ValueError as error:
                errors.append(error)
                continue
            if sequences.ndim == 2 and sequences.is_floating_point() and sequences.shape[1] == 1:
                self._check_not_a_series(sequences, given)
            return given, calls
        raise errors[0]

    def _check_not_a_series(self, sequences: Tensor, given: Tensor) -> None:
        """Refuse (T, 1) where the network reads it as T sequences of one step and as one of T steps."""
        series = sequences.to(given).unsqueeze(0)
        if given.shape == series.shape:
            return
        try:
            self._run(series)
        except ValueError:
            return
        raise ambiguous(sequences.shape[0])

    def _readings(self, sequences: Tensor) -> Iterator[Tensor]:
        """Yield what sequences may mean to the network: tokens, values, one value per step, a single series."""
        like = next((p for p in self.module.parameters() if p.is_floating_point()), torch.empty(0))
        if not sequences.is_floating_point():
            yield sequences.to(like.device, torch.int64)
        yield sequences.to(like)
        if sequences.ndim == 2:
            yield sequences.to(like).unsqueeze(-1)
            yield sequences.to(like).unsqueeze(0)

    def _run(self, given: Tensor) -> list[Call]:
        return run_network(self.module, self.layer, given, self.arguments)

    def _takes_time_first(self, given: Tensor, calls: list[Call]) -> bool:
        """Tell whether the network takes the first axis for time, by what of its layer's input moves with what."""
        if len({len(call.x) for call in calls}) > 1:
            check_chain(f"The 'network' parameter is a {type(self.module).__name__}", type(self.layer).__name__, calls)
        x = torch.cat([call.x for call in calls], 1)
        n, T, rows = given.shape[0], given.shape[1], x.shape[0]
        if given.ndim == 3 and (_same(x, given) or _same(x, given.transpose(0, 1))):
            return not _same(x, given)
        if n != T and rows in (n, T):
            return rows == T
        if rows not in (n, T) and len(calls) > 1:
            check_chain(f"The 'network' parameter is a {type(self.module).__name__}", type(self.layer).__name__, calls)
        by_first, by_second = self._moved_rows(given, x, 0), self._moved_rows(given, x, 1)
        if by_first == by_second == 1.0 and min(n, T) > 1:
            raise ValueError(
                f"The 'sequences' parameter, of shape {tuple(given.shape)}, goes into a {type(self.module).__name__} "
                "that mixes its rows, so that it cannot be told which axis the network takes for time. Give other "
                "numbers of sequences and steps."
            )
        return by_first > by_second

    def _moved_rows(self, given: Tensor, x: Tensor, axis: int) -> float:
        """Return the share of the layer's rows that move with the first entry of an axis of what the network gets."""
        other = given.clone()
        first = other.select(axis, 0)
        if given.is_floating_point():
            noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            first += (noise * (1 + first.abs().cpu())).to(first)
        else:
            first.copy_(torch.where(first == given.max(), given.min(), first + 1))
        moved = torch.cat([call.x for call in self._run(other)], 1)
        if moved.shape != x.shape:
            return 0.0
        return float((moved != x).any(2).any(1).double().mean())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
