"""Input sensitivity: whether perturbed inputs cost most where the dynamics expand.

Inputs are perturbed at the k steps of largest expansion, at k random steps and at the k of smallest expansion; what
changes in outputs and loss is compared for every k of a sweep at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.exceptions import DivergedError
from sklyap.gradients import Loss, Objective, state_gradients
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals, outside_inference_mode
from sklyap.tangent import qr_iteration, tangent_size
from sklyap.validation import check_bool, check_choice, check_dtype, check_int, check_real, resolve_device, seed_from

__all__ = ["Comparison", "Effect", "SensitivityResult", "input_sensitivity"]

_N_RESAMPLES = 2000
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Comparison:
    """Steps chosen by expansion against random steps, for every number of steps k.

    Attributes
    ----------
    difference : ndarray of shape (n_k,)
        Mean effect minus mean effect of random steps, over sequences.
    interval : ndarray of shape (2, n_k)
        Its 95 % bootstrap interval over sequences.
    ratio : ndarray of shape (n_k,)
        Mean effect over mean effect of random steps, 1 where those have none. Changes of the loss have either sign:
        where those of random steps are not more than two standard errors (over sequences) above zero, there is no
        ratio to speak of, and it is NaN; look at `difference`.
    effect_size : ndarray of shape (n_k,)
        `difference` in units of its standard deviation over sequences (0 where there is none).
    p_value : ndarray of shape (n_k,)
        Two-sided, of a permutation test: if the choice knew nothing, the chosen steps would be as good as any of the
        random ones.
    p_adjusted : ndarray of shape (n_k,)
        The same, corrected for the sweep: how often the largest standardised difference of all k is as large by
        chance.

    Examples
    --------
    >>> from sklyap import RNNClassifier, input_sensitivity
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> result = input_sensitivity(network, X[:10], y[:10], n_random=5, random_state=0)
    >>> comparison = result.output.largest_against_random
    >>> comparison.difference.shape, comparison.interval.shape
    ((3,), (2, 3))
    """

    difference: np.ndarray
    interval: np.ndarray
    ratio: np.ndarray
    effect_size: np.ndarray
    p_value: np.ndarray
    p_adjusted: np.ndarray


@dataclass(frozen=True)
class Effect:
    """What perturbations change, in outputs (Euclidean distance) or in the loss (increase).

    Attributes
    ----------
    largest, smallest : ndarray of shape (n_sequences, n_k)
        Perturbed at the k steps of largest and of smallest score.
    random : ndarray of shape (n_sequences, n_random, n_k)
        Perturbed at k random steps.
    by_step : ndarray of shape (n_sequences, n_steps) or None
        Perturbed at one step alone.
    largest_against_random, smallest_against_random : Comparison
        Each against random steps.

    Examples
    --------
    >>> from sklyap import RNNClassifier, input_sensitivity
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> result = input_sensitivity(network, X[:10], y[:10], n_random=5, random_state=0)
    >>> result.output.largest.shape, result.output.random.shape
    ((10, 3), (10, 5, 3))
    """

    largest: np.ndarray
    smallest: np.ndarray
    random: np.ndarray
    by_step: np.ndarray | None
    largest_against_random: Comparison
    smallest_against_random: Comparison


@dataclass(frozen=True)
class SensitivityResult:
    """What :func:`~sklyap.input_sensitivity` finds.

    Attributes
    ----------
    n_steps : ndarray of shape (n_k,)
        Numbers of steps k that were perturbed.
    score : ndarray of shape (n_sequences, T)
        By which steps were ranked.
    output, loss : Effect
        What perturbations change in outputs and in the loss.
    perturbation, by : str
        How inputs were perturbed, and what ranked the steps.

    Examples
    --------
    >>> from sklyap import RNNClassifier, input_sensitivity
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> result = input_sensitivity(network, X[:10], y[:10], n_random=5, random_state=0)
    >>> result.score.shape, len(result.table())
    ((10, 8), 12)
    """

    n_steps: np.ndarray
    score: np.ndarray
    output: Effect
    loss: Effect
    perturbation: str
    by: str

    def table(self) -> list[dict[str, Any]]:
        """Return one row for each effect, choice of steps and k, for ``pandas.DataFrame`` say."""
        return [
            {
                "effect": effect, "steps": steps, "n_steps": int(k), "difference": comparison.difference[i],
                "low": comparison.interval[0, i], "high": comparison.interval[1, i], "ratio": comparison.ratio[i],
                "effect_size": comparison.effect_size[i], "p_value": comparison.p_value[i],
                "p_adjusted": comparison.p_adjusted[i],
            }
            for effect in ("output", "loss")
            for steps in ("largest", "smallest")
            for comparison in [getattr(getattr(self, effect), f"{steps}_against_random")]
            for i, k in enumerate(self.n_steps)
        ]  # fmt: skip

    def __repr__(self) -> str:
        lines = [f"SensitivityResult: {self.perturbation} at steps ranked by {self.by}, {len(self.score)} sequence(s)"]
        for row in self.table():
            if row["steps"] == "largest":
                known = math.isfinite(row["ratio"])
                ratio = f"{row['ratio']:.2f} times that of random steps, " if known else "random steps hardly hurt, "
                lines.append(
                    f"  {row['effect']:>6}, k = {row['n_steps']}: {ratio}"
                    f"difference {row['difference']:.3g} [{row['low']:.3g}, {row['high']:.3g}], "
                    f"p = {row['p_value']:.2g} ({row['p_adjusted']:.2g} over all k)"
                )
        return "\n".join(lines)


@outside_inference_mode
def input_sensitivity(
    network: Any,
    sequences: Any,
    targets: Any,
    *,
    perturbation: str = "flip",
    n_steps: int | Sequence[int] | None = None,
    n_random: int = 50,
    by: Any = "leading",
    n_directions: int = 1,
    scale: float = 1.0,
    every_step: bool = False,
    state: str = "full",
    loss: str | Loss = "auto",
    layer: str | None = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "auto",
    random_state: Any = None,
) -> SensitivityResult:
    """Perturb inputs where the dynamics expand most, at random, and where they expand least.

    Parameters
    ----------
    network : torch module, fitted skorch net or fitted sklyap estimator
        With one recurrent layer and a readout. It is not changed.
    sequences : array-like of shape (n_sequences, T, n_inputs), or tokens (n_sequences, T)
        What drives the network.
    targets : array-like of shape (n_sequences, ...)
        What the network should answer.
    perturbation : {"flip", "gaussian", "zero"}, default="flip"
        "flip" mirrors values in the middle of their range over all sequences (an inverted image), and replaces a
        token by another that occurs. "gaussian" adds noise, "zero" erases.
    n_steps : int or sequence of int, optional
        Numbers of steps k to perturb. By default 1, 2, 4, … up to half of the sequence: a sweep, so that no k need be
        chosen after the fact.
    n_random : int, default=50
        Random sets of steps for each sequence. Sets of one draw are nested over k, as the ranked ones are.
    by : {"leading", "sum", "future", "gradient"} or array-like of shape (n_sequences, T), default="leading"
        Score that ranks the steps: the mean of ln R_ii of a step over the `n_directions` leading directions; its sum
        over all directions, ln|det J|; the growth of the leading directions in all later steps; the length of
        ``∂L/∂s`` after the step, which is what a first-order theory ranks by; or your own.
    n_directions : int, default=1
        How many leading directions.
    scale : float, default=1.0
        Standard deviation of "gaussian" noise, in units of that of the sequences.
    every_step : bool, default=False
        Whether to perturb each single step too, T more runs for each sequence.
    state : {"full", "hidden"}, default="full"
        The whole state, or with "hidden" the first block alone.
    loss : "auto", "cross_entropy", "mse", or callable, default="auto"
        See :func:`~sklyap.loss_gradient`.
    layer : str, optional
        Which of several recurrent layers, by name.
    forward_kwargs : dict, optional
        Further arguments of the network's `forward`. What has an entry for each sequence, along the first axis of a
        list or an array (of arrays with layers first, a hidden state, along the second), goes with the sequence.
    batch_size : int, optional
        How many perturbed sequences to run at once; 512 by default.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation.
    device : str, default="auto"
        Where it runs; "auto" takes a GPU if there is one.
    random_state : int, numpy random generator or None
        Seeds what is random; the same seed gives the same numbers.

    Returns
    -------
    SensitivityResult

    Raises
    ------
    ValueError, TypeError
        If the network has no readout, targets do not fit, or a parameter is out of range.
    DivergedError
        If the outputs of the network are not finite.

    Notes
    -----
    All sets of a sequence share one perturbation of each step. The permutation test exchanges, in each sequence, the
    chosen set with its random ones, all k together.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import load_sequential_digits
    >>> from sklyap.sensitivity import input_sensitivity
    >>> X, y = load_sequential_digits(return_X_y=True)
    >>> network = RNNClassifier("gru", 16, max_epochs=3, random_state=0).fit(X[:500], y[:500])
    >>> result = input_sensitivity(network, X[500:520], y[500:520], n_random=10)
    >>> result.n_steps
    array([1, 2, 4])
    >>> result.loss.random.shape
    (20, 10, 3)
    """
    dtype, device, seed = check_dtype(dtype), resolve_device(device), seed_from(random_state)
    check_choice(perturbation, "perturbation", ["flip", "gaussian", "zero"])
    check_choice(state, "state", ["full", "hidden"])
    check_int(n_random, "n_random", low=1)
    check_real(scale, "scale", low=0.0)
    rows_at_once = _ROWS_AT_ONCE if batch_size is None else check_int(batch_size, "batch_size", low=1)
    objective = Objective(
        network, sequences, targets, loss=loss, layer=layer, forward_kwargs=forward_kwargs, dtype=dtype, device=device
    )
    objective.check_one_length()
    n, T = objective.n_sequences, objective.n_steps
    ks = _check_steps(n_steps, T)
    generator = np.random.default_rng(np.random.SeedSequence((seed, n)))
    score = _score(objective, by, check_int(n_directions, "n_directions", low=1), state, seed)
    other = _perturbed(objective.given, perturbation, scale, generator)

    ranked = np.argsort(-score, axis=1, kind="stable")
    orders = np.stack([ranked, ranked[:, ::-1], *(_random_orders(n, T, generator) for _ in range(n_random))], 1)
    ranks = np.argsort(orders, axis=2)  # the rank at which each step is perturbed
    masks = ranks[:, :, None, :] < np.asarray(ks)[:, None]  # (n, 2 + n_random, n_k, T)
    changed = _effects(objective, other, masks.reshape(n, -1, T), rows_at_once)
    single = None
    if check_bool(every_step, "every_step"):
        single = _effects(objective, other, np.broadcast_to(np.eye(T, dtype=bool), (n, T, T)), rows_at_once)
    output, by_loss = (
        _summary(changed[i].reshape(n, 2 + n_random, len(ks)), None if single is None else single[i], generator)
        for i in range(2)
    )
    ranking = by if isinstance(by, str) else "array"
    return SensitivityResult(np.asarray(ks), score, output, by_loss, perturbation, ranking)


def _check_steps(n_steps: int | Sequence[int] | None, T: int) -> list[int]:
    if n_steps is None:
        return [2**i for i in range(max(1, int(math.log2(T))))]
    if np.ndim(n_steps) == 0:
        n_steps = [n_steps]  # type: ignore[list-item]
    if not len(n_steps):  # type: ignore[arg-type]
        raise ValueError("The 'n_steps' parameter must not be empty. Got no numbers of steps.")
    return sorted({check_int(k, "n_steps", low=1, high=T) for k in n_steps})  # type: ignore[union-attr]


def _random_orders(n: int, T: int, generator: np.random.Generator) -> np.ndarray:
    return generator.permuted(np.broadcast_to(np.arange(T), (n, T)), axis=1)


def _score(objective: Objective, by: Any, n_directions: int, state: str, seed: int) -> np.ndarray:
    """Return how steps (n_sequences, T) are ranked; step t leads from s_t to s_{t+1} and reads the input x_t."""
    shape = (objective.n_sequences, objective.n_steps)
    if not isinstance(by, str):
        score = np.asarray(by, dtype=float)
        if score.shape != shape or not np.isfinite(score).all():
            raise ValueError(f"The 'by' parameter must be a finite array of shape {shape}. Got shape {score.shape}.")
        return score
    check_choice(by, "by", ["leading", "sum", "future", "gradient"])
    if by == "gradient":
        _, delta = objective.delta(objective.states)
        g = state_gradients(objective.cell, objective.x, objective.start, delta.unsqueeze(-1))
        return torch.linalg.vector_norm(g[..., 0], dim=-1).cpu().numpy()
    N = tangent_size(objective.cell, state)
    k = N if by == "sum" else check_int(n_directions, "n_directions", low=1, high=N)
    with torch.no_grad(), flushed_denormals():
        Q = random_bases(N, k, seed, range(shape[0]), dtype=objective.x.dtype, device=objective.x.device)
        blocks = qr_iteration(objective.cell, objective.x, Q=Q, s=objective.start, qr_interval=1, state=state)
        growth = torch.stack([block.log_growth for block in blocks], 1).cpu().numpy()
    growth = np.maximum(growth, np.log(np.finfo(growth.dtype).eps))  # annihilated: contraction to rounding
    if by == "sum":
        return growth.sum(-1)
    growth = growth.mean(-1)
    return growth if by == "leading" else growth[:, ::-1].cumsum(1)[:, ::-1] - growth


def _perturbed(given: Tensor, perturbation: str, scale: float, generator: np.random.Generator) -> Tensor:
    """Return sequences perturbed at every step, to take steps from."""
    if not given.is_floating_point():
        return _other_tokens(given, perturbation, generator)
    if perturbation == "zero":
        return torch.zeros_like(given)
    if perturbation == "flip":
        return given.min() + given.max() - given
    noise = torch.from_numpy(generator.standard_normal(tuple(given.shape))).to(given)
    return given + scale * given.std() * noise


def _other_tokens(given: Tensor, perturbation: str, generator: np.random.Generator) -> Tensor:
    if perturbation != "flip":
        raise ValueError(
            f"The 'perturbation' parameter must be 'flip' for tokens, which have no size. Got {perturbation!r} instead."
        )
    kinds, index = given.unique(return_inverse=True)
    if len(kinds) < 2:
        raise ValueError("The 'sequences' parameter must hold at least two kinds of tokens to flip. Got one.")
    shift = torch.from_numpy(generator.integers(1, len(kinds), size=tuple(given.shape))).to(given.device)
    return kinds[(index + shift) % len(kinds)]


def _effects(
    objective: Objective, other: Tensor, masks: np.ndarray, rows_at_once: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return how outputs and loss (n_sequences, m) change under perturbation at masked steps (n_sequences, m, T)."""
    n, m = masks.shape[:2]
    with torch.no_grad():
        clean = objective.respond(objective.given)
        if not isinstance(clean, Tensor):
            raise ValueError(
                f"The 'network' parameter must return a tensor of outputs. Got {type(clean).__name__} instead."
            )
        clean_losses = objective.losses(clean, range(n))
        if not bool(torch.isfinite(clean).all() and torch.isfinite(clean_losses).all()):
            raise DivergedError("The outputs or the loss of the network are NaN or infinite before any perturbation.")
        output, loss = [], []
        for rows, mask in _batches(masks, rows_at_once, objective.given.device):
            given = objective.given[rows]
            mask = mask.reshape(*mask.shape, *[1] * (given.ndim - 2))
            answers = objective.respond(torch.where(mask, other[rows], given), rows)
            output.append(torch.linalg.vector_norm((answers - clean[rows]).flatten(1), dim=1))
            loss.append(objective.losses(answers, rows.tolist()) - clean_losses[rows])
    return tuple(torch.cat(part).reshape(n, m).cpu().numpy() for part in (output, loss))  # type: ignore[return-value]


