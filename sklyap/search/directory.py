"""A directory that a search can be killed over: candidates at every rung, their optimizers, and spectra."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklyap import storage
from sklyap.exceptions import UntrustedFileError
from sklyap.population.claims import Claim
from sklyap.population.description import differences, identity
from sklyap.population.records import NetworkRecord, PopulationDirectory, Snapshot
from sklyap.search.worker import Result, State

__all__ = ["SearchDirectory"]

_CALLER = "LyapunovHalvingSearch"


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
        if anew:
            for old in self.path.glob("epoch-*"):
                for file in [*old.glob("networks/*"), *old.glob("optimizers/*"), *old.glob("*.npz")]:
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

    def read(self, index: int, epoch: int) -> Result | None:
        """Return a candidate at an epoch, or None if it is not there."""
        rung = self._rung(epoch)
        try:
            record = rung.read(self.name, index)
            for snapshot in record.snapshots.values():
                snapshot.load()
        except (FileNotFoundError, UntrustedFileError):
            return None
        return Result(record, self._read_optimizer(rung, index), n_epochs=0)

    def write(self, result: Result, epoch: int) -> NetworkRecord:
        """Write a candidate and return its record with files in place of weights."""
        rung = self._rung(epoch)
        if result.optimizer is not None:
            storage.write_tensors(_optimizer_path(rung, result.index), *result.optimizer)
        record = result.record
        new = {key: snapshot for key, snapshot in record.snapshots.items() if snapshot.state is not None}
        written = rung.write(self.name, replace(record, snapshots=new))
        return replace(written, snapshots=record.snapshots | written.snapshots)

    def read_optimizer(self, index: int, epoch: int) -> State | None:
        """Return the state of a candidate's optimizer, or None if it can't be trusted."""
        return self._read_optimizer(self._rung(epoch), index)

    def read_spectra(self, epoch: int, settings: str) -> tuple[NDArray[np.intp], NDArray[np.float64], float] | None:
        """Return candidates, their spectra, and the seconds that these took."""
        try:
            arrays = storage.read_arrays(self._spectra_path(epoch, settings))
            return arrays["candidates"], arrays["spectra"], float(arrays["seconds"])
        except (FileNotFoundError, UntrustedFileError, KeyError, TypeError, ValueError):
            return None

    def write_spectra(
        self, epoch: int, settings: str, candidates: NDArray[np.intp], spectra: NDArray[np.float64], seconds: float
    ) -> None:
        """Write spectra of candidates at an epoch."""
        arrays = {"candidates": candidates, "spectra": spectra, "seconds": np.array(seconds)}
        storage.write_arrays(self._spectra_path(epoch, settings), arrays)

    def _rung(self, epoch: int) -> PopulationDirectory:
        if epoch not in self._opened:
            rung = PopulationDirectory(self.path / f"epoch-{epoch:04d}")
            storage.check_writable(rung.networks, caller=_CALLER)
            rung.open(self.name, {"name": self.path.resolve().name, "call": self.call}, anew=False)
            (rung.path / "optimizers").mkdir(exist_ok=True)
            self._opened[epoch] = rung
        return self._opened[epoch]

    def _spectra_path(self, epoch: int, settings: str) -> Path:
        return self._rung(epoch).path / f"spectra-{settings[:16]}.npz"

    @staticmethod
    def _read_optimizer(rung: PopulationDirectory, index: int) -> State | None:
        try:
            tensors, attributes = storage.read_state(_optimizer_path(rung, index))
        except (FileNotFoundError, UntrustedFileError):
            return None
        return (tensors, attributes) if isinstance(attributes, dict) else None


def _optimizer_path(rung: PopulationDirectory, index: int) -> Path:
    return rung.path / "optimizers" / f"{index:05d}.safetensors"


def merged(records: list[NetworkRecord]) -> NetworkRecord:
    """Return the last of the records of one candidate, with the snapshots of all."""
    snapshots: dict[str, Snapshot] = {}
    for record in records:
        snapshots |= record.snapshots
    return replace(records[-1], snapshots=snapshots)
