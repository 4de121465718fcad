"""The honest table: what the spectrum says about the final loss, beside what one knows without it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, check_cv

from sklyap.cells.conversion import module_of
from sklyap.comparison.predictors import check_predictors, default_loss_predictors
from sklyap.comparison.scores import score_predictions
from sklyap.exceptions import FailedNetworkWarning, SklyapWarning
from sklyap.population import NetworkPopulation
from sklyap.runtime import lent_turn, watch_parent
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.validation import check_bool, check_choice, check_dense, check_int, check_jobs, check_real, seed_from

__all__ = ["compare_loss_predictors"]

Splits = list[tuple[NDArray[np.intp], NDArray[np.intp]]]
Rows = dict[str, tuple[tuple[str, ...], BaseEstimator]]


def compare_loss_predictors(
    population: NetworkPopulation,
    sequences: Any,
    *,
    epoch: Any = 1,
    predictors: Mapping[str, Any] | None = None,
    cv: Any = 10,
    groups: Any = None,
    target: str | None = "log",
    threshold: float | str | None = "auto",
    reference: str = "loss so far",
    n_exponents: int | None = 128,
    transformer: LyapunovSpectrumTransformer | None = None,
    memory: Any = None,
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    return_predictions: bool = False,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame]:
    """Compare predictors of the networks' best loss, out of fold, from what is known at an early epoch.

    Spectra are computed once. Networks are split between training and test, never the rows of one network.

    Parameters
    ----------
    population : NetworkPopulation
        The networks and their losses.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), or int
        What drives the networks, see :class:`~sklyap.LyapunovSpectrumTransformer`.
    epoch : number or "last", default=1
        The snapshot that is looked at.
    predictors : dict, optional
        For each name an estimator, which gets the spectra, or a pair (features, estimator). Features are one or
        several of "spectrum", "loss_so_far" (logarithms of the losses up to `epoch`), "hyperparameters",
        "n_parameters" (logarithm of the number of weights); the estimator gets them as columns of a DataFrame.
        By default :func:`~sklyap.comparison.default_loss_predictors`, without the rows that need what is not known of
        the population.
    cv : int, splitter or iterable, default=10
        Folds of networks; an int shuffles. Not used with `groups`.
    groups : str or array-like of shape (n_networks,), optional
        Leave one family out at a time: a hyperparameter ("cell", "hidden_size"), "population", or labels.
    target : {"log"} or None, default="log"
        Whether to predict and score the logarithm of the loss, or the loss.
    threshold : float, "auto" or None, default="auto"
        The loss that networks are to get below, for the column ``auc``; see
        :func:`~sklyap.comparison.score_predictions`.
    reference : str, default="loss so far"
        The predictor that the others' gain is measured against; left out if there is none of that name.
    n_exponents : int or None, default=128
        Points of relative index that whole spectra are interpolated at.
    transformer : LyapunovSpectrumTransformer, optional
        Computes the spectra, in place of `sequences`, `n_exponents` and `memory`.
    memory : joblib.Memory or str, optional
        Cache of spectra.
    n_bootstrap : int, default=1000
        Resamples of networks for the intervals.
    confidence : float, default=0.95
        Level of the intervals.
    return_predictions : bool, default=False
        Whether to return the out-of-fold predictions, too.
    random_state : int, RandomState instance or None, default=None
        Seeds folds, predictors and resamples.
    n_jobs : int, optional
        How many fits to run at once, through joblib.

    Returns
    -------
    table : DataFrame, one row per predictor
        See :func:`~sklyap.comparison.score_predictions`. ``r2_added`` and ``spearman_added`` are what the spectrum
        adds: the gain of a row that sees it over the row that sees the same without it. ``attrs["threshold"]`` is a
        loss. With `groups`, ``spearman_within`` is the mean over families of the rank correlation inside the family
        that was left out.
    predictions : DataFrame of shape (n_networks, 1 + n_predictors), if `return_predictions`
        Column ``target`` and a column for each predictor, indexed by position in `population`.

    Raises
    ------
    ValueError
        If the same network is in training and test, a loss is not positive with ``target="log"``, or a
        parameter is out of range.

    Warns
    -----
    FailedNetworkWarning
        Naming networks without a spectrum or a finite loss, which the table is without.
    SklyapWarning
        Naming rows that the table is without, as losses at every epoch or hyperparameters are not known.

    Examples
    --------
    >>> from sklyap.comparison import compare_loss_predictors, default_loss_predictors
    >>> from sklyap.datasets import load_sequential_digits
    >>> from sklyap.networks import RNNClassifier
    >>> from sklyap.population import train_population
    >>> X, y = load_sequential_digits(n_class=2, return_X_y=True)
    >>> population = train_population(
    ...     RNNClassifier(hidden_size=4, max_epochs=2), {"lr": [1e-4, 1e-3, 1e-2]}, X, y,
    ...     n_networks=9, random_state=0, verbose=0,
    ... )
    >>> rows = default_loss_predictors(random_state=0)
    >>> chosen = {name: rows[name] for name in ("constant", "loss so far", "spectrum, ridge")}
    >>> table = compare_loss_predictors(population, X[:4], predictors=chosen, cv=3, random_state=0)
    >>> table.index.tolist()
    ['constant', 'loss so far', 'spectrum, ridge']
    """
    caller = "compare_loss_predictors"
    if not isinstance(population, NetworkPopulation):
        raise TypeError(
            f"The 'population' parameter of {caller} must be a NetworkPopulation. Got {population!r} instead."
        )
    check_bool(return_predictions, "return_predictions", caller=caller)
    check_jobs(n_jobs, caller=caller)
    if transformer is None and (isinstance(sequences, bool) or not isinstance(sequences, int | np.integer)):
        check_dense(sequences, "sequences", caller=caller, filled=True)
    check_choice(target, "target", ["log", None], caller=caller)
    check_int(n_bootstrap, "n_bootstrap", low=2, caller=caller)
    check_real(confidence, "confidence", low=0.0, high=1.0, caller=caller)
    seed = seed_from(random_state)
    chosen = check_predictors(default_loss_predictors(seed) if predictors is None else predictors)
    losses = np.asarray(population.best_losses, dtype=np.float64)
    if target == "log" and (losses <= 0).any():
        raise ValueError(
            f"The 'target' parameter of {caller} is 'log', which needs positive losses. Got {losses.min()}; "
            "use target=None."
        )
    identities = _identities(population)
    labels = population.groups(groups) if isinstance(groups, str) else groups
    # Splits are checked before the long work, on all networks.
    splits = _splits(cv, labels, identities, seed)
    if transformer is None:
        transformer = LyapunovSpectrumTransformer(
            sequences, n_exponents=n_exponents, align="interpolate", memory=memory, n_jobs=n_jobs, on_error="warn"
        )
    blocks, unknown = _known(population, epoch)
    chosen = _known_rows(chosen, unknown, given=predictors is not None)
    blocks |= _computed(population, epoch, transformer)
    y = np.log(losses) if target == "log" else losses
    bound = np.log(threshold) if target == "log" and isinstance(threshold, int | float) else threshold
    usable = np.isfinite(y) & np.isfinite(blocks["spectrum"]).all(axis=1).to_numpy()
    if not usable.all():
        warnings.warn(
            "The table is without the networks at the positions "
            f"{np.flatnonzero(~usable).tolist()}, which have no spectrum or no finite loss.",
            FailedNetworkWarning,
            stacklevel=2,
        )
        splits = [(train[usable[train]], test[usable[test]]) for train, test in splits]
    predictions = _out_of_fold(chosen, blocks, y, splits, n_jobs)
    predictions.insert(0, "target", y)
    families = None if labels is None else np.asarray(labels)[usable]
    table = score_predictions(
        predictions[usable],
        reference=reference if reference in chosen else None,
        added_to=_without_spectrum(chosen),
        threshold=bound,
        groups=families,
        n_bootstrap=n_bootstrap,
        confidence=confidence,
        random_state=seed,
    )
    if target == "log" and table.attrs["threshold"] is not None:
        table.attrs["threshold"] = float(np.exp(table.attrs["threshold"]))
    return (table, predictions[usable]) if return_predictions else table


def _without_spectrum(chosen: Rows) -> dict[str, str]:
    """Return for rows that see the spectrum and more the one that sees the same without it, with such an estimator."""
    pairs: dict[str, str] = {}
    for name, (features, estimator) in chosen.items():
        rest = set(features) - {"spectrum"}
        if rest and "spectrum" in features:
            alike = [n for n, (f, e) in chosen.items() if set(f) == rest and type(e) is type(estimator)]
            pairs |= {name: alike[0]} if alike else {}
    return pairs


def _known_rows(chosen: Rows, unknown: Mapping[str, str], *, given: bool) -> Rows:
    """Return the rows whose features are known; complain about others that were asked for."""
    lost = {
        name: next(f for f in features if f in unknown)
        for name, (features, _) in chosen.items()
        if {*features} & {*unknown}
    }
    if lost and given:
        name, feature = next(iter(lost.items()))
        raise ValueError(
            f"The row {name!r} needs the feature {feature!r}, which the population lacks: {unknown[feature]}"
        )
    if lost:
        warnings.warn(
            f"The table is without the rows {', '.join(map(repr, lost))}: {' '.join(unknown.values())}",
            SklyapWarning,
            stacklevel=3,
        )
    return {name: row for name, row in chosen.items() if name not in lost}


def _identities(population: NetworkPopulation) -> NDArray[np.intp]:
    """Return a number for every entry that entries of one and the same network share."""
    keys = [joblib.hash(r.identity) for r in population.records]
    return np.unique(keys, return_inverse=True)[1]


def _splits(cv: Any, groups: Any, identities: NDArray[np.intp], seed: int) -> Splits:
    """Return folds, and refuse those that have a network in training and test."""
    n = len(identities)
    rows = np.zeros(n)
    if groups is not None:
        splits = list(
            LeaveOneGroupOut().split(rows, groups=np.unique(np.asarray(groups).astype(str), return_inverse=True)[1])
        )
    elif isinstance(cv, int | np.integer):
        folds = check_int(cv, "cv", low=2, high=len(np.unique(identities)), caller="compare_loss_predictors")
        alone = len(np.unique(identities)) == n
        splitter = (
            KFold(folds, shuffle=True, random_state=seed)
            if alone
            else GroupKFold(folds, shuffle=True, random_state=seed)
        )
        splits = list(splitter.split(rows, groups=None if alone else identities))
    else:
        splitter = check_cv(cv)
        splits = list(splitter.split(rows, groups=identities if _takes_groups(splitter) else None))
    tested = np.concatenate([test for _, test in splits])
    if not np.array_equal(np.sort(tested), np.arange(n)):
        raise ValueError(
            "The 'cv' parameter of compare_loss_predictors must test every network exactly once. "
            f"Got {len(tested)} tests of {len(np.unique(tested))} of the {n} networks."
        )
    for train, test in splits:
        shared = np.intersect1d(identities[train], identities[test])
        if len(shared):
            where = np.flatnonzero(identities == shared[0]).tolist()
            raise ValueError(
                "A network must not be in training and test: snapshots of one network are nearly one sample. "
                f"The positions {where} hold the same network; split by network, or pass an int as 'cv'."
            )
    return splits


def _takes_groups(splitter: Any) -> bool:
    """Tell whether a splitter looks at groups: those of scikit-learn that do not warn when they are given some."""
    if not hasattr(splitter, "get_metadata_routing"):
        return True
    return bool(splitter.get_metadata_routing().split.requests.get("groups"))


def _known(population: NetworkPopulation, epoch: Any) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Return what is known of the networks without a spectrum, one row per network, and why other things are not."""
    population.networks(epoch)  # raises for an epoch that was not kept
    blocks, unknown = {"hyperparameters": population.params}, {}
    if blocks["hyperparameters"].empty:
        unknown["hyperparameters"] = "The population has no hyperparameters."
    try:
        blocks["loss_so_far"] = _losses_so_far(population, epoch)
    except ValueError as error:
        unknown["loss_so_far"] = str(error)
    return blocks, unknown


