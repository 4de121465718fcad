"""The board of a search that trains: segments through joblib, everything finished on the disk."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm.auto import tqdm

from sklyap.exceptions import FailedNetworkWarning
from sklyap.population import NetworkPopulation
from sklyap.population.network_sequence import NetworkSequence
from sklyap.population.parallel import run_all
from sklyap.population.plan import Plan
from sklyap.population.records import NetworkRecord, Origin
from sklyap.search.directory import SearchDirectory, merged
from sklyap.search.knowledge import Board
from sklyap.search.spectra import timed_spectra
from sklyap.search.worker import Result, Segment, State, run_segment

__all__ = ["LiveBoard"]


class LiveBoard(Board):
    """Candidates that are trained when a policy asks for it.

    Parameters
    ----------
    plan : Plan
        Candidates and data.
    params : DataFrame
        Hyperparameters, one row per candidate.
    max_epochs : int
    transformer : estimator or None
        Computes the spectra.
    settings : str
        Identity of what the spectra depend on beside the networks.
    directory : SearchDirectory or None
    n_jobs : int or None
    bar : tqdm
    """

    def __init__(
        self,
        plan: Plan,
        params: pd.DataFrame,
        max_epochs: int,
        *,
        transformer: Any,
        settings: str,
        directory: SearchDirectory | None,
        n_jobs: int | None,
        bar: tqdm,
    ) -> None:
        super().__init__(params, max_epochs)
        self.plan, self.transformer, self.settings = plan, transformer, settings
        self.directory, self.n_jobs, self.bar = directory, n_jobs, bar
        self.origin = Origin("search" if directory is None else directory.path.resolve().name, plan.estimator)
        self.records: dict[int, NetworkRecord] = {}
        self.optimizers: dict[int, State | None] = {}
        self.spectra_seconds = 0.0
        self.epochs_spent = 0

    # Training

    def train(self, who: NDArray[np.intp], epoch: int) -> None:
        """Train candidates up to `epoch`, those that have not got there and have not failed."""
        due = [int(i) for i in self.alive(who) if self.reached[i] < epoch]
        for index in due if self.directory is not None else ():
            self._take(index, epoch)
        due = [i for i in due if self.reached[i] < epoch and not self.failed[i]]
        segments = [self._segment(index, epoch) for index in due]
        self.bar.set_description_str(f"epoch {epoch}", refresh=False)
        run_all(segments, self.plan.data, n_jobs=self.n_jobs, done=lambda r: self._finish(r, epoch), run=run_segment)

    def _segment(self, index: int, epoch: int) -> Segment:
        start = self.records.get(index)
        optimizer = None
        if start is not None:
            optimizer = self.optimizers.get(index)
            if optimizer is None and self.directory is not None:
                optimizer = self.directory.read_optimizer(index, int(self.reached[index]))
        plan = self.plan
        if start is not None:
            start = replace(start, origin=None)  # a worker needs the numbers alone
        return Segment(plan.estimator, index, plan.params[index], plan.seeds[index], epoch, start, optimizer)

    def _take(self, index: int, epoch: int) -> None:
        """Take over what the directory holds of a candidate at `epoch`."""
        assert self.directory is not None
        plan = self.plan
        result = self.directory.read(Segment(plan.estimator, index, plan.params[index], plan.seeds[index], epoch))
        if result is not None:
            before = [] if index not in self.records else [self.records[index]]
            record = replace(merged([*before, result.record]), params=self.plan.params[index])
            # Without an optimizer to go on with, it was trained from the start.
            begin = 0 if result.optimizer is None else max(int(self.reached[index]), 0)
            self._add(record, epoch, len(record.losses) - begin)

    def _finish(self, result: Any, epoch: int) -> None:
        if isinstance(result, NetworkRecord):  # its worker died
            result = Result(result, None, 0)
        record = result.record
        if self.directory is not None:
            record = self.directory.write(result, epoch)
        else:
            self.optimizers[record.index] = result.optimizer
        self._add(record, epoch, result.n_epochs)

    def _add(self, record: NetworkRecord, epoch: int, n_epochs: int) -> None:
        index, before = record.index, max(int(self.reached[record.index]), 0)
        self.records[index] = replace(record, origin=self.origin)
        losses = record.losses
        if record.reason is None and len(losses) < epoch and len(losses):
            # A callback of its own ended the training: the loss stays what it was.
            losses = np.pad(losses, (0, epoch - len(losses)), mode="edge")
        self.losses[index, : len(losses)] = losses
        self.failed[index] = record.reason is not None
        self.reached[index] = epoch
        self.epochs_spent += max(n_epochs, 0)
        self.bar.update(epoch - before)
        best = self.best()[~self.failed].min(initial=np.inf)
        failed = f", {self.failed.sum()} failed" if self.failed.any() else ""
        self.bar.set_postfix_str((f"best {best:.4g}" if np.isfinite(best) else "no loss yet") + failed, refresh=False)

    # Spectra

    def look(self, who: NDArray[np.intp], epoch: int) -> None:
        values = self._known_spectra(epoch)
        missing = np.array([i for i in self.alive(who) if i not in values], dtype=np.intp)
        if len(missing):
            self.bar.set_description_str(f"epoch {epoch}, spectra", refresh=True)
            spectra, seconds = timed_spectra(self.transformer, self.networks(missing, epoch))
            self.spectra_seconds += seconds
            values |= dict(zip(missing.tolist(), spectra, strict=True))
            if self.directory is not None:
                known = np.array(sorted(values))
                stacked = np.array([values[i] for i in known.tolist()])
                self.directory.write_spectra(epoch, self.settings, known, stacked, self._seconds_at(epoch) + seconds)
        if values:
            width = len(next(iter(values.values())))
            table = self.spectra.setdefault(epoch, np.full((len(self), width), np.nan))
            for index, row in values.items():
                table[index] = row

    def networks(self, who: Any, epoch: int) -> Sequence[Any]:
        """Return candidates as they were at `epoch`."""
        return NetworkSequence([(self.records[int(i)], epoch) for i in who])

    def _networks_of(self, rows: Any) -> Any:
        who = np.arange(len(self))[rows]
        return lambda epoch: self.networks(who, epoch)

    def _known_spectra(self, epoch: int) -> dict[int, NDArray[np.float64]]:
        if epoch in self.spectra:
            table = self.spectra[epoch]
            return {int(i): table[i] for i in np.flatnonzero(~np.isnan(table).all(axis=1))}
        stored = None if self.directory is None else self.directory.read_spectra(epoch, self.settings)
        if stored is None:
            return {}
        self.spectra_seconds += stored[2]
        return dict(zip(stored[0].tolist(), stored[1], strict=True))

    def _seconds_at(self, epoch: int) -> float:
        stored = self.directory.read_spectra(epoch, self.settings) if self.directory is not None else None
        return 0.0 if stored is None else stored[2]

    # What comes out

    def population(self) -> NetworkPopulation:
        """Return the candidates that were trained, failures included; one that was only looked at has no loss."""
        trained = [self.records[index] for index in sorted(self.records)]
        return NetworkPopulation([record for record in trained if len(record.losses) or record.reason is not None])

    def warn_of_failures(self) -> None:
        """Warn once of candidates that failed."""
        failed = [record for record in self.records.values() if record.reason is not None]
        if failed:
            first = min(failed, key=lambda record: record.index)
            warnings.warn(
                f"{len(failed)} of {len(self)} candidates failed and are kept apart in `population_.failures`. "
                f"The first is candidate {first.index} with {first.params}: {first.reason}",
                FailedNetworkWarning,
                stacklevel=4,
            )
