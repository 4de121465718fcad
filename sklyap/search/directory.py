"""A directory that a search can be killed over: candidates at every rung, their optimizers, and spectra."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklyap import storage
from sklyap.exceptions import FailedNetworkWarning, UntrustedFileError
from sklyap.population.claims import LOCKS, Claim
from sklyap.population.description import differences, identity
from sklyap.population.directory import PopulationDirectory
from sklyap.population.records import NetworkRecord, Snapshot
from sklyap.search.worker import Result, Segment, State

__all__ = ["SearchDirectory"]

_CALLER = "LyapunovHalvingSearch"
_OPTIMIZERS = "optimizers"
_RUNG = re.compile(r"epoch-\d{4,}")
_MOST_SPECTRUM = 2**20  # bytes of one candidate: 131,072 exponents


class SearchDirectory:
    """Candidates on the disk: one :class:`PopulationDirectory` for each epoch that some were trained to.

    A candidate's optimizer is written before its record, so that who has a record can be trained on. A file that
    can't be trusted counts as missing; its candidate is trained again, from the rung before.

    Parameters
    ----------
    path : path-like
    call : dict
        What the candidates depend on.
    anew : bool
        Whether to remove what another call left.

    Raises
    ------
    ValueError
        If the directory belongs to another call.
    OSError
        If it can't be written to.
    """

    def __init__(self, path: str | Path, call: dict[str, Any], *, anew: bool) -> None:
        self.path = PopulationDirectory(path).path
        self.call, self.name = call, identity(call)
        storage.check_writable(self.path, caller=_CALLER)
        manifest = self.path / "search.json"
        if manifest.exists() and not anew:
            begun = storage.read_json(manifest, {"call": dict})["call"]
            found = differences(begun, call)
            if found:
                more = f", and {len(found) - 5} more" if len(found) > 5 else ""
                raise ValueError(
                    "The 'directory' parameter of LyapunovHalvingSearch must be new, or begun by the same search. "
                    f"{self.path} was begun by another: {'; '.join(found[:5])}{more}. Choose another directory, or "
                    "pass resume=False to replace it."
                )
        self._opened: dict[int, PopulationDirectory] = {}
        self._check_files()
        for rung in self._rungs() if anew else ():
            rung.empty()
            for file in _own_files(rung):
                file.unlink()
        storage.write_json(manifest, {"call": call})

    @staticmethod
    def claim(path: str | Path, call: dict[str, Any], *, wait: bool) -> Claim:
        """Return a claim on a directory, which no two searches hold at once; one for the same call may wait.

        Raises
        ------
        OSError
            If the directory can't be written to or, on entering, if another search holds it.
        """
        directory = storage.check_writable(PopulationDirectory(path).path, caller=_CALLER)
        storage.check_files([directory / "search.json", directory / LOCKS[0]])

        def same_call() -> bool:
            try:
                return wait and not differences(
                    storage.read_json(directory / "search.json", {"call": dict})["call"], call
                )
            except (FileNotFoundError, UntrustedFileError):
                return False

        return Claim(directory, same_call, _CALLER)

    @staticmethod
    def seed_of(path: str | Path) -> int | None:
        """Return the seed that a directory was begun with, None for a new one."""
        try:
            begun = storage.read_json(PopulationDirectory(path).path / "search.json", {"call": {"random_state": int}})
        except FileNotFoundError:
            return None
        seed: int = begun["call"]["random_state"]
        return seed

    def read(self, segment: Segment) -> Result | None:
        """Return the candidate of a segment at the epoch that it is to reach, or None if it is not there."""
        try:
            record = self._rung(segment.until).take(self.name, segment)
        except FileNotFoundError:
            return None
        except UntrustedFileError as error:
            _warn(f"Candidate {segment.index} is trained again: {error}")
            return None
        return Result(record, self.read_optimizer(segment.index, segment.until), n_epochs=0)

    def write(self, result: Result, epoch: int) -> NetworkRecord:
        """Write a candidate and return its record with files in place of weights."""
        rung = self._rung(epoch)
        if result.optimizer is not None:
            tensors, attributes = result.optimizer
            seal = storage.seal([self._optimizer_key(result.index, epoch), attributes], tensors)
            storage.write_tensors(_optimizer_path(rung, result.index), tensors, {"state": attributes, "sha256": seal})
        record = result.record
        new = {key: snapshot for key, snapshot in record.snapshots.items() if snapshot.state is not None}
        written = rung.write(self.name, replace(record, snapshots=new))
        return replace(written, snapshots=record.snapshots | written.snapshots)

    def read_optimizer(self, index: int, epoch: int) -> State | None:
        """Return the state of a candidate's optimizer, or None if it can't be trusted."""
        path = _optimizer_path(self._rung(epoch), index)
        try:
            tensors, header = storage.read_state(path, check=_Header(path))
            if header["sha256"] != storage.seal([self._optimizer_key(index, epoch), header["state"]], tensors):
                raise UntrustedFileError(f"{path} was changed, or is the optimizer of another candidate.")
        except FileNotFoundError:
            return None
        except UntrustedFileError as error:
            _warn(f"Candidate {index} is trained from the start: {error}")
            return None
        return tensors, header["state"]

    def read_spectra(self, epoch: int, settings: str) -> tuple[NDArray[np.intp], NDArray[np.float64], float] | None:
        """Return candidates, their spectra, and the seconds that these took."""
        limit = _MOST_SPECTRUM * (1 + self.call["n_networks"])
        path = self._spectra_path(epoch, settings)
        try:
            arrays = storage.read_arrays(path, limit=limit)
            seal = arrays.pop("sha256", np.empty(0)).tobytes()
            if seal != storage.seal([self.name, epoch, settings], arrays).encode():
                raise UntrustedFileError(f"{path} was changed, or holds the spectra of other candidates.")
        except FileNotFoundError:
            return None
        except UntrustedFileError as error:
            _warn(f"Spectra at epoch {epoch} are computed again: {error}")
            return None
        return arrays["candidates"], arrays["spectra"], float(arrays["seconds"])

    def write_spectra(
        self, epoch: int, settings: str, candidates: NDArray[np.intp], spectra: NDArray[np.float64], seconds: float
    ) -> None:
        """Write spectra of candidates at an epoch."""
        arrays = {"candidates": candidates, "spectra": spectra, "seconds": np.array(seconds)}
        seal = np.frombuffer(storage.seal([self.name, epoch, settings], arrays).encode(), dtype=np.uint8)
        storage.write_arrays(self._spectra_path(epoch, settings), {**arrays, "sha256": seal})

    def _rung(self, epoch: int) -> PopulationDirectory:
        if epoch not in self._opened:
            rung = PopulationDirectory(self.path / f"epoch-{epoch:04d}")
            for folder in (rung.networks, rung.path / _OPTIMIZERS):
                storage.check_writable(folder, caller=_CALLER)
            rung.open(self.name, {"name": self.path.resolve().name, "call": self.call}, anew=False)
            self._opened[epoch] = rung
        return self._opened[epoch]

    def _spectra_path(self, epoch: int, settings: str) -> Path:
        return self._rung(epoch).path / f"spectra-{settings[:16]}.npz"

    def _optimizer_key(self, index: int, epoch: int) -> list[Any]:
        return [self.name, index, epoch]

    def _rungs(self) -> list[PopulationDirectory]:
        """Return the rungs that are there; one that is a link is not this search's to empty."""
        paths = sorted(path for path in self.path.iterdir() if _RUNG.fullmatch(path.name) and not path.is_symlink())
        return [PopulationDirectory(path) for path in paths if (path / "networks").is_dir()]

    def _check_files(self) -> None:
        """Raise IsADirectoryError if a directory is in the place of a file, before anything is trained."""
        for rung in self._rungs():
            rung.check_files()
            storage.check_files(_own_files(rung))


def _own_files(rung: PopulationDirectory) -> list[Path]:
    """Return what a search keeps of a rung beside the networks."""
    optimizers = rung.path / _OPTIMIZERS
    return [*rung.path.glob("spectra-*.npz"), *optimizers.glob("[0-9]*.safetensors")]


def _warn(message: str) -> None:
    warnings.warn(message, FailedNetworkWarning, stacklevel=6)


@dataclass(frozen=True)
class _Header:
    """What is looked at before the tensors of a file are read."""

    path: Path

    def __call__(self, layout: storage.Layout, header: Any) -> None:
        storage.check_schema(header, {"state": dict, "sha256": str}, self.path, "the file")


def _optimizer_path(rung: PopulationDirectory, index: int) -> Path:
    return rung.path / _OPTIMIZERS / f"{index:05d}.safetensors"


def merged(records: list[NetworkRecord]) -> NetworkRecord:
    """Return the last of the records of one candidate, with the snapshots of all."""
    snapshots: dict[str, Snapshot] = {}
    for record in records:
        snapshots |= record.snapshots
    return replace(records[-1], snapshots=snapshots)
