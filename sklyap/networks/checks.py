"""Checks of the RNN estimators' parameters and data, before anything is trained."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array
from skorch.callbacks import Callback
from torch import Tensor

from sklyap.cells import CELLS, GRUCell, LSTMCell, RecurrentCell
from sklyap.networks.initialization import INITIALIZERS
from sklyap.validation import (
    check_bool,
    check_choice,
    check_dense,
    check_int,
    check_real,
    check_seed,
    check_verbose,
    resolve_device,
    suggestion,
)

__all__ = ["OPTIMIZERS", "as_tensor", "check_parameters", "check_tokens", "check_values", "rank", "to_numpy"]

OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def check_parameters(estimator: Any) -> None:
    """Raise ValueError or TypeError for the first constructor parameter of an RNN estimator that can't be."""
    who = type(estimator).__name__
    for name in ("hidden_size", "num_layers", "batch_size"):
        check_int(getattr(estimator, name), name, low=1, caller=who)
    check_int(estimator.max_epochs, "max_epochs", low=0, caller=who)
    check_real(estimator.lr, "lr", low=0.0, caller=who)
    check_real(estimator.dropout, "dropout", low=0.0, high=1.0, caller=who)
    for name in ("init_scale", "gradient_clip"):
        if getattr(estimator, name) is not None:
            check_real(getattr(estimator, name), name, low=0.0, caller=who)
    for name in ("bias", "warm_start"):
        check_bool(getattr(estimator, name), name, caller=who)
    check_verbose(estimator.verbose, caller=who)
    check_seed(estimator.random_state, caller=who)
    resolve_device(estimator.device)
    check_choice(estimator.init, "init", INITIALIZERS, caller=who)
    if estimator.init == "chrono":
        _check_chrono(estimator, who)
    check_choice(estimator.readout, "readout", ["last", "all"], caller=who)
    check_choice(estimator.input_type, "input_type", ["values", "tokens"], caller=who)
    _check_token_parameters(estimator, who)
    _check_validation_fraction(estimator.validation_fraction, who)
    _check_dicts(estimator, who)
    _check_class_weight(getattr(estimator, "class_weight", None), who)
    _check_cell(estimator, who)
    _check_optimizer(estimator.optimizer, who)
    if not isinstance(estimator.callbacks, list | tuple | None):
        raise ValueError(
            f"The 'callbacks' parameter of {who} must be None or a list of skorch callbacks. "
            f"Got {estimator.callbacks!r} instead."
        )
    for item in estimator.callbacks or ():
        callback = item[1] if isinstance(item, tuple) and len(item) == 2 else item
        if not (isinstance(callback, Callback) or (inspect.isclass(callback) and issubclass(callback, Callback))):
            raise TypeError(
                f"The 'callbacks' parameter of {who} must hold skorch callbacks, or pairs (name, callback). "
                f"Got {item!r} instead."
            )


def _check_dicts(estimator: Any, who: str) -> None:
    for name in ("cell_params", "net_params"):
        if not isinstance(getattr(estimator, name), dict | None):
            raise ValueError(
                f"The {name!r} parameter of {who} must be None or a dict. Got {getattr(estimator, name)!r} instead."
            )


def _check_class_weight(class_weight: Any, who: str) -> None:
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if not isinstance(class_weight, dict):
        raise ValueError(
            f"The 'class_weight' parameter of {who} must be None, 'balanced' or a dict of labels to weights. "
            f"Got {class_weight!r} instead."
        )
    for label, weight in class_weight.items():
        check_real(weight, f"class_weight[{label!r}]", low=0.0, caller=who)


def _check_chrono(estimator: Any, who: str) -> None:
    kind = CELLS.get(estimator.cell, estimator.cell) if isinstance(estimator.cell, str) else estimator.cell
    if not (inspect.isclass(kind) and issubclass(kind, LSTMCell | GRUCell)):
        raise ValueError(
            f"The 'init' parameter of {who} can be 'chrono' for cell='lstm' and cell='gru' only, whose gates it sets. "
            f"Got init='chrono' with cell={estimator.cell!r}."
        )
    if not estimator.bias:
        raise ValueError(f"The 'init' parameter of {who} can be 'chrono' with bias=True only. Got bias=False.")
    if estimator.init_scale is not None and not estimator.init_scale > 2:
        raise ValueError(
            f"The 'init_scale' parameter of {who} must be more than 2 steps with init='chrono'. "
            f"Got {estimator.init_scale!r}."
        )


def _check_token_parameters(estimator: Any, who: str) -> None:
    for name in ("n_tokens", "embedding_dim"):
        value = getattr(estimator, name)
        if value is None:
            continue
        check_int(value, name, low=1, caller=who)
        if estimator.input_type != "tokens":
            raise ValueError(
                f"The {name!r} parameter of {who} needs input_type='tokens'. "
                f"Got {name}={value!r} with input_type={estimator.input_type!r}."
            )


def _check_validation_fraction(fraction: Any, who: str) -> None:
    if fraction is None:
        return
    fraction = check_real(fraction, "validation_fraction", caller=who)
    if not 0.0 < fraction < 1.0:
        raise ValueError(
            f"The 'validation_fraction' parameter of {who} must be None or a float in the range (0, 1). "
            f"Got {fraction!r} instead."
        )


