"""The policy of this package: promotion by predicted final loss, never far below halving on loss."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sklyap.search.belief import Belief, Estimate
from sklyap.search.knowledge import Board, log_loss
from sklyap.search.policies import HalvingPolicy, Ranking, Request, record_decisions
from sklyap.search.rungs import largest_start, rung_epochs, rung_sizes

__all__ = ["PredictorPolicy"]


class PredictorPolicy(HalvingPolicy):
    """Successive halving by the final loss that a belief predicts, with seats for the loss and for chance.

    With a prior, more candidates are drawn than are trained: their spectra are looked at first. At every rung a share
    of the seats goes by the loss so far alone (by chance, before there is a loss), so that a belief that is wrong is
    found out and the search recovers.

    Parameters
    ----------
    belief : Belief
        Learnt on priors.
    n_candidates, factor, min_epochs, budget
        See :class:`Policy`.
    n_screened : int, optional
        How many candidates to look at untrained; by default all, if `belief` has a prior.
    n_labelled : int, default=0
        Candidates that are finished right after the first rung.
    loss_share : float, default=0.5
        Share of the seats at every rung that the loss so far, or chance, decides.
    """

    name = "predictor"

    def __init__(
        self,
        belief: Belief,
        n_candidates: int | None = None,
        *,
        n_screened: int | None = None,
        n_labelled: int = 0,
        loss_share: float = 0.5,
        factor: float = 3,
        min_epochs: int = 1,
        budget: float | None = None,
    ) -> None:
        super().__init__(n_candidates, factor=factor, min_epochs=min_epochs, budget=budget)
        self.belief = belief
        self.n_screened = n_screened
        self.n_labelled = n_labelled
        self.loss_share = loss_share

    def epochs(self, board: Board) -> list[int]:
        trained = super().epochs(board)
        screens = self.n_screened is None or self.n_screened > self.start(board, trained)
        return [0, *trained] if self.belief.priors and screens else trained

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        self._said: dict[int, tuple[NDArray[np.intp], Estimate]] = {}
        epochs = self.epochs(board)
        n = len(board) if self.n_screened is None else min(self.n_screened, len(board))
        n = n if epochs[0] == 0 else self.start(board, epochs)
        yield from self.climb(board, rng.permutation(len(board))[:n], epochs, rng)

    def sizes(self, board: Board, n: int, epochs: list[int]) -> list[int]:
        if epochs[0] > 0:
            return super().sizes(board, n, epochs)
        trained = rung_epochs(epochs[1], board.max_epochs, self.factor)
        return [n, *rung_sizes(self.start(board, trained), len(trained), self.factor)]

    def start(self, board: Board, epochs: list[int]) -> int:
        """Return how many candidates to train to the first rung."""
        n = len(board) if self.n_candidates is None else min(self.n_candidates, len(board))
        if self.budget is None:
            return n
        labels = self.n_labelled * (board.max_epochs - epochs[0])
        return largest_start(self.budget - labels, epochs, self.factor, n)

    def after(self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState) -> Iterator[Request]:
        """Finish some candidates after the first rung, as labels."""
        if self.n_labelled and epoch == self.min_epochs:
            labelled = rng.permutation(who)[: self.n_labelled]
            # Rung by rung, because a model needs to see them as they were there.
            for later in rung_epochs(epoch, board.max_epochs, self.factor)[1:]:
                yield Request(labelled, later)
            finished = board.alive(labelled)
            reasons = Ranking(np.argsort(board.best()[finished], kind="stable"))
            record_decisions(board, finished, len(self.epochs(board)) - 1, board.max_epochs, reasons, 0)

    def rank(self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState, n_keep: int) -> Ranking:
        if self.belief.needs_spectra:
            board.look(who, epoch)
        said = board.said(self.belief, who, epoch)
        estimate = self.belief.estimate(said, board.best(epoch)[who], epoch, self._trust(board, who, epoch))
        self._said[epoch] = who, estimate
        score = self._with_labels(board, who, epoch, estimate.score)
        # Before there is a loss, seats that the belief does not decide go by chance.
        other = np.argsort(board.best(epoch)[who], kind="stable") if epoch > 0 else rng.permutation(len(who))
        n_other = min(math.ceil(self.loss_share * n_keep), n_keep - 1) if self.loss_share > 0 else 0
        order, reasons = _seats(
            np.argsort(score, kind="stable"), other, n_keep, n_other, "loss" if epoch > 0 else "chance"
        )
        scale = self.belief.scale
        if scale is None:
            return Ranking(order, reasons=reasons)
        middle, width = scale[0] + scale[1] * score, scale[1] * self.belief.rung(epoch).residual
        return Ranking(order, np.exp(middle), np.exp(middle - width), np.exp(middle + width), reasons)

    def _trust(self, board: Board, who: NDArray[np.intp], epoch: int) -> dict[str, float]:
        """Return how far each source is to be trusted, from what it said of `who` at the rungs before."""
        trust: dict[str, float] = {}
        for earlier, (candidates, estimate) in self._said.items():
            here = np.flatnonzero(np.isin(candidates, who))
            if len(here) and epoch > 0:
                outcome = log_loss(board.best(epoch)[candidates[here]])
                said = {name: values[here] for name, values in estimate.sources.items()}
                for name, value in self.belief.trust(earlier, said, outcome, epoch).items():
                    trust[name] = min(trust.get(name, 1.0), value)
        return trust

    def _with_labels(
        self, board: Board, who: NDArray[np.intp], epoch: int, score: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the belief after what the finished candidates say."""
        finished = np.flatnonzero((board.reached == board.max_epochs) & ~board.failed)
        if epoch == 0 or not self.n_labelled or not len(finished):
            return score
        if self.belief.needs_spectra:
            board.look(finished, epoch)
        said = self.belief.from_labels(board.take(finished), board.take(who), epoch)
        return score if said is None else (1 - said[1]) * score + said[1] * said[0]


def _seats(
    by_belief: NDArray[np.intp], by_other: NDArray[np.intp], n_keep: int, n_other: int, other: str
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return an order whose first `n_keep` hold `n_other` candidates by the other rule, and why each is there."""
    chosen = by_belief[: n_keep - n_other].tolist()
    taken = set(chosen)
    more = [position for position in by_other.tolist() if position not in taken][:n_other]
    taken |= set(more)
    rest = [position for position in by_belief.tolist() if position not in taken]
    reasons = ("predicted",) * len(chosen) + (other,) * len(more)
    return np.array([*chosen, *more, *rest], dtype=np.intp), reasons or ("predicted",)
