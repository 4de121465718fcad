"""Recurrent networks as scikit-learn estimators: thin shells that own a skorch net."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNet
from skorch.callbacks import GradientNormClipping
from skorch.history import History
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sklyap.cells import CELLS, RecurrentCell
from sklyap.cells.initialization import INITIALIZERS, initialize_
from sklyap.modules import (
    RecurrentNetwork,
    SequenceNet,
    ValidAccuracy,
    batch_loader,
    derived_seed,
    isolated_rng,
)
from sklyap.validation import check_choice, check_int, check_real, resolve_device

__all__ = ["RNNClassifier", "RNNRegressor"]

_OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
_CONFIGURED = ("optimizer", "criterion", "iterator_train", "iterator_valid", "dataset")


class _RecurrentEstimator(BaseEstimator):
    """What RNNClassifier and RNNRegressor share; they say what a target is."""

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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags

    @property
    def history_(self) -> History:
        """Training record, one row per epoch."""
        check_is_fitted(self)
        return self.net_.history

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_val: ArrayLike | None = None, y_val: ArrayLike | None = None
    ) -> _RecurrentEstimator:
        """Train for `max_epochs` epochs, from new weights unless `warm_start` is set.

        Parameters
        ----------
        X : array-like of shape (n_sequences, n_steps, n_inputs) or (n_sequences, n_steps)
            Sequences; two dimensions are one input per step, or tokens with ``input_type="tokens"``.
        y : array-like of shape (n_sequences,), or (n_sequences, n_steps) with ``readout="all"``
            Targets. Regression targets may have a further axis of outputs.
        X_val, y_val : array-like, optional
            Validation data, which take the place of `validation_fraction`.

        Returns
        -------
        self
        """
        fresh = not (self.warm_start and hasattr(self, "net_"))
        return self._train(X, y, X_val, y_val, fresh=fresh)

    def _train(self, X, y, X_val=None, y_val=None, *, fresh, epochs=None, classes=None):
        self._check_parameters()
        device = resolve_device(self.device)
        X, y = self._check_data(X, y, fresh=fresh)
        if (X_val is None) != (y_val is None):
            raise ValueError("The 'X_val' and 'y_val' parameters must be given together. Got one without the other.")
        valid = None if X_val is None else self._check_data(X_val, y_val, fresh=False, names=("X_val", "y_val"))
        if fresh:
            self._learn_sizes([X] if valid is None else [X, valid[0]])
            self._learn_targets([y] if valid is None else [y, valid[1]], classes)
            self.seed_ = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        data = self._as_tensors(X, y, "y")
        if valid is not None:
            valid = self._as_tensors(*valid, "y_val")
        elif self.validation_fraction is not None:
            data, valid = self._split(*data)
        with isolated_rng(device, derived_seed(self.seed_, 0)):
            options = self._net_options(device)
            if fresh:
                self._build(options)
                self._initialize(data[0])
            else:
                self._adopt(options)
            self.net_.train(*data, valid, self.net_.max_epochs if epochs is None else epochs)
        return self

    # Parameters

    def _check_parameters(self) -> None:
        who = type(self).__name__
        for name in ("hidden_size", "num_layers", "batch_size"):
            check_int(getattr(self, name), name, low=1, caller=who)
        check_int(self.max_epochs, "max_epochs", low=0, caller=who)
        for name in ("n_tokens", "embedding_dim"):
            value = getattr(self, name)
            if value is not None:
                check_int(value, name, low=1, caller=who)
                if self.input_type != "tokens":
                    raise ValueError(
                        f"The {name!r} parameter of {who} needs input_type='tokens'. "
                        f"Got {name}={value!r} with input_type={self.input_type!r}."
                    )
        check_real(self.lr, "lr", low=0.0, caller=who)
        check_real(self.dropout, "dropout", low=0.0, high=1.0, caller=who)
        for name in ("init_scale", "gradient_clip"):
            if getattr(self, name) is not None:
                check_real(getattr(self, name), name, low=0.0, caller=who)
        if self.validation_fraction is not None:
            fraction = check_real(self.validation_fraction, "validation_fraction", caller=who)
            if not 0.0 < fraction < 1.0:
                raise ValueError(
                    f"The 'validation_fraction' parameter of {who} must be None or a float in the range (0, 1). "
                    f"Got {fraction!r} instead."
                )
        check_choice(self.init, "init", INITIALIZERS, caller=who)
        check_choice(self.input_type, "input_type", ["values", "tokens"], caller=who)
        check_choice(self.readout, "readout", ["last", "all"], caller=who)
        self._check_cell(who)
        self._check_optimizer(who)

    def _check_cell(self, who: str) -> None:
        if isinstance(self.cell, str):
            if self.cell not in CELLS:
                raise ValueError(
                    f"The 'cell' parameter of {who} must be one of {', '.join(map(repr, CELLS))}, or a "
                    f"RecurrentCell subclass. Got {self.cell!r} instead.{_suggestion(self.cell, CELLS)}"
                )
        elif not (isinstance(self.cell, type) and issubclass(self.cell, RecurrentCell)):
            raise ValueError(
                f"The 'cell' parameter of {who} must be one of {', '.join(map(repr, CELLS))}, or a "
                f"RecurrentCell subclass. Got {self.cell!r} instead."
            )
        check_choice(self.nonlinearity, "nonlinearity", ["tanh", "relu"], caller=who)
        if self.nonlinearity != "tanh" and self.cell != "rnn":
            raise ValueError(
                f"The 'nonlinearity' parameter of {who} is for cell='rnn' only. "
                f"Got nonlinearity={self.nonlinearity!r} with cell={self.cell!r}."
            )
        kind = CELLS[self.cell] if isinstance(self.cell, str) else self.cell
        accepted = inspect.signature(kind).parameters
        known = [name for name in accepted if name not in ("n_inputs", "hidden_size", "bias", "nonlinearity")]
        if not self.bias and "bias" not in accepted:
            raise ValueError(
                f"The 'bias' parameter of {who} must be True for {kind.__name__}, which has no such option."
            )
        for name in self.cell_params or {}:
            if name not in known and not _takes_any(accepted):
                raise ValueError(
                    f"The 'cell_params' parameter of {who} must hold parameters of {kind.__name__} "
                    f"({', '.join(known) or 'it has none'}). Got {name!r}.{_suggestion(name, known)}"
                )

    def _check_optimizer(self, who: str) -> None:
        if isinstance(self.optimizer, type) and issubclass(self.optimizer, torch.optim.Optimizer):
            return
        if not (isinstance(self.optimizer, str) and self.optimizer in _OPTIMIZERS):
            raise ValueError(
                f"The 'optimizer' parameter of {who} must be one of {', '.join(map(repr, _OPTIMIZERS))}, or a "
                f"torch.optim.Optimizer class. Got {self.optimizer!r} instead."
            )

    # Data

    def _check_data(self, X, y, *, fresh, names=("X", "y")):
        who = type(self).__name__
        if y is None:
            raise ValueError(f"This {who} estimator requires y to be passed, but the target y is None.")
        X = self._check_X(X, fresh=fresh, name=names[0])
        y = self._check_y(y, names[1])
        check_consistent_length(X, y)
        if self.readout == "all" and y.shape[:2] != X.shape[:2]:
            raise ValueError(
                f"The {names[1]!r} parameter of {who} must have a target at every step, shape {X.shape[:2]}, "
                f"with readout='all'. Got shape {y.shape} instead."
            )
        return X, y

    def _check_X(self, X: Any, *, fresh: bool, name: str = "X") -> NDArray:
        """Return X as float32 (n_sequences, n_steps, n_inputs) or tokens as int64 (n_sequences, n_steps)."""
        if isinstance(X, Tensor):
            X = X.detach().cpu().numpy()
        if self.input_type == "tokens":
            return self._check_tokens(X, name, None if fresh else getattr(self, "n_inputs_", None))
        if (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 3:
            X = check_array(X, dtype=np.float32, allow_nd=True, input_name=name, estimator=self)
            if fresh:
                self._n_columns, self.n_features_in_ = None, X.shape[2]
                vars(self).pop("feature_names_in_", None)
        elif name == "X" and (fresh or self._n_columns is not None):
            # A table, to scikit-learn: its features are our steps, and their number is fixed by fit.
            X = validate_data(self, X, dtype=np.float32, reset=fresh)[:, :, np.newaxis]
            self._n_columns = X.shape[1]
        else:
            X = check_array(X, dtype=np.float32, input_name=name, estimator=self)[:, :, np.newaxis]
        if 0 in X.shape:
            raise ValueError(f"The {name!r} parameter must not be empty. Got shape {X.shape} instead.")
        if not fresh and X.shape[2] != self.n_inputs_:
            raise ValueError(
                f"{name} has {X.shape[2]} inputs per step, but {type(self).__name__} was fitted with {self.n_inputs_}."
            )
        return X

    def _check_tokens(self, X: Any, name: str, n_tokens: int | None) -> NDArray:
        owner = f"The {name!r} parameter of {type(self).__name__}"
        X = np.asarray(X)
        if X.ndim != 2 or 0 in X.shape:
            raise ValueError(
                f"{owner} must have shape (n_sequences, n_steps) with input_type='tokens'. Got shape {X.shape} instead."
            )
        if X.dtype.kind not in "iu":
            raise ValueError(f"{owner} must hold integer tokens. Got dtype {X.dtype} instead.")
        n_tokens = self.n_tokens if n_tokens is None else n_tokens
        low, high = int(X.min()), int(X.max())
        if low < 0 or (n_tokens is not None and high >= n_tokens):
            bound = "inf)" if n_tokens is None else f"{n_tokens - 1}], the vocabulary it was fitted with"
            raise ValueError(f"{owner} must hold tokens in the range [0, {bound}. Got {low if low < 0 else high}.")
        return X.astype(np.int64, copy=False)

    def _learn_sizes(self, Xs: list[NDArray]) -> None:
        if self.input_type == "tokens":
            self.n_inputs_ = self.n_tokens or 1 + max(int(X.max()) for X in Xs)
        else:
            self.n_inputs_ = Xs[0].shape[2]

    def _as_tensors(self, X: NDArray, y: NDArray, name: str) -> tuple[Tensor, Tensor]:
        # torch warns about read-only memory, which nothing here writes to; np.require copies it.
        return torch.from_numpy(np.require(X, requirements="CW")), self._encode(y, name)

    def _split(self, X: Tensor, y: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Split off validation data; the same for every call on the same data."""
        options = {"test_size": self.validation_fraction, "random_state": self.seed_}
        rows = np.arange(len(X))
        try:
            train, valid = train_test_split(rows, stratify=self._strata(y), **options)
        except ValueError:  # classes too small to be in both parts
            train, valid = train_test_split(rows, **options)
        return (X[train], y[train]), (X[valid], y[valid])

    # The net

    def _architecture(self) -> dict[str, Any]:
        return {
            "cell": self.cell,
            "n_inputs": self.n_inputs_,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
            "n_outputs": self._width(),
            "nonlinearity": self.nonlinearity,
            "bias": bool(self.bias),
            "dropout": float(self.dropout),
            "cell_params": self.cell_params,
            "tokens": self.input_type == "tokens",
            "embedding_dim": self.embedding_dim,
            "readout": self.readout,
        }

    def _net_options(self, device: torch.device) -> dict[str, Any]:
        """Return the arguments of the skorch net; what `net_params` says goes."""
        callbacks = self._metrics()
        if self.gradient_clip is not None:
            callbacks.append(("gradient_clip", GradientNormClipping(self.gradient_clip)))
        options = {
            "module": RecurrentNetwork,
            **{f"module__{name}": value for name, value in self._architecture().items()},
            "criterion": self._criterion,
            "optimizer": _OPTIMIZERS[self.optimizer] if isinstance(self.optimizer, str) else self.optimizer,
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "iterator_train": batch_loader,
            "iterator_train__shuffle": True,
            "iterator_valid": batch_loader,
            "train_split": None,
            "callbacks": callbacks + list(self.callbacks or []),
            "verbose": self.verbose,
            "device": str(device),
            "seed": self.seed_,
        }
        options |= self.net_params or {}
        _check_net_params(self.net_params or {}, options, type(self).__name__)
        return options

    def _build(self, options: dict[str, Any]) -> None:
        self.net_ = SequenceNet(**options).initialize()

    def _initialize(self, X: Tensor) -> None:
        """Apply `init`; a critical one is critical on the training data."""
        module = self.net_.module_
        with torch.no_grad():
            drive = module.encoder(X[:8].to(self.net_.device)) if self.init == "critical" else None
        initialize_(module.recurrent, self.init, self.init_scale, drive=drive)

    def _adopt(self, options: dict[str, Any]) -> None:
        """Go on with the same weights and optimizer, and with what may change on the way."""
        fitted = self.net_.get_params(deep=False)
        for name, value in options.items():
            if name.startswith("module__") and fitted[name] != value:
                name = name.removeprefix("module__")
                raise ValueError(
                    f"{type(self).__name__} can't go on training with another {name}: it was fitted with "
                    f"{fitted['module__' + name]!r}. Got {value!r}; fit with warm_start=False."
                )
        for name in ("lr", "max_epochs", "batch_size", "verbose"):
            if fitted[name] != options[name]:
                self.net_.set_params(**{name: options[name]})

    def _collect(self, X: ArrayLike, function: Callable[[Tensor], Tensor]) -> NDArray:
        """Return ``function(outputs)`` of all batches of X, one after the other."""
        check_is_fitted(self)
        X = torch.from_numpy(np.require(self._check_X(X, fresh=False), requirements="CW"))
        with isolated_rng(torch.device(self.net_.device), 0):
            return np.concatenate([function(outputs).numpy() for outputs in self.net_.forward_iter(X)])

    # What a target is

    def _check_y(self, y: Any, name: str) -> NDArray:
        raise NotImplementedError

    def _learn_targets(self, ys: list[NDArray], classes: Any) -> None:
        raise NotImplementedError

    def _encode(self, y: NDArray, name: str) -> Tensor:
        raise NotImplementedError

    def _width(self) -> int:
        raise NotImplementedError

    def _strata(self, y: Tensor) -> Tensor | None:
        return None

    def _metrics(self) -> list[tuple[str, Any]]:
        return []


