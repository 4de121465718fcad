"""Atomic writes, and files that are poisoned, truncated, of the wrong type or outside their directory."""

from __future__ import annotations

import json
import os
import pickle
import stat
import time

import numpy as np
import pytest
import torch

from sklyap import storage
from sklyap.exceptions import UntrustedFileError

READERS = [storage.read_json, storage.read_tensors, storage.read_arrays]


class Bomb:
    """Unpickling it creates the file `path`."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_tensors_round_trip_bitwise(tmp_path):
    path = tmp_path / "net.safetensors"
    weight = torch.randn(3, 4, dtype=torch.float64)
    tensors = {
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "half": torch.randn(2, dtype=torch.float16),
        "count": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "gradient": torch.nn.Parameter(torch.ones(2)),
    }
    digest = storage.write_tensors(path, tensors)
    back = storage.read_tensors(path, checksum=digest)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name


def test_json_and_arrays_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "b": {"c": "é"}, "nan": float("nan"), "inf": float("inf")}
    storage.write_json(tmp_path / "a.json", value)
    back = storage.read_json(tmp_path / "a.json")
    assert np.isnan(back.pop("nan")) and value.pop("nan") and back == value
    arrays = {"x": np.arange(6.0).reshape(2, 3), "y": np.array(["a", "b"])}
    digest = storage.write_arrays(tmp_path / "a.npz", arrays)
    back = storage.read_arrays(tmp_path / "a.npz", checksum=digest)
    assert all(np.array_equal(back[k], v) for k, v in arrays.items())


def test_write_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    storage.write_json(path, {"version": 1})

    def crash(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="disk full"):
        storage.write_json(path, {"version": 2})
    assert storage.read_json(path) == {"version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"], "the temporary file was left behind"


def test_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        events.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def spy_replace(source, target):
        assert os.path.dirname(source) == os.path.dirname(target)
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    storage.write_bytes(tmp_path / "a", b"content")
    assert events == ["file", "rename", "directory"]


def test_objects_are_not_pickled_into_npz(tmp_path):
    for array in (np.array([object()]), np.zeros(2, dtype=[("number", float), ("object", object)])):
        with pytest.raises(ValueError, match=r"pickle.*'x'"):
            storage.write_arrays(tmp_path / "a.npz", {"x": array, "y": np.zeros(2)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", READERS)
def test_poisoned_pickle_does_not_run(tmp_path, read):
    path, victim = tmp_path / "file", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Bomb(victim)))
    with pytest.raises(UntrustedFileError, match="file"):
        read(path)
    torch.save({"weight": Bomb(victim)}, path)
    with pytest.raises(UntrustedFileError, match="file"):
        read(path)
    array = np.empty(1, dtype=object)
    array[0] = Bomb(victim)
    with open(path, "wb") as file:
        np.savez(file, x=array)
    with pytest.raises(UntrustedFileError, match="file"):
        read(path)
    assert not victim.exists()


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kept", [0, 1, 7, 20, 0.5, -1])
def test_truncated_file_is_named(tmp_path, read, kept):
    path = tmp_path / "some-file"
    if read is storage.read_tensors:
        storage.write_tensors(path, {"w": torch.ones(50)})
    elif read is storage.read_arrays:
        storage.write_arrays(path, {"w": np.ones(50)})
    else:
        storage.write_json(path, {"w": list(range(50))})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(UntrustedFileError, match="some-file is truncated"):
        read(path)


def test_absurd_safetensors_headers_are_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    for content in (b"\xff" * 16, len(header).to_bytes(8, "little") + header + b"\0" * 4):
        path.write_bytes(content)
        with pytest.raises(UntrustedFileError, match=r"net\.safetensors"):
            storage.read_tensors(path)


def test_deeply_nested_json_is_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(UntrustedFileError, match=r"deep\.json"):
        storage.read_json(path)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([], "must hold dict in the file. Got list"),
        ({"n": 1}, "no key 'inner'"),
        ({"n": "1", "inner": {"x": 1.0}}, "must hold int in 'n'. Got str"),
        ({"n": True, "inner": {"x": 1.0}}, "must hold int in 'n'. Got bool"),
        ({"n": 1, "inner": 3}, "must hold dict in 'inner'. Got int"),
        ({"n": 1, "inner": {"x": "y"}}, "must hold float or NoneType in 'x'. Got str"),
    ],
)
def test_json_of_wrong_types_is_refused(tmp_path, value, match):
    path = tmp_path / "record.json"
    storage.write_json(path, value)
    schema = {"n": int, "inner": {"x": (float, type(None))}}
    with pytest.raises(UntrustedFileError, match=rf"record\.json .*{match}|record\.json {match}"):
        storage.read_json(path, schema)
    storage.write_json(path, {"n": 1, "inner": {"x": 2}, "more": "welcome"})
    storage.read_json(path, schema)


@pytest.mark.parametrize("read", READERS)
def test_symlink_out_of_the_directory_is_refused(tmp_path, read):
    inside, outside = tmp_path / "inside", tmp_path / "secret"
    inside.mkdir()
    outside.write_text("{}")
    (inside / "file").symlink_to(outside)
    with pytest.raises(UntrustedFileError, match="leads out of"):
        read(inside / "file")
    with pytest.raises(UntrustedFileError, match="leads out of"):
        read(inside / ".." / "secret", directory=inside)
    (inside / "broken").symlink_to(tmp_path / "absent")
    with pytest.raises(UntrustedFileError, match="broken"):
        read(inside / "broken")
    (inside / "loop").symlink_to(inside / "loop")
    with pytest.raises(UntrustedFileError, match="loop"):
        read(inside / "loop")


def test_directory_may_itself_be_a_symlink(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    storage.write_json(link / "a.json", {})
    assert storage.read_json(link / "a.json", directory=link) == {}


@pytest.mark.parametrize("read", READERS)
def test_fifo_does_not_block(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UntrustedFileError, match="not a regular file"):
        read(tmp_path / "fifo")


@pytest.mark.parametrize("read", READERS)
def test_missing_file_is_missing(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="absent"):
        read(tmp_path / "absent")


def test_wrong_checksum_is_refused(tmp_path):
    digest = storage.write_tensors(tmp_path / "a", {"w": torch.ones(2)})
    assert digest == storage.sha256((tmp_path / "a").read_bytes())
    storage.write_tensors(tmp_path / "a", {"w": torch.zeros(2)})
    with pytest.raises(UntrustedFileError, match="not the file that was recorded"):
        storage.read_tensors(tmp_path / "a", checksum=digest)


def test_check_writable(tmp_path):
    assert storage.check_writable(tmp_path / "new" / "nested").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="'directory' parameter of train must be a directory that one can write to"):
        storage.check_writable(tmp_path / "file", caller="train")
    with pytest.raises(OSError, match="directory that one can write to"):
        storage.check_writable(tmp_path / "file" / "below")


def test_only_stale_temporaries_are_removed(tmp_path):
    for name in (".a.json.x.partial", ".b.json.x.partial", "a.json"):
        (tmp_path / name).write_text("")
    old = time.time() - 7200
    os.utime(tmp_path / ".a.json.x.partial", (old, old))
    os.utime(tmp_path / "a.json", (old, old))
    storage.remove_stale_temporaries(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.json.x.partial", "a.json"]
