"""Who may write into a directory: one call at a time, and nobody for another call."""

from __future__ import annotations

import errno
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sklyap.exceptions import SklyapWarning

__all__ = ["LOCKS", "Claim", "ForeignDirectoryError", "file_lock"]

_CLAIM = "population.lock"
LOCKS = (_CLAIM, "write.lock")
_CLAIM_SECONDS = 3.0  # seconds in which a call that has just claimed a directory writes what call it is


class ForeignDirectoryError(OSError):
    """A directory was opened for another call while a network was trained for this one."""


class Claim:
    """The exclusive use of a directory, from entering the context to leaving it.

    The operating system gives it back when the process dies, however it dies.

    Parameters
    ----------
    path : Path
    same_call : callable
        Tells whether the process that holds the directory does so for the same call, so that one may wait for it.
    caller : str, default="train_population"
        Used in the error message.

    Raises
    ------
    OSError
        On entering, if another call holds the directory.
    """

    def __init__(self, path: Path, same_call: Callable[[], bool], caller: str = "train_population") -> None:
        self._path = path
        self._caller = caller
        self._same_call = same_call
        self._lock = _lock(path / _CLAIM)

    def __enter__(self) -> Claim:
        if not _acquired(self._lock):
            self._wait()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._lock.release()

    def _wait(self) -> None:
        deadline = time.monotonic() + _CLAIM_SECONDS
        while not self._same_call():
            if _acquired(self._lock, 0.05):
                return
            if time.monotonic() > deadline:
                raise OSError(
                    errno.EBUSY,
                    f"The 'directory' parameter of {self._caller} must not be in use by another call, as "
                    f"{self._path} is. Choose another directory, or wait for the other's end",
                )
        warnings.warn(
            f"Another process trains the same networks in {self._path}; waiting for its end.",
            SklyapWarning,
            stacklevel=4,
        )
        while not _acquired(self._lock, 1.0):
            continue


@contextmanager
def file_lock(directory: Path, name: str) -> Iterator[None]:
    """Hold the lock `name` of a directory, waiting for it."""
    lock = _lock(directory / name)
    while not _acquired(lock, 1.0):
        continue
    try:
        yield
    finally:
        lock.release()


def _lock(path: Path) -> FileLock:
    return FileLock(path, thread_local=False)


def _acquired(lock: FileLock, timeout: float = 0.0) -> bool:
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except NotImplementedError:  # a file system without locks
        warnings.warn(
            f"The file system of {lock.lock_file} has no locks: do not train two populations in one directory at once.",
            SklyapWarning,
            stacklevel=4,
        )
    except OSError as error:
        raise OSError(error.errno, f"The lock {lock.lock_file} can't be taken ({error.strerror})") from error
    return True