def _computed(
    population: NetworkPopulation, epoch: Any, transformer: LyapunovSpectrumTransformer
) -> dict[str, pd.DataFrame]:
    """Return what the networks themselves say, one row per network."""
    networks = population.networks(epoch)
    spectra = transformer.fit_transform(networks)
    return {
        "spectrum": pd.DataFrame(spectra, columns=transformer.get_feature_names_out()),
        "n_parameters": pd.DataFrame({"log_n_parameters": [np.log(_n_parameters(net)) for net in networks]}),
    }


def _losses_so_far(population: NetworkPopulation, epoch: Any) -> pd.DataFrame:
    """Return the losses up to `epoch`, or their logarithms where they have one."""
    losses = pd.DataFrame({f"loss_{e}": population.losses(e) for e in _epochs_so_far(epoch)})
    return np.log(losses).add_prefix("log_") if (losses > 0).all(axis=None) else losses


def _epochs_so_far(epoch: Any) -> list[Any]:
    """Return the epochs whose losses are known at `epoch`: the whole ones before it, and itself."""
    if isinstance(epoch, str):
        return [epoch]
    return [*range(1, int(np.ceil(epoch))), epoch]


def _n_parameters(network: Any) -> int:
    return sum(parameter.numel() for parameter in module_of(network).parameters())


