"""Parameters of a search, checked before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, is_classifier
from torch import Tensor

from sklyap.population import NetworkPopulation
from sklyap.search.belief import takes_networks
from sklyap.search.spectra import kept_epochs
from sklyap.validation import (
    check_bool,
    check_choice,
    check_instance,
    check_int,
    check_jobs,
    check_probe,
    check_real,
    check_verbose,
)

__all__ = ["Checked", "check_search", "params_table", "prior_pairs"]

_CALLER = "LyapunovHalvingSearch"
_N_SEQUENCES = 4


@dataclass(frozen=True)
class Checked:
    """Parameters of a search after the checks.

    Attributes
    ----------
    sequences : array-like
    n_candidates, n_drawn : int
        Candidates that are trained, and that are drawn.
    min_epochs, max_epochs : int
    priors : list of tuple (NetworkPopulation, sequences)
    """

    sequences: Any
    n_candidates: int
    n_drawn: int
    min_epochs: int
    max_epochs: int
    priors: list[tuple[NetworkPopulation, Any]]

    @property
    def prior_names(self) -> list[str]:
        """Hyperparameters that vary in a prior."""
        return list(dict.fromkeys(name for population, _ in self.priors for name in population.params.columns))


def check_search(search: Any, X: Any) -> Checked:
    """Return the parameters of a search, or say what is wrong with them."""
    n_candidates = check_int(search.n_candidates, "n_candidates", low=1, caller=_CALLER)
    factor = check_real(search.factor, "factor", caller=_CALLER)
    if factor <= 1:
        raise ValueError(f"The 'factor' parameter of {_CALLER} must be a float above 1. Got {search.factor!r} instead.")
    max_epochs = getattr(search.estimator, "max_epochs", 1) if search.max_epochs is None else search.max_epochs
    check_int(max_epochs, "max_epochs", low=1, caller=_CALLER)
    min_epochs = check_int(search.min_epochs, "min_epochs", low=1, caller=_CALLER)
    if min_epochs > max_epochs:
        raise ValueError(
            f"The 'min_epochs' parameter of {_CALLER} must not exceed max_epochs, which is {max_epochs}. "
            f"Got {min_epochs} instead."
        )
    check_bool(search.resume, "resume", caller=_CALLER)
    check_bool(search.refit, "refit", caller=_CALLER)
    check_jobs(search.n_jobs, caller=_CALLER)
    check_verbose(search.verbose, caller=_CALLER)
    check_probe(search.sequences, caller=_CALLER)
    check_choice(search.promote_by, "promote_by", ("predictor", "loss", "distance"), caller=_CALLER)
    check_int(search.n_labelled, "n_labelled", low=0, high=n_candidates, caller=_CALLER)
    _check_distributions(search.param_distributions)
    _check_predictor(search.predictor)
    _check_reference(search.promote_by, search.reference)
    priors = prior_pairs(search.prior, _CALLER)
    sequences = _to_array(X)[:_N_SEQUENCES] if search.sequences is None else search.sequences
    _check_widths(sequences, X, priors)
    screens = search.promote_by == "predictor" and bool(priors)
    on_networks = search.predictor is not None and takes_networks(search.predictor)
    n_drawn = round(factor * n_candidates) if screens and not on_networks else n_candidates
    if search.n_screened is not None:
        n_drawn = check_int(search.n_screened, "n_screened", low=n_candidates, caller=_CALLER)
        if n_drawn > n_candidates and not screens:
            raise ValueError(
                f"The 'n_screened' parameter of {_CALLER} needs a prior and promote_by='predictor': without, nothing "
                f"is known of a candidate before it is trained. Got {n_drawn}."
            )
    pairs = [(population, sequences if own is None else own) for population, own in priors]
    return Checked(sequences, n_candidates, n_drawn, min_epochs, max_epochs, pairs)


def prior_pairs(prior: Any, caller: str) -> list[tuple[NetworkPopulation, Any]]:
    """Return populations with their sequences, None for those that came without."""
    if prior is None:
        return []
    items = [prior] if isinstance(prior, NetworkPopulation | tuple) else prior
    if not isinstance(items, Sequence):
        items = [items]
    pairs = []
    for item in items:
        population, sequences = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
        if not isinstance(population, NetworkPopulation):
            raise TypeError(
                f"The 'prior' parameter of {caller} must be a NetworkPopulation, a pair of one and sequences, or a "
                f"list of these. Got {type(population).__name__} instead."
            )
        if len(population) < 10:
            raise ValueError(
                f"The 'prior' parameter of {caller} must hold at least 10 networks that did not fail. "
                f"Got {len(population)} instead."
            )
        if not kept_epochs(population):
            raise ValueError(
                f"The 'prior' parameter of {caller} must hold networks that were kept at whole epochs before the end: "
                'train_population(..., snapshot_epochs=(0, 1, 3, "last")). Got '
                f"{', '.join(population.records[0].snapshots)}."
            )
        _check_own_sequences(sequences, population, caller)
        pairs.append((population, sequences))
    return pairs


def _check_own_sequences(sequences: Any, population: NetworkPopulation, caller: str) -> None:
    """Refuse sequences that came with a prior and do not fit its networks."""
    check_probe(sequences, caller=caller, name="prior")
    given = _to_array(sequences) if not isinstance(sequences, list | int | type(None)) else None
    if given is not None and given.ndim == 3 and given.shape[2] != population[0].n_inputs_:
        raise ValueError(
            f"The 'prior' parameter of {caller} must come with sequences of {population[0].n_inputs_} inputs per step, "
            f"as its networks have. Got {given.shape[2]} instead."
        )


def params_table(
    params: Sequence[Mapping[str, Any]], estimator: BaseEstimator, more: Sequence[str] = ()
) -> pd.DataFrame:
    """Return hyperparameters as columns of numbers or words; those that did not vary here are the estimator's."""
    own = estimator.get_params(deep=False)
    names = list(dict.fromkeys([*(name for row in params for name in row), *more]))
    table = {}
    for name in names:
        values = [row.get(name, own.get(name)) for row in params]
        numeric = all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values)
        table[name] = values if numeric else [_word(value) for value in values]
    return pd.DataFrame(table, index=range(len(params)))


