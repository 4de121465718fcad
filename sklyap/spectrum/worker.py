"""What a worker does: the spectra of one network, or of some in one batch, unless a cache has them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from types import FunctionType
from typing import Any

import joblib
import torch

from sklyap.cells import RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.exceptions import DivergedError, SklyapWarning
from sklyap.lyapunov import LyapunovResult, lyapunov_spectrum
from sklyap.lyapunov.ensemble import ensemble_spectra
from sklyap.networks.transformer import Failure, attempt
from sklyap.runtime import one_thread
from sklyap.spectrum.fingerprint import fingerprint

__all__ = ["Task", "spectra_of"]

Task = tuple[RecurrentCell, Drive]


def spectra_of(
    todo: dict[int, Task], *, settings: dict[str, Any], memory: joblib.Memory, on_error: str
) -> dict[int, LyapunovResult | Failure]:
    """Compute the spectra of a group of networks; where one fails, say why or raise.

    Parameters
    ----------
    todo : dict of int to (RecurrentCell, Drive)
        By the networks' indices in the list. Of one structure and with sequences of one length where there are several.
        The cells are converted in place.
    settings : dict
        Keyword arguments of :func:`~sklyap.lyapunov_spectrum`.
    memory : joblib.Memory
    on_error : {"raise", "warn"}
    """
    # joblib notes once for each function object, in the first cache it meets, whose results it keeps; without the
    # note, other processes compute again. So each group brings an object of its own.
    cached = memory.cache(FunctionType(_call.__code__, globals(), _call.__name__), ignore=["compute"])
    keys = {i: _key(*task, settings) for i, task in todo.items()}
    results: dict[int, LyapunovResult | Failure] = {}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", SklyapWarning)
        computations = {i: partial(lyapunov_spectrum, *task, **settings) for i, task in todo.items()}
        if len(todo) > 1:
            missing = [i for i, key in keys.items() if key is None or not cached.check_call_in_cache(key, None)]
            together = _together([todo[i] for i in missing], settings)
            computations |= {i: partial(_the, result) for i, result in zip(missing, together, strict=True) if result}
        for i, compute in computations.items():
            call = compute if keys[i] is None else partial(cached, keys[i], compute)
            results[i] = attempt(call, index=i, on_error=on_error)
    return results


def _call(key: str, compute: Callable[[], LyapunovResult]) -> LyapunovResult:
    """Compute what `key` stands for."""
    return compute()


def _the(result: LyapunovResult) -> LyapunovResult:
    return result


def _together(tasks: list[Task], settings: dict[str, Any]) -> list[LyapunovResult | None]:
    """Compute spectra in one batch; None for those that are left to be computed, or to fail, by themselves."""
    if len(tasks) < 2:
        return [None] * len(tasks)
    cells, drives = zip(*tasks, strict=True)
    try:
        return [*ensemble_spectra(cells, drives, **{k: v for k, v in settings.items() if k != "batch_size"})]
    except (DivergedError, torch.OutOfMemoryError):
        half = len(tasks) // 2
        return _together(tasks[:half], settings) + _together(tasks[half:], settings)
    except Exception:  # of a cell that vmap cannot run; whatever else is wrong, it comes again when one is alone
        return [None] * len(tasks)


def _key(cell: RecurrentCell, drive: Drive, settings: dict[str, Any]) -> str | None:
    """Return a hash of weights, drive and settings that is the same in every process, None where there is none."""
    inputs = None if drive.inputs is None else [x.cpu().numpy() for x in drive.inputs]
    starts = None if drive.starts is None else drive.starts.cpu().numpy()
    what = {name: str(value) for name, value in settings.items() if name not in ("device", "batch_size", "progress")}
    return fingerprint(cell, version("sklyap"), inputs, starts, drive.lengths, what)
