"""Weights of sequences and of classes in the loss that is trained on.

Sequences of weight zero are left out. The other weights are scaled to a mean of one over all targets, and the loss of a
batch is the mean of its weighted losses. The expected gradient is then that of the weighted mean loss over all data. A
whole number as weight acts as that many repetitions of a sequence, but for which sequences share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, compute_class_weight
from skorch.dataset import Dataset
from torch import Tensor, nn

from sklyap.networks.checks import to_numpy
from sklyap.networks.padding import IGNORED

__all__ = [
    "WeightedDataset",
    "check_sample_weight",
    "check_weighable",
    "class_weights",
    "inputs_of",
    "scaled",
    "weighted_loss",
    "weights_of",
]

_INPUTS, _WEIGHTS = "X", "sample_weight"


class WeightedDataset(Dataset):
    """A dataset whose batches hold, beside sequences and targets, the weights of the sequences.

    Parameters
    ----------
    dataset : Dataset
        Its items are pairs of sequences and targets.
    weight : Tensor of shape (n_sequences,)
    """

    def __init__(self, dataset: Any, weight: Tensor) -> None:
        super().__init__(getattr(dataset, "X", None), getattr(dataset, "y", None), length=len(dataset))
        self.dataset = dataset
        self.weight = weight

    def __getitem__(self, i: int | list[int]) -> tuple[dict[str, Any], Any]:
        x, y = self.dataset[i]
        return {_INPUTS: x, _WEIGHTS: self.weight[torch.as_tensor(i)]}, y


def inputs_of(batch_input: Any) -> Any:
    """Return the sequences of a batch, which may have weights beside them."""
    return batch_input[_INPUTS] if _has_weights(batch_input) else batch_input


def weights_of(batch_input: Any) -> Tensor | None:
    """Return the weights of the sequences of a batch, None where they have none."""
    return torch.as_tensor(batch_input[_WEIGHTS]) if _has_weights(batch_input) else None


def _has_weights(batch_input: Any) -> bool:
    return isinstance(batch_input, Mapping) and set(batch_input) == {_INPUTS, _WEIGHTS}


def check_sample_weight(sample_weight: Any, n: int, caller: str) -> NDArray[np.float64] | None:
    """Return weights of `n` sequences as an array (n,), None for None; a number is everyone's weight.

    Raises
    ------
    ValueError
        If there are not `n`, or one is negative or not finite, or all are zero.
    """
    if sample_weight is None:
        return None
    owner = f"The 'sample_weight' parameter of {caller} must"
    if isinstance(sample_weight, Real) and not isinstance(sample_weight, bool):
        sample_weight = np.full(n, float(sample_weight))
    try:
        weight = check_array(
            to_numpy(sample_weight), ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="sample_weight"
        )
    except (TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{owner} hold a finite number for each sequence. {reason}") from error
    if weight.shape != (n,):
        raise ValueError(f"{owner} have shape ({n},), one weight per sequence. Got shape {weight.shape} instead.")
    if (weight < 0).any():
        raise ValueError(f"{owner} hold no negative weight. Got {weight.min()}.")
    if not weight.any():
        raise ValueError(f"{owner} hold at least one weight that is not zero. Got zeros only.")
    return weight


def scaled(weight: NDArray[np.float64] | None, n_targets: NDArray[np.int64] | None = None) -> Tensor | None:
    """Return weights (n_sequences,) scaled to a mean of one over targets; None if all are the same.

    Parameters
    ----------
    weight : ndarray of shape (n_sequences,) or None
    n_targets : ndarray of shape (n_sequences,), optional
        How many targets each sequence has; by default as many as any other.
    """
    if weight is None or weight.max() == weight.min():
        return None
    counts = np.ones(len(weight)) if n_targets is None else n_targets
    return torch.from_numpy((weight * (counts.sum() / (weight @ counts))).astype(np.float32))


def class_weights(
    class_weight: Any, classes: NDArray, targets: Tensor, weight: NDArray | None, caller: str
) -> Tensor | None:
    """Return the factor of each class in the training loss, with a mean of one over the targets.

    Parameters
    ----------
    class_weight : dict of label to float, "balanced" or None
    classes : ndarray of shape (n_classes,)
    targets : Tensor of shape (n_sequences,) or (n_sequences, n_steps)
        Indices of classes, `IGNORED` at steps that are none.
    weight : ndarray of shape (n_sequences,) or None
        Of the sequences.
    caller : str
        Used in the error message.
    """
    if class_weight is None:
        return None
    there = targets != IGNORED
    each = torch.ones(len(targets)).double() if weight is None else torch.from_numpy(weight)
    each = each.reshape(-1, *[1] * (targets.ndim - 1)).expand(targets.shape)[there]
    mass = torch.bincount(targets[there], weights=each, minlength=len(classes))
    if isinstance(class_weight, str):  # "balanced": every class that is there has the same mass
        factors = torch.where(mass > 0, 1 / mass, 0.0)
    else:
        known = set(classes.tolist())
        unknown = [label for label in class_weight if label not in known]
        if unknown and len(class_weight) - len(unknown) < len(classes):
            raise ValueError(
                f"The 'class_weight' parameter of {caller} must hold weights of the classes of the targets, "
                f"{', '.join(repr(label) for label in classes.tolist()[:10])}. Got {unknown[0]!r}."
            )
        factors = torch.from_numpy(compute_class_weight(class_weight, classes=classes, y=classes)).double()
    total = float(factors @ mass)
    if total == 0:
        raise ValueError(
            f"The 'class_weight' parameter of {caller} must leave a class of the targets a weight that is not zero. "
            f"Got {class_weight!r}."
        )
    return (factors * (float(mass.sum()) / total)).float()


def check_weighable(net: Any, caller: str) -> None:
    """Raise ValueError for a net whose criterion or dataset cannot be weighted."""
    criterion = net.criterion_
    if getattr(criterion, "reduction", None) not in ("mean", "sum"):
        raise ValueError(
            f"{caller} needs a criterion with a 'reduction' of 'mean' or 'sum' to weight its losses, as those of torch "
            f"have. Got {type(criterion).__name__}; train it without weights."
        )
    if getattr(criterion, "weight", None) is not None:
        raise ValueError(
            f"{caller} got weights and a criterion that has weights of its own; use class_weight in place of "
            "net_params['criterion__weight']."
        )


def weighted_loss(criterion: nn.Module, outputs: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Return the criterion of rows of outputs and targets with a weight (n_rows,) each."""
    reduction = criterion.reduction
    try:
        criterion.reduction = "none"  # type: ignore[assignment]
        losses = criterion(outputs, targets)
    finally:
        criterion.reduction = reduction
    losses = losses.reshape(len(weight), -1)
    if reduction == "sum":
        return (losses.sum(1) * weight).sum()
    return (losses.mean(1) * weight).mean()
