"""Digits read as sequences: scikit-learn's bundled 8 x 8 digits and MNIST."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home, load_digits
from sklearn.utils import Bunch, check_random_state

from sklyap.validation import check_bool, check_choice, check_int, check_seed

__all__ = ["fetch_sequential_mnist", "load_sequential_digits"]

_MNIST_FILES = {  # name: (expected shape, md5 of the unpacked file)
    "train-images-idx3-ubyte": ((60_000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((60_000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((10_000,), "27ae3e4e09519cfbb04c329615203637"),
}
_SUBSETS = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}


def load_sequential_digits(
    *,
    order: str = "rows",
    permuted: bool = False,
    n_class: int = 10,
    random_state: Any = 0,
    return_X_y: bool = False,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load scikit-learn's bundled handwritten digits as sequences.

    Parameters
    ----------
    order : {"rows", "pixels"}, default="rows"
        ``"rows"`` gives 8 steps of 8 inputs, ``"pixels"`` 64 steps of one input.
    permuted : bool, default=False
        Shuffle the pixels of every image by one and the same permutation before it is read.
    n_class : int, default=10
        Keep the classes below `n_class`, as in :func:`sklearn.datasets.load_digits`.
    random_state : int, RandomState instance or None, default=0
        Draws the permutation. Fixed by default, so that two calls give the same task.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : Bunch
        ``data`` float32 (1797, n_steps, n_inputs) in [0, 1]; ``target`` int64 (1797,);
        ``target_names``; ``permutation`` int64 (64,) or None; ``DESCR``.
    (data, target) : tuple, if `return_X_y`

    Raises
    ------
    ValueError
        If `order` is unknown or `n_class` out of range.

    Examples
    --------
    >>> from sklyap.datasets import load_sequential_digits
    >>> X, y = load_sequential_digits(return_X_y=True)
    >>> X.shape, X.dtype, y.shape
    ((1797, 8, 8), dtype('float32'), (1797,))
    >>> load_sequential_digits(order="pixels").data.shape
    (1797, 64, 1)
    """
    caller = "load_sequential_digits"
    check_choice(order, "order", ("rows", "pixels"), caller=caller)
    check_bool(permuted, "permuted", caller=caller)
    check_bool(return_X_y, "return_X_y", caller=caller)
    check_seed(random_state, caller=caller)
    check_int(n_class, "n_class", low=1, high=10, caller=caller)
    digits = load_digits(n_class=n_class)
    images = digits.images.astype(np.float32) / np.float32(16)
    description = f"Optical recognition of handwritten digits, read by {order}{_permuted(permuted)}."
    return _bunch(images, digits.target, order, permuted, random_state, description, return_X_y)


