"""The policy of this package: promotion by predicted final loss, never far below halving on loss."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sklyap.search.belief import Belief, Estimate
from sklyap.search.knowledge import Board, log_loss
from sklyap.search.policies import HalvingPolicy, Ranking, Request
from sklyap.search.rungs import largest_start, rung_sizes

__all__ = ["PredictorPolicy"]


class PredictorPolicy(HalvingPolicy):
    """Successive halving by the final loss that a belief predicts, with seats for the loss and for doubt.

    Of the candidates that go on from a rung, a share goes on by the loss so far alone, and a share because the
    belief is least sure of them; the rest by the belief.

    Parameters
    ----------
    belief : Belief
        Learnt on priors.
    n_candidates, factor, min_epochs, budget
        See :class:`Policy`. With ``min_epochs=0`` candidates are looked at before they are trained.
    loss_share : float, default=0.25
        Share of the seats at every rung that the loss so far decides.
    """

    name = "predictor"

    def __init__(
        self,
        belief: Belief,
        n_candidates: int | None = None,
        *,
        factor: float = 3,
        min_epochs: int = 1,
        budget: float | None = None,
        loss_share: float = 0.25,
    ) -> None:
        super().__init__(n_candidates, factor=factor, min_epochs=min_epochs, budget=budget)
        self.belief = belief
        self.loss_share = loss_share

    def start(self, board: Board, epochs: list[int]) -> int:
        """Return how many candidates to begin with: untrained ones cost nothing but their spectra."""
        if epochs[0] > 0:
            return super().start(board, epochs)
        return len(board) if self.n_candidates is None else min(self.n_candidates, len(board))

    def sizes(self, board: Board, n: int, epochs: list[int]) -> list[int]:
        if epochs[0] > 0 or len(epochs) == 1 or self.budget is None:
            return super().sizes(board, n, epochs)
        trained = largest_start(self.budget, epochs[1:], self.factor, n)
        return [n, *rung_sizes(trained, len(epochs) - 1, self.factor)]

    def climb(
        self, board: Board, who: NDArray[np.intp], epochs: list[int], rng: np.random.RandomState
    ) -> Iterator[Request]:
        self._said: dict[int, tuple[NDArray[np.intp], Estimate]] = {}
        yield from super().climb(board, who, epochs, rng)

    def rank(
        self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState, n_keep: int
    ) -> Ranking:
        if "spectrum" in self.belief.kinds:
            board.look(who, epoch)
        said = board.said(self.belief, who, epoch)
        estimate = self.belief.estimate(said, board.best(epoch)[who], epoch, self._trust(board, who, epoch))
        self._said[epoch] = who, estimate
        by_loss = np.argsort(board.best(epoch)[who], kind="stable") if epoch > 0 else np.empty(0, dtype=np.intp)
        n_loss = math.ceil(self.loss_share * n_keep) if epoch > 0 else 0
        order, reasons = _seats(np.argsort(estimate.score, kind="stable"), by_loss, n_keep, n_loss)
        return Ranking(order, reasons=reasons)

    def _trust(self, board: Board, who: NDArray[np.intp], epoch: int) -> dict[str, float]:
        """Return how far each source is to be trusted, from what it said of `who` at the rungs before."""
        trust: dict[str, float] = {}
        for earlier, (candidates, estimate) in self._said.items():
            here = np.flatnonzero(np.isin(candidates, who))
            if not len(here):
                continue
            outcome = log_loss(board.best(epoch)[candidates[here]])
            said = {name: values[here] for name, values in estimate.sources.items()}
            for name, value in self.belief.trust(earlier, said, outcome, epoch).items():
                trust[name] = min(trust.get(name, 1.0), value)
        return trust


def _seats(
    by_belief: NDArray[np.intp], by_loss: NDArray[np.intp], n_keep: int, n_loss: int
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return an order whose first `n_keep` hold `n_loss` candidates by loss, and why each is there."""
    chosen = list(by_belief[: n_keep - n_loss])
    reasons = ["predicted"] * len(chosen)
    for position in by_loss:
        if len(chosen) >= n_keep:
            break
        if position not in chosen:
            chosen.append(position)
            reasons.append("loss")
    rest = [position for position in by_belief if position not in set(chosen)]
    return np.array([*chosen, *rest], dtype=np.intp), (*reasons, "predicted")
