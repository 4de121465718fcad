"""What kills, poisoned files, full disks and other processes do to what is on the disk: nothing is lost or executed.

A few tries of each run with the other tests; ``make test-faults`` runs hundreds, for some minutes, and prints how
many there were.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from sklyap import LyapunovHalvingSearch, LyapunovSpectrumTransformer, NetworkPopulation, RNNClassifier
from sklyap import train_population as train
from sklyap.exceptions import UntrustedFileError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="starts processes by fork"),
]

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 8, 2)).astype(np.float32)
y = np.arange(60) % 3
FORK = multiprocessing.get_context("fork")
N = 8
COUNTS: Counter[str] = Counter()


def population(directory, *, seed=0, max_epochs=6, **options):
    base = RNNClassifier("gru", hidden_size=4, max_epochs=max_epochs, batch_size=16, device="cpu")
    return train(base, {"lr": [0.01]}, X, y, n_networks=N, random_state=seed, directory=directory, verbose=0, **options)


def search(directory):
    base = RNNClassifier("gru", hidden_size=4, max_epochs=4, batch_size=16, device="cpu")
    return LyapunovHalvingSearch(
        base, {"lr": [0.001, 0.003, 0.01, 0.03]}, X[:4], n_candidates=4, factor=2, max_epochs=4, promote_by="loss",
        random_state=0, directory=directory, verbose=0,
    ).fit(X, y).population_  # fmt: skip


def bits(networks):
    """Return the weights of every network at the end of its training."""
    return [[t.numpy().tobytes() for t in n.export_state()[0].values()] for n in networks.networks()]


@pytest.fixture(scope="module")
def expected():
    return {population: bits(population(None)), search: bits(search(None))}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stored") / "population"
    population(directory)
    return directory


@pytest.fixture
def report(capsys, request):
    """Count what happens, and print it at the end of a campaign."""
    counts = COUNTS
    counts.clear()
    counts.update({"lost": 0, "executed": 0, "hangs": 0})
    yield counts
    if request.node.get_closest_marker("faults"):
        with capsys.disabled():
            print(f"\n{request.node.name}: {dict(counts)}", end="")


def tries(few, many):
    return pytest.mark.parametrize("n_tries", [few, pytest.param(many, marks=pytest.mark.faults)])


def started(function, *args):
    process = FORK.Process(target=function, args=args)
    process.start()
    return process


def ended(process, seconds=120):
    process.join(seconds)
    hangs = process.is_alive()
    COUNTS["hangs"] += hangs
    if hangs:
        process.kill()
    return not hangs


def in_child(function, *args):
    """Run in a child, with one thread, and say by the exit status whether the error was a sentence."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        function(*args)
    except (OSError, ValueError) as error:
        os._exit(3 if "'directory' parameter" in str(error) else 4)
    except BaseException:
        os._exit(5)
    os._exit(0)


# -- kills --------------------------------------------------------------------------------------------


@tries(2, 40)
@pytest.mark.parametrize("run", [population, search])
def test_killed_runs_resume_to_the_same_bits(tmp_path, expected, report, run, n_tries):
    generator = random.Random(0)
    for i in range(n_tries):
        directory = tmp_path / str(i)
        start = time.monotonic()
        for _ in range(2):  # killed, begun again, and killed again
            process = started(in_child, run, directory)
            time.sleep(generator.uniform(0, 0.6))
            os.kill(process.pid, signal.SIGKILL)
            assert ended(process)
            report["kills"] += 1
        records = list(directory.rglob("[0-9]*.json"))
        report["networks on the disk"] += len(records)
        before = {path: path.read_bytes() for path in records}
        assert bits(run(directory)) == expected[run], f"try {i}: other bits"
        if run is population:  # a finished network is not written again
            lost = [path for path, content in before.items() if path.read_bytes() != content]
            report["lost"] += len(lost)
            assert not lost, f"try {i}: trained again {lost}"
        assert not list(directory.rglob("*.partial"))
        report["slowest, s"] = max(report["slowest, s"], round(time.monotonic() - start))


