"""The policy of this package: promotion by predicted final loss, beside the loss so far."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklyap.search.belief import Belief, Estimate
from sklyap.search.knowledge import Board, log_loss
from sklyap.search.labels import FEWEST_LABELS, learn_from_networks, learn_from_numbers, rank_correlation, standardised
from sklyap.search.policies import HalvingPolicy, Ranking, Request, record_decisions
from sklyap.search.rungs import halving_cost, rung_epochs, rung_sizes
from sklyap.validation import check_instance, check_int, check_real

__all__ = ["PredictorPolicy"]

_SCREENING_SHARE = 0.5
"""Of a budget that pays for spectra too, the most that goes into looking at untrained candidates."""


class PredictorPolicy(HalvingPolicy):
    """Successive halving by the final loss that a belief predicts, with seats for the loss and for chance.

    With a prior, more candidates are drawn than are trained: their spectra are looked at first. At every rung a share
    of the seats goes by the loss so far alone (by chance, before there is a loss), so that a belief that is wrong is
    found out and the search recovers. Another share of the epochs finishes the candidates that the belief ranks first
    untrained, whatever their losses on the way: the finalists. There are none where in the priors the loss after the
    first rung ranks final losses better than the belief before it.

    Where the belief, or the loss, has ranked the losses at the next rung better than the other in this search, by more
    than a standard error, it has all the seats; if it is the loss, those of the finalists too. A candidate whose loss
    at the next rung says little of the end, in the priors, counts as less than one.

    What the loss at a rung was, given what was known a rung before, is learnt on the way and joins the belief, weighed
    by how well it predicts candidates left out.

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
        Share of the seats that the loss so far, or chance, decides as long as neither it nor the belief has been
        better; with 1 it decides nearly all of them until the belief has.
    finalist_share : float, default=1/3
        Share of the epochs that finishes the finalists, rounded down to whole candidates; the fewer candidates climb.
    spectrum_epochs : float, default=0.0
        What a spectrum costs, in epochs of training, where the `budget` has to pay for spectra too.

    Examples
    --------
    :func:`~sklyap.search.replay_search` makes one by name, with what it learns from:

    >>> from sklyap.search import HalvingPolicy, PredictorPolicy
    >>> issubclass(PredictorPolicy, HalvingPolicy)
    True
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
        finalist_share: float = 1 / 3,
        factor: float = 3,
        min_epochs: int = 1,
        budget: float | None = None,
        spectrum_epochs: float = 0.0,
    ) -> None:
        super().__init__(n_candidates, factor=factor, min_epochs=min_epochs, budget=budget)
        caller = type(self).__name__
        if n_screened is not None:
            check_int(n_screened, "n_screened", low=1, caller=caller)
        check_int(n_labelled, "n_labelled", low=0, caller=caller)
        check_real(loss_share, "loss_share", low=0.0, high=1.0, caller=caller)
        check_real(finalist_share, "finalist_share", low=0.0, high=1.0, caller=caller)
        check_real(spectrum_epochs, "spectrum_epochs", low=0.0, caller=caller)
        self.belief = check_instance(belief, "belief", Belief, caller=caller)
        self.n_screened = n_screened
        self.n_labelled = n_labelled
        self.loss_share = loss_share
        self.finalist_share = finalist_share
        self.spectrum_epochs = spectrum_epochs

    def epochs(self, board: Board) -> list[int]:
        trained = super().epochs(board)
        screens = self.n_screened is None or self.n_screened > self.start(board, trained)
        return [0, *trained] if self.belief.priors and screens else trained

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        self._said: list[tuple[int, NDArray[np.intp], Estimate]] = []
        self._finalists = np.empty(0, dtype=np.intp)
        epochs = self.epochs(board)
        if self._is_too_dear(board, epochs):
            plain = HalvingPolicy(self.n_candidates, factor=self.factor, min_epochs=self.min_epochs, budget=self.budget)
            yield from plain.requests(board, rng)
            return
        n = self._n_looked_at(board) if epochs[0] == 0 else self.start(board, epochs)
        yield from self.climb(board, rng.permutation(len(board))[:n], epochs, rng)

    # How many

    def sizes(self, board: Board, n: int, epochs: list[int]) -> list[int]:
        if epochs[0] > 0:
            return super().sizes(board, n, epochs)
        trained = rung_epochs(epochs[1], board.max_epochs, self.factor)
        finalists = self._n_finalists(board, trained)
        climbing = self._affordable(board, trained, n - finalists, finalists)
        return [n, *(size + finalists for size in rung_sizes(climbing, len(trained), self.factor))]

    def start(self, board: Board, epochs: list[int]) -> int:
        """Return how many candidates to train to the first rung, were there no finalists."""
        return self._affordable(board, epochs, len(board), 0)

    def _affordable(self, board: Board, epochs: list[int], most: int, finalists: int) -> int:
        """Return how many candidates, `most` at most, can climb the rungs beside so many that are finished."""
        most = most if self.n_candidates is None else min(self.n_candidates, most)
        if self.budget is None and not finalists:
            return max(most, 1)
        left = self._left(board, epochs) - finalists * self._cost(1, epochs)
        n = 1
        while n < most and self._cost(n + 1, epochs) <= left:
            n += 1
        return n

    def _left(self, board: Board, epochs: list[int]) -> float:
        """Return the epochs for candidates that climb, and finalists."""
        if self.budget is None:
            return self._cost(self.start(board, epochs), epochs)
        left = self.budget - self.n_labelled * (board.max_epochs - epochs[0])
        return left - self._price * self._n_looked_at(board) if self.belief.priors else left

    def _n_finalists(self, board: Board, epochs: list[int]) -> int:
        """Return how many finalists there are: none where the loss after the first rung says more in the priors."""
        if self.finalist_share == 0 or self.belief.worth(0) <= self.belief.worth_of_loss(epochs[0]):
            return 0
        return max(int(self.finalist_share * self._left(board, epochs) / self._cost(1, epochs)), 0)

    def _cost(self, n: int, epochs: list[int]) -> float:
        """Return the epochs that `n` candidates take, the looks at all rungs but the last included."""
        looks = sum(rung_sizes(n, len(epochs), self.factor)[:-1])
        return halving_cost(n, epochs, self.factor) + self._price * looks

    def _is_too_dear(self, board: Board, epochs: list[int]) -> bool:
        """Tell whether the budget cannot pay for spectra and for one candidate that is trained to the end."""
        if self.budget is None or self._price == 0:
            return False
        screening = self._price * self._n_looked_at(board) if epochs[0] == 0 else 0.0
        return screening + self._cost(1, [epoch for epoch in epochs if epoch > 0]) > self.budget

    def _n_looked_at(self, board: Board) -> int:
        n = len(board) if self.n_screened is None else min(self.n_screened, len(board))
        if self.budget is None or self._price == 0:
            return n
        return max(min(n, int(_SCREENING_SHARE * self.budget / self._price)), 1)

    @property
    def _price(self) -> float:
        return self.spectrum_epochs if self.belief.needs_spectra else 0.0

    # What decides

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
        estimate = self._judge(board, who, epoch)
        score = self._with_labels(board, who, epoch, self._with_next_rung(board, who, epoch, estimate.score))
        predicted = self._on_the_scale_of_losses(epoch, score)
        by_score = np.argsort(score, kind="stable")
        word = "loss" if epoch > 0 else "chance"
        other = np.argsort(board.best(epoch)[who], kind="stable") if epoch > 0 else rng.permutation(len(who))
        if epoch == 0:
            n_first = self._n_finalists(board, self.epochs(board)[1:])
            self._finalists = who[by_score[: min(n_first, n_keep - 1)]]
        leader = self._leader(board)
        finalists = _positions(self._finalists, who) if leader != "loss" else np.empty(0, dtype=np.intp)
        n_open = n_keep - len(finalists)
        by_score, other = (order[~np.isin(order, finalists)] for order in (by_score, other))
        order, reasons = _seats(by_score, other, n_open, self._seats_of_the_other(leader, epoch, n_open), word)
        reasons = ("finalist",) * len(finalists) + reasons
        return Ranking(np.concatenate([finalists, order]), **predicted, reasons=reasons)

    def _judge(self, board: Board, who: NDArray[np.intp], epoch: int) -> Estimate:
        """Return what is believed of candidates, and keep it to be compared with what becomes of them."""
        if self.belief.needs_spectra:
            board.look(who, epoch)
        said = board.said(self.belief, who, epoch)
        estimate = self.belief.estimate(said, board.best(epoch)[who], epoch, self._trust(board))
        self._said.append((epoch, who, estimate))
        return estimate

    def _on_the_scale_of_losses(self, epoch: int, score: NDArray[np.float64]) -> dict[str, Any]:
        scale = self.belief.scale
        if scale is None:
            return {}
        middle, width = scale[0] + scale[1] * score, scale[1] * self.belief.rung(epoch).residual
        return {"predicted": np.exp(middle), "low": np.exp(middle - width), "high": np.exp(middle + width)}

    # What became of candidates

    def _next_epoch(self, board: Board, epoch: int) -> int:
        return next((later for later in self.epochs(board) if later > epoch), board.max_epochs)

    def _went_on(self, board: Board, who: NDArray[np.intp], epoch: int) -> NDArray[np.intp]:
        """Return the positions in `who` of candidates that went on to the next rung."""
        here: NDArray[np.intp] = np.flatnonzero(
            (board.reached[who] >= self._next_epoch(board, epoch)) & ~board.failed[who]
        )
        return here

    def _trust(self, board: Board) -> dict[str, float]:
        """Return how far each source is to be trusted, from what it said of those that went on since."""
        trust: dict[str, float] = {}
        for epoch, who, estimate in self._said:
            here, later = self._went_on(board, who, epoch), self._next_epoch(board, epoch)
            if len(here):
                outcome = log_loss(board.best(later)[who[here]])
                said = {name: values[here] for name, values in estimate.sources.items()}
                for name, value in self.belief.trust(epoch, said, outcome, later).items():
                    trust[name] = min(trust.get(name, 1.0), value)
        return trust

    def _leader(self, board: Board) -> str | None:
        """Return which has ranked the losses at the next rungs better by more than a standard error, if either has."""
        lead, n = 0.0, 0.0
        for earlier, who, estimate in self._said:
            here, later = self._went_on(board, who, earlier), self._next_epoch(board, earlier)
            if earlier == 0 or len(here) < 3:
                continue
            outcome = log_loss(board.best(later)[who[here]])
            by_loss = rank_correlation(board.best(earlier)[who[here]], outcome)
            # On a plateau the loss at the next rung says little of the end: such labels count for little.
            worth = len(here) * self.belief.worth_of_loss(later) ** 2
            lead += worth * (rank_correlation(estimate.score[here], outcome) - by_loss)
            n += worth
        if n < FEWEST_LABELS or abs(lead) <= np.sqrt(n):  # the standard error of a rank correlation is 1/sqrt(n)
            return None
        return "belief" if lead > 0 else "loss"

    def _seats_of_the_other(self, leader: str | None, epoch: int, n_keep: int) -> int:
        """Return how many seats go by the loss, or by chance where there is none."""
        if leader is not None:
            return 0 if leader == "belief" else n_keep
        if epoch > 0 and self.loss_share == 1:
            return n_keep
        return max(min(math.ceil(self.loss_share * n_keep), n_keep - 1), 0) if self.loss_share > 0 else 0

    def _with_next_rung(
        self, board: Board, who: NDArray[np.intp], epoch: int, score: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the belief after what the losses here were, given what was known of the same a rung before."""
        before = [earlier for earlier in self.epochs(board) if earlier < epoch]
        if not before:
            return score
        kinds = tuple(kind for kind in self.belief.kinds if not (self.belief.on_networks and kind == "spectrum"))
        here = np.flatnonzero((board.reached >= epoch) & ~board.failed)
        if "spectrum" in kinds:
            here = here[~np.isnan(board.spectra[before[-1]][here]).all(axis=1)]
        y = log_loss(board.best(epoch)[here])
        said = learn_from_numbers(board, here, y, before[-1], who, epoch, kinds)
        if said is None:
            return score
        weight = said[1] * self.belief.worth_of_loss(self._next_epoch(board, epoch))
        return (1 - weight) * standardised(score) + weight * said[0]

    def _with_labels(
        self, board: Board, who: NDArray[np.intp], epoch: int, score: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the belief after what the finished candidates say."""
        finished = np.flatnonzero((board.reached == board.max_epochs) & ~board.failed)
        if epoch == 0 or not self.n_labelled or not len(finished):
            return score
        y = log_loss(board.best()[finished])
        if self.belief.on_networks:
            said = learn_from_networks(self.belief.model, board.take(finished), board.take(who), y, epoch)
        else:
            if self.belief.needs_spectra:
                board.look(finished, epoch)
            said = learn_from_numbers(board, finished, y, epoch, who, epoch, self.belief.kinds)
        return score if said is None else (1 - said[1]) * score + said[1] * said[0]


def _positions(wanted: NDArray[np.intp], who: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return where in `who` the wanted candidates are, in their sequence; those that failed are in it no more."""
    places = [int(np.flatnonzero(who == candidate)[0]) for candidate in wanted if candidate in who]
    return np.array(places, dtype=np.intp)


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
