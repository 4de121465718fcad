"""Autoencoders with a loss head, several side by side, and the skorch net that trains them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

__all__ = ["AutoencoderLoss", "Autoencoders", "BestWeights", "SpectrumDataset", "Stages"]

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class _Linear(nn.Module):
    """`n` linear layers, applied to `n` batches at once."""

    def __init__(self, n: int, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, n_inputs, n_outputs, dtype=torch.float32) / math.sqrt(n_inputs))
        self.bias = nn.Parameter(torch.zeros(n, 1, n_outputs, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:  # (n, batch, n_inputs) -> (n, batch, n_outputs)
        return torch.baddbmm(self.bias, x, self.weight)


class _Path(nn.Module):
    """Hidden layers beside (if wanted) a linear path."""

    def __init__(self, n: int, sizes: Sequence[int], activation: type[nn.Module], dropout: float, linear: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for n_inputs, n_outputs in pairwise(sizes[:-1]):
            layers += [_Linear(n, n_inputs, n_outputs), activation(), nn.Dropout(dropout)]
        self.nonlinear = nn.Sequential(*layers, _Linear(n, sizes[-2], sizes[-1]))
        self.linear = _Linear(n, sizes[0], sizes[-1]) if linear else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.nonlinear(x)
        return y if self.linear is None else y + self.linear(x)


class Autoencoders(nn.Module):
    """`n` autoencoders with a linear loss head on the latent code, that share nothing but their inputs.

    Trained side by side they cost little more than one, since networks of this size wait for overheads.
    """

    def __init__(
        self,
        n: int,
        n_inputs: int,
        n_outputs: int,
        latent_dim: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        dropout: float,
        linear_path: bool,
    ) -> None:
        super().__init__()
        hidden = list(hidden_layer_sizes)
        options: dict[str, Any] = {"activation": ACTIVATIONS[activation], "dropout": dropout, "linear": linear_path}
        self.n = n
        self.encoder = _Path(n, [n_inputs, *hidden, latent_dim], **options)
        self.decoder = _Path(n, [latent_dim, *hidden[::-1], n_outputs], **options)
        self.head = _Linear(n, latent_dim, 1)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes (n, batch, latent_dim) of inputs (batch, n_inputs)."""
        code: Tensor = self.encoder(x.expand(self.n, *x.shape))
        return code

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted targets (n, batch) and reconstructed curves (n, batch, n_outputs)."""
        code = self.encode(x)
        return self.head(code)[..., 0], self.decoder(code)


class AutoencoderLoss(nn.Module):
    """Reconstruction error plus `prediction_weight` times the squared error of the prediction.

    Each autoencoder's error is the mean over the rows it learns from; they are summed, so that the gradient of
    one does not depend on how many there are.
    """

    def __init__(self, reconstruction_loss: str, prediction_weight: float) -> None:
        super().__init__()
        self.error = {"l1": torch.abs, "l2": torch.square}[reconstruction_loss]
        self.prediction_weight = prediction_weight

    def forward(self, outputs: tuple[Tensor, Tensor], wanted: dict[str, Tensor]) -> Tensor:
        prediction, reconstruction = outputs
        learns = wanted["learns"].T  # (n, batch)
        each = self.error(reconstruction - wanted["curves"]).mean(-1)
        each = each + self.prediction_weight * (prediction - wanted["targets"]).square()
        return ((each * learns).sum(1) / learns.sum(1).clamp_min(1)).sum()


class SpectrumDataset(torch.utils.data.Dataset):
    """Rows of inputs, curves and targets, and which autoencoder learns from which row."""

    def __init__(self, inputs: Any, curves: Any, targets: Any, learns: Any) -> None:
        self.inputs = torch.as_tensor(inputs, dtype=torch.float32)
        wanted = {"curves": curves, "targets": targets, "learns": learns}
        self.wanted = {name: torch.as_tensor(array, dtype=torch.float32) for name, array in wanted.items()}

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, i: Any) -> tuple[Tensor, dict[str, Tensor]]:
        i = torch.as_tensor(i)
        return self.inputs[i], {name: tensor[i] for name, tensor in self.wanted.items()}


class Stages(Callback):
    """Raise the prediction weight in stages of equal length."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = weights

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        epoch = len(net.history) - 1
        stage = min(epoch * len(self.weights) // net.max_epochs, len(self.weights) - 1)
        net.criterion_.prediction_weight = self.weights[stage]


class BestWeights(Callback):
    """Measure the held-out error after every epoch, and keep a copy of the weights where it is lowest.

    One epoch is chosen for all autoencoders side by side, from the mean of their errors on the rows that each
    does not learn from: a choice for each alone would follow the noise of a few held-out networks.

    Parameters
    ----------
    dataset : SpectrumDataset
    patience : int
        Epochs without improvement after which `finished` is set.
    """

    def __init__(self, dataset: SpectrumDataset, patience: int) -> None:
        self.dataset = dataset
        self.patience = patience

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self.best_epoch = 0
        self.best_error = math.inf
        self.finished = False
        self._measure(net, 0)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        net.history.record("valid_loss", self._measure(net, len(net.history)))
        self.finished = len(net.history) - self.best_epoch >= self.patience

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        net.module_.load_state_dict(self.weights)

    def _measure(self, net: NeuralNet, epoch: int) -> float:
        module, wanted = net.module_.eval(), self.dataset.wanted
        with torch.no_grad():
            prediction = module.head(module.encode(self.dataset.inputs.to(net.device)))[..., 0].cpu()
        held_out = 1 - wanted["learns"].T
        errors = ((prediction - wanted["targets"]).square() * held_out).sum(1) / held_out.sum(1)
        error = float(errors.mean())
        if error < self.best_error or epoch == 0:
            self.best_epoch, self.best_error = epoch, error
            # state_dict() holds the live weights: without copies "best" would always be "last".
            self.weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        return error
