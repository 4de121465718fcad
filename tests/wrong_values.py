"""What is wrong for each kind of parameter, and what a parameter of some name is."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from sklyap import RNNClassifier

__all__ = ["BY_NAME", "KINDS", "KIND_OF", "assert_refused", "cases"]

rng = np.random.default_rng(0)
X = rng.standard_normal((12, 6, 2)).astype(np.float32)
SPECTRA = -np.sort(rng.random((20, 6)), axis=1)
masked = np.ma.masked_array(X, mask=np.zeros_like(X, bool) | (np.arange(2) == 1))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    NESTED = torch.nested.nested_tensor([torch.zeros(3, 2), torch.zeros(4, 2)])

# -- kinds of parameters, and what is wrong for each ---------------------------------------------------------

NO_NUMBERS = ["x", None, True, [1], object(), 1j]
NO_TEXT = [3, 1.5, True, [1], object(), "no such choice"]
NO_ARRAY = {
    "text": "1, 2, 3", "object": object(), "array of text": np.full((12, 6, 2), "a"), "complex": X * 1j,
    "sparse": scipy.sparse.csr_matrix(X[:, :, 0]), "masked": masked, "meta": torch.zeros(12, 6, 2, device="meta"),
    "nested": NESTED, "NaN": np.where(X == X[0, 0, 0], np.nan, X), "empty": X[:0], "dict": {"a": 1}, "bool": True,
}  # fmt: skip
NO_MATRIX = {
    name: value for name, value in NO_ARRAY.items() if name not in ("meta", "nested", "masked", "empty", "NaN")
} | {"3-D": X, "no columns": np.empty((20, 0)), "no rows": np.empty((0, 6)), "NaN": SPECTRA * np.nan}
KINDS = {
    "positive": [*NO_NUMBERS, 1.5, 0, -1, np.nan],
    "positive or None": [*(v for v in NO_NUMBERS if v is not None), 1.5, 0, -1],
    "count": [*NO_NUMBERS, 1.5, -1],
    "count or None": [*(v for v in NO_NUMBERS if v is not None), 1.5, -1],
    "count or auto": [*NO_NUMBERS, 1.5, -1],
    "number": [*NO_NUMBERS, np.nan, np.inf],
    "number or None": [*(v for v in NO_NUMBERS if v is not None), np.nan, np.inf],
    "share": [*NO_NUMBERS, np.nan, -0.1, 1.5],
    "flag": ["x", "True", None, 1, 0, 0.5, [], object()],
    "choice": [*NO_TEXT, None],
    "choice or None": NO_TEXT,
    "device": ["mps", "meta", "no such device", 1.5, None, object()],
    "dtype": ["int64", "float16", torch.int64, 3, None],
    "jobs": [0, "x", 1.5, True, []],
    "seed": ["x", -1, 1.5, [1], object()],
    "verbose": ["x", -1, None, object()],
    "array": NO_ARRAY,
    "matrix": NO_MATRIX,
    "network": [3, "x", None, object(), [], torch.nn.Linear(2, 2), RNNClassifier()],
    "name or None": [3, True, [1], object()],
    "place or None": [3, True, object(), ""],
}
STATISTICS = (
    "kaplan_yorke_dimension", "kolmogorov_sinai_entropy", "largest_exponent", "largest_gap", "mean_exponent",
    "median_exponent", "n_near_zero", "n_positive", "smallest_exponent", "spectrum_slope", "spectrum_std",
    "spectrum_sum", "spectrum_variance", "top_mean",
)  # fmt: skip
# Any leading axes are fine there, and NaN is passed on.
NO_SPECTRA = {name: value for name, value in NO_MATRIX.items() if name not in ("3-D", "no rows", "NaN")}
NO_CHECKPOINT = ["x", 1.5, True, [1], -1]
# What a parameter of this name is wherever it stands, unless OWN_KINDS says otherwise.
BY_NAME = {
    "positive": "hidden_size num_layers batch_size_ n_directions n_singular latent_dim n_members max_epochs_ "
    "state_size n_sequences n_steps_ delay length n_symbols every n_samples proj_size substeps",
    "positive or None": "n_exponents batch_size rank n_tokens embedding_dim n_components n_characters n_networks",
    "count": "n_bases n_baseline n_bootstrap n_random n_noise max_epochs",
    "count or auto": "warmup cooldown checkpoint",
    "number": "lr scale weight_decay dt gamma epsilon period noise zero_tolerance rtol atol min_radius max_radius "
    "max_phase eps leak",
    "number or None": "init_scale gradient_clip tolerance",
    "share": "dropout confidence q fraction",
    "flag": "bias warm_start early_stopping linear_path return_local return_basis covariant resume refit log gating "
    "permuted return_X_y return_predictions standardize every_step download_if_missing verify_checksum resumable",
    "choice": "nonlinearity init input_type readout align orthonormalizer state on_error reconstruction_loss "
    "activation lr_schedule perturbation method metric order subset damping unit",
    "choice or None": "target_transform input_transform",
    "device": "device",
    "dtype": "dtype",
    "jobs": "n_jobs",
    "seed": "random_state",
    "verbose": "verbose",
    "array": "sequences targets X",
    "matrix": "spectra A B",
    "network": "network",
    "name or None": "layer name weight",
    "place or None": "memory directory",
}
KIND_OF = {name: kind for kind, names in BY_NAME.items() for name in names.split()}


def cases(calls: dict[str, Callable], signature: Callable, own_kinds: dict) -> Iterator[Any]:
    """Yield a call, a parameter and a wrong value for every parameter that has a kind."""
    for name, call in calls.items():
        for parameter in inspect.signature(signature(name)).parameters:
            kind = own_kinds.get((name, parameter), KIND_OF.get(parameter))
            if kind is None:
                continue
            values = KINDS[kind] if isinstance(kind, str) else kind
            items = values.items() if isinstance(values, dict) else ((repr(v)[:30], v) for v in values)
            for label, value in items:
                yield pytest.param(call, parameter, value, id=f"{name}-{parameter}-{label}")


def assert_refused(parameter: str, call: Callable, *args: Any, **kwargs: Any) -> None:
    """A ValueError, TypeError or OSError that names the parameter."""
    with pytest.raises((ValueError, TypeError, OSError)) as caught:
        call(*args, **kwargs)
    text = str(caught.value) + " ".join(getattr(caught.value, "__notes__", []))
    assert parameter in text, f"the parameter is not named: {type(caught.value).__name__}: {text[:300]}"
