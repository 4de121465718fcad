"""Settings of the autoencoder: those of the paper, and the ranges that are allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sklyap.autoencoder.module import ACTIVATIONS
from sklyap.validation import check_bool, check_choice, check_int, check_real, check_verbose

__all__ = ["A24_SETTINGS", "as_tuple", "check_parameters"]

A24_SETTINGS: dict[str, Any] = {
    "latent_dim": 32,
    "hidden_layer_sizes": (128, 64),
    "prediction_weight": (5.0, 5.0, 10.0, 20.0),
    "dropout": 0.1,
    "max_epochs": 4000,
    "lr": 1e-4,
    "batch_size": 128,
    "early_stopping": False,
    "target_transform": None,
    "input_transform": None,
    "n_components": None,
    "linear_path": False,
    "activation": "tanh",
    "weight_decay": 0.0,
    "lr_schedule": "constant",
}
"""The autoencoder of A24 (1000 epochs in each of four stages), as ``SpectrumAutoencoder(**A24_SETTINGS)``.

There, spectra were interpolated to 1024 points: ``align="interpolate", n_exponents=1024`` of the transformer.
"""


def check_parameters(estimator: Any) -> None:
    """Raise if a parameter of a SpectrumAutoencoder is out of range."""
    caller = type(estimator).__name__
    for name in ("latent_dim", "max_epochs", "batch_size", "n_members"):
        check_int(getattr(estimator, name), name, low=1, caller=caller)
    for name in ("early_stopping", "linear_path"):
        check_bool(getattr(estimator, name), name, caller=caller)
    check_verbose(estimator.verbose, caller=caller)
    check_int(estimator.n_folds, "n_folds", low=2, caller=caller)
    if estimator.n_components is not None:
        check_int(estimator.n_components, "n_components", low=1, caller=caller)
    check_real(estimator.lr, "lr", low=0.0, caller=caller)
    check_real(estimator.weight_decay, "weight_decay", low=0.0, caller=caller)
    check_real(estimator.dropout, "dropout", low=0.0, high=0.99, caller=caller)
    for size in as_tuple(estimator.hidden_layer_sizes):
        check_int(size, "hidden_layer_sizes", low=1, caller=caller)
    weights = as_tuple(estimator.prediction_weight)
    if not weights:
        raise ValueError(f"The 'prediction_weight' parameter of {caller} must not be empty.")
    for weight in weights:
        check_real(weight, "prediction_weight", low=0.0, caller=caller)
    check_choice(estimator.reconstruction_loss, "reconstruction_loss", ["l1", "l2"], caller=caller)
    check_choice(estimator.target_transform, "target_transform", ["rank", "log", None], caller=caller)
    check_choice(estimator.input_transform, "input_transform", ["growth", None], caller=caller)
    check_choice(estimator.activation, "activation", list(ACTIVATIONS), caller=caller)
    check_choice(estimator.lr_schedule, "lr_schedule", ["cosine", "constant"], caller=caller)


def as_tuple(values: Any) -> tuple[Any, ...]:
    """Return the values, or the one value, as a tuple."""
    return tuple(values) if isinstance(values, Iterable) else (values,)