# -- files --------------------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def flip(content, generator, _):
    at = generator.randrange(8 * len(content))
    content[at // 8] ^= 1 << at % 8
    return content


def overwrite(content, generator, _):
    at = generator.randrange(len(content))
    n = generator.randrange(1, 64)
    content[at : at + n] = generator.randbytes(n)
    return content


def cut(content, generator, _):
    return content[: generator.randrange(len(content))]


def insert(content, generator, _):
    at = generator.randrange(len(content))
    return content[:at] + generator.randbytes(8) + content[at:]


def zero(content, generator, _):
    at = generator.randrange(len(content))
    content[at : at + 512] = bytes(len(content[at : at + 512]))
    return content


def poison(content, generator, victim):
    return pickle.dumps(Bomb(victim))


def other_value(content, generator, _):
    """Change a value of a JSON file, or drop it, and keep the rest."""
    try:
        tree = json.loads(content)
    except ValueError:
        return flip(content, generator, _)
    node, parents = tree, []
    while isinstance(node, dict | list) and len(node):
        key = generator.choice(list(node) if isinstance(node, dict) else range(len(node)))
        parents.append((node, key))
        node = node[key]
    parent, key = generator.choice(parents)
    values = [None, True, -1, 0.001, 10**400, "x", [], {}, [[[]]], float("nan"), "../../../etc/passwd"]
    if generator.random() < 0.3:
        del parent[key]
    else:
        parent[key] = generator.choice(values)
    return json.dumps(tree).encode()


MUTATIONS = [flip, overwrite, cut, insert, zero, poison, other_value]


@tries(8, 600)
def test_mutated_files_lose_and_execute_nothing(tmp_path, expected, stored, report, n_tries):
    generator = random.Random(1)
    for i in range(n_tries):
        directory = shutil.copytree(stored, tmp_path / "mutated")
        paths = [p for p in sorted(directory.rglob("*")) if p.is_file() and p.stat().st_size]
        path = generator.choice([*paths, *(p for p in paths if p.suffix == ".json")])
        change = generator.choice(MUTATIONS)
        report[change.__name__] += 1
        path.write_bytes(change(bytearray(path.read_bytes()), generator, tmp_path / "executed"))
        try:
            loaded = NetworkPopulation.load(directory)
            for record in loaded.records:
                try:
                    found = [t.numpy().tobytes() for t in record.network().export_state()[0].values()]
                    assert found == expected[population][record.index], f"try {i}: {change.__name__} of {path.name}"
                except UntrustedFileError:
                    report["named"] += 1
        except (ValueError, OSError):
            report["refused"] += 1
        try:
            assert bits(population(directory)) == expected[population], f"try {i}: {change.__name__} of {path.name}"
        except ValueError:  # of a manifest of another call
            report["refused"] += 1
            assert path.name == "population.json"
        report["executed"] += (tmp_path / "executed").exists()
        assert not report["executed"], f"try {i}: {change.__name__} of {path.name} was executed"
        shutil.rmtree(directory)


@tries(8, 200)
def test_mutated_searches_lose_and_execute_nothing(tmp_path, expected, report, n_tries):
    generator = random.Random(3)
    stored = tmp_path / "stored"
    search(stored)
    for i in range(n_tries):
        directory = shutil.copytree(stored, tmp_path / "mutated")
        for path in directory.glob("epoch-000[24]/networks/*"):  # so that the search goes on from what is left
            path.unlink()
        paths = [p for p in sorted(directory.rglob("*")) if p.is_file() and p.stat().st_size]
        path, change = generator.choice(paths), generator.choice(MUTATIONS)
        report[change.__name__] += 1
        path.write_bytes(change(bytearray(path.read_bytes()), generator, tmp_path / "executed"))
        try:
            assert bits(search(directory)) == expected[search], f"try {i}: {change.__name__} of {path.name}"
        except ValueError:  # of a manifest of another search
            report["refused"] += 1
            assert path.name == "search.json", f"try {i}: {change.__name__} of {path.name}"
        report["executed"] += (tmp_path / "executed").exists()
        assert not report["executed"], f"try {i}: {change.__name__} of {path.name} was executed"
        shutil.rmtree(directory)


@tries(4, 300)
def test_mutated_caches_change_no_number(tmp_path, report, n_tries):
    torch.manual_seed(0)
    networks = [torch.nn.GRU(2, 3)]
    transformer = LyapunovSpectrumTransformer(X[:3], memory=tmp_path)
    rows, generator = transformer.fit_transform(networks), random.Random(2)
    (path,) = tmp_path.rglob("*.npz")
    for i in range(n_tries):
        change = generator.choice(MUTATIONS[:-1])
        report[change.__name__] += 1
        path.write_bytes(change(bytearray(path.read_bytes()), generator, tmp_path / "executed"))
        np.testing.assert_array_equal(transformer.fit_transform(networks), rows, f"try {i}: {change.__name__}")
        report["executed"] += (tmp_path / "executed").exists()
        assert not report["executed"]


# -- several processes --------------------------------------------------------------------------------


@tries(1, 15)
def test_two_calls_on_one_directory_do_not_mix(tmp_path, expected, report, n_tries):
    for i in range(n_tries):
        directory = tmp_path / str(i)
        processes = [started(in_child, partial(population, directory, seed=seed)) for seed in (0, 1)]
        assert all(map(ended, processes)), "hangs"
        codes = sorted(process.exitcode for process in processes)
        report[f"ended with {codes}"] += 1
        assert codes == [0, 3], "one trains, the other is told"
        seed = [process.exitcode for process in processes].index(0)
        other = expected[population] if seed == 0 else bits(population(None, seed=1))
        assert bits(NetworkPopulation.load(directory)) == other


@tries(1, 10)
def test_the_same_call_twice_agrees(tmp_path, expected, report, n_tries):
    for i in range(n_tries):
        directory = tmp_path / str(i)
        processes = [started(in_child, population, directory) for _ in range(2)]
        assert all(map(ended, processes)), "hangs"
        assert [process.exitcode for process in processes] == [0, 0]
        assert bits(NetworkPopulation.load(directory)) == expected[population]
        report["pairs"] += 1


@tries(1, 10)
def test_processes_share_a_cache(tmp_path, report, n_tries):
    torch.manual_seed(0)
    networks = [torch.nn.GRU(2, size) for size in range(2, 8)]
    rows = LyapunovSpectrumTransformer(X[:3], n_exponents=2).fit_transform(networks)

    def work(memory):
        found = LyapunovSpectrumTransformer(X[:3], n_exponents=2, memory=memory).fit_transform(networks)
        assert np.array_equal(found, rows)

    for i in range(n_tries):
        processes = [started(in_child, work, tmp_path / str(i)) for _ in range(3)]
        assert all(map(ended, processes)), "hangs"
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert len(list((tmp_path / str(i)).rglob("*.npz"))) == len(networks)
        report["trios"] += 1


# -- disks --------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.faults
def test_full_disk_loses_nothing(small_disk, expected, report):
    filler = small_disk / "filler"
    for free in range(8, 120, 8):
        directory = small_disk / "population"
        shutil.rmtree(directory, ignore_errors=True)
        filler.write_bytes(bytes((256 - free) * 1024))
        with pytest.raises(OSError, match=r"No space left|write to"):
            for _ in range(20):
                population(directory)
                filler.write_bytes(bytes(filler.stat().st_size + 4096))
        if (directory / "population.json").exists():
            report["networks on the disk"] += len(NetworkPopulation.load(directory))
        filler.unlink()
        assert bits(population(directory)) == expected[population]
        report["full disks"] += 1


@pytest.mark.faults
def test_disk_that_becomes_read_only_is_named(small_disk, expected, report):
    directory = small_disk / "population"
    population(directory)
    (directory / "networks" / "00003.json").unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(OSError, match=r"'directory' parameter|could not be written|Read-only"):
            population(directory)
        assert len(NetworkPopulation.load(directory)) == N - 1
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert bits(population(directory)) == expected[population]
    report["read-only disks"] += 1
