"""The torch module that is trained: encoder, recurrent layers, dropout, readout."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells import CELLS, RecurrentCell, StackedCell

__all__ = ["OneHot", "RecurrentNetwork"]

# Architectures for which torch has a fused layer; the others run step by step.
_FUSED = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class OneHot(nn.Module):
    """Integer tokens (...) to one-hot rows (..., n_tokens).

    Parameters
    ----------
    n_tokens : int
        Size of the vocabulary.
    """

    one: Tensor

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.n_tokens = n_tokens
        # Not a weight: it knows the dtype and the device of the rows.
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return rows with a one at each token."""
        rows = self.one.new_zeros(*tokens.shape, self.n_tokens)
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
    encoder : torch.nn.Module
        From the network's input to that of the recurrent layers.
    recurrent : torch.nn.Module
        ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` with ``batch_first=True``, or a RecurrentCell.
    readout : torch.nn.Linear
        From states to outputs.

    Examples
    --------
    >>> import torch
    >>> from sklyap.networks import RecurrentNetwork
    >>> network = RecurrentNetwork("gru", n_inputs=3, hidden_size=8, num_layers=2, n_outputs=5, readout="all")
    >>> network(torch.zeros(4, 10, 3)).shape
    torch.Size([4, 10, 5])
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

    def forward(self, X: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the network.

        Parameters
        ----------
        X : Tensor of shape (n_sequences, n_steps, n_inputs), or integer tokens (n_sequences, n_steps)
            Sequences.
        lengths : Tensor of shape (n_sequences,), optional
            How many steps of each sequence count; the last of them is read out with ``readout="last"``.

        Returns
        -------
        Tensor of shape (n_sequences, n_outputs), or (n_sequences, n_steps, n_outputs) at every step
        """
        outputs, _ = self.recurrent(self.encoder(X))
        if not self.every_step:
            outputs = outputs[:, -1] if lengths is None else outputs[torch.arange(len(X), device=X.device), lengths - 1]
        return self.readout(self.dropout(outputs))


def _recurrent_layers(
    cell: str | type[RecurrentCell],
    n_inputs: int,
    hidden_size: int,
    num_layers: int,
    dropout: float,
    options: dict[str, Any],
) -> nn.Module:
    if isinstance(cell, str) and cell in _FUSED:
        # torch warns about dropout where no layer follows.
        between = dropout if num_layers > 1 else 0.0
        return _FUSED[cell](n_inputs, hidden_size, num_layers, batch_first=True, dropout=between, **options)
    kind = CELLS[cell] if isinstance(cell, str) else cell
    if "bias" not in inspect.signature(kind).parameters:
        options.pop("bias")
    layers: list[RecurrentCell] = []
    for _ in range(num_layers):
        layers.append(kind(layers[-1].output_size if layers else n_inputs, hidden_size, **options))
    return layers[0] if num_layers == 1 else StackedCell(layers, dropout=dropout)