class RNNClassifier(ClassifierMixin, _RecurrentEstimator):
    """Recurrent network that classifies sequences, or every step of them."""

    _criterion = nn.CrossEntropyLoss

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> RNNClassifier:
        """Train for one epoch on X and y, going on from where training stands.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        classes : array-like of shape (n_classes,), optional
            All classes that later calls may bring; looked at in the first call.

        Returns
        -------
        self
        """
        return self._train(X, y, fresh=not hasattr(self, "net_"), epochs=1, classes=classes)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_sequences, n_classes), or (n_sequences, n_steps, n_classes) with ``readout="all"``
        """
        return self._collect(X, lambda logits: logits.double().softmax(-1))

    def predict(self, X: ArrayLike) -> NDArray:
        """Return the most probable classes.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_sequences,), or (n_sequences, n_steps) with ``readout="all"``
        """
        indices = self._collect(X, lambda logits: logits.argmax(-1))
        return self.classes_[indices]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, over all steps with ``readout="all"``.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        sample_weight : array-like of shape (n_sequences,), optional

        Returns
        -------
        float
        """
        predicted, y = self.predict(X), np.asarray(y)
        if self.readout == "all" and sample_weight is not None:
            sample_weight = np.repeat(sample_weight, predicted.shape[1])
        return float(accuracy_score(y.ravel(), predicted.ravel(), sample_weight=sample_weight))

    def _check_y(self, y: Any, name: str) -> NDArray:
        if isinstance(y, Tensor):
            y = y.detach().cpu().numpy()
        y = check_array(y, ensure_2d=False, allow_nd=True, dtype=None, input_name=name)
        if self.readout == "last":
            y = column_or_1d(y, warn=True)
        check_classification_targets(y.ravel())
        return y

    def _learn_targets(self, ys: list[NDArray], classes: Any) -> None:
        self.classes_ = np.unique(np.concatenate([y.ravel() for y in ys]) if classes is None else classes)

    def _encode(self, y: NDArray, name: str) -> Tensor:
        encoder = LabelEncoder()
        encoder.classes_ = self.classes_
        try:
            return torch.from_numpy(encoder.transform(y.ravel()).reshape(y.shape))
        except ValueError as error:
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} is not of its classes_: {error}"
            ) from None

    def _width(self) -> int:
        return len(self.classes_)

    def _strata(self, y: Tensor) -> Tensor | None:
        return y if self.readout == "last" else None

    def _metrics(self) -> list[tuple[str, Any]]:
        return [("valid_accuracy", ValidAccuracy("valid_accuracy", lower_is_better=False))]


