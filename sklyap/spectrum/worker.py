"""What a worker does: the spectra of one network, or of some in one batch, unless a cache has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch

from sklyap.cells import RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.exceptions import DivergedError, UntrustedFileError
from sklyap.lyapunov import LyapunovResult, lyapunov_spectrum
from sklyap.lyapunov.ensemble import ensemble_spectra
from sklyap.networks.transformer import Failure, attempt
from sklyap.runtime import one_thread, unwarned, watch_parent
from sklyap.spectrum.cache import FIELDS, SpectrumCache
from sklyap.spectrum.fingerprint import UnknownValueError, fingerprint
from sklyap.tangent import tangent_size

__all__ = ["Spectrum", "SpectrumTask", "spectra_of"]

SpectrumTask = tuple[RecurrentCell, Drive]


def spectra_of(
    todo: dict[int, SpectrumTask],
    *,
    settings: dict[str, Any],
    cache: SpectrumCache,
    on_error: str,
    at_most: bool = False,
) -> dict[int, Spectrum]:
    """Compute the spectra of a group of networks; where one fails, say why or raise.

    Parameters
    ----------
    todo : dict of int to (RecurrentCell, Drive)
        By the networks' indices in the list. Of one structure and with sequences of one length where there are several.
        The cells are converted in place.
    settings : dict
        Keyword arguments of :func:`~sklyap.lyapunov_spectrum`.
    cache : SpectrumCache
    on_error : {"raise", "warn"}
    at_most : bool, default=False
        Whether `n_exponents` of the settings is a bound that smaller networks need not reach.
    """
    watch_parent()
    if at_most and todo:
        cell, _ = next(iter(todo.values()))
        settings = settings | {"n_exponents": min(settings["n_exponents"], tangent_size(cell, settings["state"]))}
    with one_thread(), unwarned():
        found = {i: _Found.of(cache, settings, *task) for i, task in todo.items()}
        missing = [i for i, entry in found.items() if entry.result is None]
        done = dict(zip(missing, _together([todo[i] for i in missing], settings), strict=True))
        spectra = {}
        for i, entry in found.items():
            compute = partial(_computed, *todo[i], settings, done.get(i))
            spectra[i] = _spectrum(entry, partial(attempt, compute, index=i, on_error=on_error), cache)
    return spectra


@dataclass(frozen=True)
class Spectrum:
    """What became of one network.

    Attributes
    ----------
    result : LyapunovResult or Failure
    complaints : tuple of str
        What is to be said of its file in the cache.
    """

    result: LyapunovResult | Failure
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """What the cache has for one network: its key, None where it has no hash; the result; and what is wrong with it."""

    key: str | None
    result: LyapunovResult | None = None
    complaint: str | None = None

    @classmethod
    def of(cls, cache: SpectrumCache, settings: dict[str, Any], cell: RecurrentCell, drive: Drive) -> _Found:
        if cache.folder is None:
            return cls(None)
        try:
            key = _key(cell, drive, settings)
        except UnknownValueError as error:
            return cls(
                None, None, f"A spectrum is not kept in the cache, as nobody can say when it is the same: {error}"
            )
        numbers = cell.state_size * (drive.n_sequences + 4)
        try:
            return cls(key, cache.get(key, limit=2**20 + 64 * 8 * numbers))
        except (UntrustedFileError, OSError) as error:
            return cls(key, None, f"A spectrum is computed again: {error}")


def _spectrum(entry: _Found, compute: Callable[[], LyapunovResult | Failure], cache: SpectrumCache) -> Spectrum:
    """Return the spectrum that was found, or compute and keep it."""
    if entry.result is not None:
        return Spectrum(entry.result)
    complaints = [] if entry.complaint is None else [entry.complaint]
    result = compute()
    if entry.key is not None and isinstance(result, LyapunovResult):
        try:
            cache.put(entry.key, result)
        except (OSError, TypeError) as error:
            complaints.append(f"A spectrum could not be kept in {cache.folder}: {error}")
    return Spectrum(result, tuple(complaints))


def _computed(
    cell: RecurrentCell, drive: Drive, settings: dict[str, Any], done: LyapunovResult | None
) -> LyapunovResult:
    return lyapunov_spectrum(cell, drive, **settings, resumable=False) if done is None else done


def _together(tasks: list[SpectrumTask], settings: dict[str, Any]) -> list[LyapunovResult | None]:
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


def _key(cell: RecurrentCell, drive: Drive, settings: dict[str, Any]) -> str:
    """Return a hash of weights, drive and settings that is the same in every process."""
    inputs = None if drive.inputs is None else [x.cpu().numpy() for x in drive.inputs]
    starts = None if drive.starts is None else drive.starts.cpu().numpy()
    what = {name: str(value) for name, value in settings.items() if name not in ("device", "batch_size", "progress")}
    return fingerprint(cell, version("sklyap"), FIELDS, inputs, starts, drive.lengths, what)
