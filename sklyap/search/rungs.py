"""How far a search trains how many: numbers in, numbers out."""

from __future__ import annotations

import math

__all__ = ["halving_cost", "largest_start", "rung_epochs", "rung_sizes"]

_ROOM = 1.5


def rung_epochs(min_epochs: int, max_epochs: int, factor: float) -> list[int]:
    """Return the epochs at which candidates are compared, the last of them `max_epochs`.

    Examples
    --------
    >>> rung_epochs(1, 15, 3), rung_epochs(1, 10, 3)
    ([1, 3, 9, 15], [1, 3, 10])
    """
    epochs = [min_epochs]
    while epochs[-1] < max_epochs:
        following = max(epochs[-1] + 1, math.floor(epochs[-1] * factor))
        # A rung just before the end would decide nothing.
        epochs.append(max_epochs if following * _ROOM > max_epochs else following)
    return epochs


def rung_sizes(n_candidates: int, n_rungs: int, factor: float) -> list[int]:
    """Return how many candidates get to every rung.

    Examples
    --------
    >>> rung_sizes(64, 4, 3)
    [64, 22, 8, 3]
    """
    sizes = [n_candidates]
    for _ in range(n_rungs - 1):
        sizes.append(math.ceil(sizes[-1] / factor))
    return sizes


def halving_cost(n_candidates: int, epochs: list[int], factor: float) -> int:
    """Return the epochs that successive halving spends when training goes on where it stopped."""
    steps = [b - a for a, b in zip([0, *epochs], epochs, strict=False)]
    return sum(n * step for n, step in zip(rung_sizes(n_candidates, len(epochs), factor), steps, strict=True))


def largest_start(budget: float, epochs: list[int], factor: float, most: int) -> int:
    """Return the largest number of candidates, up to `most`, whose halving costs no more than `budget` epochs."""
    n = 1
    while n < most and halving_cost(n + 1, epochs, factor) <= budget:
        n += 1
    return n