def fetch_sequential_mnist(
    *,
    order: str = "rows",
    permuted: bool = False,
    subset: str = "train",
    n_samples: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    verify_checksum: bool = True,
    random_state: Any = 0,
    return_X_y: bool = False,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load MNIST as sequences, from IDX files in a folder or from OpenML.

    Parameters
    ----------
    order : {"rows", "pixels"}, default="rows"
        ``"rows"`` gives 28 steps of 28 inputs, ``"pixels"`` 784 steps of one input.
    permuted : bool, default=False
        Shuffle the pixels of every image by one and the same permutation before it is read.
    subset : {"train", "test", "all"}, default="train"
        The 60,000 training images, the 10,000 test images, or both in this order.
    n_samples : int, optional
        Keep the first `n_samples` images (they are in random order of class).
    folder : path-like, optional
        Folder with the four IDX files (``train-images-idx3-ubyte`` and so on, plain or ``.gz``).
        By default the ``mnist`` folder in `data_home`, filled from OpenML at the first call.
    data_home : path-like, optional
        Cache of downloads; by default scikit-learn's, :func:`sklearn.datasets.get_data_home`.
    download_if_missing : bool, default=True
        If False, raise OSError rather than download.
    verify_checksum : bool, default=True
        Compare the files with the md5 of the original MNIST. Set it to False to read another data
        set of the same layout (Fashion-MNIST, say).
    random_state : int, RandomState instance or None, default=0
        Draws the permutation. Fixed by default, so that training and test images share it.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    data : Bunch
        ``data`` float32 (n_samples, n_steps, n_inputs) in [0, 1]; ``target`` int64 (n_samples,);
        ``target_names``; ``permutation`` int64 (784,) or None; ``DESCR``.
    (data, target) : tuple, if `return_X_y`

    Raises
    ------
    OSError
        If a file is missing and cannot be downloaded (the message says which file to put where).
    ValueError
        If a file is truncated or not the one that its name says, or a parameter is out of range.

    Examples
    --------
    >>> from sklyap.datasets import fetch_sequential_mnist
    >>> X, y = fetch_sequential_mnist(folder="data", return_X_y=True)  # doctest: +SKIP
    """
    caller = "fetch_sequential_mnist"
    check_choice(order, "order", ("rows", "pixels"), caller=caller)
    check_bool(permuted, "permuted", caller=caller)
    check_bool(return_X_y, "return_X_y", caller=caller)
    check_seed(random_state, caller=caller)
    check_choice(subset, "subset", _SUBSETS, caller=caller)
    if n_samples is not None:
        check_int(n_samples, "n_samples", low=1, caller=caller)
    parts = _SUBSETS[subset]
    if folder is None:
        folder = Path(get_data_home(data_home)) / "mnist"
        if not all(_find(folder, name) for name in _MNIST_FILES):
            _download_mnist(folder, data_home, download_if_missing)
    images, labels = (
        np.concatenate([_read_mnist(Path(folder), f"{part}-{kind}", verify_checksum) for part in parts])
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    if len(images) != len(labels):
        raise ValueError(f"{folder} holds {len(images)} images but {len(labels)} labels of the {subset} subset.")
    if n_samples is not None:
        check_int(n_samples, "n_samples", low=1, high=len(images), caller=caller)
    scaled = images[:n_samples].astype(np.float32) / np.float32(255)
    description = f"MNIST, {subset} subset, read by {order}{_permuted(permuted)}."
    return _bunch(scaled, labels[:n_samples], order, permuted, random_state, description, return_X_y)


def _permuted(permuted: bool) -> str:
    return ", pixels permuted" if permuted else ""


def _bunch(
    images: np.ndarray,
    labels: np.ndarray,
    order: str,
    permuted: bool,
    random_state: Any,
    description: str,
    return_X_y: bool,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Turn images (n, height, width) into sequences and wrap them up."""
    n, height, width = images.shape
    permutation = None
    if permuted:
        permutation = check_random_state(check_seed(random_state)).permutation(height * width)
        images = images.reshape(n, -1)[:, permutation]
    shape = (n, height, width) if order == "rows" else (n, height * width, 1)
    data, target = np.ascontiguousarray(images.reshape(shape)), labels.astype(np.int64)
    if return_X_y:
        return data, target
    names = np.unique(target)
    return Bunch(data=data, target=target, target_names=names, permutation=permutation, DESCR=description)


def _find(folder: Path, name: str) -> Path | None:
    """Return the IDX file `name` of `folder`, plain or gzipped, also in its dotted spelling."""
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.is_file():
                return path
    return None


def _read_mnist(folder: Path, name: str, verify: bool) -> np.ndarray:
    path = _find(folder, name)
    if path is None:
        raise FileNotFoundError(f"There is no {name} or {name}.gz in {folder}; {_where_to_put(folder)}")
    shape, md5 = _MNIST_FILES[name]
    array, digest = _read_idx(path)
    if array.ndim != len(shape):
        raise ValueError(f"{path} must hold {len(shape)} dimensions. Got shape {array.shape} instead.")
    if verify and (array.shape != shape or digest != md5):
        raise ValueError(
            f"{path} is not the file of this name in MNIST: expected shape {shape} and md5 {md5}, "
            f"got shape {array.shape} and md5 {digest}. Pass verify_checksum=False to read it all the same."
        )
    return array


def _read_idx(path: Path) -> tuple[np.ndarray, str]:
    """Return the array of unsigned bytes in an IDX file and the md5 of its unpacked bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or not a gzip file: {error}") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an IDX file of unsigned bytes: it starts with {content[:4]!r}.")
    n_dims = content[3]
    header = 4 + 4 * n_dims
    shape = struct.unpack(f">{n_dims}I", content[4:header]) if len(content) >= header else ()
    expected = header + int(np.prod(shape, dtype=np.int64))
    if not shape or len(content) != expected:
        raise ValueError(f"{path} is truncated or damaged: expected {expected} bytes, got {len(content)}.")
    array = np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)
    return array, hashlib.md5(content, usedforsecurity=False).hexdigest()


def _download_mnist(folder: Path, data_home: str | os.PathLike[str] | None, download_if_missing: bool) -> None:
    """Fill `folder` with IDX files made from OpenML's copy, which keeps the original order."""
    if not download_if_missing:
        raise FileNotFoundError(f"MNIST is not in {folder} and download_if_missing=False; {_where_to_put(folder)}")
    try:
        pixels, labels = fetch_openml("mnist_784", version=1, as_frame=False, data_home=data_home, return_X_y=True)
    except OSError as error:
        raise OSError(f"MNIST could not be downloaded from OpenML ({error}); {_where_to_put(folder)}") from error
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = pixels.reshape(-1, 28, 28), labels.astype(np.uint8)
    for part, rows in (("train", slice(60_000)), ("t10k", slice(60_000, None))):
        _write_idx(folder / f"{part}-images-idx3-ubyte.gz", images[rows])
        _write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels[rows])


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content = gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def _where_to_put(folder: Path) -> str:
    return f"put {', '.join(f'{name}.gz' for name in _MNIST_FILES)} into {folder}, or pass `folder`."
