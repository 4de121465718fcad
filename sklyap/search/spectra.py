"""The spectra that a search looks at: few sequences, in float32, because they count in its budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from sklyap.exceptions import reason_of
from sklyap.population import NetworkPopulation
from sklyap.runtime import unwarned
from sklyap.search.knowledge import Knowledge
from sklyap.spectrum import LyapunovSpectrumTransformer

__all__ = ["default_transformer", "kept_epochs", "read_population", "timed_spectra", "why_none"]

N_POINTS = 32
"""Points of relative index that spectra of different sizes are interpolated at."""


def default_transformer(sequences: Any, *, n_jobs: int | None = None) -> LyapunovSpectrumTransformer:
    """Return what computes the spectra of a search, unless the user gives another."""
    return LyapunovSpectrumTransformer(
        sequences, n_exponents=N_POINTS, align="interpolate", dtype="float32", on_error="warn", n_jobs=n_jobs
    )


def timed_spectra(transformer: BaseEstimator, networks: Sequence[Any]) -> tuple[NDArray[np.float64], float]:
    """Return the spectra of networks, a row of NaN for one that has none, and the seconds they took."""
    begin = time.perf_counter()
    with unwarned():  # annihilated directions and networks without a spectrum are what a search meets all the time
        values = np.asarray(clone(transformer).fit_transform(networks), dtype=np.float64)
    return values, time.perf_counter() - begin


def read_population(
    population: NetworkPopulation, transformer: BaseEstimator | None, *, epochs: Sequence[int] | None = None
) -> tuple[Knowledge, float]:
    """Return what is known of a population, and the seconds that its spectra took.

    Parameters
    ----------
    population : NetworkPopulation
    transformer : estimator or None
        Computes spectra, at whole epochs that every network was kept at; None does without.
    epochs : sequence of int, optional
        Of the spectra; by default all that there are, the end left out.
    """
    lengths = [len(record.losses) for record in population.records]
    longest = max(lengths, default=0)
    losses = np.array([np.pad(r.losses, (0, longest - len(r.losses)), mode="edge") for r in population.records])
    wanted = list(kept_epochs(population) if epochs is None else epochs)
    known = Knowledge(population.params, losses, kept=wanted, networks_at=population.networks)
    seconds = 0.0
    if transformer is not None:
        for epoch in wanted:
            known.spectra[epoch], took = timed_spectra(transformer, population.networks(epoch))
            seconds += took
            if np.isnan(known.spectra[epoch]).all():
                raise ValueError(
                    f"None of the {len(population)} networks of a population has a spectrum at epoch {epoch}. Do its "
                    f"sequences fit? The first: {why_none(transformer, population.networks(epoch)[0])}"
                )
    return known, seconds


def why_none(transformer: BaseEstimator, network: Any) -> str:
    """Return why a network has no spectrum along the sequences of a transformer."""
    strict = clone(transformer)
    if "on_error" in strict.get_params():
        strict.set_params(on_error="raise")
    try:
        strict.fit_transform([network])
    except Exception as error:
        return reason_of(error)
    return "its exponents are not numbers"


def kept_epochs(population: NetworkPopulation) -> list[int]:
    """Return the whole epochs at which every network of a population was kept, the end left out."""
    common = set.intersection(*(set(record.snapshots) for record in population.records))
    numbers = sorted(float(key) for key in common if key not in ("last", "best"))
    return [int(number) for number in numbers if number.is_integer()]
