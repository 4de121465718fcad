"""Who is trained on, and how far: the rules of a search, live or replayed.

A policy is a generator of requests. It looks at a board, asks for candidates to be trained up to some epoch, and goes
on when the board shows what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklyap.search.knowledge import Board, log_loss
from sklyap.search.rungs import largest_start, rung_epochs, rung_sizes
from sklyap.validation import check_int, check_real

__all__ = [
    "ExtrapolationPolicy",
    "HalvingPolicy",
    "HyperbandPolicy",
    "OraclePolicy",
    "Policy",
    "RandomPolicy",
    "Ranking",
    "Request",
    "by_loss",
    "record_decisions",
]


@dataclass(frozen=True)
class Request:
    """Candidates to train up to an epoch.

    Attributes
    ----------
    candidates : ndarray of int
        Which candidates.
    epoch : int
        After how many epochs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap.search import Request
    >>> Request(np.array([3, 5]), epoch=2).epoch
    2
    """

    candidates: NDArray[np.intp]
    epoch: int


@dataclass(frozen=True)
class Ranking:
    """An order of candidates, the best first in `order`, and why.

    Attributes
    ----------
    order : ndarray of int
        Positions among the candidates that were ranked.
    predicted, low, high : ndarray of shape (n_ranked,), optional
        Predicted final loss and its interval.
    reasons : list of str, optional
        What decided, in the sequence of `order`; one word for all if it is one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap.search import Ranking
    >>> Ranking(np.array([2, 0, 1])).reasons
    ('loss',)
    """

    order: NDArray[np.intp]
    predicted: NDArray[np.float64] | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    reasons: tuple[str, ...] = ("loss",)


class Policy:
    """Base of the rules of a search.

    Parameters
    ----------
    n_candidates : int, optional
        How many candidates to begin with; by default as many as `budget` allows, or all.
    factor : float, default=3
        One in `factor` candidates goes on from each rung to the next.
    min_epochs : int, default=1
        The first rung.
    budget : float, optional
        Epochs to spend in all.

    Examples
    --------
    A policy that trains the first candidate to the end and nothing else:

    >>> import numpy as np
    >>> from sklyap.search import Policy, Request
    >>> class First(Policy):
    ...     def requests(self, board, rng):
    ...         yield Request(np.array([0]), board.max_epochs)
    >>> isinstance(First(), Policy)
    True
    """

    name = "policy"

    def __init__(
        self,
        n_candidates: int | None = None,
        *,
        factor: float = 3,
        min_epochs: int = 1,
        budget: float | None = None,
    ) -> None:
        caller = type(self).__name__
        if n_candidates is not None:
            check_int(n_candidates, "n_candidates", low=1, caller=caller)
        if check_real(factor, "factor", caller=caller) <= 1:
            raise ValueError(f"The 'factor' parameter of {caller} must be a float above 1. Got {factor!r} instead.")
        check_int(min_epochs, "min_epochs", low=1, caller=caller)
        if budget is not None:
            check_real(budget, "budget", low=0.0, caller=caller)
        self.n_candidates = n_candidates
        self.factor = factor
        self.min_epochs = min_epochs
        self.budget = budget

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        """Yield what to train; the board shows the results of a request when the next is asked for.

        Parameters
        ----------
        board : Board
            What the policy may see and ask for.
        rng : RandomState
            Draws what is random.
        """
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items() if k[0] != '_')})"


class RandomPolicy(Policy):
    """Finish candidates in random order: random search.

    Examples
    --------
    :func:`~sklyap.search.replay_search` takes one in the place of its word:

    >>> from sklyap.search import RandomPolicy
    >>> RandomPolicy(9, factor=3).n_candidates
    9
    """

    name = "random"

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        n = self.n_candidates
        if n is None:
            n = len(board) if self.budget is None else max(1, int(self.budget // board.max_epochs))
        yield Request(rng.permutation(len(board))[:n], board.max_epochs)


class OraclePolicy(Policy):
    """Finish the best candidate and no other; only in a replay is it known.

    Examples
    --------
    :func:`~sklyap.search.replay_search` takes one in the place of its word:

    >>> from sklyap.search import OraclePolicy
    >>> OraclePolicy(9, factor=3).n_candidates
    9
    """

    name = "oracle"

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        truth = getattr(board, "truth", None)
        if truth is None:
            raise ValueError("OraclePolicy knows the end of every training: it can only be replayed.")
        yield Request(np.array([int(np.argmin(truth.best()))]), board.max_epochs)


class HalvingPolicy(Policy):
    """Successive halving: at every rung the best part by the loss so far goes on.

    References
    ----------
    K. Jamieson and A. Talwalkar (2016), Non-stochastic best arm identification and hyperparameter optimization,
    AISTATS.

    Examples
    --------
    :func:`~sklyap.search.replay_search` takes one in the place of its word:

    >>> from sklyap.search import HalvingPolicy
    >>> HalvingPolicy(9, factor=3).n_candidates
    9
    """

    name = "halving on loss"

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        epochs = self.epochs(board)
        who = rng.permutation(len(board))[: self.start(board, epochs)]
        yield from self.climb(board, who, epochs, rng)

    def epochs(self, board: Board) -> list[int]:
        """Return the rungs."""
        return rung_epochs(min(self.min_epochs, board.max_epochs), board.max_epochs, self.factor)

    def start(self, board: Board, epochs: list[int]) -> int:
        """Return how many candidates to begin with."""
        n = len(board) if self.n_candidates is None else min(self.n_candidates, len(board))
        return n if self.budget is None else largest_start(self.budget, epochs, self.factor, n)

    def sizes(self, board: Board, n: int, epochs: list[int]) -> list[int]:
        """Return how many candidates get to each rung."""
        return rung_sizes(n, len(epochs), self.factor)

    def climb(
        self, board: Board, who: NDArray[np.intp], epochs: list[int], rng: np.random.RandomState
    ) -> Iterator[Request]:
        """Train `who` to the first rung, the best of them to the next, and so on."""
        sizes = self.sizes(board, len(who), epochs)
        for rung, epoch in enumerate(epochs):
            last = rung + 1 == len(epochs)
            yield Request(who, epoch)
            who = board.alive(who)
            yield from self.after(board, who, epoch, rng)
            if not last:  # what has been finished on the way needs no seat
                who = who[board.reached[who] <= epoch]
            if not len(who):
                return
            n_keep = 0 if last else sizes[rung + 1]
            ranking = by_loss(board, who, epoch) if last else self.rank(board, who, epoch, rng, n_keep)
            record_decisions(board, who, rung, epoch, ranking, n_keep)
            who = who[ranking.order[:n_keep]]

    def after(self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState) -> Iterator[Request]:
        """Yield what to train beside the climb, after a rung."""
        yield from ()

    def rank(self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState, n_keep: int) -> Ranking:
        """Order the candidates `who`, which have been trained up to `epoch`; `n_keep` of them will go on."""
        return by_loss(board, who, epoch)


class ExtrapolationPolicy(HalvingPolicy):
    """Successive halving by the loss that each curve of losses, drawn on, has at the end.

    The curve is a straight line of ln loss over ln epoch through its last half, and never rises.

    Examples
    --------
    :func:`~sklyap.search.replay_search` takes one in the place of its word:

    >>> from sklyap.search import ExtrapolationPolicy
    >>> ExtrapolationPolicy(9, factor=3).n_candidates
    9
    """

    name = "curve extrapolation"

    def rank(self, board: Board, who: NDArray[np.intp], epoch: int, rng: np.random.RandomState, n_keep: int) -> Ranking:
        best = log_loss(board.best(epoch)[who])
        if epoch < 2:
            return Ranking(np.argsort(best, kind="stable"))
        curves = log_loss(board.losses[who, :epoch])
        first = (epoch - 1) // 2
        times = np.log(np.arange(first, epoch) + 1.0)
        centred = times - times.mean()
        slopes = (curves[:, first:] @ centred) / (centred @ centred)
        ends = best + np.minimum(slopes, 0) * math.log(board.max_epochs / epoch)
        return Ranking(np.argsort(ends, kind="stable"), predicted=np.exp(ends), reasons=("extrapolated",))


class HyperbandPolicy(HalvingPolicy):
    """Hyperband: brackets of successive halving that begin at different rungs, one after the other.

    References
    ----------
    L. Li et al. (2018), Hyperband, JMLR 18(185).

    Examples
    --------
    :func:`~sklyap.search.replay_search` takes one in the place of its word:

    >>> from sklyap.search import HyperbandPolicy
    >>> HyperbandPolicy(9, factor=3).n_candidates
    9
    """

    name = "hyperband"

    def requests(self, board: Board, rng: np.random.RandomState) -> Iterator[Request]:
        epochs = self.epochs(board)
        waiting = rng.permutation(len(board))
        spent, s_max = 0.0, len(epochs) - 1
        while len(waiting):
            for s in range(s_max, -1, -1):
                n = math.ceil((s_max + 1) / (s + 1) * self.factor**s)
                who, waiting = waiting[:n], waiting[n:]
                if not len(who):
                    return
                before = np.maximum(board.reached, 0).sum()
                yield from self.climb(board, who, epochs[s_max - s :], rng)
                spent += np.maximum(board.reached, 0).sum() - before
                if self.budget is not None and spent >= self.budget:
                    return


def by_loss(board: Board, who: NDArray[np.intp], epoch: int) -> Ranking:
    """Order candidates by their lowest loss so far."""
    return Ranking(np.argsort(board.best(epoch)[who], kind="stable"))


def record_decisions(board: Board, who: NDArray[np.intp], rung: int, epoch: int, ranking: Ranking, n_keep: int) -> None:
    """Write down what was decided about each candidate."""
    best = board.best(epoch)[who]
    for place, position in enumerate(ranking.order):
        row: dict[str, Any] = {
            "candidate": int(who[position]),
            "rung": rung,
            "epoch": epoch,
            "loss": float(best[position]),
            "promoted": place < n_keep,
            "reason": ranking.reasons[min(place, len(ranking.reasons) - 1)] if place < n_keep else "",
        }
        for name in ("predicted", "low", "high"):
            values = getattr(ranking, name)
            row[name] = np.nan if values is None else float(values[position])
        board.decisions.append(row)
