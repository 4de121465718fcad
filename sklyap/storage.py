"""Files that survive a kill and are never trusted: atomic writes, safetensors, JSON, npz; no pickle.

A write goes to a temporary name in the same directory, is flushed to the disk and renamed, so that a
reader finds the old file, the new file, or none. A read validates everything and raises
:class:`~sklyap.exceptions.UntrustedFileError` naming the file; nothing in a file can run. Sizes are checked before
anything is read: a file that claims, or is, more than its format allows costs neither time nor memory.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from sklyap.exceptions import UntrustedFileError

__all__ = [
    "Layout",
    "check_files",
    "check_schema",
    "check_writable",
    "read_arrays",
    "read_json",
    "read_state",
    "read_tensors",
    "remove_stale_temporaries",
    "seal",
    "sha256",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_tensors",
]

Layout = dict[str, tuple[str, tuple[int, ...]]]
"""Names of tensors with their dtypes, as safetensors spells them ("F32", "I64", ...), and shapes."""

_TEMPORARY = ".partial"
_METADATA = "json"
_MOST_JSON = 2**28
_MOST_ARRAYS = 2**32
_MOST_HEADER = 100_000_000  # what the safetensors format allows


def sha256(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def seal(what: Any, arrays: Mapping[str, np.ndarray | torch.Tensor]) -> str:
    """Return a SHA-256 of what JSON holds and of arrays with their names, dtypes and shapes."""
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for name, value in sorted(arrays.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        if isinstance(value, torch.Tensor):  # numpy has not all of its dtypes
            value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> str:
    """Write `content` so that `path` never holds a part of it, and return its SHA-256."""
    path = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_TEMPORARY)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except IsADirectoryError as error:
        Path(temporary).unlink(missing_ok=True)
        raise IsADirectoryError(error.errno, f"{path} is a directory, which no file replaces") from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)
    return sha256(content)


def write_json(path: Path, value: Any) -> str:
    """Write `value` as JSON (NaN and infinities as Python's json spells them); return the SHA-256."""
    return write_bytes(path, json.dumps(value, indent=1).encode())


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Any = None) -> str:
    """Write named tensors, and `metadata` as JSON in the header, as safetensors; return the SHA-256 of the file."""
    # Copies, because safetensors refuses tensors that share memory (tied weights).
    owned = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    header = None if metadata is None else {_METADATA: json.dumps(metadata)}
    return write_bytes(path, safetensors.torch.save(owned, metadata=header))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write named arrays as npz and return the SHA-256 of the file; arrays of objects, which need a pickle, raise."""
    objects = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"Arrays of objects can't be written without a pickle. Got {', '.join(map(repr, objects))}.")
    buffer = io.BytesIO()
    # numpy 1.26 takes allow_pickle=False for the name of one more array.
    np.savez(buffer, **dict[str, Any](arrays))
    return write_bytes(path, buffer.getvalue())


def read_json(path: Path, schema: Any = None, *, directory: Path | None = None, limit: int = _MOST_JSON) -> Any:
    """Return what a JSON file holds, checked against `schema`.

    Parameters
    ----------
    path : Path
        The file.
    schema : type, tuple of types or dict, optional
        A type (or types) that the value must have, or a dict of required keys and their schemas.
        ``float`` admits an int; a bool is neither.
    directory : Path, optional
        The directory that the file must lie in, symbolic links followed; by default its own.
    limit : int
        How many bytes it may have.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UntrustedFileError
        If it lies outside the directory, is too large, is not JSON, or does not follow the schema.
    """
    content = _read_bytes(path, directory, None, limit)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UntrustedFileError(f"{path} is truncated or not JSON: {error}") from error
    if schema is not None:
        check_schema(value, schema, path, "the file")
    return value


def read_tensors(path: Path, *, directory: Path | None = None, checksum: str | None = None) -> dict[str, torch.Tensor]:
    """Return the named tensors of a safetensors file.

    `directory` and the exceptions are as in :func:`read_json`; `checksum` is the SHA-256 that the
    file must have.
    """
    return read_state(path, directory=directory, checksum=checksum)[0]


def read_state(
    path: Path,
    *,
    directory: Path | None = None,
    checksum: str | None = None,
    check: Callable[[Layout, Any], None] | None = None,
) -> tuple[dict[str, torch.Tensor], Any]:
    """Return the named tensors of a safetensors file and the metadata written with them (None without).

    `directory`, `checksum` and the exceptions are as in :func:`read_tensors`. `check` is called with the layout that
    the file states and its metadata, before any tensor is read: what it raises is passed on.
    """
    with _opened(path, directory) as file:
        head, layout, metadata = _read_header(file, path)
        if check is not None:
            check(layout, metadata)
        content = head + file.read()
    _check_sum(content, path, checksum)
    try:
        return safetensors.torch.load(content), metadata
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UntrustedFileError(f"{path} is truncated or not a safetensors file: {error}") from error


def _read_header(file: BinaryIO, path: Path) -> tuple[bytes, Layout, Any]:
    """Return the first bytes of a safetensors file, the layout that they state, and the metadata.

    The header is a JSON object after 8 bytes that give its length. It is held against the size of the file, which
    the format determines to the byte.
    """
    try:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > min(size - 8, _MOST_HEADER):
            raise ValueError(f"it states a header of {length} bytes and has {size} bytes in all")
        head = first + file.read(length)
        header = json.loads(head[8:])
        metadata = json.loads(header.pop("__metadata__", {}).get(_METADATA, "null"))
        layout = {name: (str(item["dtype"]), tuple(map(int, item["shape"]))) for name, item in header.items()}
        end = max((int(item["data_offsets"][1]) for item in header.values()), default=0)
        if size != 8 + length + end:
            raise ValueError(f"its header asks for {8 + length + end} bytes and it has {size}")
        return head, layout, metadata
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UntrustedFileError(f"{path} is truncated or not a safetensors file: {error}") from error


def read_arrays(
    path: Path, *, directory: Path | None = None, checksum: str | None = None, limit: int = _MOST_ARRAYS
) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz file; pickled objects in it are refused.

    `directory`, `checksum`, `limit` and the exceptions are as in :func:`read_json` and :func:`read_tensors`.
    """
    content = _read_bytes(path, directory, checksum, limit)
    try:
        with ZipFile(io.BytesIO(content)) as archive:
            if any(item.compress_type != ZIP_STORED for item in archive.infolist()):
                raise ValueError("it is compressed, as what is written here is not")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        # A member that is not npy (any other zip archive) comes back as raw bytes.
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds something else than arrays")
        return arrays
    except (
        ValueError, BadZipFile, OSError, EOFError, KeyError, AttributeError, NotImplementedError, MemoryError,
        SyntaxError, TypeError, RuntimeError, OverflowError,
    ) as error:  # fmt: skip
        raise UntrustedFileError(f"{path} is truncated or not an npz file of arrays: {error}") from error


