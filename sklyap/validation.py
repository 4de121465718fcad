"""Checks of what comes in; every message names the parameter, what was expected and what came."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

__all__ = [
    "check_bool",
    "check_choice",
    "check_dense",
    "check_dtype",
    "check_exponents",
    "check_instance",
    "check_instances",
    "check_int",
    "check_jobs",
    "check_methods",
    "check_networks",
    "check_probe",
    "check_real",
    "check_seed",
    "check_sequences",
    "check_shares",
    "check_verbose",
    "floor_exponents",
    "how_to_load",
    "resolve_device",
    "seed_from",
    "suggestion",
]

_DTYPES = {"float64": torch.float64, "float32": torch.float32}


def _owner(name: str, caller: str | None) -> str:
    return f"The {name!r} parameter" + (f" of {caller}" if caller else "")


def _bounds(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    left = "(-inf" if low is None else f"[{low}"
    right = "inf)" if high is None else f"{high}]"
    return f" in the range {left}, {right}"


def check_int(
    value: Any, name: str, *, low: int | None = None, high: int | None = None, caller: str | None = None
) -> int:
    """Return `value` as an int within ``[low, high]`` or raise.

    Raises
    ------
    TypeError
        If `value` is not an integer (booleans are not).
    ValueError
        If it lies outside the range.
    """
    wanted = f"{_owner(name, caller)} must be an int{_bounds(low, high)}. Got {value!r} instead."
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(wanted)
    number = int(value)
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(wanted)
    return number


def check_real(
    value: Any, name: str, *, low: float | None = None, high: float | None = None, caller: str | None = None
) -> float:
    """Return `value` as a finite float within ``[low, high]`` or raise.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is not finite or lies outside the range.
    """
    wanted = f"{_owner(name, caller)} must be a finite float{_bounds(low, high)}. Got {value!r} instead."
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(wanted)
    value = float(value)
    if not math.isfinite(value) or (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(wanted)
    return value


def check_shares(shares: Any, name: str, *, caller: str | None = None) -> list[float]:
    """Return shares of a training, a validation and a test part; they must be 3 numbers in [0, 1] that sum to 1."""
    message = f"{_owner(name, caller)} must be 3 shares in [0, 1] that sum to 1. Got {shares!r} instead."
    if isinstance(shares, str) or not isinstance(shares, Iterable) or len(list(shares)) != 3:
        raise ValueError(message)
    values = [check_real(share, name, low=0.0, high=1.0, caller=caller) for share in shares]
    if abs(sum(values) - 1) > 1e-9:
        raise ValueError(message)
    return values


def check_choice(value: Any, name: str, choices: Iterable[Any], *, caller: str | None = None) -> Any:
    """Return `value` if it is one of `choices` or raise ValueError."""
    choices = list(choices)
    if not any(value is c or (isinstance(value, type(c)) and value == c) for c in choices):
        listed = ", ".join(repr(c) for c in choices)
        raise ValueError(f"{_owner(name, caller)} must be one of {listed}. Got {value!r} instead.")
    return value


def check_bool(value: Any, name: str, *, caller: str | None = None) -> bool:
    """Return `value` if it is True or False or raise TypeError; a number or a string is neither."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{_owner(name, caller)} must be True or False. Got {value!r} instead.")
    return bool(value)


