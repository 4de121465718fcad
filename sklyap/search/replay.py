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
from sklearn.base import BaseEstimator

from sklyap.population import NetworkPopulation
from sklyap.search.belief import Belief
from sklyap.search.checks import prior_pairs
from sklyap.search.knowledge import FEATURES, Board, Knowledge, log_loss
from sklyap.search.policies import (
    ExtrapolationPolicy,
    HalvingPolicy,
    HyperbandPolicy,
    OraclePolicy,
    Policy,
    RandomPolicy,
    Request,
)
from sklyap.search.predicted import PredictorPolicy
from sklyap.search.recorded import CALLER, RecordedBoard, Source
from sklyap.validation import (
    check_bool,
    check_instance,
    check_int,
    check_methods,
    check_probe,
    check_real,
    seed_from,
)

__all__ = ["ReplayResult", "replay_search"]

_PLAIN: dict[str, type[Policy]] = {
    "random": RandomPolicy,
    "halving": HalvingPolicy,
    "hyperband": HyperbandPolicy,
    "extrapolation": ExtrapolationPolicy,
    "oracle": OraclePolicy,
}
_PREDICTORS = {
    "predictor": FEATURES,
    "predictor without finalists": FEATURES,
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
        spectrum alone" and "predictor without finalists"; "predictor without prior", which learns from rung to rung
        only. A dict gives names of your own.
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
    check_int(n_repeats, "n_repeats", low=1, caller=CALLER)
    if check_real(factor, "factor", caller=CALLER) <= 1:
        raise ValueError(f"The 'factor' parameter of {CALLER} must be a float above 1. Got {factor!r} instead.")
    check_int(min_epochs, "min_epochs", low=1, caller=CALLER)
    check_instance(budgets, "budgets", Iterable, caller=CALLER)
    check_instance(policy, "policy", (str, Policy, Mapping, Sequence), caller=CALLER)
    shares = [check_real(budget, "budgets", low=0.0, caller=CALLER) for budget in budgets]
    if not shares:
        raise ValueError(f"The 'budgets' parameter of {CALLER} must hold at least one share. Got {budgets!r}.")
    check_real(confidence, "confidence", low=0.0, high=1.0, caller=CALLER)
    check_bool(count_spectra, "count_spectra", caller=CALLER)
    if spectrum_epochs is not None:
        check_real(spectrum_epochs, "spectrum_epochs", low=0.0, caller=CALLER)
    check_probe(sequences, caller=CALLER)
    if transformer is not None:
        check_methods(transformer, "transformer", ["fit_transform"], caller=CALLER)
    policies = _named(policy)
    given = [p for p in policies.values() if isinstance(p, str) and p in _PREDICTORS]
    if any(p != "predictor without prior" for p in given) and prior is None:
        raise ValueError(
            f"The 'prior' parameter of {CALLER} must be a population when the policy is {given[0]!r}: it is what the "
            "predictor learns from. Got None instead."
        )
    if not policies:
        raise ValueError(f"The 'policy' parameter of {CALLER} must name at least one policy. Got {policy!r}.")
    # What a policy of the user's looks at is not known before it looks.
    looks = [p for p in policies.values() if isinstance(p, str) and "spectrum" in _PREDICTORS.get(p, ())]
    looks += [p for p in policies.values() if not isinstance(p, str) and sequences is not None]
    pairs = _pairs(prior)
    names = [name for known, _ in pairs for name in known.params.columns]
    source = Source.of(population, sequences, transformer, names, spectra=bool(looks), price=spectrum_epochs)
    if count_spectra and np.isnan(source.price):
        raise ValueError(
            f"The 'spectrum_epochs' parameter of {CALLER} must be given with count_spectra=True for a population "
            "whose training was not timed. Got None."
        )
    n = len(source.truth)
    n_pool = max(1, round(0.8 * n)) if n_candidates is None else n_candidates
    check_int(n_pool, "n_candidates", low=1, high=n, caller=CALLER)
    priors = [
        Source.of(p, sequences if own is None else own, transformer, names, spectra=bool(looks), price=0.0).truth
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
            with its interval ``low`` to ``high``, ``median``, and the share ``solved``. A search that found no loss,
            because its budget did not pay for the first rung, has an infinite regret; the mean is then infinite, and
            the interval NaN.
        """
        check_real(solved_within, "solved_within", low=0.0, caller="ReplayResult.curve")
        width = float(norm.ppf((1 + self.confidence) / 2))
        rows = []
        for (policy, budget), group in self.table.groupby(["policy", "budget"], sort=False):
            regret = group["regret"].to_numpy()
            known = len(regret) > 1 and np.isfinite(regret).all()
            error = width * regret.std(ddof=1) / np.sqrt(len(regret)) if known else np.nan
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


def _replay(
    source: Source, policy: Policy, n_pool: int, share: float, count_spectra: bool, rng: np.random.RandomState
) -> dict[str, float]:
    """Run one search and return what it found."""
    price = source.price if count_spectra else 0.0
    board = RecordedBoard(source, rng.permutation(len(source.truth))[:n_pool], price)
    rule = copy.copy(policy)
    rule.budget = budget = max(share * n_pool * board.max_epochs, 1)
    if isinstance(rule, PredictorPolicy):
        rule.spectrum_epochs = price
    for request in rule.requests(board, rng):
        if not board.train(*_checked(request, board, rule), budget):
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


def _checked(request: Any, board: Board, policy: Policy) -> tuple[NDArray[np.intp], int]:
    """Return the candidates and the epoch that a policy, which may be a user's, has asked for."""
    candidates = np.asarray(getattr(request, "candidates", ()))
    epoch = getattr(request, "epoch", None)
    inside = candidates.ndim == 1 and (
        not len(candidates)
        or (candidates.dtype.kind in "iu" and 0 <= candidates.min() <= candidates.max() < len(board))
    )
    if isinstance(request, Request) and inside and len(np.unique(candidates)) == len(candidates):
        if isinstance(epoch, int | np.integer) and 0 <= epoch <= board.max_epochs:
            return candidates.astype(np.intp), int(epoch)
    raise ValueError(
        f"The policy {type(policy).__name__} must yield a Request for distinct candidates from 0 to {len(board) - 1}, "
        f"up to an epoch from 0 to {board.max_epochs}. Got {request!r:.200} instead."
    )


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
                f"The 'policy' parameter of {CALLER} must be a Policy or one of {', '.join(map(repr, known))}. "
                f"Got {item!r} instead."
            )
    return policies


def _pairs(prior: Any) -> list[tuple[Any, Any]]:
    if isinstance(prior, Knowledge):
        return [(prior, None)]
    if isinstance(prior, list) and all(isinstance(item, Knowledge) for item in prior):
        return [(item, None) for item in prior]
    return list(prior_pairs(prior, CALLER))


def _built(policy: Any, priors: list[Knowledge], *, factor: float, min_epochs: int, seed: int) -> Policy:
    """Return a policy that is named by a word, or the one that was given."""
    if isinstance(policy, Policy):
        return policy
    options: dict[str, Any] = {"factor": factor, "min_epochs": min_epochs}
    if policy in _PLAIN:
        return _PLAIN[policy](**options)
    without = policy == "predictor without prior"
    belief = Belief([] if without else priors, kinds=_PREDICTORS[policy], random_state=seed)
    if policy == "predictor without finalists":
        options["finalist_share"] = 0.0
    return PredictorPolicy(belief, **options)