def _check_cell(estimator: Any, who: str) -> None:
    cell, nonlinearity, names = estimator.cell, estimator.nonlinearity, list(CELLS)
    is_name = isinstance(cell, str)
    if not (cell in names if is_name else inspect.isclass(cell) and issubclass(cell, RecurrentCell)):
        raise ValueError(
            f"The 'cell' parameter of {who} must be one of {', '.join(map(repr, names))}, or a RecurrentCell "
            f"subclass. Got {cell!r} instead.{suggestion(cell, names) if is_name else ''}"
        )
    check_choice(nonlinearity, "nonlinearity", ["tanh", "relu"], caller=who)
    if nonlinearity != "tanh" and cell != "rnn":
        raise ValueError(
            f"The 'nonlinearity' parameter of {who} is of cell='rnn' only. "
            f"Got nonlinearity={nonlinearity!r} with cell={cell!r}."
        )
    _check_cell_params(
        CELLS[cell] if is_name else cell, estimator, who, own={"nonlinearity"} if cell == "rnn" else set()
    )


def _check_cell_params(kind: type[RecurrentCell], estimator: Any, who: str, own: set[str]) -> None:
    """Refuse what the cell's constructor would; `own` are its parameters that the estimator has too."""
    signature, params = inspect.signature(kind), estimator.cell_params or {}
    taken = {"n_inputs", "hidden_size", "bias", *own}
    known = [name for name in signature.parameters if name not in taken]
    if not estimator.bias and "bias" not in signature.parameters:
        raise ValueError(f"The 'bias' parameter of {who} must be True with {kind.__name__}, which takes none.")
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    for name in params:
        if name in taken or not (name in known or open_ended):
            raise ValueError(
                f"The 'cell_params' parameter of {who} must hold parameters of {kind.__name__}, "
                f"{', '.join(map(repr, known)) or 'which has none'}. Got {name!r}.{suggestion(str(name), known)}"
            )
    try:
        signature.bind(1, 1, **params)
    except TypeError as error:
        raise ValueError(
            f"The 'cell' parameter of {who} must be constructed as {kind.__name__}(n_inputs, hidden_size, "
            f"**cell_params). Got cell_params={params!r}: {error}."
        ) from None


def _check_optimizer(optimizer: Any, who: str) -> None:
    if inspect.isclass(optimizer) and issubclass(optimizer, torch.optim.Optimizer):
        return
    if not (isinstance(optimizer, str) and optimizer in OPTIMIZERS):
        near = suggestion(optimizer, OPTIMIZERS) if isinstance(optimizer, str) else ""
        raise ValueError(
            f"The 'optimizer' parameter of {who} must be one of {', '.join(map(repr, OPTIMIZERS))}, or a "
            f"torch.optim.Optimizer class. Got {optimizer!r} instead.{near}"
        )


def to_numpy(array: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    if isinstance(array, Tensor):
        return check_dense(array, "X").detach().cpu().numpy()
    if isinstance(array, np.ma.MaskedArray):
        check_dense(array, "X")
    return array


def as_tensor(array: NDArray) -> Tensor:
    """Return a tensor that shares the memory of an array where it can."""
    # torch warns about read-only memory, though nothing here writes to it; np.require copies such arrays.
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def rank(array: Any) -> int:
    """Return the number of axes of an array-like."""
    return array.ndim if hasattr(array, "ndim") else np.asarray(array).ndim


def check_values(X: Any, name: str, estimator: Any) -> NDArray[np.float32]:
    """Return finite values (n_sequences, n_steps, n_inputs); two dimensions are one input per step."""
    X = check_array(X, dtype=np.float32, allow_nd=True, input_name=name, estimator=estimator)
    if X.ndim == 2:
        X = X[:, :, np.newaxis]
    if X.ndim != 3 or 0 in X.shape:
        raise ValueError(
            f"The {name!r} parameter of {type(estimator).__name__} must have shape (n_sequences, n_steps, n_inputs) "
            f"and not be empty. Got shape {X.shape} instead."
        )
    return X


def check_tokens(X: Any, name: str, n_tokens: int | None, caller: str) -> NDArray[np.int64]:
    """Return integer tokens (n_sequences, n_steps), none outside a vocabulary of `n_tokens`."""
    owner = f"The {name!r} parameter of {caller}"
    X = np.asarray(X)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"{owner} must have shape (n_sequences, n_steps) with input_type='tokens', and not be empty. "
            f"Got shape {X.shape} instead."
        )
    if X.dtype.kind not in "iu":
        raise ValueError(f"{owner} must hold integers with input_type='tokens'. Got dtype {X.dtype} instead.")
    low, high = int(X.min()), int(X.max())
    if low < 0:
        raise ValueError(f"{owner} must hold tokens that are not negative. Got {low}.")
    if n_tokens is not None and high >= n_tokens:
        raise ValueError(f"{owner} must hold tokens of a vocabulary of {n_tokens}, 0 to {n_tokens - 1}. Got {high}.")
    return X.astype(np.int64, copy=False)
