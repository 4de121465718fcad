"""What a network was trained with: its loss, and targets in the form that the loss takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklyap.validation import check_dense

__all__ = ["CLASS_INDEX", "Loss", "class_indices", "matched", "targets_as_tensor", "training_of"]

CLASS_INDEX = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss, nn.MultiLabelMarginLoss)
"""Criteria whose integer targets are indices; those of others are numbers."""

Loss = Callable[[Any, Tensor], Any]


def training_of(
    network: Any, module: nn.Module, loss: str | Loss, targets: Any
) -> tuple[Callable[..., Any], Loss, Any, bool]:
    """Return how a network is run, its loss, the criterion behind it, and whether shapes are ours to check."""
    like = next(module.parameters())
    if isinstance(loss, nn.Module):
        loss = copy.deepcopy(loss).to(like)
        return module, loss, loss, False
    if callable(loss):
        return module, loss, None, False
    net = getattr(network, "net_", network)
    if loss == "auto" and hasattr(net, "get_loss") and hasattr(net, "criterion_"):
        twin = _skorch_twin(net, module, like)
        return twin.infer, twin.get_loss, twin.criterion_, net is not network
    if loss == "auto":
        loss = "mse" if targets_as_tensor(targets).is_floating_point() else "cross_entropy"
    criterion = nn.MSELoss() if loss == "mse" else nn.CrossEntropyLoss()
    return module, (criterion if loss == "mse" else _over_last_axis(criterion)), criterion, True


def _over_last_axis(criterion: nn.Module) -> Loss:
    """Return a cross-entropy whose classes are the last axis; torch's are the second."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return criterion(outputs.movedim(-1, 1), targets.movedim(-1, 1) if targets.is_floating_point() else targets)

    return loss


def _skorch_twin(net: Any, module: nn.Module, like: Tensor) -> Any:
    """Return a skorch net of the same kind around another module, with a copy of its criterion in that one's dtype."""
    twin = object.__new__(type(net))  # a copy of the net itself would pickle its weights
    criterion = net.criterion_
    if isinstance(criterion, nn.Module):
        criterion = copy.deepcopy(criterion).to(like)
    vars(twin).update(vars(net) | {"module_": module, "criterion_": criterion, "device": str(like.device)})
    return twin


def targets_as_tensor(targets: Any) -> Tensor:
    """Return targets as a tensor of real numbers."""
    check_dense(targets, "targets")
    if isinstance(targets, Tensor):
        return targets.detach()
    array = np.asarray(targets)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"The 'targets' parameter must hold real numbers. Got dtype {array.dtype} instead.")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def class_indices(targets: Any, classes: np.ndarray) -> Tensor:
    """Return the places of class labels among those that a network was fitted with."""
    if isinstance(targets, Tensor) or hasattr(targets, "nnz"):
        check_dense(targets, "targets")
    elif np.ndim(targets) == 0:
        raise ValueError(f"The 'targets' parameter must hold a target for each sequence. Got {targets!r} instead.")
    labels = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    unknown = ~np.isin(labels, classes)
    if unknown.any():
        raise ValueError(
            "The 'targets' parameter must hold classes that the network was fitted with. "
            f"Got {labels[unknown].tolist()[0]!r}."
        )
    return torch.from_numpy(np.searchsorted(classes, labels))


def matched(outputs: Any, targets: Tensor) -> Tensor:
    """Return targets in the shape that a loss over the last axis of outputs needs, or raise."""
    if not isinstance(outputs, Tensor):
        raise ValueError(
            "The 'network' parameter must return a tensor of outputs. "
            f"Got {type(outputs).__name__}; pass a callable `loss` that takes it."
        )
    is_index = not targets.is_floating_point()
    if not is_index and targets.shape == outputs.shape[:-1] and outputs.shape[-1] == 1:
        targets = targets.unsqueeze(-1)
    wanted = tuple(outputs.shape[:-1] if is_index else outputs.shape)
    if tuple(targets.shape) != wanted:
        raise ValueError(
            f"The 'targets' parameter must match the network's outputs of shape {tuple(outputs.shape)}: "
            f"{'class indices' if is_index else 'numbers'} of shape {wanted}. Got shape {tuple(targets.shape)} instead."
        )
    if is_index and outputs.shape[-1] == 1:
        raise ValueError(
            "The 'loss' parameter must be given for a network with one output and integer targets: a cross-entropy "
            "over one class is zero. Pass torch.nn.BCEWithLogitsLoss() or real-valued targets."
        )
    return targets
