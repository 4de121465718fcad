"""A population whose training has been recorded, as a board that reveals what a policy pays for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from sklyap.population import NetworkPopulation
from sklyap.search.belief import Belief
from sklyap.search.checks import params_table
from sklyap.search.knowledge import Board, Knowledge
from sklyap.search.spectra import default_transformer, kept_epochs, read_population, timed_spectra

__all__ = ["RecordedBoard", "Source"]

CALLER = "replay_search"
_TIMED = 8


class RecordedBoard(Board):
    """Candidates whose training has been recorded; it is revealed as a policy asks for it.

    Parameters
    ----------
    source : Source
        The population.
    rows : ndarray of int
        The candidates in it.
    counted_price : float, default=0.0
        Epochs that the budget pays for a spectrum.
    """

    def __init__(self, source: Source, rows: NDArray[np.intp], counted_price: float = 0.0) -> None:
        self.truth = source.truth.take(rows)
        super().__init__(self.truth.params, self.truth.max_epochs)
        self.source, self.rows, self.counted_price = source, rows, counted_price
        self.spectra = {epoch: np.full_like(values, np.nan) for epoch, values in self.truth.spectra.items()}
        self.kept = self.truth.kept
        self.epochs_spent, self.seconds_spent, self.n_spectra = 0, 0.0, 0

    def train(self, who: NDArray[np.intp], epoch: int, budget: float) -> bool:
        """Reveal the losses of candidates up to `epoch`, as many as `budget` allows; tell whether it was all."""
        before = np.maximum(self.reached[who], 0)
        costs = np.maximum(epoch - before, 0)
        affordable = self.spent + np.cumsum(costs) <= budget
        # Sums over the epochs up to each one: those of a candidate are a difference of two.
        sums = self.source.cumulated[self.rows[who]]
        seconds = sums[np.arange(len(who)), np.maximum(epoch, before)] - sums[np.arange(len(who)), before]
        who = who[affordable]
        self.losses[who, :epoch] = self.truth.losses[who, :epoch]
        self.reached[who] = np.maximum(self.reached[who], epoch)
        self.epochs_spent += int(costs[affordable].sum())
        self.seconds_spent += float(seconds[affordable].sum())
        return bool(affordable.all())

    @property
    def spent(self) -> float:
        """What the budget has paid for."""
        return self.epochs_spent + self.counted_price * self.n_spectra

    def look(self, who: NDArray[np.intp], epoch: int) -> None:
        if not self.truth.spectra:
            raise ValueError(
                f"The 'sequences' parameter of {CALLER} must be given for a policy that looks at spectra. Got None."
            )
        at = self.truth.last_kept(epoch)
        self.spectra.setdefault(epoch, np.full_like(self.truth.spectra[at], np.nan))
        self.spectra[epoch][who] = self.truth.spectra[at][who]
        self.n_spectra += len(who)
        self.seconds_spent += len(who) * self.source.seconds_per_spectrum

    def said(self, belief: Any, who: NDArray[np.intp], epoch: int) -> dict[str, NDArray[np.float64]]:
        # A model's word on a network is the same in every repetition.
        return {name: values[self.rows[who]] for name, values in self.source.said(belief, epoch).items()}


class Source:
    """A recorded population, and what models have said of its networks."""

    def __init__(self, truth: Knowledge, seconds: NDArray[np.float64], price: float) -> None:
        self.truth = truth
        # Epochs and seconds of a spectrum.
        self.price, self.seconds_per_spectrum = price, price * mean_seconds(seconds)
        self.cumulated = np.pad(np.cumsum(seconds, axis=1), ((0, 0), (1, 0)))
        self._said: dict[tuple[int, int], tuple[Any, dict[str, NDArray[np.float64]]]] = {}

    @classmethod
    def of(
        cls,
        population: Any,
        sequences: Any,
        transformer: Any,
        names: Sequence[str],
        *,
        spectra: bool,
        price: float | None = None,
    ) -> Source:
        """Read a population, with its spectra where they are wanted."""
        if isinstance(population, Knowledge):
            return cls(population, np.full(population.losses.shape, np.nan), np.nan if price is None else price)
        if not isinstance(population, NetworkPopulation) or not len(population):
            raise TypeError(
                f"The 'population' parameter of {CALLER} must be a NetworkPopulation with networks that did not fail. "
                f"Got {population!r:.80} instead."
            )
        if spectra and not kept_epochs(population):
            raise ValueError(
                f"The 'population' parameter of {CALLER} must hold networks that were kept at whole epochs before the "
                'end, for policies that look at spectra: train_population(..., snapshot_epochs=(0, 1, 3, "last")). Got '
                f"{', '.join(population.records[0].snapshots)}."
            )
        if spectra and sequences is None:
            raise ValueError(
                f"The 'sequences' parameter of {CALLER} must be given for a policy that looks at spectra. Got None."
            )
        if spectra:
            transformer = (
                default_transformer(sequences)
                if transformer is None
                else clone(transformer).set_params(sequences=sequences)
            )
        known, _ = read_population(population, transformer if spectra else None)
        records = population.records
        known.params = params_table([record.params for record in records], records[0].estimator(), names)
        seconds = np.full(known.losses.shape, np.nan)
        for row, record in enumerate(records):
            durations = record.history.get("dur", np.empty(0))
            seconds[row, : len(durations)] = durations
        if not spectra:
            return cls(known, seconds, 0.0)
        if price is not None:
            return cls(known, seconds, price)
        # A cache of spectra would make them free, so some are computed anew.
        few = list(population.networks(known.kept[0]))[:_TIMED]
        took = timed_spectra(clone(transformer).set_params(memory=None), few)[1] / len(few)
        return cls(known, seconds, took / mean_seconds(seconds))

    def said(self, belief: Belief, epoch: int) -> dict[str, NDArray[np.float64]]:
        """Return what the models of a belief say of all networks, which they are asked once."""
        key = id(belief), epoch
        if key not in self._said:
            known = self.truth
            if belief.needs_spectra and epoch not in known.spectra:
                at = known.spectra[known.last_kept(epoch)]
                known = Knowledge(known.params, known.losses, known.spectra | {epoch: at}, known.kept)
            self._said[key] = belief, belief.predict(known, epoch)
        return self._said[key][1]


def mean_seconds(seconds: NDArray[np.float64]) -> float:
    """Return the mean of the seconds that are known, NaN if none are."""
    known = seconds[~np.isnan(seconds)]
    return float(known.mean()) if len(known) else np.nan
