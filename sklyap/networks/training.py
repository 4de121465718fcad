"""The skorch net that trains a network: batches, seeds, divergence, and the options it takes."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from sklyap.exceptions import DivergedError
from sklyap.networks.padding import IGNORED, without_padding
from sklyap.networks.weights import WeightedDataset, check_weighable, inputs_of, weighted_loss, weights_of
from sklyap.runtime import seed_generators
from sklyap.validation import suggestion

__all__ = [
    "ClassifierNet",
    "SequenceDataset",
    "SequenceNet",
    "ValidAccuracy",
    "batch_loader",
    "check_net_params",
    "derived_seed",
]


def derived_seed(*key: int) -> int:
    """Return a seed that is independent for every `key`."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


class SequenceDataset(Dataset):
    """Tensors that are indexed row by row or, by a list of rows, a batch at a time."""

    def __getitem__(self, i: int | list[int]) -> tuple[Tensor, Tensor]:
        index = torch.as_tensor(i)
        x = self.X[index]
        # Loaders pass on no None: predictions get a placeholder, as in skorch.
        return x, x.new_zeros(1) if self.y is None else self.y[index]


def batch_loader(
    dataset: Any, batch_size: int, shuffle: bool = False, drop_last: bool = False, **options: Any
) -> DataLoader:
    """Return a DataLoader that indexes `dataset` once per batch, where torch's default collates row by row.

    Parameters
    ----------
    dataset : Dataset
        Takes a list of indices.
    batch_size : int
    shuffle, drop_last : bool, default=False
    **options
        Further arguments of :class:`torch.utils.data.DataLoader`.
    """
    batches = options.pop("batch_sampler", None)
    if batches is None:
        rows = options.pop("sampler", None) or (RandomSampler if shuffle else SequentialSampler)(dataset)
        batches = BatchSampler(rows, batch_size, drop_last)
    return DataLoader(dataset, sampler=batches, batch_size=None, **options)


class ValidAccuracy(PassthroughScoring):
    """Fraction of right predictions on the validation data, computed from the outputs of the loss."""

    def on_batch_end(self, net: NeuralNet, batch: Any, training: bool, y_pred: Tensor, **kwargs: Any) -> None:
        """Record a batch's accuracy; the average over batches is PassthroughScoring's."""
        if not training:
            wanted = torch.as_tensor(batch[1]).cpu()
            wanted = wanted[:, : y_pred.shape[1]] if y_pred.ndim > 2 else wanted
            right = (y_pred.argmax(-1).cpu() == wanted).double()
            weight = weights_of(batch[0])
            if weight is not None:
                right *= weight.cpu().reshape(-1, *[1] * (right.ndim - 1))
            net.history.record_batch(self.name, right[wanted != IGNORED].mean().item())


class _StoppedEarlyError(Exception):
    """A callback asked to stop training."""


