"""One network of a population through the epochs at which it was kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sklyap.population import NetworkPopulation
from sklyap.validation import check_instance, check_int

__all__ = ["network_of", "networks_through"]


def networks_through(population: Any, epochs: Any, index: int) -> dict[Any, Any]:
    """Return one network of a population by epoch, in the order given.

    Parameters
    ----------
    population : NetworkPopulation
        With snapshots at these epochs.
    epochs : iterable of numbers or "last"
        When to look.
    index : int
        Which network.
    """
    if isinstance(epochs, str) or not isinstance(epochs, Iterable):
        raise TypeError(f"The 'epochs' parameter must be a list of epochs. Got {epochs!r} instead.")
    found = {epoch: network_of(population, epoch, index) for epoch in epochs}
    if not found:
        raise ValueError("The 'epochs' parameter must hold one epoch at least. Got none.")
    return found


def network_of(population: Any, epoch: Any, index: int) -> Any:
    """Return one network of a population as it was at an epoch."""
    check_instance(population, "population", NetworkPopulation)
    check_int(index, "index", low=0, high=len(population) - 1)
    return population.networks(epoch)[index]
