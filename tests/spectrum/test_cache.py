"""The cache of spectra: what was kept comes back, and what is not what was kept is computed again and named."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sklyap import LyapunovSpectrumTransformer
from sklyap.exceptions import SklyapWarning
from sklyap.lyapunov import LyapunovResult
from sklyap.spectrum.cache import FIELDS, SpectrumCache


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return [torch.nn.GRU(2, size) for size in (3, 4)]


X = np.random.default_rng(0).standard_normal((3, 20, 2))


def transformer(memory, **options):
    return LyapunovSpectrumTransformer(X, n_exponents=3, memory=memory, **options)


@pytest.fixture
def cached(networks, tmp_path):
    """A cache with both spectra, the rows, and the files by network."""
    rows = transformer(tmp_path).fit_transform(networks)
    files = sorted(tmp_path.rglob("*.npz"))
    assert len(files) == 2
    return tmp_path, rows, files


def test_every_field_comes_back_to_the_bit(cached, networks):
    memory, rows, files = cached
    fresh, kept = transformer(None), transformer(memory)
    fresh.fit_transform(networks)
    np.testing.assert_array_equal(kept.fit_transform(networks), rows)
    for a, b in zip(fresh.results_, kept.results_, strict=True):
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert sorted(memory.rglob("*.npz")) == files and not list(memory.rglob("*.pkl"))


@pytest.mark.parametrize("wrap", [str, lambda path: path, lambda path: joblib.Memory(path, verbose=0)])
def test_locations(cached, networks, wrap):
    memory, rows, files = cached
    np.testing.assert_array_equal(transformer(wrap(memory)).fit_transform(networks), rows)
    assert sorted(memory.rglob("*.npz")) == files


def test_memory_that_keeps_nothing(networks):
    transformer(joblib.Memory(None)).fit_transform(networks)


@pytest.mark.parametrize(
    ("memory", "error"), [(3, ValueError), ("", ValueError), (["a"], ValueError), (True, ValueError)]
)
def test_memory_that_is_no_place_is_refused(networks, memory, error):
    with pytest.raises(error, match="'memory' parameter of LyapunovSpectrumTransformer"):
        transformer(memory).fit_transform(networks)


def test_memory_that_names_a_file_is_refused(networks, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="'memory' parameter of LyapunovSpectrumTransformer"):
        transformer(tmp_path / "file").fit_transform(networks)


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def forge(path, **changes):
    """Write other values with a right seal."""
    arrays = dict(np.load(path))
    header = json.loads(arrays.pop("header").tobytes())
    numbers = header["numbers"]
    for name, value in changes.items():
        (arrays if isinstance(value, np.ndarray) else numbers)[name] = value
        (numbers if isinstance(value, np.ndarray) else arrays).pop(name, None)
    from sklyap.storage import seal

    header = {"key": header["key"], "numbers": numbers, "sha256": seal([header["key"], numbers], arrays)}
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def swapped(files, tmp_path):
    files[0].write_bytes(files[1].read_bytes())


def truncated(files, tmp_path):
    files[0].write_bytes(files[0].read_bytes()[:-30])


def emptied(files, tmp_path):
    files[0].write_bytes(b"")


def pickled(files, tmp_path):
    files[0].write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))


def pickled_inside(files, tmp_path):
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb(tmp_path / "executed")
    np.savez(files[0], header=bomb)


def none(files, tmp_path):
    forge(files[0], exponents=None)


def words(files, tmp_path):
    forge(files[0], exponents="DivergedError: ...", standard_error="", per_sequence="")


def other_shape(files, tmp_path):
    forge(files[0], standard_error=np.zeros(7))


def fifo(files, tmp_path):
    files[0].unlink()
    os.mkfifo(files[0])


def folder(files, tmp_path):
    files[0].unlink()
    files[0].mkdir()


def leads_out(files, tmp_path):
    files[0].replace(tmp_path / "outside.npz")
    files[0].symlink_to("/etc/passwd")


def sparse(files, tmp_path):
    with open(files[0], "r+b") as file:
        file.truncate(3 * 10**9)


def larger_inside(files, tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, exponents=np.zeros(10**7))
    files[0].write_bytes(buffer.getvalue())


DAMAGES = [
    swapped, truncated, emptied, pickled, pickled_inside, none, words, other_shape, fifo, folder, leads_out, sparse,
    larger_inside,
]  # fmt: skip


CASES = [(damage, on_error, 1) for damage in DAMAGES for on_error in ("raise", "warn")] + [(swapped, "raise", 2)]


@pytest.mark.parametrize(("damage", "on_error", "n_jobs"), CASES)
@pytest.mark.processes
def test_what_was_not_kept_is_computed_again(cached, networks, tmp_path, damage, on_error, n_jobs):
    memory, rows, files = cached
    damage(files, tmp_path)
    tracemalloc.start()
    try:
        with pytest.warns(SklyapWarning, match=files[0].name):
            again = transformer(memory, on_error=on_error, n_jobs=n_jobs).fit_transform(networks)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(again, rows)
    assert not (tmp_path / "executed").exists()
    if damage is not folder:  # which no file replaces
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(transformer(memory).fit_transform(networks), rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_changed_bit_changes_no_number(cached, networks, data):
    memory, rows, files = cached
    content = bytearray(files[0].read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    files[0].write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklyapWarning)
        np.testing.assert_array_equal(transformer(memory).fit_transform(networks), rows)


def test_cache_that_cannot_be_written_is_named(networks, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    rows = transformer(None).fit_transform(networks)
    monkeypatch.setattr("sklyap.storage.write_arrays", full)
    with pytest.warns(SklyapWarning, match=r"could not be kept in .*No space left"):
        np.testing.assert_array_equal(transformer(tmp_path).fit_transform(networks), rows)


def test_result_that_is_no_data_is_not_kept(tmp_path):
    result = LyapunovResult(*[np.zeros(1)] * 3, None, object(), 1.0, 1, 1, 1, 0, True, "")
    with pytest.raises(TypeError, match="can't be kept"):
        SpectrumCache(tmp_path, "test").put("ab", result)


@pytest.mark.processes
def test_threads_and_processes_share_a_cache(networks, tmp_path):
    rows = transformer(None).fit_transform(networks)
    program = (
        "import sys, numpy as np, torch; from sklyap import LyapunovSpectrumTransformer;"
        "torch.manual_seed(0); networks = [torch.nn.GRU(2, size) for size in (3, 4)];"
        "X = np.random.default_rng(0).standard_normal((3, 20, 2));"
        "t = LyapunovSpectrumTransformer(X, n_exponents=3, memory=sys.argv[1]);"
        "np.save(sys.argv[2], t.fit_transform(networks))"
    )
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path / "cache", tmp_path / "rows.npy"])
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found in pool.map(lambda _: transformer(tmp_path / "cache").fit_transform(networks), range(4)):
                np.testing.assert_array_equal(found, rows)
    assert other.wait(timeout=120) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), rows)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2 and not list(tmp_path.rglob("*.partial"))
