"""Load: 10,000 tiny networks through the transformer, 100,000 records in a population.

Time and memory per network, and open files, at a tenth of the size and at the full size: flat if nothing piles up. Run

    python -m benchmarks.load [--networks 10000] [--records 100000]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import machine
from sklyap import LyapunovSpectrumTransformer, NetworkPopulation, RNNClassifier, train_population
from sklyap.population.description import identity
from sklyap.population.directory import PopulationDirectory, _seal
from sklyap.runtime import one_thread


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--records", type=int, default=100_000)
    options = parser.parse_args()
    print(f"Measured {machine()}.")
    rows = []
    for row in loads(options.networks, options.records):
        print(" ", *row.values(), file=sys.stderr)
        rows.append(row)
    print(pd.DataFrame(rows).to_string(float_format="{:.3g}".format))


def loads(n_networks: int, n_records: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each load and size; a number of 0 leaves loads out."""
    with tempfile.TemporaryDirectory() as folder:
        for n in (n_networks // 10, n_networks) if n_networks else ():
            for memory in (None, Path(folder) / f"cache-{n}"):
                name = "spectra" if memory is None else "spectra, into a cache"
                yield measured(name, n, lambda n=n, memory=memory: spectra(n, memory))
            yield measured("spectra, from a cache", n, lambda n=n: spectra(n, Path(folder) / f"cache-{n}"))
        for n in (n_records // 10, n_records) if n_records else ():
            directory = many_records(Path(folder) / f"population-{n}", n)
            yield measured("NetworkPopulation.load", n, lambda d=directory: NetworkPopulation.load(d))
            loaded = NetworkPopulation.load(directory)
            yield measured("to_frame", n, loaded.to_frame)


def measured(name: str, n: int, call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a call on `n` networks takes."""
    before, start, cpu = _resident(), time.perf_counter(), time.process_time()
    result = call()
    cpu, seconds, after = time.process_time() - cpu, time.perf_counter() - start, _resident()
    del result
    return {
        "load": name,
        "networks": n,
        "s": seconds,
        "CPU s": cpu,
        "CPU ms per network": 1e3 * cpu / n,
        "kB per network": (after - before) / n,
        "peak, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "open files": len(os.listdir("/proc/self/fd")),
    }


def spectra(n: int, memory: Path | None) -> np.ndarray:
    """Compute the spectra of `n` networks of four units."""
    torch.manual_seed(0)
    network = torch.nn.GRU(1, 4)
    networks = []
    for _ in range(n):
        networks.append(copy.deepcopy(network))
        torch.nn.init.normal_(networks[-1].weight_hh_l0)
    X = np.random.default_rng(0).standard_normal((2, 10, 1))
    with one_thread():
        return LyapunovSpectrumTransformer(X, memory=memory).fit_transform(networks)


def many_records(directory: Path, n: int) -> Path:
    """Write a population of `n` networks: one that is trained, and its files under other numbers."""
    X = np.random.default_rng(0).standard_normal((20, 5, 1)).astype(np.float32)
    base = RNNClassifier("rnn", 4, max_epochs=5, device="cpu")
    train_population(base, {"lr": [0.01]}, X, np.arange(20) % 2, random_state=0, directory=directory, verbose=0)
    storage = PopulationDirectory(directory)
    manifest = json.loads(storage.manifest.read_text())
    manifest["call"]["networks"] *= n
    storage.manifest.write_text(json.dumps(manifest))
    call = identity(manifest["call"])
    content = json.loads((storage.networks / "00000.json").read_text())
    for index in range(n):
        _write_record(storage, content, call, index)
    return directory


def _write_record(storage: PopulationDirectory, content: dict[str, Any], call: str, index: int) -> None:
    snapshots = {
        key: {**item, "file": f"{index:05d}-epoch-{key}.safetensors"} for key, item in content["snapshots"].items()
    }
    own = {**content, "call": call, "index": index, "snapshots": snapshots}
    own.pop("sha256")
    # Not by storage, which waits for the disk after each.
    (storage.networks / f"{index:05d}.json").write_text(json.dumps({**own, "sha256": _seal(own)}, indent=1))


def _resident() -> float:
    """Return the memory of this process in kB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


if __name__ == "__main__":
    main()