def _batches(masks: np.ndarray, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the numbers of sequences and their masks, `size` of all (sequence, mask) pairs at a time."""
    n, m, T = masks.shape
    flat = masks.reshape(-1, T)
    for start in range(0, n * m, size):
        rows = torch.arange(start, min(start + size, n * m), device=device) // m
        yield rows, torch.from_numpy(flat[start : start + size].copy()).to(device)


def _summary(changed: np.ndarray, by_step: np.ndarray | None, generator: np.random.Generator) -> Effect:
    """Sort effects (n_sequences, 2 + n_random, n_k) into those of largest, smallest and random scores."""
    largest, smallest, random = changed[:, 0], changed[:, 1], changed[:, 2:]
    return Effect(
        largest, smallest, random, by_step,
        _compare(largest, random, generator), _compare(smallest, random, generator),
    )  # fmt: skip


def _compare(chosen: np.ndarray, random: np.ndarray, generator: np.random.Generator) -> Comparison:
    """Compare chosen (n, n_k) with random (n, n_random, n_k)."""
    n, n_random = random.shape[:2]
    excess = chosen - random.mean(1)
    difference = excess.mean(0)
    resampled = excess[generator.integers(n, size=(_N_RESAMPLES, n))].mean(1)
    # The chosen set changes places with any of the n_random + 1 sets. For each exchange: its excess over the others.
    sets = np.concatenate([chosen[:, None], random], 1)
    exchanged = sets - (sets.sum(1, keepdims=True) - sets) / n_random
    picks = generator.integers(n_random + 1, size=(_N_RESAMPLES, n))
    by_chance = exchanged[np.arange(n), picks].mean(1)  # (_N_RESAMPLES, n_k)
    spread = by_chance.std(0)
    return Comparison(
        difference=difference,
        interval=np.quantile(resampled, [0.025, 0.975], axis=0),
        ratio=_ratio(chosen, random.mean(1)),
        effect_size=_divided(difference, excess.std(0, ddof=1) if n > 1 else np.zeros_like(difference), 0.0),
        p_value=_tail(np.abs(by_chance), np.abs(difference)),
        p_adjusted=_tail(
            _divided(np.abs(by_chance), spread, 0.0).max(1, keepdims=True), _divided(np.abs(difference), spread, 0.0)
        ),
    )


def _ratio(chosen: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Return the ratio of the means of chosen and random (n, n_k), NaN where that of random is not surely positive."""
    n, mean = len(random), random.mean(0)
    error = random.std(0, ddof=1) / math.sqrt(n) if n > 1 else np.zeros_like(mean)
    signed = (random < 0).any(0)  # changes of the loss have a sign, distances of outputs do not
    ratio = _divided(chosen.mean(0), mean, 1.0)
    return np.where(signed & (mean <= 2 * error), np.nan, ratio)


def _tail(by_chance: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return how often chance is at least as large, the observation itself counted in."""
    # Exchanges that change nothing equal the observation up to rounding.
    as_large = by_chance >= observed * (1 - 1e-9)
    return (1 + as_large.sum(0)) / (1 + len(by_chance))


def _divided(a: np.ndarray, b: np.ndarray, otherwise: float) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), otherwise), where=b != 0)