def check_instance(value: Any, name: str, kind: type | tuple[type, ...], *, caller: str | None = None) -> Any:
    """Return `value` if it is an instance of `kind` or raise TypeError."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(k.__name__ for k in kinds)
        raise TypeError(f"{_owner(name, caller)} must be an instance of {wanted}. Got {value!r:.60} instead.")
    return value


def check_instances(values: Any, name: str, kind: type | tuple[type, ...], *, caller: str | None = None) -> list[Any]:
    """Return a list of `values`, one instance of `kind` or several, or raise."""
    if isinstance(values, kind):
        return [values]
    items = list(check_instance(values, name, Iterable, caller=caller))
    if not items:
        raise ValueError(f"{_owner(name, caller)} must not be empty. Got no result instead.")
    return [check_instance(item, name, kind, caller=caller) for item in items]


def check_methods(value: Any, name: str, methods: Iterable[str], *, caller: str | None = None) -> Any:
    """Return `value` if it has `methods` or raise TypeError; a class has none of its own."""
    missing = [m for m in methods if isinstance(value, type) or not hasattr(value, m)]
    if missing:
        raise TypeError(f"{_owner(name, caller)} must have {', '.join(missing)}. Got {value!r:.60} instead.")
    return value


def check_verbose(value: Any, *, caller: str | None = None) -> int:
    """Return `value`, a bool or an int that is not negative, or raise."""
    return check_int(int(value) if isinstance(value, bool | np.bool_) else value, "verbose", low=0, caller=caller)


def check_jobs(value: Any, *, caller: str | None = None) -> int | None:
    """Return `value` if joblib takes it for `n_jobs`: None, or an int that is not zero."""
    if value is None:
        return None
    if check_int(value, "n_jobs", caller=caller) == 0:
        raise ValueError(f"{_owner('n_jobs', caller)} must be None or an int other than 0. Got 0 instead.")
    return int(value)


def check_seed(random_state: Any, *, caller: str | None = None, name: str = "random_state") -> Any:
    """Return `random_state` if numpy can be seeded with it: None, an int in [0, 2³² - 1], or a generator."""
    if random_state is None or random_state is np.random:
        return random_state
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        return random_state
    return check_int(random_state, name, low=0, high=2**32 - 1, caller=caller)


def check_dense(value: Any, name: str, *, caller: str | None = None, real: bool = True, filled: bool = False) -> Any:
    """Return `value` if it holds numbers in an ordinary array or tensor, or in sequences of them, or raise.

    Raises
    ------
    TypeError
        For text, objects, dicts, sparse, nested, quantized and meta arrays, complex numbers (if `real`), and arrays
        with a mask that hides something, which would be ignored; for a single number.
    ValueError
        If it is empty or holds NaN or infinity (if `filled`).
    """
    owner = _owner(name, caller)
    array: Any
    if isinstance(value, torch.Tensor):
        if value.is_meta or value.is_nested or value.is_quantized or value.layout != torch.strided:
            raise TypeError(f"{owner} must be an ordinary tensor. Got a nested, sparse, quantized or meta tensor.")
        kind, array = "c" if value.is_complex() else "f", value
    elif hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(f"{owner} must be a dense array. Got a sparse {type(value).__name__}; use .toarray().")
    else:
        if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
            raise TypeError(f"{owner} must hold numbers throughout. Got an array with masked entries.")
        if isinstance(value, Sequence) and not isinstance(value, str) and any(getattr(v, "ndim", 0) for v in value):
            for item in value:
                check_dense(item, name, caller=caller, real=real, filled=filled)
            return value
        try:
            array = np.asarray(value)
            kind = array.dtype.kind
        except ValueError:  # sequences of different lengths
            return value
    if kind == "c" and real:
        raise TypeError(f"{owner} must hold real numbers. Got complex ones.")
    if kind not in "fiubc":
        got = f"dtype {array.dtype}" if array.ndim else f"{value!r:.60}"
        raise TypeError(f"{owner} must hold real numbers. Got {got} instead.")
    if array.ndim == 0:
        raise TypeError(f"{owner} must be an array. Got {value!r} instead.")
    if filled and 0 in array.shape:
        raise ValueError(f"{owner} must not be empty. Got shape {tuple(array.shape)} instead.")
    if filled and not bool(torch.isfinite(torch.as_tensor(array)).all()):
        raise ValueError(f"{owner} must be finite. Got NaN or infinity.")
    return value


def check_probe(sequences: Any, name: str = "sequences", *, caller: str | None = None) -> Any:
    """Return `sequences`, of which the network is not known yet, if they can drive one: None, or finite numbers."""
    if sequences is None or isinstance(sequences, torch.nn.utils.rnn.PackedSequence):
        return sequences
    return check_dense(sequences, name, caller=caller, filled=True)


def check_dtype(dtype: Any, name: str = "dtype") -> torch.dtype:
    """Return the torch floating-point type named by `dtype` (``"float64"`` or ``"float32"``)."""
    if isinstance(dtype, torch.dtype) and dtype in _DTYPES.values():
        return dtype
    return _DTYPES[check_choice(dtype, name, _DTYPES)]


def resolve_device(device: Any) -> torch.device:
    """Return the torch device named by `device`; ``"auto"`` is CUDA where there is one, else the CPU."""
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{_owner('device', None)} must be 'auto' or a torch device. Got {device!r} instead."
        ) from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"{_owner('device', None)} is {device!r}, but torch sees no CUDA device here; use device='cpu'."
        )
    if resolved.type == "meta":
        raise ValueError(f"{_owner('device', None)} must be one that computes. Got {device!r} instead.")
    if resolved.type == "mps":
        there = torch.backends.mps.is_available()
        why = "MPS has no float64, in which sklyap computes" if there else "torch sees no MPS device"
        raise ValueError(f"{_owner('device', None)} is {device!r}, but {why}; use device='cpu'.")
    if resolved.type != "cpu":
        try:
            torch.zeros(1, device=resolved, dtype=torch.float64).cpu()
        except (RuntimeError, NotImplementedError, AssertionError, TypeError, ImportError) as error:
            reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
            raise ValueError(
                f"{_owner('device', None)} is {device!r}, which does not work here: {reason}. Use device='cpu'."
            ) from error
    return resolved


def check_sequences(
    sequences: Any,
    *,
    n_inputs: int | None = None,
    name: str = "sequences",
    caller: str | None = None,
    detach: bool = True,
) -> torch.Tensor:
    """Return sequences as a finite floating tensor (n_sequences, n_steps, n_inputs).

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs) or (n_sequences, n_steps)
        Two dimensions are read as one input per step.
    n_inputs : int, optional
        The width that is expected.
    name, caller : str
        Used in the error message.
    detach : bool, default=True
        Whether to leave the graph that a tensor comes from.

    Returns
    -------
    torch.Tensor of shape (n_sequences, n_steps, n_inputs)

    Raises
    ------
    ValueError
        If rank or width are wrong, an axis is empty, or an entry is NaN or infinite.
    TypeError
        If the values are not real numbers.
    """
    owner = _owner(name, caller)
    check_dense(sequences, name, caller=caller)
    if isinstance(sequences, torch.Tensor):
        tensor = sequences.detach() if detach else sequences
    else:
        try:
            array = np.asarray(sequences)
        except ValueError as error:
            raise ValueError(
                f"{owner} must be a rectangular array (n_sequences, n_steps, n_inputs): {error}"
            ) from error
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{owner} must hold real numbers. Got dtype {array.dtype} instead.")
        tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")))
    if tensor.is_complex():
        raise TypeError(f"{owner} must hold real numbers. Got dtype {tensor.dtype} instead.")
    if tensor.ndim == 2:
        tensor = tensor.unsqueeze(-1)
    if tensor.ndim != 3:
        raise ValueError(
            f"{owner} must have shape (n_sequences, n_steps, n_inputs). Got shape {tuple(tensor.shape)} instead."
        )
    if 0 in tensor.shape:
        raise ValueError(f"{owner} must not be empty. Got shape {tuple(tensor.shape)} instead.")
    if n_inputs is not None and tensor.shape[2] != n_inputs:
        raise ValueError(
            f"{owner} must have {n_inputs} inputs per step, as the network has. "
            f"Got shape {tuple(tensor.shape)}, which has {tensor.shape[2]}."
        )
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.float64)
    if not bool(torch.isfinite(tensor).all()):
        where = tuple(int(i) for i in (~torch.isfinite(tensor)).nonzero()[0])
        raise ValueError(f"{owner} must be finite. Got {float(tensor[where])} at index {where}.")
    return tensor


def check_networks(networks: Any, *, name: str = "X", caller: str | None = None) -> Sequence[Any]:
    """Return `networks` as a non-empty sequence, one trained network per sample.

    A sequence that builds its networks when they are asked for is not unpacked. A pandas Series, an object array, and
    tables of one column are sequences too.

    Raises
    ------
    TypeError
        If `networks` is not a sequence of objects (a single network, a numeric array).
    ValueError
        If it is empty.
    """
    owner = f"{_owner(name, caller)} must be a non-empty list of trained networks"
    if isinstance(networks, str | bytes):
        raise TypeError(f"{owner}. Got a string instead.{how_to_load(networks)}")
    if hasattr(networks, "iloc") and hasattr(networks, "to_numpy"):  # pandas, which layer 0 does not import
        networks = networks.to_numpy()
    if isinstance(networks, torch.nn.Module) or not isinstance(networks, Sequence | np.ndarray):
        hint = how_to_load(networks) or " Put a single network in a list."
        raise TypeError(f"{owner}. Got {type(networks).__name__} instead.{hint}")
    if isinstance(networks, np.ndarray):
        if networks.ndim == 2 and networks.shape[1] == 1:  # a table with one column, as ColumnTransformer makes
            networks = networks[:, 0]
        if networks.dtype != object or networks.ndim != 1:
            raise ValueError(
                f"{owner}, or one column of them. Got dtype {networks.dtype} and shape {networks.shape} instead."
            )
    if len(networks) == 0:
        raise ValueError(f"{owner}. Got an empty one.")
    return networks if isinstance(networks, Sequence) else list(networks)


def how_to_load(value: Any) -> str:
    """Return a sentence on how a path, weights or a class become a network; nothing for anything else."""
    if isinstance(value, type):
        return " That is a class: make an instance, and train it."
    if isinstance(value, str | bytes | os.PathLike):
        return (
            " A path is no network: build the module and load its weights with "
            "module.load_state_dict(torch.load(path, weights_only=True)), or safetensors.torch.load_file(path); many "
            "files become a population with NetworkPopulation.from_networks(paths, losses, build=...), a directory "
            "of train_population with NetworkPopulation.load(directory)."
        )
    if isinstance(value, Mapping):
        keys = [k for k, v in value.items() if isinstance(v, Mapping) and _are_weights(v)]
        if keys or _are_weights(value):
            inside = f"[{keys[0]!r}]" if keys and not _are_weights(value) else ""
            return f" Weights are no network: build the module and call module.load_state_dict(state{inside})."
    return ""


def _are_weights(value: Mapping[Any, Any]) -> bool:
    return bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def check_exponents(spectra: np.ndarray, name: str = "X", *, caller: str | None = None) -> np.ndarray:
    """Return `spectra` if no exponent is NaN or +infinity; minus infinity (an annihilated direction) is one.

    Raises
    ------
    ValueError
        Naming the first row that is not a spectrum.
    """
    wrong = np.isnan(spectra) | (spectra == np.inf)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{_owner(name, caller)} must hold Lyapunov exponents, finite or -inf. "
            f"Input contains {'NaN' if np.isnan(spectra[where]) else 'inf'} at index {where}."
        )
    return spectra


def floor_exponents(spectra: np.ndarray) -> np.ndarray:
    """Return `spectra` (..., k) with exponents of −∞ read as the strongest contraction told from it.

    That is ln ε = −36.04 nats per step (one step of float64 forgets a direction that shrinks faster), or
    the smallest finite exponent of the same spectrum where that lies lower still, so the order is kept.
    """
    infinite = np.isneginf(spectra)
    if not infinite.any():
        return spectra
    lowest = np.where(infinite, np.inf, spectra).min(axis=-1, keepdims=True, initial=np.log(np.finfo(float).eps))
    return np.where(infinite, lowest, spectra)


def suggestion(name: Any, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the nearest of the known names, or nothing."""
    names = list(known)
    near = [n for n in names if n.lower() == str(name).lower()] or difflib.get_close_matches(str(name), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def seed_from(random_state: Any, *, name: str = "random_state") -> int:
    """Return a seed: `random_state` itself, a draw from a numpy generator, or 0 for None."""
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**31 - 1))
    return check_int(random_state, name, low=0)
