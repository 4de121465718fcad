"""From the parameters of a search to its policy."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sklyap.search.belief import Belief, takes_networks
from sklyap.search.checks import Checked, params_table
from sklyap.search.distance import DistancePolicy
from sklyap.search.knowledge import FEATURES
from sklyap.search.policies import HalvingPolicy
from sklyap.search.predicted import PredictorPolicy
from sklyap.search.rungs import rung_epochs
from sklyap.search.spectra import default_transformer, kept_epochs, read_population, timed_spectra, why_none

__all__ = ["make_policy", "prior_knowledge"]


def make_policy(search: Any, checked: Checked, transformer: Any, *, seed: int) -> tuple[HalvingPolicy, float]:
    """Return what decides in a search, and the seconds that spectra of priors and reference took."""
    options = {"factor": search.factor, "min_epochs": checked.min_epochs}
    if search.promote_by == "loss":
        return HalvingPolicy(checked.n_candidates, **options), 0.0
    if search.promote_by == "distance":
        spectrum, seconds = timed_spectra(transformer, [search.reference])
        if np.isnan(spectrum).any():
            raise ValueError(
                "The 'reference' parameter of LyapunovHalvingSearch must be a network that has a Lyapunov spectrum "
                f"along `sequences`. Got {why_none(transformer, search.reference)}"
            )
        return DistancePolicy(spectrum[0], checked.n_candidates, **options), seconds
    epochs = rung_epochs(checked.min_epochs, checked.max_epochs, search.factor)
    if checked.n_drawn > checked.n_candidates:
        epochs = [0, *epochs]
    predictor = search.predictor
    priors, seconds = prior_knowledge(checked, epochs[:-1], spectra=predictor is None or not takes_networks(predictor))
    if not priors and not search.n_labelled and not (predictor is not None and _is_fitted(predictor)):
        return HalvingPolicy(checked.n_candidates, **options), seconds
    belief = Belief(priors, kinds=FEATURES, model=predictor, random_state=seed)
    policy = PredictorPolicy(
        belief, checked.n_candidates, n_screened=checked.n_drawn, n_labelled=search.n_labelled, **options
    )
    return policy, seconds


def prior_knowledge(checked: Checked, epochs: list[int], *, spectra: bool) -> tuple[list[Any], float]:
    """Return what is known of the priors at the epochs that are nearest to the rungs, and the seconds it took."""
    priors, seconds = [], 0.0
    for population, sequences in checked.priors:
        kept = kept_epochs(population)
        wanted = sorted({min(kept, key=lambda e: abs(np.log((e + 0.5) / (epoch + 0.5)))) for epoch in epochs})
        transformer = default_transformer(sequences) if spectra else None
        known, took = read_population(population, transformer, epochs=wanted)
        drawn = [record.params for record in population.records]
        known.params = params_table(drawn, population.records[0].estimator(), checked.prior_names)
        priors.append(known)
        seconds += took
    return priors, seconds


def _is_fitted(predictor: Any) -> bool:
    try:
        check_is_fitted(predictor)
    except Exception:
        return False
    return True