class RNNRegressor(RegressorMixin, _RecurrentEstimator):
    """Recurrent network that predicts numbers at the end of sequences, or at every step of them."""

    _criterion = nn.MSELoss

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def partial_fit(self, X: ArrayLike, y: ArrayLike) -> RNNRegressor:
        """Train for one epoch on X and y, going on from where training stands.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.

        Returns
        -------
        self
        """
        return self._train(X, y, fresh=not hasattr(self, "net_"), epochs=1)

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return predictions.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of the shape of y
        """
        outputs = self._collect(X, lambda outputs: outputs.double())
        return outputs if self._has_output_axis else outputs[..., 0]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return R², over all steps with ``readout="all"``, averaged over outputs.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        sample_weight : array-like of shape (n_sequences,), optional

        Returns
        -------
        float
        """
        predicted, y = self.predict(X), self._check_y(y, "y")
        if self.readout == "all":
            if sample_weight is not None:
                sample_weight = np.repeat(sample_weight, predicted.shape[1])
            predicted, y = (a.reshape(-1, self.n_outputs_) for a in (predicted, y))
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _check_y(self, y: Any, name: str) -> NDArray:
        if isinstance(y, Tensor):
            y = y.detach().cpu().numpy()
        y = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float32, input_name=name)
        ranks = (1, 2) if self.readout == "last" else (2, 3)
        if y.ndim not in ranks:
            shape = "(n_sequences,)" if self.readout == "last" else "(n_sequences, n_steps)"
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must have shape {shape}, or an axis of outputs more, "
                f"with readout={self.readout!r}. Got shape {y.shape} instead."
            )
        return y

    def _learn_targets(self, ys: list[NDArray], classes: Any) -> None:
        y = ys[0]
        self._has_output_axis = y.ndim == (2 if self.readout == "last" else 3)
        self.n_outputs_ = y.shape[-1] if self._has_output_axis else 1

    def _encode(self, y: NDArray, name: str) -> Tensor:
        expected_rank = (1 if self.readout == "last" else 2) + self._has_output_axis
        if y.ndim != expected_rank or (self._has_output_axis and y.shape[-1] != self.n_outputs_):
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must have {self.n_outputs_} outputs, as in fit. "
                f"Got shape {y.shape}."
            )
        return torch.from_numpy(np.require(y if self._has_output_axis else y[..., np.newaxis], requirements="CW"))

    def _width(self) -> int:
        return self.n_outputs_


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _takes_any(parameters: Any) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _check_net_params(net_params: dict[str, Any], options: dict[str, Any], who: str) -> None:
    """Refuse keys that no part of the skorch net understands."""
    known = set(inspect.signature(NeuralNet).parameters) - {"module", "kwargs", "warm_start"}
    for prefix in _CONFIGURED:
        target = options.get(prefix, getattr(NeuralNet, prefix, None))
        if target is None or not callable(target):
            continue
        parameters = dict(inspect.signature(target).parameters)
        if target is batch_loader:
            parameters |= inspect.signature(DataLoader).parameters
        known |= {f"{prefix}__{name}" for name in parameters}
    known.add("optimizer__param_groups")
    for key in net_params:
        if key not in known and not key.startswith(("callbacks__", "compile__", "dataset__")):
            raise ValueError(
                f"The 'net_params' parameter of {who} must hold options of its skorch net. "
                f"Got the unknown {key!r}.{_suggestion(key, known)}"
            )