def check_writable(directory: Path, name: str = "directory", caller: str | None = None) -> Path:
    """Create `directory` where it is missing, and raise OSError if one cannot write into it."""
    owner = f"The {name!r} parameter" + (f" of {caller}" if caller else "")
    try:
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory, suffix=_TEMPORARY):
            pass
    except OSError as error:
        raise OSError(f"{owner} must be a directory that one can write to. Got {directory}: {error}") from error
    return directory


def check_files(paths: Iterable[Path]) -> None:
    """Raise IsADirectoryError if one of `paths` is a directory: no file replaces it."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, f"{path} is a directory where a file belongs. Move it away")


def remove_stale_temporaries(directory: Path, *, older_than: float = 3600.0) -> None:
    """Remove what killed writers left in `directory`: temporary files older than `older_than` seconds."""
    limit = time.time() - older_than
    for path in Path(directory).glob(f".*{_TEMPORARY}"):
        try:
            if path.lstat().st_mtime < limit:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            continue


def _read_bytes(path: Path, directory: Path | None, checksum: str | None, limit: int) -> bytes:
    with _opened(path, directory) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UntrustedFileError(f"{path} has {size:,} bytes, more than the {limit:,} that such a file may have.")
        content = file.read(size)
    _check_sum(content, path, checksum)
    return content


def _opened(path: Path, directory: Path | None) -> BinaryIO:
    """Open a regular file that lies in `directory`; a fifo or a device is not waited for."""
    # Strings, as a Path costs more than the file where there are a hundred thousand.
    target = os.fspath(path)
    parent = os.path.dirname(target)
    home = parent if directory is None else os.fspath(directory)
    try:
        kind = os.lstat(target).st_mode
    except NotADirectoryError as error:
        raise UntrustedFileError(f"{parent} is not a directory.") from error
    if stat.S_ISLNK(kind) or parent != home:
        try:
            resolved = Path(target).resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise UntrustedFileError(f"{path} is a broken symbolic link: {error}") from error
        target = str(resolved)
        if not resolved.is_relative_to(Path(home).resolve()):
            raise UntrustedFileError(f"{path} leads out of {home}, to {target}; it is not read.")
        kind = os.lstat(target).st_mode
    if not stat.S_ISREG(kind):
        raise UntrustedFileError(f"{path} is not a regular file.")
    descriptor = os.open(target, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise UntrustedFileError(f"{path} is not a regular file.")
    return file


def _check_sum(content: bytes, path: Path, checksum: str | None) -> None:
    if checksum is not None and sha256(content) != checksum:
        raise UntrustedFileError(
            f"{path} is not the file that was recorded: expected SHA-256 {checksum}, got {sha256(content)}."
        )


def check_schema(value: Any, schema: Any, path: Path, where: str) -> None:
    """Raise UntrustedFileError unless `value`, from `where` in `path`, follows `schema`; see `read_json`."""
    if isinstance(schema, dict):
        check_schema(value, dict, path, where)
        for key, inner in schema.items():
            if key not in value:
                raise UntrustedFileError(f"{path} has no key {key!r} in {where}.")
            check_schema(value[key], inner, path, repr(key))
        return
    types = schema if isinstance(schema, tuple) else (schema,)
    admitted = (*types, int) if float in types else types
    if not isinstance(value, admitted) or (isinstance(value, bool) and bool not in types):
        names = " or ".join(t.__name__ for t in types)
        raise UntrustedFileError(f"{path} must hold {names} in {where}. Got {type(value).__name__} instead.")


def _sync_directory(directory: Path) -> None:
    """Flush the rename itself, where the system lets one open a directory."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
