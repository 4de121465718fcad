"""Promotion by the distance of a candidate's spectrum to that of a reference network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklyap.search.knowledge import Board
from sklyap.search.policies import HalvingPolicy, Ranking
from sklyap.statistics import spectrum_distance

__all__ = ["DistancePolicy"]


class DistancePolicy(HalvingPolicy):
    """Successive halving by the Wasserstein distance of spectra to one of a network that does well.

    Parameters
    ----------
    reference : ndarray of shape (k,)
        The spectrum to be near to, at as many points as those of the candidates.
    n_candidates, factor, min_epochs, budget
        See :class:`Policy`.

    References
    ----------
    Y. Zheng and E. Shlizerman (2025), Hyperpruning, arXiv 2506.07975.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap.search import DistancePolicy
    >>> DistancePolicy(np.linspace(0, -2, 32), n_candidates=9).n_candidates
    9
    """

    name = "distance"

    def __init__(self, reference: NDArray[np.float64], n_candidates: int | None = None, **options: Any) -> None:
        super().__init__(n_candidates, **options)
        self.reference = reference

    def rank(self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState, n_keep: int) -> Ranking:
        board.look(who, epoch)
        spectra = board.spectra[epoch][who]
        known = ~np.isnan(spectra).any(axis=1)
        distances = np.full(len(who), np.inf)
        if known.any():
            distances[known] = spectrum_distance(spectra[known], self.reference)
        return Ranking(np.argsort(distances, kind="stable"), reasons=("distance",))