def _word(value: Any) -> str:
    return value.__qualname__ if isinstance(value, type) else str(value)


def _check_distributions(distributions: Any) -> None:
    check_instance(distributions, "param_distributions", (Mapping, Sequence), caller=_CALLER)
    for grid in [distributions] if isinstance(distributions, Mapping) else distributions or ():
        if isinstance(grid, Mapping) and "max_epochs" in grid:
            raise ValueError(
                f"The 'param_distributions' parameter of {_CALLER} must not set 'max_epochs': the rungs decide how "
                "long a candidate is trained."
            )


def _check_predictor(predictor: Any) -> None:
    if predictor is None:
        return
    if isinstance(predictor, type) or not (hasattr(predictor, "fit") and hasattr(predictor, "predict")):
        raise TypeError(
            f"The 'predictor' parameter of {_CALLER} must be a regressor with fit and predict. "
            f"Got {predictor!r} instead."
        )
    if is_classifier(predictor):
        raise TypeError(
            f"The 'predictor' parameter of {_CALLER} must be a regressor: it predicts losses. Got the classifier "
            f"{type(predictor).__name__} instead."
        )


def _check_reference(promote_by: str, reference: Any) -> None:
    if promote_by == "distance" and reference is None:
        raise ValueError(
            f"The 'reference' parameter of {_CALLER} must be a network when promote_by='distance': candidates are "
            "compared with its spectrum. Got None instead."
        )


def _check_widths(sequences: Any, X: Any, priors: Sequence[tuple[NetworkPopulation, Any]]) -> None:
    """Refuse sequences, or priors without sequences of their own, that have another number of inputs than X."""
    data = _to_array(X)
    if data.ndim != 3:
        return
    width = data.shape[2]
    given = _to_array(sequences) if not isinstance(sequences, list | int) else None
    if given is not None and given.ndim == 3 and given.shape[2] != width:
        raise ValueError(
            f"The 'sequences' parameter of {_CALLER} must have {width} inputs per step, as X has. "
            f"Got {given.shape[2]} instead."
        )
    for population, own in priors:
        inputs = population[0].n_inputs_
        if own is None and inputs != width:
            raise ValueError(
                f"The 'prior' parameter of {_CALLER} must hold networks of {width} inputs per step, as X has, or come "
                f"with sequences of its own, as (population, sequences). Got networks of {inputs} inputs."
            )


def _to_array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