def _out_of_fold(
    predictors: Mapping[str, tuple[tuple[str, ...], BaseEstimator]],
    blocks: Mapping[str, pd.DataFrame],
    y: NDArray[np.float64],
    splits: Splits,
    n_jobs: int | None,
) -> pd.DataFrame:
    def tasks() -> Iterator[tuple[str, BaseEstimator, pd.DataFrame, Any]]:
        for name, (features, estimator) in predictors.items():
            X = pd.concat([blocks[feature] for feature in features], axis=1)
            for split in splits:
                if min(map(len, split)):
                    yield name, estimator, X, split

    predictions = pd.DataFrame(np.nan, index=range(len(y)), columns=list(predictors))
    planned = list(tasks())
    jobs = (joblib.delayed(_predict_fold)(estimator, X, y, *split) for _, estimator, X, split in planned)
    with lent_turn():
        results = joblib.Parallel(n_jobs=n_jobs)(jobs)
    for (name, _, _, (_, test)), values in zip(planned, results, strict=True):
        predictions.loc[test, name] = values
    return predictions


def _predict_fold(
    estimator: BaseEstimator,
    X: pd.DataFrame,
    y: NDArray[np.float64],
    train: Sequence[int],
    test: Sequence[int],
) -> NDArray[np.float64]:
    watch_parent()
    predicted: NDArray[np.float64] = clone(estimator).fit(X.iloc[train], y[train]).predict(X.iloc[test])
    return np.ravel(predicted)
