"""Networks of a population on the disk: what is written is sealed, and what is read is checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from sklyap import storage
from sklyap.exceptions import UntrustedFileError
from sklyap.population.claims import LOCKS, Claim, ForeignDirectoryError, file_lock
from sklyap.population.description import describe, recall
from sklyap.population.records import NetworkRecord, Origin, Snapshot

__all__ = ["PopulationDirectory"]

_FORMAT = 1
_MOST_RECORD = 2**26  # bytes: a history of some hundred thousand epochs
_SNAPSHOT_FILE = re.compile(r"[\w.+-]{1,40}\.safetensors")  # after the number of the network
_OWN_FILE = re.compile(r"\d{5,}(\.json|-epoch-[\w.+-]{1,40}\.safetensors)")
_RECORD_FILE = re.compile(r"\d{5,}\.json")
_OPTIONAL_FLOAT = (float, type(None))
_RECORD = {
    "call": str,
    "index": int,
    "params": dict,
    "seed": int,
    "duration": float,
    "reason": (str, type(None)),
    "history": dict,
    "snapshots": dict,
}
_MANIFEST = {
    "format": int,
    "name": str,
    "call": {"random_state": int, "estimator": {"class": dict, "params": dict}, "networks": list},
}
_SNAPSHOT = {
    "epoch": float,
    "train_loss": _OPTIONAL_FLOAT,
    "valid_loss": _OPTIONAL_FLOAT,
    "file": str,
    "sha256": str,
}


class PopulationDirectory:
    """A directory that holds a population: one JSON file of the call, and the files of each network.

    The files of a network are its snapshots and then, written last, a JSON record with their checksums: a
    network is finished when its record is there.
    """

    def __init__(self, path: str | Path) -> None:
        if not isinstance(path, str | PathLike):
            raise TypeError(f"The 'directory' parameter must be a path. Got {path!r} instead.")
        if not str(path):
            raise ValueError("The 'directory' parameter must be a path. Got an empty string instead.")
        self.path = Path(path)
        self.networks = self.path / "networks"
        self.manifest = self.path / "population.json"
        self.mark = self.path / "call.json"

    def claim(self, call: str, *, wait: bool) -> Claim:
        """Return a claim on the directory, which no two processes hold at once.

        Where another holds it for the same call, the claim waits for that one's end if `wait` is set.

        Raises
        ------
        OSError
            If the directory can't be written to, or is in use for another call.
        """
        storage.check_writable(self.networks)
        self.check_files()
        return Claim(self.path, lambda: wait and self.belongs_to(call))

    def check_files(self) -> None:
        """Raise IsADirectoryError if a directory is in the place of a file, which networks are then trained for."""
        with os.scandir(self.networks) as entries:
            folders = [Path(entry.path) for entry in entries if entry.is_dir() and _OWN_FILE.fullmatch(entry.name)]
        locks = (self.path / name for name in LOCKS)
        storage.check_files([self.manifest, self.mark, *locks, *folders])

    def open(self, call: str, manifest: Mapping[str, Any], *, anew: bool) -> None:
        """Prepare the directory, which has been claimed, for the networks of `call`; `anew` removes those of another.

        Who writes for another call from now on is refused.
        """
        with file_lock(self.path, "write.lock"):
            if anew:
                self.empty()
            storage.write_json(self.manifest, {"format": _FORMAT, **manifest})
            storage.write_json(self.mark, {"call": call})
        self.tidy()

    def empty(self) -> None:
        """Remove the files of all networks, and no others."""
        for path in self.networks.iterdir():
            if _OWN_FILE.fullmatch(path.name):
                path.unlink()

    def tidy(self) -> None:
        """Remove what killed writers left; whoever holds the claim may call it while nobody writes."""
        folders = [path for path in self.path.iterdir() if path.is_dir() and not path.is_symlink()]
        for directory in (self.path, *folders):
            storage.remove_stale_temporaries(directory, older_than=0.0)

    def indices(self) -> list[int]:
        """Return the numbers of the networks that have a record, in order."""
        try:
            names = [entry.name for entry in os.scandir(self.networks)]
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise UntrustedFileError(f"{self.networks} must be the folder of the networks. It is a file.") from error
        return sorted(int(name[:-5]) for name in names if _RECORD_FILE.fullmatch(name))

    def read_manifest(self) -> dict[str, Any]:
        """Return the description of the population's call."""
        manifest = storage.read_json(self.manifest, {"format": int})
        if manifest["format"] != _FORMAT:
            raise UntrustedFileError(
                f"{self.manifest} has format {manifest['format']}; this version of sklyap reads format {_FORMAT}."
            )
        storage.check_schema(manifest, _MANIFEST, self.manifest, "the file")
        for params in manifest["call"]["networks"]:
            storage.check_schema(params, dict, self.manifest, "'networks'")
        return manifest

    def belongs_to(self, call: str) -> bool:
        """Tell whether this process sees the directory that was opened for `call`.

        A worker on another machine may not; what it trains is then written where the call was made.
        """
        try:
            return storage.read_json(self.mark, {"call": str})["call"] == call
        except (OSError, UntrustedFileError):
            return False

    def _belongs_to_another(self, call: str) -> bool:
        try:
            return storage.read_json(self.mark, {"call": str})["call"] != call
        except (OSError, UntrustedFileError):
            return False

    def write(self, call: str, record: NetworkRecord) -> NetworkRecord:
        """Write a network and return its record with files in place of the weights."""
        try:
            return self._write(call, record)
        except ForeignDirectoryError:
            raise
        except OSError as error:  # a full disk, which Python does not name
            message = f"network {record.index} could not be written to {self.networks} ({error.strerror})"
            if not self.networks.is_dir():
                raise OSError(error.errno, f"{message}; it was removed while networks were trained") from error
            raise OSError(error.errno, f"{message}; the finished ones are kept, call again to go on") from error

    def _write(self, call: str, record: NetworkRecord) -> NetworkRecord:
        # Under a lock, so that the directory can't be opened for another call between the look at its mark and the
        # last file.
        with file_lock(self.path, "write.lock"):
            if self._belongs_to_another(call):
                raise ForeignDirectoryError(
                    f"network {record.index} was not written: {self.path} has been taken over by another call"
                )
            return self._write_files(call, record)

    def _write_files(self, call: str, record: NetworkRecord) -> NetworkRecord:
        snapshots: dict[str, Snapshot] = {}
        written: dict[int, Snapshot] = {}  # the last epoch may go by its number and as "last": one file
        for key, snapshot in record.snapshots.items():
            if id(snapshot) not in written:
                assert snapshot.state is not None
                path = self.networks / f"{record.index:05d}-epoch-{key}.safetensors"
                checksum = storage.write_tensors(path, *snapshot.state)
                written[id(snapshot)] = replace(snapshot, state=None, path=path, checksum=checksum)
            snapshots[key] = written[id(snapshot)]
        content = {
            "call": call,
            "index": record.index,
            "params": describe(record.params),
            "seed": record.seed,
            "duration": record.duration,
            "reason": record.reason,
            "history": {name: column.tolist() for name, column in record.history.items()},
            "snapshots": {key: _describe_snapshot(snapshot) for key, snapshot in snapshots.items()},
        }
        storage.write_json(self._record_path(record.index), {**content, "sha256": _seal(content)})
        return replace(record, snapshots=snapshots)

    def read(self, call: str, index: int) -> NetworkRecord:
        """Return the record of a network.

        Raises
        ------
        FileNotFoundError
            If the network is not there.
        UntrustedFileError
            If the record is not what this class writes for `call`; the weights are not looked at.
        """
        path = self._record_path(index)
        content = storage.read_json(path, _RECORD, directory=self.networks, limit=_MOST_RECORD)
        seal = content.pop("sha256", None)
        if content["call"] != call or content["index"] != index:
            raise UntrustedFileError(f"{path} is the record of another network or population.")
        stem = path.stem
        snapshots = {key: self._snapshot(path, stem, key, item) for key, item in content["snapshots"].items()}
        if content["reason"] is None and "last" not in snapshots:
            raise UntrustedFileError(f"{path} has no snapshot of the end of training.")
        history = _columns(content["history"], path)
        if seal != _seal(content):
            raise UntrustedFileError(f"{path} was changed: its content does not have the SHA-256 that it should name.")
        return NetworkRecord(
            index=index,
            params=recall(content["params"]),
            seed=content["seed"],
            duration=content["duration"],
            history=history,
            snapshots=snapshots,
            reason=content["reason"],
        )

    def take(self, call: str, task: Any) -> NetworkRecord:
        """Return the record that `call` left of the network that `task` describes, its weights checked.

        Raises
        ------
        FileNotFoundError, UntrustedFileError
            As :meth:`read`; also if a file of weights is missing or does not hold such a network.
        """
        record = self.read(call, task.index)
        path = self._record_path(task.index)
        if record.seed != task.seed or describe(record.params) != describe(recall(describe(task.params))):
            raise UntrustedFileError(f"{path} has another seed or other hyperparameters than this network.")
        record = replace(record, params=task.params, origin=Origin("", task.estimator))
        record.verify()
        return record

    def _record_path(self, index: int) -> Path:
        return self.networks / f"{index:05d}.json"

    def _snapshot(self, record: Path, own: str, key: str, item: Any) -> Snapshot:
        storage.check_schema(item, _SNAPSHOT, record, f"snapshot {key!r}")
        stem, _, rest = item["file"].partition("-epoch-")
        if stem != own or not _SNAPSHOT_FILE.fullmatch(rest):
            raise UntrustedFileError(
                f"{record} names a file outside its directory, or of another network: {item['file']!r:.80}."
            )
        losses = {name: item[name] for name in ("epoch", "train_loss", "valid_loss")}
        return Snapshot(**losses, path=self.networks / item["file"], checksum=item["sha256"])


def _seal(content: dict[str, Any]) -> str:
    """Return the checksum of a record, which tells a digit that the disk has changed from a loss."""
    return storage.sha256(json.dumps(content, sort_keys=True).encode())


def _describe_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    assert snapshot.path is not None
    return {
        "epoch": snapshot.epoch,
        "train_loss": snapshot.train_loss,
        "valid_loss": snapshot.valid_loss,
        "file": snapshot.path.name,
        "sha256": snapshot.checksum,
    }


def _columns(history: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    columns = {}
    for name, values in history.items():
        if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
            raise UntrustedFileError(f"{path} must hold a list of numbers in {name!r} of its history.")
        try:
            columns[name] = np.array(values, dtype=np.float64)
        except OverflowError as error:
            raise UntrustedFileError(f"{path} has a number in {name!r} of its history that no float holds.") from error
    if len({len(column) for column in columns.values()}) > 1:
        raise UntrustedFileError(f"{path} has columns of different length in its history.")
    return columns
