"""The networks in a directory of a population or of a search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sklyap.population import NetworkPopulation, NetworkRecord

__all__ = ["population_in"]


def population_in(directory: str | Path) -> NetworkPopulation:
    """Return the networks in a directory of `train_population`, or the candidates in one of LyapunovHalvingSearch.

    A search keeps a population for every rung; each candidate is taken from the last that it got to.

    Parameters
    ----------
    directory : path-like
        Where they were trained.

    Returns
    -------
    NetworkPopulation

    Raises
    ------
    FileNotFoundError
        If there is neither.
    """
    directory = Path(directory)
    if not any((directory / name).exists() for name in ("search.json", "population.json")):
        inside = [str(path.parent) for path in sorted(directory.glob("*/population.json"))[:1]]
        hint = f" There is one in {inside[0]}." if inside else ""
        raise FileNotFoundError(f"There is no population and no search in {directory}.{hint}")
    if not (directory / "search.json").exists():
        return NetworkPopulation.load(directory)
    latest: dict[int, NetworkRecord] = {}
    for rung in sorted(directory.glob("epoch-*")):
        population = NetworkPopulation.load(rung)
        for record in [*population.records, *population.failures]:
            before = latest.get(record.index)
            snapshots = record.snapshots if before is None else before.snapshots | record.snapshots
            latest[record.index] = replace(record, snapshots=snapshots)
    return NetworkPopulation([latest[index] for index in sorted(latest)])
