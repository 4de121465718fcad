"""What the RNN estimators share: parameters, checks of the data, the net, and their state as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import GradientNormClipping
from skorch.history import History
from torch import Tensor, nn

from sklyap.networks.checks import OPTIMIZERS, as_tensor, check_parameters
from sklyap.networks.initialization import initialize_
from sklyap.networks.inputs import InputsMixin
from sklyap.networks.keywords import suggests_keywords
from sklyap.networks.modules import RecurrentNetwork
from sklyap.networks.padding import IGNORED, counted, filled, is_ragged, lengths_of, rows_of, trimmed
from sklyap.networks.state import StateMixin
from sklyap.networks.training import (
    SequenceDataset,
    SequenceNet,
    batch_loader,
    check_net_params,
    derived_seed,
)
from sklyap.networks.weights import check_sample_weight, scaled
from sklyap.runtime import isolated_rng, trainable
from sklyap.validation import resolve_device

__all__ = ["RecurrentEstimator"]

_CLIP = "callbacks__gradient_clip__gradient_clip_value"
# What may change between two calls that train the same net.
_CHANGEABLE = ("lr", "max_epochs", "batch_size", "verbose", _CLIP)


class RecurrentEstimator(InputsMixin, StateMixin, BaseEstimator):
    """Base of RNNClassifier and RNNRegressor, which say what a target is."""

    _criterion: type[nn.Module]

    def __init__(
        self,
        cell="lstm",
        hidden_size=64,
        num_layers=1,
        *,
        nonlinearity="tanh",
        bias=True,
        dropout=0.0,
        init="default",
        init_scale=None,
        cell_params=None,
        input_type="values",
        n_tokens=None,
        embedding_dim=None,
        readout="last",
        max_epochs=10,
        lr=1e-3,
        batch_size=64,
        optimizer="adam",
        gradient_clip=None,
        validation_fraction=None,
        callbacks=None,
        net_params=None,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.cell = cell
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.nonlinearity = nonlinearity
        self.bias = bias
        self.dropout = dropout
        self.init = init
        self.init_scale = init_scale
        self.cell_params = cell_params
        self.input_type = input_type
        self.n_tokens = n_tokens
        self.embedding_dim = embedding_dim
        self.readout = readout
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.optimizer = optimizer
        self.gradient_clip = gradient_clip
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.net_params = net_params
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    _net_class: type[SequenceNet] = SequenceNet

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    @property
    def history_(self) -> History:
        """Training record of skorch, one row per epoch."""
        check_is_fitted(self)
        return self.net_.history

    @suggests_keywords
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for `max_epochs` epochs, from new weights unless `warm_start` is set.

        Parameters
        ----------
        X : array-like of shape (n_sequences, n_steps, n_inputs) or (n_sequences, n_steps), or list
            Sequences. Two dimensions are one input per step, or tokens with ``input_type="tokens"``. A list of arrays
            (n_steps_i, n_inputs) or (n_steps_i,), or a PackedSequence, holds sequences of unequal length.
        y : array-like of shape (n_sequences,), or (n_sequences, n_steps) with ``readout="all"``
            Targets; with ``readout="all"`` a list where sequences have unequal lengths. Those of a regression may
            have a last axis of several outputs.
        X_val, y_val : array-like, optional
            Validation data; they take the place of `validation_fraction`.
        sample_weight : array-like of shape (n_sequences,), optional
            Weights of the sequences in the loss, none negative; those of weight zero are left out, though their classes
            and tokens count. Only ratios matter. A whole number acts as that many repetitions, but for which
            sequences share a batch. Where validation data are split off from X, their losses are weighted too.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data are not as documented, before anything is trained.
        DivergedError
            If the loss or the weights become NaN or infinite. `net_` and `history_` stay for inspection.
        """
        fresh = not (self.warm_start and hasattr(self, "net_"))
        return self._train(X, y, X_val, y_val, sample_weight=sample_weight, fresh=fresh)

    # Training

    @trainable()
    def _train(self, X, y, X_val=None, y_val=None, *, fresh, sample_weight=None, epochs=None, classes=None):
        check_parameters(self)
        X, y = self._check_data(X, y, fresh=fresh)
        valid = self._check_valid_data(X_val, y_val, X, fresh=fresh)
        weight = check_sample_weight(sample_weight, len(X), type(self).__name__)
        if fresh:
            self._learn_inputs([X] if valid is None else [X, valid[0]])
            self._learn_targets([y] if valid is None else [y, valid[1]], classes)
            self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        if weight is not None:
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        data: tuple[Tensor, Tensor, NDArray | None] = (*self._tensors(X, y, "y"), weight)
        if valid is not None:
            valid = (*self._tensors(*valid, "y_val"), None)
        elif self.validation_fraction is not None:
            data, valid = self._split(*data)
        options = self._net_options()
        if fresh:
            self.net_ = self._new_net(options, drive=data[0])
        else:
            self._go_on_with(options)
        with self._isolated_rng():
            self.net_.train(
                *self._scaled(data),
                None if valid is None else self._scaled(valid),
                class_weight=self._class_weights(data[1], data[2]),
                epochs=self.net_.max_epochs if epochs is None else epochs,
            )
        return self

    def _tensors(self, X: NDArray, y: NDArray, name: str) -> tuple[Tensor, Tensor]:
        """Return what is trained on; at steps that are none there is no target."""
        data, targets = as_tensor(X), self._encode(y, name)
        if self.readout == "all" and lengths_of(X) is not None:
            targets[~counted(data)] = math.nan if targets.is_floating_point() else IGNORED
        return data, targets

    def _split(self, X: Tensor, y: Tensor, weight: NDArray | None) -> tuple[Any, Any]:
        """Split off validation data, the same in every call on the same data."""
        options = {"test_size": self.validation_fraction, "random_state": self.seed_}
        rows = np.arange(len(X))
        try:
            train, valid = train_test_split(rows, stratify=self._strata(y), **options)
        except ValueError:  # classes too small to be on both sides
            train, valid = train_test_split(rows, **options)
        parts = [(X[i], y[i], None if weight is None else weight[i]) for i in (train, valid)]
        return parts[0], parts[1]

    def _scaled(self, data: tuple[Tensor, Tensor, NDArray | None]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return data with weights of mean one over their targets, None where all weigh the same."""
        X, y, weight = data
        return X, y, scaled(weight, counted(X).sum(1).numpy() if self.readout == "all" else None)

    def _architecture(self) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "n_inputs": self.n_inputs_,
            "hidden_size": int(self.hidden_size),
            "num_layers": int(self.num_layers),
            "n_outputs": self._width(),
            "nonlinearity": self.nonlinearity,
            "bias": bool(self.bias),
            "dropout": float(self.dropout),
            "cell_params": self.cell_params,
            "tokens": self.input_type == "tokens",
            "embedding_dim": self.embedding_dim,
            "readout": self.readout,
        }

    def _net_options(self) -> dict[str, Any]:
        """Return the arguments of the skorch net; what `net_params` says goes."""
        own_callbacks = [*self._metrics(), ("gradient_clip", GradientNormClipping())]
        options = {
            "module": RecurrentNetwork,
            **{f"module__{name}": value for name, value in self._architecture().items()},
            "criterion": self._criterion,
            "optimizer": OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer,
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "iterator_train": batch_loader,
            "iterator_train__shuffle": True,
            "iterator_valid": batch_loader,
            "dataset": SequenceDataset,
            "train_split": None,
            "callbacks": [*own_callbacks, *(self.callbacks or [])],
            _CLIP: self.gradient_clip,
            "verbose": self.verbose,
            "device": str(resolve_device(self.device)),
            "seed": self.seed_,
        } | (self.net_params or {})
        check_net_params(self.net_params or {}, options, type(self).__name__)
        return options

    def _new_net(self, options: dict[str, Any], drive: Tensor | None = None) -> SequenceNet:
        """Return an initialized net; with `drive`, training data, its recurrent weights follow `init`."""
        with trainable(), isolated_rng(torch.device(options["device"]), derived_seed(self.seed_, 0)):
            net = self._built(options)
            if drive is not None:
                some = filled(drive[:: math.ceil(len(drive) / 8)]).to(net.device)
                with torch.no_grad():
                    inputs = net.network.encoder(some)
                initialize_(net.network.recurrent, self.init, self.init_scale, drive=inputs)
        return net

    def _built(self, options: dict[str, Any]) -> Any:
        try:
            return self._net_class(**options).initialize()
        except (RuntimeError, MemoryError) as error:
            # Torch has no error of its own for a lack of memory on a CPU, nor for sizes beyond 64 bits.
            if not any(word in str(error) for word in ("memory", "overflow", "alloc")):
                raise
            raise ValueError(
                f"The 'hidden_size' parameter of {type(self).__name__} must leave a network that fits into memory. "
                f"Got {self.hidden_size} in {self.num_layers} layers: {' '.join(str(error).split())}"
            ) from error

    def _go_on_with(self, options: dict[str, Any]) -> None:
        """Give the net the options that may change on the way, and refuse a change of any other."""
        fitted = self.net_.get_params(deep=False)
        for name, value in options.items():
            if name == "callbacks" or (name in fitted and fitted[name] == value):
                continue
            if name not in _CHANGEABLE:
                raise ValueError(
                    f"{type(self).__name__} can't go on training with another {name.removeprefix('module__')}: it "
                    f"was fitted with {fitted.get(name, 'none')!r}. Got {value!r}; fit with warm_start=False."
                )
            self.net_.set_params(**{name: value})

    def _isolated_rng(self):
        return isolated_rng(torch.device(self.net_.device), derived_seed(self.seed_, 0))

    def _collect(self, X: ArrayLike, function: Callable[..., Tensor], *rows: Tensor) -> NDArray:
        """Return ``function(outputs, *rows)`` of all batches of X and of what goes with it, as one array."""
        check_is_fitted(self)
        X = as_tensor(self._check_X(X, fresh=False))
        results, start = [], 0
        with self._isolated_rng():
            for outputs in self.net_.outputs(X):
                if self.readout == "all":  # cut to the longest sequence of the batch
                    outputs = nn.functional.pad(outputs, (0, 0, 0, X.shape[1] - outputs.shape[1]))
                batch = slice(start, start := start + len(outputs))
                results.append(function(outputs, *(row[batch] for row in rows)).numpy())
        return np.concatenate(results)

    def _as_given(self, values: NDArray, X: Any) -> Any:
        """Return values at every step as a list, where that is what X was."""
        if self.readout != "all" or not is_ragged(X):
            return values
        return trimmed(values, [len(row) for row in rows_of(X, "X", type(self).__name__)])

    def _there(self, X: NDArray, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return which entries of targets, of that shape, belong to steps that are there."""
        if self.readout != "all":
            return np.ones(shape, dtype=bool)
        there = counted(torch.from_numpy(X)).numpy()
        return np.broadcast_to(there.reshape(*there.shape, *[1] * (len(shape) - 2)), shape)

    # Targets, which subclasses define

    def _check_y(self, y: Any, name: str) -> NDArray:
        """Return targets as an array whose first axes are sequences and, with ``readout="all"``, steps."""
        raise NotImplementedError

    def _learn_targets(self, ys: list[NDArray], classes: ArrayLike | None) -> None:
        """Set the attributes that say what targets are, from all that `fit` was given."""
        raise NotImplementedError

    def _encode(self, y: NDArray, name: str) -> Tensor:
        """Return what the criterion compares outputs with."""
        raise NotImplementedError

    def _export_targets(self) -> dict[str, Any]:
        """Return what `_learn_targets` set, as plain data."""
        raise NotImplementedError

    def _restore_targets(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def _width(self) -> int:
        """Return the number of outputs."""
        raise NotImplementedError

    def _class_weights(self, targets: Tensor, weight: NDArray | None) -> Tensor | None:
        """Return the factor of each class in the training loss; None where there is none."""
        return None

    def _strata(self, y: Tensor) -> Tensor | None:
        """Return what a split into training and validation data keeps in proportion."""
        return None

    def _metrics(self) -> list[tuple[str, Any]]:
        """Return callbacks that record more than the losses."""
        return []
