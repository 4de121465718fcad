"""Spectra on the disk: a file for each, with its key and a checksum, of which nothing is believed unseen."""

from __future__ import annotations

import json
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from sklyap import storage
from sklyap.exceptions import UntrustedFileError
from sklyap.lyapunov import LyapunovResult

__all__ = ["FIELDS", "SpectrumCache", "check_memory"]

FIELDS = tuple(item.name for item in fields(LyapunovResult))
_HEADER = "header"
_FOLDER = "sklyap-spectra"


class SpectrumCache:
    """Results by key, as npz files in a folder of `memory`.

    Processes and threads may share a cache: a file appears whole or not at all. A file holds the arrays of a result
    and, as JSON, its numbers, its key and the SHA-256 of all. What does not match is not taken.

    Parameters
    ----------
    memory : str, path-like, joblib.Memory or None
        Where the folder is; None keeps nothing.
    caller : str
        Used in the error message.
    """

    def __init__(self, memory: Any, caller: str) -> None:
        location = check_memory(memory, caller)
        self.folder = None if location is None else Path(location) / _FOLDER
        if self.folder is not None:
            storage.check_writable(self.folder, "memory", caller)

    def get(self, key: str, limit: int) -> LyapunovResult | None:
        """Return the result that was kept for `key`, None where there is none.

        Raises
        ------
        UntrustedFileError
            If the file is not what `put` wrote for `key`, or has more than `limit` bytes.
        """
        assert self.folder is not None
        path = self._path(key)
        try:
            arrays = storage.read_arrays(path, directory=self.folder, limit=limit)
        except FileNotFoundError:
            return None
        try:
            header = json.loads(arrays.pop(_HEADER).tobytes())
            numbers = header["numbers"]
            if header["key"] != key or header["sha256"] != storage.seal([key, numbers], arrays):
                raise ValueError("its content does not have the key and the SHA-256 that it should")
            return _result({**numbers, **arrays})
        except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
            raise UntrustedFileError(f"{path} is not the spectrum that was kept there: {error}.") from error

    def put(self, key: str, result: LyapunovResult) -> None:
        """Keep a result."""
        assert self.folder is not None
        values = {name: getattr(result, name) for name in FIELDS}
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        numbers = {name: _plain(value) for name, value in values.items() if name not in arrays}
        header = json.dumps({"key": key, "numbers": numbers, "sha256": storage.seal([key, numbers], arrays)}).encode()
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_arrays(path, {_HEADER: np.frombuffer(header, dtype=np.uint8), **arrays})

    def has(self, key: str) -> bool:
        """Tell whether something was kept for `key`, sound or not."""
        return self.folder is not None and self._path(key).exists()

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.npz"


def check_memory(memory: Any, caller: str) -> str | PathLike | None:
    """Return where to keep spectra, or None, or raise ValueError."""
    # joblib.Memory keeps its files in `location`, and has None there when it keeps nothing.
    location = memory if isinstance(memory, str | PathLike | None) else getattr(memory, "location", memory)
    if location is not None and (not isinstance(location, str | PathLike) or not str(location)):
        raise ValueError(
            f"The 'memory' parameter of {caller} must be None, a path or a joblib.Memory. Got {memory!r} instead."
        )
    return location


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, bool | int | float | str | None):
        raise TypeError(f"a result with {type(value).__name__} can't be kept")
    return value


def _result(values: dict[str, Any]) -> LyapunovResult:
    if set(values) != set(FIELDS):
        raise ValueError("it has other fields than a spectrum")
    for name in ("exponents", "standard_error", "per_sequence"):
        array = values[name]
        if (
            not isinstance(array, np.ndarray)
            or array.dtype.kind != "f"
            or array.shape[-1:] != values["exponents"].shape
        ):
            raise ValueError(f"its {name} are no exponents")
    if not isinstance(values["status"], str) or not isinstance(values["converged"], bool):
        raise ValueError("it has no verdict")
    return LyapunovResult(**values)
