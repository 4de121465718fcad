"""What the RNN estimators share: parameters, checks of the data, the net, and their state as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch.callbacks import GradientNormClipping
from skorch.history import History
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells.batches import one_by_one
from sklyap.networks.checks import OPTIMIZERS, as_tensor, check_parameters, check_tokens, check_values, rank, to_numpy
from sklyap.networks.initialization import initialize_
from sklyap.networks.modules import RecurrentNetwork
from sklyap.networks.padding import IGNORED, counted, filled, is_ragged, lengths_of, pad, rows_of, trimmed
from sklyap.networks.state import StateMixin
from sklyap.networks.training import (
    SequenceDataset,
    SequenceNet,
    batch_loader,
    check_net_params,
    derived_seed,
)
from sklyap.runtime import isolated_rng, trainable
from sklyap.validation import resolve_device

__all__ = ["RecurrentEstimator"]

_CLIP = "callbacks__gradient_clip__gradient_clip_value"
# What may change between two calls that train the same net.
_CHANGEABLE = ("lr", "max_epochs", "batch_size", "verbose", _CLIP)


class RecurrentEstimator(StateMixin, BaseEstimator):
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

    def fit(self, X: ArrayLike, y: ArrayLike, X_val: ArrayLike | None = None, y_val: ArrayLike | None = None) -> Self:
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
        return self._train(X, y, X_val, y_val, fresh=fresh)

    # Training

    @trainable()
    def _train(self, X, y, X_val=None, y_val=None, *, fresh, epochs=None, classes=None):
        check_parameters(self)
        X, y = self._check_data(X, y, fresh=fresh)
        valid = self._check_valid_data(X_val, y_val, X, fresh=fresh)
        if fresh:
            self._learn_inputs([X] if valid is None else [X, valid[0]])
            self._learn_targets([y] if valid is None else [y, valid[1]], classes)
            self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        data = self._tensors(X, y, "y")
        if valid is not None:
            valid = self._tensors(*valid, "y_val")
        elif self.validation_fraction is not None:
            data, valid = self._split(*data)
        options = self._net_options()
        if fresh:
            self.net_ = self._new_net(options, drive=data[0])
        else:
            self._go_on_with(options)
        with self._isolated_rng():
            self.net_.train(*data, valid, epochs=self.net_.max_epochs if epochs is None else epochs)
        return self

    def _tensors(self, X: NDArray, y: NDArray, name: str) -> tuple[Tensor, Tensor]:
        """Return what is trained on; at steps that are none there is no target."""
        data, targets = as_tensor(X), self._encode(y, name)
        if self.readout == "all" and lengths_of(X) is not None:
            targets[~counted(data)] = math.nan if targets.is_floating_point() else IGNORED
        return data, targets

    def _split(self, X: Tensor, y: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Split off validation data, the same in every call on the same data."""
        options = {"test_size": self.validation_fraction, "random_state": self.seed_}
        rows = np.arange(len(X))
        try:
            train, valid = train_test_split(rows, stratify=self._strata(y), **options)
        except ValueError:  # classes too small to be on both sides
            train, valid = train_test_split(rows, **options)
        return (X[train], y[train]), (X[valid], y[valid])

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

    # Inputs

    def _check_data(self, X: Any, y: Any, *, fresh: bool) -> tuple[NDArray, NDArray]:
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        checked = self._check_X(X, fresh=fresh)
        self._check_steps(X, y, "y")
        X, y = checked, self._check_y(self._rectangular(y, "y"), "y")
        self._check_lengths(X, y, "y")
        return X, y

    def _check_steps(self, X: Any, y: Any, name: str) -> None:
        """Refuse targets that are not as many at every sequence as it has steps."""
        if self.readout != "all" or not (is_ragged(X) or is_ragged(y)):
            return
        steps, targets = ([len(row) for row in (one_by_one(a) if isinstance(a, PackedSequence) else a)] for a in (X, y))
        for i, (a, b) in enumerate(zip_longest(steps, targets, fillvalue="no")):
            if a != b:
                raise ValueError(
                    f"The {name!r} parameter of {type(self).__name__} must hold a target for every step of each "
                    f"sequence, with readout='all'. Sequence {i} has {a} steps and {b} targets."
                )

    def _rectangular(self, y: Any, name: str) -> Any:
        """Return targets of sequences of unequal length as one array, repeated to the longest."""
        if self.readout != "all" or not is_ragged(y):
            return y
        rows = rows_of(y, name, type(self).__name__)
        padded = pad(rows, rows[0].flat[0])
        return padded if any(np.ndim(row) > 1 for row in y) else padded[..., 0]

    def _check_valid_data(self, X_val: Any, y_val: Any, X: NDArray, *, fresh: bool) -> tuple[NDArray, NDArray] | None:
        if (X_val is None) != (y_val is None):
            raise ValueError("The 'X_val' and 'y_val' parameters must be given together. Got only one of them.")
        if X_val is None:
            return None
        if (self.net_params or {}).get("train_split"):
            raise ValueError("The 'X_val' parameter and net_params['train_split'] exclude each other. Got both.")
        self._check_steps(X_val, y_val, "y_val")
        X_val, y_val = to_numpy(X_val), self._check_y(self._rectangular(y_val, "y_val"), "y_val")
        if self.input_type == "tokens":
            n_tokens = self.n_tokens if fresh else self.n_inputs_
            X_val = self._checked_tokens(X_val, "X_val", n_tokens)
        else:
            X_val = self._checked_values(X_val, "X_val")
            if X_val.shape[2] != X.shape[2]:
                raise ValueError(f"X_val has {X_val.shape[2]} inputs per step, but X has {X.shape[2]}.")
        self._check_lengths(X_val, y_val, "y_val")
        return X_val, y_val

    def _check_lengths(self, X: NDArray, y: NDArray, name: str) -> None:
        check_consistent_length(X, y)
        if self.readout == "all" and y.shape[:2] != X.shape[:2]:
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must hold a target at every step, shape "
                f"{X.shape[:2]}, with readout='all'. Got shape {y.shape} instead."
            )

    def _check_X(self, X: Any, *, fresh: bool) -> NDArray:
        """Return float32 (n_sequences, n_steps, n_inputs), or int64 tokens (n_sequences, n_steps)."""
        X, who = to_numpy(X), type(self).__name__
        if self.input_type == "tokens":
            X = self._checked_tokens(X, "X", self.n_tokens if fresh else self.n_inputs_)
            if fresh:
                self._n_columns = None
                self._set_features(None)
            return X
        table = not is_ragged(X) and rank(X) <= 2
        if table and (fresh or self._n_columns is not None):
            # To scikit-learn our steps are its features: their number and names are checked and recorded.
            X = validate_data(self, X, dtype=np.float32, reset=fresh)
        X = self._checked_values(X, "X")
        if fresh:
            self._n_columns = X.shape[1] if table else None
            if not table:
                self._set_features(X.shape[2])
        elif X.shape[2] != self.n_inputs_:
            raise ValueError(f"X has {X.shape[2]} inputs per step, but {who} was fitted with {self.n_inputs_}.")
        return X

    def _checked_values(self, X: Any, name: str) -> NDArray:
        if not is_ragged(X):
            return check_values(X, name, self)
        rows = rows_of(X, name, type(self).__name__)
        values = check_values(np.concatenate(rows)[np.newaxis], name, self)[0]
        return pad(np.split(values, np.cumsum([len(row) for row in rows])[:-1]), np.nan)

    def _checked_tokens(self, X: Any, name: str, n_tokens: int | None) -> NDArray:
        who = type(self).__name__
        if not is_ragged(X):
            return check_tokens(X, name, n_tokens, who)
        rows = [row[:, 0] for row in rows_of(X, name, who)]
        tokens = check_tokens(np.concatenate(rows)[np.newaxis], name, n_tokens, who)[0]
        return pad(np.split(tokens, np.cumsum([len(row) for row in rows])[:-1]), -1)

    def _set_features(self, n_features: int | None, names: list[str] | None = None) -> None:
        """Record what scikit-learn calls features: columns of a table, inputs per step otherwise, never tokens."""
        for attribute in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(attribute, None)
        if n_features is not None:
            self.n_features_in_ = n_features
        if names is not None:
            if not all(isinstance(name, str) for name in names) or len(names) != n_features:
                raise ValueError(f"it has feature names {names!r:.80} for {n_features} features")
            self.feature_names_in_ = np.array(names, dtype=object)

    def _learn_inputs(self, Xs: list[NDArray]) -> None:
        if self.input_type == "tokens":
            self.n_inputs_ = int(self.n_tokens or 1 + max(X.max() for X in Xs))
        else:
            self.n_inputs_ = Xs[0].shape[2]

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

    def _strata(self, y: Tensor) -> Tensor | None:
        """Return what a split into training and validation data keeps in proportion."""
        return None

    def _metrics(self) -> list[tuple[str, Any]]:
        """Return callbacks that record more than the losses."""
        return []
