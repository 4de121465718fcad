"""The torch module that the RNN estimators train and the skorch net that trains it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from sklyap.cells import CELLS, RecurrentCell, StackedCell
from sklyap.exceptions import DivergedError

__all__ = [
    "OneHot",
    "RecurrentNetwork",
    "SequenceNet",
    "ValidAccuracy",
    "batch_loader",
    "derived_seed",
    "isolated_rng",
]

# Architectures for which torch has a fused layer; the others run step by step.
_FUSED = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class OneHot(nn.Module):
    """Integer tokens (...) to one-hot rows (..., n_tokens).

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary.
    """

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """Return float32 rows with a one at each token."""
        rows = torch.zeros(*tokens.shape, self.n_tokens, dtype=torch.float32, device=tokens.device)
        return rows.scatter_(-1, tokens.unsqueeze(-1), 1.0)


class RecurrentNetwork(nn.Module):
    """Encoder, recurrent layers, dropout, and a linear readout of the last or of every step.

    Parameters
    ----------
    cell : str or type[RecurrentCell]
        A name in :data:`sklyap.cells.CELLS`, or a class constructed as ``cell(n_inputs, hidden_size, ...)``.
    n_inputs : int
        Inputs per step; the size of the vocabulary when `tokens` is true.
    hidden_size, num_layers, n_outputs : int
        Units per layer, number of layers, width of the readout.
    nonlinearity : {"tanh", "relu"}, default="tanh"
        Of ``cell="rnn"``.
    bias : bool, default=True
        Whether the recurrent layers have biases.
    dropout : float, default=0.0
        Probability of dropping an output of a recurrent layer on its way to the next layer or the readout.
    cell_params : dict, optional
        Further arguments of every recurrent layer.
    tokens : bool, default=False
        Whether the input is integer tokens, which are encoded first.
    embedding_dim : int, optional
        Width of a trained embedding of the tokens; one-hot rows when None.
    readout : {"last", "all"}, default="last"
        Which steps are read out.

    Attributes
    ----------
    encoder, recurrent, readout : torch.nn.Module
    """

    def __init__(
        self,
        cell: str | type[RecurrentCell],
        n_inputs: int,
        hidden_size: int,
        num_layers: int,
        n_outputs: int,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        cell_params: dict[str, Any] | None = None,
        tokens: bool = False,
        embedding_dim: int | None = None,
        readout: str = "last",
    ) -> None:
        super().__init__()
        self.every_step = readout == "all"
        width = n_inputs
        if not tokens:
            self.encoder: nn.Module = nn.Identity()
        elif embedding_dim is None:
            self.encoder = OneHot(n_inputs)
        else:
            self.encoder, width = nn.Embedding(n_inputs, embedding_dim), embedding_dim
        options = {"bias": bias, **(cell_params or {})}
        if cell == "rnn":
            options["nonlinearity"] = nonlinearity
        self.recurrent = _recurrent_layers(cell, width, hidden_size, num_layers, dropout, options)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(getattr(self.recurrent, "output_size", hidden_size), n_outputs)
        self.to(torch.float32)

    def forward(self, X: Tensor) -> Tensor:
        """Run the network.

        Parameters
        ----------
        X : Tensor of shape (n_sequences, n_steps, n_inputs), or integer tokens (n_sequences, n_steps)

        Returns
        -------
        Tensor of shape (n_sequences, n_outputs), or (n_sequences, n_steps, n_outputs) at every step
        """
        outputs, _ = self.recurrent(self.encoder(X))
        if not self.every_step:
            outputs = outputs[:, -1]
        return self.readout(self.dropout(outputs))


def _recurrent_layers(
    cell: str | type[RecurrentCell],
    n_inputs: int,
    hidden_size: int,
    num_layers: int,
    dropout: float,
    options: dict[str, Any],
) -> nn.Module:
    if cell in _FUSED:
        # torch warns about dropout where no layer follows.
        between = dropout if num_layers > 1 else 0.0
        return _FUSED[cell](n_inputs, hidden_size, num_layers, batch_first=True, dropout=between, **options)
    kind = CELLS[cell] if isinstance(cell, str) else cell
    if "bias" not in inspect.signature(kind).parameters:
        options = {key: value for key, value in options.items() if key != "bias"}
    layers: list[RecurrentCell] = []
    for _ in range(num_layers):
        layers.append(kind(layers[-1].output_size if layers else n_inputs, hidden_size, **options))
    return layers[0] if num_layers == 1 else StackedCell(layers, dropout=dropout)


@contextmanager
def isolated_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from generators seeded with `seed`; torch's global ones come out as they went in."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        _seed_generators(device, seed)
        yield


def _seed_generators(device: torch.device, seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def derived_seed(*key: int) -> int:
    """Return a seed that is independent for every `key`."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_loader(
    dataset: Dataset, batch_size: int, shuffle: bool = False, drop_last: bool = False, **options: Any
) -> DataLoader:
    """Return a loader that indexes `dataset` once per batch, where torch's default collates row by row.

    Parameters
    ----------
    dataset : Dataset
        Takes a list of indices.
    batch_size : int
    shuffle, drop_last : bool, default=False
    **options
        Further arguments of :class:`torch.utils.data.DataLoader`.
    """
    rows = options.pop("sampler", None)
    if rows is None:
        rows = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
    return DataLoader(dataset, sampler=BatchSampler(rows, batch_size, drop_last), batch_size=None, **options)


