"""What a search believes of its candidates' final losses, and how far it trusts where the belief comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr
from sklearn.base import BaseEstimator, clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklyap.search.knowledge import Knowledge, log_loss

__all__ = ["Belief", "Estimate", "default_model"]

_FOLDS = 5
# Candidates of which the rank correlation counts as much as that in the priors.
_PSEUDO_COUNT = 10.0
_FEWEST_LABELS = 6


def default_model(random_state: int = 0) -> Pipeline:
    """Return the regressor of the final loss on columns of words, numbers and gaps."""
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", missing_values=None),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    columns = make_column_transformer(
        (words, make_column_selector(dtype_exclude="number")),
        (SimpleImputer(strategy="median", keep_empty_features=True), make_column_selector(dtype_include="number")),
    )
    return make_pipeline(columns, ExtraTreesRegressor(200, min_samples_leaf=2, random_state=random_state))


@dataclass(frozen=True)
class Estimate:
    """Belief in the final losses of some candidates.

    Attributes
    ----------
    score : ndarray of shape (n,)
        Standardised ln loss; the lower, the better.
    spread : ndarray of shape (n,)
        Standard deviation of the belief, in the same units.
    sources : dict of str to ndarray of shape (n,)
        What each source says, standardised.
    weights : dict of str to float
        How much each source counts.
    """

    score: NDArray[np.float64]
    spread: NDArray[np.float64]
    sources: dict[str, NDArray[np.float64]]
    weights: dict[str, float]


@dataclass(frozen=True)
class _Rung:
    """What the priors say about one epoch."""

    models: dict[str, Any]
    weights: dict[str, float]
    expected: dict[str, float]
    residual: float


class Belief:
    """Predictors of the final loss, learnt on priors and weighed by how well they have predicted.

    Sources are a model for each kind of features, one for all of them, and the loss so far. Their weights are those
    that predict best in the priors, out of fold; a source whose ranking of the candidates that went on was worse than
    that in the priors loses its weight.

    Parameters
    ----------
    priors : sequence of Knowledge
        Networks whose training has ended, of other tasks.
    kinds : sequence of str
        Kinds of features to look at.
    model : estimator, optional
        A regressor of standardised ln loss on the columns of :meth:`Knowledge.features`.
    random_state : int
    """

    def __init__(
        self,
        priors: Sequence[Knowledge],
        *,
        kinds: Sequence[str],
        model: BaseEstimator | None = None,
        random_state: int = 0,
    ) -> None:
        self.priors = list(priors)
        self.kinds = tuple(kinds)
        self.model = default_model(random_state) if model is None else model
        self._rungs: dict[int, _Rung] = {}

    def rung(self, epoch: int) -> _Rung:
        """Return what the priors say about an epoch, which is learnt when it is first asked for."""
        if epoch not in self._rungs:
            self._rungs[epoch] = self._learn(epoch)
        return self._rungs[epoch]

    def predict(self, known: Knowledge, epoch: int) -> dict[str, NDArray[np.float64]]:
        """Return what each model says of networks that stand at `epoch`, in standardised ln loss of its priors."""
        models = self.rung(epoch).models
        return {name: np.ravel(model.predict(known.features(epoch, kinds))) for name, (kinds, model) in models.items()}

    def estimate(
        self,
        said: Mapping[str, NDArray[np.float64]],
        best: NDArray[np.float64],
        epoch: int,
        trust: Mapping[str, float],
    ) -> Estimate:
        """Return the belief in candidates that stand at `epoch`.

        Parameters
        ----------
        said : dict of str to ndarray of shape (n,)
            From :meth:`predict`.
        best : ndarray of shape (n,)
            Their lowest losses so far.
        epoch : int
        trust : dict of str to float
            Of each source, 1 by default; see :meth:`trust`.
        """
        rung = self.rung(epoch)
        sources = {name: _standardised(values) for name, values in said.items()}
        if epoch > 0:
            sources["loss"] = _standardised(log_loss(best))
        weights = {name: rung.weights.get(name, 0.0) * trust.get(name, 1.0) for name in sources}
        if epoch > 0:
            # What the others lose goes to the loss, which is always at hand.
            weights["loss"] += sum(rung.weights.get(name, 0.0) - weights[name] for name in sources if name != "loss")
        score = np.sum([weights[name] * values for name, values in sources.items()], axis=0)
        return Estimate(score, np.full(len(score), rung.residual), sources, weights)

    def trust(
        self, epoch: int, sources: Mapping[str, NDArray[np.float64]], outcome: NDArray[np.float64], later: int
    ) -> dict[str, float]:
        """Return how far each source is to be trusted after its candidates went on from `epoch` to `later`.

        Parameters
        ----------
        epoch : int
        sources : dict of str to ndarray of shape (n,)
            What the sources said about the candidates that went on.
        outcome : ndarray of shape (n,)
            Their loss at `later`.
        later : int

        Returns
        -------
        dict of str to float in [0, 1]
            The rank correlation seen here, shrunk to that of the priors, as a share of that of the priors.
        """
        trust = {}
        for name, said in sources.items():
            expected = self._expected(epoch, later, name)
            if expected <= 0:
                trust[name] = 0.0 if name != "loss" else 1.0
                continue
            seen = _rank_correlation(said, outcome)
            n = len(outcome)
            shrunk = (_PSEUDO_COUNT * expected + n * seen) / (_PSEUDO_COUNT + n)
            trust[name] = float(np.clip(shrunk / expected, 0, 1))
        return trust

    def _learn(self, epoch: int) -> _Rung:
        names = self._names(epoch)
        targets = [_standardised(log_loss(prior.best())) for prior in self.priors]
        y = np.concatenate(targets)
        at = [prior.nearest_epoch(epoch) if prior.spectra else min(epoch, prior.max_epochs) for prior in self.priors]
        models, said = {}, {}
        folds = KFold(_FOLDS, shuffle=True, random_state=0)
        for name, kinds in names.items():
            X = pd.concat([p.features(e, kinds) for p, e in zip(self.priors, at, strict=True)], ignore_index=True)
            said[name] = cross_val_predict(clone(self.model), X, y, cv=folds)
            models[name] = (kinds, clone(self.model).fit(X, y))
        if epoch > 0:
            said["loss"] = np.concatenate(
                [_standardised(log_loss(p.best(max(e, 1)))) for p, e in zip(self.priors, at, strict=True)]
            )
        columns = np.column_stack([_standardised(values) for values in said.values()])
        weights, residual = nnls(columns, y)
        self._said = getattr(self, "_said", {}) | {epoch: said}
        return _Rung(models, dict(zip(said, weights.tolist(), strict=True)), {}, float(residual / np.sqrt(len(y))))

    def _names(self, epoch: int) -> dict[str, tuple[str, ...]]:
        """Return the sources that are models, and what they look at."""
        usable = tuple(kind for kind in self.kinds if kind != "loss" or epoch > 0)
        names = {kind: (kind,) for kind in usable if kind != "loss"}
        if len(usable) > 1:
            names["together"] = usable
        return names

    def _expected(self, epoch: int, later: int, name: str) -> float:
        """Return the rank correlation, in the priors, of what a source said at `epoch` with the loss at `later`."""
        self.rung(epoch)
        said = self._said[epoch][name]
        outcome = np.concatenate([_standardised(log_loss(p.best(min(later, p.max_epochs)))) for p in self.priors])
        return _rank_correlation(said, outcome)


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    filled = np.where(finite, values, values[finite].max())
    scale = filled.std()
    centred: NDArray[np.float64] = (filled - filled.mean()) / (scale if scale > 0 else 1.0)
    return centred


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(spearmanr(a, b)[0])
