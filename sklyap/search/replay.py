"""replay_search: a search on a population whose training has been recorded, many times in seconds."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.base import BaseEstimator, clone

from sklyap.population import NetworkPopulation
from sklyap.search.belief import Belief
from sklyap.search.checks import params_table, prior_pairs
from sklyap.search.knowledge import FEATURES, Board, Knowledge, log_loss
from sklyap.search.policies import (
    ExtrapolationPolicy,
    HalvingPolicy,
    HyperbandPolicy,
    OraclePolicy,
    Policy,
    RandomPolicy,
)
from sklyap.search.predicted import PredictorPolicy
from sklyap.search.spectra import default_transformer, read_population, timed_spectra
from sklyap.validation import (
    check_bool,
    check_instance,
    check_int,
    check_methods,
    check_probe,
    check_real,
    seed_from,
)

__all__ = ["RecordedBoard", "ReplayResult", "replay_search"]

_CALLER = "replay_search"
_TIMED = 8
_PLAIN: dict[str, type[Policy]] = {
    "random": RandomPolicy,
    "halving": HalvingPolicy,
    "hyperband": HyperbandPolicy,
    "extrapolation": ExtrapolationPolicy,
    "oracle": OraclePolicy,
}
_PREDICTORS = {
    "predictor": FEATURES,
    "predictor without spectrum": ("loss", "hyperparameters"),
    "predictor without hyperparameters": ("spectrum", "loss"),
    "predictor, spectrum alone": ("spectrum",),
    "predictor without prior": FEATURES,
}


def replay_search(
    population: NetworkPopulation | Knowledge,
    policy: Any,
    sequences: Any = None,
    *,
    prior: Any = None,
    budgets: Sequence[float] = (0.03, 0.05, 0.1, 0.2, 0.4),
    count_spectra: bool = False,
    spectrum_epochs: float | None = None,
    n_candidates: int | None = None,
    factor: float = 3,
    min_epochs: int = 1,
    n_repeats: int = 200,
    transformer: BaseEstimator | None = None,
    confidence: float = 0.95,
    random_state: Any = None,
) -> ReplayResult:
    """Replay searches on a population whose training has been recorded.

    Nothing is trained: a policy asks for epochs of candidates and is shown what was recorded. So a claim about a
    search can be tested over hundreds of repetitions, and its settings chosen on an earlier sweep.

    Parameters
    ----------
    population : NetworkPopulation
        Trained to the end, and kept at the rungs (``snapshot_epochs=(0, 1, 3, 9, "last")``) if the policy looks at
        spectra; failed networks are left out.
    policy : str, Policy, list or dict of these
        "random", "halving", "hyperband", "extrapolation" (of the curves of losses), "oracle"; with a `prior`
        "predictor" and its ablations "predictor without spectrum", "predictor without hyperparameters", "predictor,
        spectrum alone"; "predictor without prior", which learns from rung to rung only. A dict gives names of your own.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), optional
        What drives the networks for their spectra. Four are enough.
    prior : NetworkPopulation, pair (NetworkPopulation, sequences), or list of these, optional
        What "predictor" learns from.
    budgets : sequence of float, default=(0.03, 0.05, 0.1, 0.2, 0.4)
        Epochs to spend, as shares of the epochs that training all candidates takes.
    count_spectra : bool, default=False
        Whether budgets pay for spectra too, each as `spectrum_epochs` epochs.
    spectrum_epochs : float, optional
        What a spectrum costs, as a share of the mean epoch of training. By default the spectra of eight networks are
        computed anew and timed, cached or not; give it where the training was timed on another machine, or under
        another load.
    n_candidates : int, optional
        Candidates that each repetition draws from the population, without replacement; by default 80 % of it.
    factor, min_epochs
        See :class:`LyapunovHalvingSearch`.
    n_repeats : int, default=200
        How many repetitions.
    transformer : estimator, optional
        Computes the spectra, in place of the default.
    confidence : float, default=0.95
        Level of the intervals of :meth:`ReplayResult.curve`.
    random_state : int, RandomState instance or None, default=None
        Every policy meets the same candidates in the same repetition.

    Returns
    -------
    ReplayResult

    Raises
    ------
    TypeError, ValueError
        If a parameter is not as documented.

    Notes
    -----
    Repetitions share one population: the intervals say how sure the result is for networks like these, and not for
    another task.

    Examples
    --------
    >>> from sklyap.datasets import make_recall
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.search import replay_search
    >>> X, y = make_recall(100, n_steps=4, random_state=0)
    >>> population = train_population(
    ...     RNNClassifier("gru", 4, max_epochs=9), {"lr": [1e-3, 1e-2, 1e-1]}, X, y, n_networks=12, random_state=0,
    ...     verbose=0,
    ... )
    >>> result = replay_search(population, ["random", "halving"], budgets=[0.2, 0.5], n_repeats=20, random_state=0)
    >>> result.curve()[["policy", "budget"]].values.tolist()
    [['random', 0.2], ['random', 0.5], ['halving', 0.2], ['halving', 0.5]]
    """
    check_int(n_repeats, "n_repeats", low=1, caller=_CALLER)
    if check_real(factor, "factor", caller=_CALLER) <= 1:
        raise ValueError(f"The 'factor' parameter of {_CALLER} must be a float above 1. Got {factor!r} instead.")
    check_int(min_epochs, "min_epochs", low=1, caller=_CALLER)
    check_instance(budgets, "budgets", Iterable, caller=_CALLER)
    check_instance(policy, "policy", (str, Policy, Mapping, Sequence), caller=_CALLER)
    shares = [check_real(budget, "budgets", low=0.0, caller=_CALLER) for budget in budgets]
    check_real(confidence, "confidence", low=0.0, high=1.0, caller=_CALLER)
    check_bool(count_spectra, "count_spectra", caller=_CALLER)
    if spectrum_epochs is not None:
        check_real(spectrum_epochs, "spectrum_epochs", low=0.0, caller=_CALLER)
    check_probe(sequences, caller=_CALLER)
    if transformer is not None:
        check_methods(transformer, "transformer", ["fit_transform"], caller=_CALLER)
    policies = _named(policy)
    given = [p for p in policies.values() if isinstance(p, str) and p in _PREDICTORS]
    if any(p != "predictor without prior" for p in given) and prior is None:
        raise ValueError(
            f"The 'prior' parameter of {_CALLER} must be a population when the policy is {given[0]!r}: it is what the "
            "predictor learns from. Got None instead."
        )
    looks = [p for p in policies.values() if not isinstance(p, str) or "spectrum" in _PREDICTORS.get(p, ())]
    pairs = _pairs(prior)
    names = [name for known, _ in pairs for name in known.params.columns]
    source = _Source.of(population, sequences, transformer, names, spectra=bool(looks), price=spectrum_epochs)
    if count_spectra and np.isnan(source.price):
        raise ValueError(
            f"The 'spectrum_epochs' parameter of {_CALLER} must be given with count_spectra=True for a population "
            "whose training was not timed. Got None."
        )
    n = len(source.truth)
    n_pool = max(1, round(0.8 * n)) if n_candidates is None else n_candidates
    check_int(n_pool, "n_candidates", low=1, high=n, caller=_CALLER)
    priors = [
        _Source.of(p, sequences if own is None else own, transformer, names, spectra=bool(looks), price=0.0).truth
        for p, own in pairs
    ]
    seed = seed_from(random_state)
    built = {name: _built(p, priors, factor=factor, min_epochs=min_epochs, seed=seed) for name, p in policies.items()}
    rows = []
    for name, rule in built.items():
        for share in shares:
            for repeat in range(n_repeats):
                row = _replay(source, rule, n_pool, share, count_spectra, np.random.RandomState([seed % 2**32, repeat]))
                rows.append({"policy": name, "budget": share, "repeat": repeat, **row})
    return ReplayResult(pd.DataFrame(rows), n_candidates=n_pool, confidence=confidence)


@dataclass
class ReplayResult:
    """What replayed searches found, and at what cost.

    Attributes
    ----------
    table : DataFrame
        A row for each policy, budget and repetition: ``epochs`` trained, ``cost`` (the same and the spectra, in
        epochs), ``seconds`` (of both, recorded), number of ``spectra``, the lowest ``loss`` found, and the ``regret``,
        ln of it over the lowest loss that any of the candidates has.
    n_candidates : int
        Candidates in each repetition.
    confidence : float
        Level of the intervals.

    Examples
    --------
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.search import replay_search
    >>> X, y = make_recall(60, n_steps=4, random_state=0)
    >>> network, grid = RNNClassifier("gru", 4, max_epochs=3), {"lr": [1e-3, 1e-2, 1e-1]}
    >>> population = train_population(network, grid, X, y, n_networks=9, random_state=0, verbose=0)
    >>> result = replay_search(population, ["random", "halving"], budgets=[0.5], n_repeats=5, random_state=0)
    >>> result.curve()["policy"].tolist()
    ['random', 'halving']
    """

    table: pd.DataFrame
    n_candidates: int
    confidence: float = field(default=0.95)

    def curve(self, *, solved_within: float = 0.05) -> pd.DataFrame:
        """Return the regret over repetitions for each policy and budget.

        Parameters
        ----------
        solved_within : float, default=0.05
            Regret (in ln loss) up to which a search counts as ``solved``.

        Returns
        -------
        DataFrame
            Columns ``policy``, ``budget``, means ``epochs``, ``cost``, ``seconds`` and ``spectra``, the mean ``regret``
            with its interval ``low`` to ``high``, ``median``, and the share ``solved``.
        """
        width = float(norm.ppf((1 + self.confidence) / 2))
        rows = []
        for (policy, budget), group in self.table.groupby(["policy", "budget"], sort=False):
            regret = group["regret"].to_numpy()
            error = width * regret.std(ddof=1) / np.sqrt(len(regret)) if len(regret) > 1 else np.nan
            rows.append(
                {
                    "policy": policy,
                    "budget": budget,
                    "epochs": group["epochs"].mean(),
                    "cost": group["cost"].mean(),
                    "seconds": group["seconds"].mean(),
                    "spectra": group["spectra"].mean(),
                    "regret": regret.mean(),
                    "low": regret.mean() - error,
                    "high": regret.mean() + error,
                    "median": np.median(regret),
                    "solved": (regret <= solved_within).mean(),
                }
            )
        return pd.DataFrame(rows)


class RecordedBoard(Board):
    """Candidates whose training has been recorded; it is revealed as a policy asks for it.

    Parameters
    ----------
    source : _Source
        The population.
    rows : ndarray of int
        The candidates in it.
    counted_price : float, default=0.0
        Epochs that the budget pays for a spectrum.
    """

    def __init__(self, source: _Source, rows: NDArray[np.intp], counted_price: float = 0.0) -> None:
        self.truth = source.truth.take(rows)
        super().__init__(self.truth.params, self.truth.max_epochs)
        self.source, self.rows, self.counted_price = source, rows, counted_price
        self.spectra = {epoch: np.full_like(values, np.nan) for epoch, values in self.truth.spectra.items()}
        self.kept = self.truth.kept
        self.epochs_spent, self.seconds_spent, self.n_spectra = 0, 0.0, 0

    def train(self, who: NDArray[np.intp], epoch: int, budget: float) -> bool:
        """Reveal the losses of candidates up to `epoch`, as many as `budget` allows; tell whether it was all."""
        before = np.maximum(self.reached[who], 0)
        costs = np.maximum(epoch - before, 0)
        affordable = self.spent + np.cumsum(costs) <= budget
        # Sums over the epochs up to each one: those of a candidate are a difference of two.
        sums = self.source.cumulated[self.rows[who]]
        seconds = sums[np.arange(len(who)), np.maximum(epoch, before)] - sums[np.arange(len(who)), before]
        who = who[affordable]
        self.losses[who, :epoch] = self.truth.losses[who, :epoch]
        self.reached[who] = np.maximum(self.reached[who], epoch)
        self.epochs_spent += int(costs[affordable].sum())
        self.seconds_spent += float(seconds[affordable].sum())
        return bool(affordable.all())

    @property
    def spent(self) -> float:
        """What the budget has paid for."""
        return self.epochs_spent + self.counted_price * self.n_spectra

    def look(self, who: NDArray[np.intp], epoch: int) -> None:
        at = self.truth.last_kept(epoch)
        self.spectra.setdefault(epoch, np.full_like(self.truth.spectra[at], np.nan))
        self.spectra[epoch][who] = self.truth.spectra[at][who]
        self.n_spectra += len(who)
        self.seconds_spent += len(who) * self.source.seconds_per_spectrum

    def said(self, belief: Any, who: NDArray[np.intp], epoch: int) -> dict[str, NDArray[np.float64]]:
        # A model's word on a network is the same in every repetition.
        return {name: values[self.rows[who]] for name, values in self.source.said(belief, epoch).items()}


class _Source:
    """A recorded population, and what models have said of its networks."""

    def __init__(self, truth: Knowledge, seconds: NDArray[np.float64], price: float) -> None:
        self.truth = truth
        # Epochs and seconds of a spectrum.
        self.price, self.seconds_per_spectrum = price, price * _mean(seconds)
        self.cumulated = np.pad(np.cumsum(seconds, axis=1), ((0, 0), (1, 0)))
        self._said: dict[tuple[int, int], tuple[Any, dict[str, NDArray[np.float64]]]] = {}

    @classmethod
    def of(
        cls,
        population: Any,
        sequences: Any,
        transformer: Any,
        names: Sequence[str],
        *,
        spectra: bool,
        price: float | None = None,
    ) -> _Source:
        """Read a population, with its spectra where they are wanted."""
        if isinstance(population, Knowledge):
            return cls(population, np.full(population.losses.shape, np.nan), np.nan if price is None else price)
        if not isinstance(population, NetworkPopulation) or not len(population):
            raise TypeError(
                f"The 'population' parameter of {_CALLER} must be a NetworkPopulation with networks that did not fail. "
                f"Got {population!r:.80} instead."
            )
        if spectra and sequences is None:
            raise ValueError(
                f"The 'sequences' parameter of {_CALLER} must be given for a policy that looks at spectra. Got None."
            )
        if spectra:
            transformer = (
                default_transformer(sequences)
                if transformer is None
                else clone(transformer).set_params(sequences=sequences)
            )
        known, _ = read_population(population, transformer if spectra else None)
        records = population.records
        known.params = params_table([record.params for record in records], records[0].estimator(), names)
        seconds = np.full(known.losses.shape, np.nan)
        for row, record in enumerate(records):
            durations = record.history.get("dur", np.empty(0))
            seconds[row, : len(durations)] = durations
        if not spectra:
            return cls(known, seconds, 0.0)
        if price is not None:
            return cls(known, seconds, price)
        # A cache of spectra would make them free, so some are computed anew.
        few = list(population.networks(known.kept[0]))[:_TIMED]
        took = timed_spectra(clone(transformer).set_params(memory=None), few)[1] / len(few)
        return cls(known, seconds, took / _mean(seconds))

    def said(self, belief: Belief, epoch: int) -> dict[str, NDArray[np.float64]]:
        """Return what the models of a belief say of all networks, which they are asked once."""
        key = id(belief), epoch
        if key not in self._said:
            known = self.truth
            if belief.needs_spectra and epoch not in known.spectra:
                at = known.spectra[known.last_kept(epoch)]
                known = Knowledge(known.params, known.losses, known.spectra | {epoch: at}, known.kept)
            self._said[key] = belief, belief.predict(known, epoch)
        return self._said[key][1]


def _replay(
    source: _Source, policy: Policy, n_pool: int, share: float, count_spectra: bool, rng: np.random.RandomState
) -> dict[str, float]:
    """Run one search and return what it found."""
    price = source.price if count_spectra else 0.0
    board = RecordedBoard(source, rng.permutation(len(source.truth))[:n_pool], price)
    rule = copy.copy(policy)
    rule.budget = budget = max(share * n_pool * board.max_epochs, 1)
    if isinstance(rule, PredictorPolicy):
        rule.spectrum_epochs = price
    for request in rule.requests(board, rng):
        if not board.train(np.asarray(request.candidates), request.epoch, budget):
            break
    found = board.best().min()
    regret = np.inf if np.isinf(found) else float(log_loss(found) - log_loss(board.truth.best().min()))
    return {
        "epochs": board.epochs_spent,
        "cost": board.epochs_spent + (source.price * board.n_spectra if board.n_spectra else 0.0),
        "seconds": board.seconds_spent,
        "spectra": board.n_spectra,
        "loss": float(found),
        "regret": regret,
    }


def _mean(seconds: NDArray[np.float64]) -> float:
    known = seconds[~np.isnan(seconds)]
    return float(known.mean()) if len(known) else np.nan


def _named(policy: Any) -> dict[str, Any]:
    """Return policies by name."""
    if isinstance(policy, Mapping):
        policies = dict(policy)
    else:
        items = [policy] if isinstance(policy, str | Policy) else list(policy)
        policies = {getattr(item, "name", str(item)): item for item in items}
    known = [*_PLAIN, *_PREDICTORS]
    for item in policies.values():
        if not isinstance(item, Policy) and item not in known:
            raise ValueError(
                f"The 'policy' parameter of {_CALLER} must be a Policy or one of {', '.join(map(repr, known))}. "
                f"Got {item!r} instead."
            )
    return policies


def _pairs(prior: Any) -> list[tuple[Any, Any]]:
    if isinstance(prior, Knowledge):
        return [(prior, None)]
    if isinstance(prior, list) and all(isinstance(item, Knowledge) for item in prior):
        return [(item, None) for item in prior]
    return list(prior_pairs(prior, _CALLER))


def _built(policy: Any, priors: list[Knowledge], *, factor: float, min_epochs: int, seed: int) -> Policy:
    """Return a policy that is named by a word, or the one that was given."""
    if isinstance(policy, Policy):
        return policy
    options: dict[str, Any] = {"factor": factor, "min_epochs": min_epochs}
    if policy in _PLAIN:
        return _PLAIN[policy](**options)
    without = policy == "predictor without prior"
    belief = Belief([] if without else priors, kinds=_PREDICTORS[policy], random_state=seed)
    return PredictorPolicy(belief, **options)
