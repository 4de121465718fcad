"""What is known of networks while they are trained: hyperparameters, losses so far, spectra; as features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["FEATURES", "Board", "Knowledge", "log_loss"]

FEATURES = ("spectrum", "loss", "hyperparameters")
# A loss of zero has no logarithm; below this, networks count as equally good.
_TINY = 1e-12


def log_loss(losses: Any) -> NDArray[np.float64]:
    """Return the natural logarithm of losses, which are not negative."""
    values: NDArray[np.float64] = np.log(np.maximum(np.asarray(losses, dtype=np.float64), _TINY))
    return values


@dataclass
class Knowledge:
    """Networks as far as they have been watched, one row each.

    Attributes
    ----------
    params : DataFrame of shape (n_networks, n_params)
        Hyperparameters that vary.
    losses : ndarray of shape (n_networks, max_epochs)
        Validation loss after every epoch, NaN where training has not got.
    spectra : dict of int to ndarray of shape (n_networks, k)
        Spectra by epoch, nats per step; NaN where unknown.
    kept : list of int
        Epochs at which the networks, or their spectra, are at hand.
    networks_at : callable, optional
        Returns the networks as they were at an epoch.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklyap.search import Knowledge
    >>> losses = np.array([[1.0, 0.5], [1.1, 0.9]])
    >>> known = Knowledge(pd.DataFrame({"lr": [0.01, 0.1]}), losses)
    >>> known.best(2)
    array([0.5, 0.9])
    """

    params: pd.DataFrame
    losses: NDArray[np.float64]
    spectra: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    networks_at: Callable[[int], Sequence[Any]] | None = None

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def max_epochs(self) -> int:
        """Epochs of a finished network."""
        return self.losses.shape[1]

    def best(self, epoch: int | None = None) -> NDArray[np.float64]:
        """Return the lowest loss of each network up to `epoch` (n_networks,), inf where none is known."""
        known = self.losses[:, : self.max_epochs if epoch is None else epoch]
        return np.where(np.isnan(known), np.inf, known).min(axis=1, initial=np.inf)

    def nearest_epoch(self, epoch: int) -> int:
        """Return the one of the `kept` epochs that is nearest to `epoch`."""
        return min(self.kept, key=lambda e: (abs(np.log((e + 0.5) / (epoch + 0.5))), e), default=epoch)

    def last_kept(self, epoch: int) -> int:
        """Return the last of the `kept` epochs up to `epoch`: a look that one who searches could have had there."""
        return max((kept for kept in self.kept if kept <= epoch), default=min(self.kept))

    def features(self, epoch: int, kinds: Sequence[str]) -> pd.DataFrame:
        """Return what is known at `epoch` as columns, those of `kinds` (see ``FEATURES``)."""
        blocks = []
        if "spectrum" in kinds:
            blocks.append(_numbered("exponent", self.spectra[epoch]))
        if "loss" in kinds and epoch > 0:
            so_far = log_loss(self.losses[:, :epoch])
            halfway = so_far[:, (epoch - 1) // 2]
            blocks.append(
                pd.DataFrame(
                    {
                        "log_loss": so_far[:, -1],
                        "log_best_loss": so_far.min(axis=1),
                        "log_loss_fall": halfway - so_far[:, -1],
                    }
                )
            )
        if "hyperparameters" in kinds:
            blocks.append(self.params.reset_index(drop=True))
        return pd.concat(blocks, axis=1) if blocks else pd.DataFrame(index=range(len(self)))

    def numbers(self, epoch: int, kinds: Sequence[str]) -> NDArray[np.float64]:
        """Return the same as numbers (n_networks, n_columns), gaps filled by the middle, for models learnt in haste."""
        blocks = [np.empty((len(self), 0))]
        if "spectrum" in kinds:
            blocks.append(np.arcsinh(self.spectra[epoch]))
        if "loss" in kinds and epoch > 0:
            blocks.append(self.features(epoch, ("loss",)).to_numpy())
        if "hyperparameters" in kinds:
            blocks.append(self._coded)
        columns = np.hstack(blocks)
        gaps = np.isnan(columns)
        if gaps.any():
            for j in np.flatnonzero(gaps.any(axis=0)):
                known = columns[~gaps[:, j], j]
                columns[gaps[:, j], j] = np.median(known) if len(known) else 0.0
        return columns

    @cached_property
    def _coded(self) -> NDArray[np.float64]:
        """Hyperparameters as ranks of numbers between 0 and 1, which know no scale, and indicators of words."""
        words = self.params.select_dtypes(exclude="number")
        ranks = self.params.select_dtypes("number").rank(pct=True).to_numpy(dtype=np.float64)
        indicators = pd.get_dummies(words.astype(str)).to_numpy(dtype=np.float64) if words.shape[1] else ranks[:, :0]
        return np.hstack([ranks, indicators])

    def take(self, rows: Any) -> Knowledge:
        """Return what is known of some of the networks."""
        spectra = {epoch: values[rows] for epoch, values in self.spectra.items()}
        params = self.params.iloc[rows].reset_index(drop=True)
        return Knowledge(params, self.losses[rows], spectra, self.kept, self._networks_of(rows))

    def _networks_of(self, rows: Any) -> Callable[[int], Sequence[Any]] | None:
        if self.networks_at is None:
            return None
        at = self.networks_at
        return lambda epoch: [at(epoch)[int(row)] for row in np.arange(len(self))[rows]]


class Board(Knowledge):
    """Candidates of a search under way: what a policy decides on, and what it has decided.

    Attributes
    ----------
    reached : ndarray of shape (n_networks,)
        Epochs trained so far, -1 for a candidate that has not been built.
    failed : ndarray of shape (n_networks,) of bool
        Candidates that failed.
    decisions : list of dict
        One row for each candidate at each rung, see ``LyapunovHalvingSearch.decisions_``.

    Examples
    --------
    >>> import pandas as pd
    >>> from sklyap.search import Board
    >>> board = Board(pd.DataFrame({"lr": [0.01, 0.1]}), max_epochs=9)
    >>> board.max_epochs, board.failed.sum().item()
    (9, 0)
    """

    def __init__(self, params: pd.DataFrame, max_epochs: int) -> None:
        n = len(params)
        super().__init__(params, np.full((n, max_epochs), np.nan))
        self.reached = np.full(n, -1)
        self.failed = np.zeros(n, dtype=bool)
        self.decisions: list[dict[str, Any]] = []

    def look(self, who: NDArray[np.intp], epoch: int) -> None:
        """See to it that the spectra of candidates at `epoch` are known."""
        raise NotImplementedError

    def said(self, belief: Any, who: NDArray[np.intp], epoch: int) -> dict[str, NDArray[np.float64]]:
        """Return what each model of a :class:`Belief` predicts of candidates that stand at `epoch`."""
        said: dict[str, NDArray[np.float64]] = belief.predict(self.take(who), epoch)
        return said

    def alive(self, who: Any) -> NDArray[np.intp]:
        """Return those of the candidates `who` that have not failed."""
        who = np.asarray(who, dtype=np.intp)
        return who[~self.failed[who]]


def _numbered(name: str, values: NDArray[np.float64]) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"{name}_{i}" for i in range(values.shape[1])])
