"""replay_search: a search on a population whose training has been recorded, many times in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklyap.search.knowledge import Board, Knowledge

__all__ = ["RecordedBoard"]


class _Source:
    """A recorded population, and what models have said of its networks."""

    def __init__(self, truth: Knowledge) -> None:
        self.truth = truth
        self._said: dict[tuple[int, int], dict[str, NDArray[np.float64]]] = {}

    def said(self, belief: Any, epoch: int) -> dict[str, NDArray[np.float64]]:
        key = id(belief), epoch
        if key not in self._said:
            self._said[key] = belief.predict(self.truth, epoch)
        return self._said[key]


class RecordedBoard(Board):
    """Candidates whose training has been recorded; it is revealed as a policy asks for it.

    Parameters
    ----------
    truth : Knowledge
        All of it.
    """

    def __init__(self, truth: Knowledge, source: _Source | None = None, rows: Any = None) -> None:
        super().__init__(truth.params, truth.max_epochs)
        self.truth = truth
        self.source, self.rows = source, rows
        self.spectra = {epoch: np.full_like(values, np.nan) for epoch, values in truth.spectra.items()}
        self.looked: list[tuple[int, int]] = []

    def said(self, belief: Any, who: NDArray[np.intp], epoch: int) -> dict[str, NDArray[np.float64]]:
        if self.source is None:
            return super().said(belief, who, epoch)
        # A model's word on a network is the same in every repetition.
        return {name: values[self.rows[who]] for name, values in self.source.said(belief, epoch).items()}

    def train(self, who: NDArray[np.intp], epoch: int) -> int:
        """Reveal the losses of candidates up to `epoch` and return how many epochs that took."""
        before = np.maximum(self.reached[who], 0)
        self.losses[who, :epoch] = self.truth.losses[who, :epoch]
        self.reached[who] = np.maximum(self.reached[who], epoch)
        return int(np.maximum(epoch - before, 0).sum())

    def look(self, who: NDArray[np.intp], epoch: int) -> None:
        self.spectra[epoch][who] = self.truth.spectra[epoch][who]
        self.looked.append((len(who), epoch))