class ValidAccuracy(PassthroughScoring):
    """Fraction of right predictions on the validation data, computed from the outputs of the loss."""

    def on_batch_end(self, net: NeuralNet, batch: Any, training: bool, y_pred: Tensor, **kwargs: Any) -> None:
        """Record a batch's accuracy; the average over batches is PassthroughScoring's."""
        if not training:
            right = y_pred.argmax(-1).cpu() == torch.as_tensor(batch[1]).cpu()
            net.history.record_batch(self.name, right.double().mean().item())


class SequenceNet(NeuralNet):
    """skorch's net with three additions.

    Every epoch draws from its own seed, so that epochs trained in one call or in several are the same. A
    loss or a weight that is not finite ends training with DivergedError. A loss may have steps as a
    second axis.

    Parameters
    ----------
    *args, **kwargs
        As in :class:`skorch.NeuralNet`.
    seed : int, default=0
        The seed that those of the epochs are derived from.
    """

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed

    def train(self, X: Tensor, y: Tensor, valid: tuple[Tensor, Tensor] | None = None, epochs: int = 1) -> SequenceNet:
        """Train for `epochs` more epochs, and evaluate on `valid` after each.

        skorch's own `partial_fit` takes every KeyboardInterrupt for a callback's wish to stop early; here
        only those raised by callbacks at the end of an epoch are, and Ctrl-C interrupts.
        """
        train_split = self.train_split
        if valid is not None:
            self.train_split = predefined_split(Dataset(*valid))
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y, epochs=epochs)
        except _StoppedEarlyError:
            pass
        finally:
            self.train_split = train_split  # a fitted net keeps no data
        self.notify("on_train_end", X=X, y=y)
        return self

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call the method of that name of the net and of its callbacks."""
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt:
            if method_name != "on_epoch_end":
                raise
            raise _StoppedEarlyError from None

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Open the epoch's row in the history and seed its batches and dropout."""
        super().on_epoch_begin(net, **kwargs)
        _seed_generators(torch.device(self.device), derived_seed(self.seed, len(self.history)))

    def on_batch_end(self, net: NeuralNet, training: bool = False, loss: Any = None, **kwargs: Any) -> None:
        """Refuse to go on from a loss that is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            kind = "training" if training else "validation"
            self._diverged(f"the {kind} loss became {value}")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Refuse weights that are not finite: a last update can break a network whose losses all were."""
        if not all(bool(torch.isfinite(p).all()) for p in self.module_.parameters()):
            self._diverged("the weights became NaN or infinite")

    def _diverged(self, what: str) -> None:
        raise DivergedError(
            f"Training diverged: {what} in epoch {len(self.history)}. "
            "Lower lr, set gradient_clip, or reduce init_scale."
        )

    def get_loss(self, y_pred: Tensor, y_true: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the criterion with sequences and steps as one axis of rows."""
        rows = y_pred.flatten(0, -2)
        # Class indices lack the last axis of the outputs; regression targets have it.
        y_true = y_true.reshape(len(rows), *y_true.shape[y_pred.ndim - 1 :])
        return super().get_loss(rows, y_true, *args, **kwargs)


class _StoppedEarlyError(Exception):
    """A callback asked to stop training."""