class SequenceNet(NeuralNet):
    """skorch's net, with reproducible epochs, an end to diverging training, and losses over steps.

    Every epoch draws from a seed of its own, so that epochs trained in one call or in several are the same.
    A loss or a weight that is not finite raises DivergedError.

    Parameters
    ----------
    *args, **kwargs
        As in :class:`skorch.NeuralNet`.
    seed : int, default=0
        The seed that those of the epochs are derived from.
    """

    train_split: Any
    _class_weight: Tensor | None = None

    def __init__(self, *args: Any, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed

    @property
    def network(self) -> nn.Module:
        """The trained module itself, where `module_` may be its compiled form."""
        module: nn.Module = self.module_
        return getattr(module, "_orig_mod", module)

    def train(
        self,
        X: Tensor,
        y: Tensor,
        weight: Tensor | None = None,
        valid: tuple[Tensor, Tensor, Tensor | None] | None = None,
        *,
        class_weight: Tensor | None = None,
        epochs: int,
    ) -> SequenceNet:
        """Train for `epochs` more epochs, and evaluate on `valid` after each.

        `weight` holds a weight of each sequence, as `valid` does in its third place; `class_weight`, of each class, is
        for training alone.

        skorch's `partial_fit` takes every KeyboardInterrupt for a callback's wish to stop early. Here only
        one raised at the end of an epoch, as callbacks do, is: Ctrl-C interrupts.
        """
        train_split = self.train_split
        if valid is not None:
            self.train_split = predefined_split(self._dataset_of(*valid))
        if weight is not None or class_weight is not None:
            check_weighable(self, "fit")
        self._class_weight = class_weight
        try:
            self.notify("on_train_begin", X=X, y=y)
            self.fit_loop(self._dataset_of(X, y, weight), y, epochs=epochs)
        except _StoppedEarlyError:
            pass
        finally:
            self.train_split, self._class_weight = train_split, None  # a fitted net keeps no data
        self.notify("on_train_end", X=X, y=y)
        return self

    def _dataset_of(self, X: Tensor, y: Tensor, weight: Tensor | None) -> Any:
        dataset = self.get_dataset(X, y)
        return dataset if weight is None else WeightedDataset(dataset, weight)

    def outputs(self, X: Tensor) -> Iterator[Tensor]:
        """Yield the network's outputs on `X`, batch by batch, on the CPU.

        They are computed in float64: in float32 they would depend, in the last digits, on which rows share
        a batch.

        Raises
        ------
        DivergedError
            If they are not finite.
        """
        network = copy.deepcopy(self.network).double().eval()
        for batch, _ in self.get_iterator(self.get_dataset(X), training=False):
            x, lengths = without_padding(torch.as_tensor(batch, device=self.device))
            more = {} if lengths is None else {"lengths": lengths}
            with torch.no_grad():
                outputs = network(x.double() if x.is_floating_point() else x, **more).cpu()
            if not bool(torch.isfinite(outputs).all()):
                raise DivergedError("The outputs of the network are NaN or infinite; its training has diverged.")
            yield outputs

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
        seed_generators(torch.device(self.device), derived_seed(self.seed, len(self.history)))

    def on_batch_end(self, net: NeuralNet, training: bool = False, loss: Any = None, **kwargs: Any) -> None:
        """Refuse to go on from a loss that is not finite."""
        value = loss.item()
        if not math.isfinite(value):
            self._diverged(f"the {'training' if training else 'validation'} loss became {value}")

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Refuse weights that are not finite: the last update can break a network whose losses all were."""
        if not all(bool(torch.isfinite(p).all()) for p in self.module_.parameters()):
            self._diverged("the weights became NaN or infinite")

    def _diverged(self, what: str) -> None:
        raise DivergedError(
            f"Training diverged: {what} in epoch {len(self.history)}. "
            "Lower lr, set gradient_clip, or reduce init_scale."
        )

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """Run the network on a batch, sequences of unequal length with theirs."""
        x, lengths = without_padding(torch.as_tensor(inputs_of(x)))
        if lengths is not None:
            fit_params["lengths"] = lengths.to(self.device)
        return super().infer(x, **fit_params)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False, **kwargs: Any) -> Tensor:
        """Return the criterion, with sequences and steps as one axis of rows, and weights where there are any."""
        weight = weights_of(X)
        if weight is not None:
            weight = weight.reshape(-1, *[1] * (y_pred.ndim - 2)).expand(y_pred.shape[:-1]).flatten()
        if y_pred.ndim > 2:  # cut to the longest sequence of the batch
            y_true = y_true[:, : y_pred.shape[1]]
        rows = y_pred.flatten(0, -2)
        # Class indices lack the last axis of the outputs; regression targets have it.
        y_true = y_true.reshape(len(rows), *y_true.shape[y_pred.ndim - 1 :])
        there = ~y_true.isnan().any(-1) if y_true.is_floating_point() else y_true != IGNORED
        if y_pred.ndim > 2 and not bool(there.all()):
            rows, y_true = rows[there.to(rows.device)], y_true[there]
            weight = None if weight is None else weight[there.to(weight.device)]
        if training and self._class_weight is not None:
            of_class = self._class_weight[y_true.to(self._class_weight.device)]
            weight = of_class if weight is None else weight * of_class.to(weight.device)
        if weight is None:
            return super().get_loss(rows, y_true, X=X, training=training, **kwargs)
        return weighted_loss(self.criterion_, rows, y_true.to(rows.device), weight.to(rows.device, rows.dtype))


class ClassifierNet(ClassifierMixin, SequenceNet):
    """A net whose `predict` gives classes, so that callbacks score it as they score any classifier.

    Classes are those of the net's targets: the positions of the user's in ``classes_`` of the estimator.
    """

    @property
    def classes_(self) -> np.ndarray:
        """Numbers of the classes, one for each output of the network."""
        return np.arange(self.network.readout.out_features)  # type: ignore[union-attr, arg-type]

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class at each step that is read out."""
        return self.predict_proba(X).argmax(-1)


def check_net_params(net_params: Any, options: dict[str, Any], caller: str) -> None:
    """Refuse what no part of the net would understand.

    Parameters
    ----------
    net_params : dict
        What the user gave.
    options : dict
        All arguments of the net, those of `net_params` among them.
    caller : str
        Used in the error message.

    Raises
    ------
    ValueError
        Naming the key and the nearest known one.
    """
    owner = f"The 'net_params' parameter of {caller}"
    known = _known_options(options) if net_params else set()
    for key in net_params:
        if key in known:
            continue
        if key.partition("__")[0] in ("module", "warm_start", "seed"):
            raise ValueError(f"{owner} can't set {key!r}, which the estimator's own parameters decide.")
        raise ValueError(f"{owner} must hold options of a skorch net. Got {key!r}.{suggestion(key, known)}")


def _known_options(options: dict[str, Any]) -> set[str]:
    """Return the names that NeuralNet, its parts as configured, and its callbacks take."""
    net = inspect.signature(NeuralNet).parameters
    known = {name for name in net if name not in ("module", "warm_start", "kwargs")}
    for part in ("optimizer", "criterion", "iterator_train", "iterator_valid", "dataset"):
        configured = options.get(part, net[part].default)
        if callable(configured):
            known |= {f"{part}__{name}" for name in _accepted(configured)}
    known |= {f"compile__{name}" for name in _accepted(torch.compile)} | {"optimizer__param_groups"}
    for name, callback in _named_callbacks(options):
        known.add(f"callbacks__{name}")
        known |= {f"callbacks__{name}__{parameter}" for parameter in _accepted(callback)}
    return known


def _accepted(configured: Any) -> set[str]:
    """Return the names of the arguments of a class, function, or an instance's class."""
    if not (inspect.isclass(configured) or inspect.isfunction(configured)):
        configured = type(configured)
    names = set(inspect.signature(configured).parameters)
    return names | set(inspect.signature(DataLoader).parameters) if configured is batch_loader else names


def _named_callbacks(options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield callbacks as skorch names them: by the user, else by their class."""
    given = options.get("callbacks")
    own = SequenceNet(options["module"], criterion=options["criterion"]).get_default_callbacks()
    for item in own + (list(given) if isinstance(given, list | tuple) else []):
        name, callback = item if isinstance(item, tuple | list) else (None, item)
        yield name or getattr(callback, "__name__", type(callback).__name__), callback
