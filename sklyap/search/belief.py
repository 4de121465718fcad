"""What a search believes of its candidates' final losses, and how far it trusts where the belief comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from sklyap.search.knowledge import Knowledge, log_loss
from sklyap.search.labels import PSEUDO_COUNT, rank_correlation, standardised

__all__ = ["Belief", "Estimate", "default_model", "takes_networks"]

_FOLDS = 3
# Of a source that no prior says anything of.
_UNKNOWN_CORRELATION = 0.5
_GIVEN = "predictor"


def default_model(random_state: int = 0) -> Pipeline:
    """Return the regressor of the final loss on columns of words, numbers and gaps."""
    trees = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=random_state)
    return make_pipeline(_any_columns(), trees)


def _any_columns() -> ColumnTransformer:
    words = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="none", missing_values=None),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    return make_column_transformer(
        (words, make_column_selector(dtype_exclude="number")),
        (SimpleImputer(strategy="median", keep_empty_features=True), make_column_selector(dtype_include="number")),
    )


def takes_networks(model: Any) -> bool:
    """Tell whether a regressor takes a list of networks, and not a table."""
    # Pipelines and unions do not pass on this tag of their first step.
    if isinstance(model, Pipeline):
        return takes_networks(model.steps[0][1])
    if isinstance(model, FeatureUnion):
        return takes_networks(model.transformer_list[0][1])
    if getattr(model, "regressor", None) is not None:  # of a transformed target
        return takes_networks(model.regressor)
    return not get_tags(model).input_tags.two_d_array


@dataclass(frozen=True)
class Estimate:
    """Belief in the final losses of some candidates.

    Attributes
    ----------
    score : ndarray of shape (n,)
        Standardised ln loss; the lower, the better.
    sources : dict of str to ndarray of shape (n,)
        What each source says, standardised.
    weights : dict of str to float
        How much each source counts.
    """

    score: NDArray[np.float64]
    sources: dict[str, NDArray[np.float64]]
    weights: dict[str, float]


@dataclass(frozen=True)
class _Rung:
    """What the priors say about one epoch: models, what they said out of fold, weights, and the error of it all."""

    models: dict[str, tuple[tuple[str, ...], Any]]
    said: dict[str, NDArray[np.float64]]
    weights: dict[str, float]
    residual: float


class Belief:
    """Predictors of the final loss, learnt on priors and weighed by how well they have predicted.

    Sources are a model for each kind of features, one for all of them, and the loss so far. Their weights are those
    that predict best in the priors, out of fold. A source that has ranked the candidates that went on worse than the
    networks of the priors loses weight to the loss.

    Parameters
    ----------
    priors : sequence of Knowledge
        Networks whose training has ended, of other tasks.
    kinds : sequence of str
        Kinds of features to look at.
    model : estimator, optional
        A regressor of the final loss on the columns of :meth:`Knowledge.features`, or on networks. It learns losses
        that are scaled to the same mean and spread of their logarithms in every prior. A fitted one is one more source.
    random_state : int
        Seeds what is random; the same seed gives the same numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklyap.search import Belief, Knowledge
    >>> rng = np.random.default_rng(0)
    >>> prior = Knowledge(pd.DataFrame({"lr": rng.uniform(size=20)}), rng.uniform(1, 2, size=(20, 3)))
    >>> Belief([prior], kinds=["hyperparameters"]).kinds
    ('hyperparameters',)
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
        # A model of the user's predicts losses; the default their logarithm.
        self._of_losses = model is not None
        self.model = default_model(random_state) if model is None else model
        self.on_networks = takes_networks(self.model)
        self._rungs: dict[int, _Rung] = {}
        self._worth: dict[int, float] = {}
        self._worth_of_belief: dict[int, float] = {}
        self._correlations: dict[tuple[int, int, str], float] = {}

    @property
    def needs_spectra(self) -> bool:
        """Whether candidates' spectra have to be computed."""
        return "spectrum" in self.kinds and not self.on_networks

    @property
    def scale(self) -> tuple[float, float] | None:
        """Mean and standard deviation of ln final loss in the priors."""
        if not self.priors:
            return None
        targets = np.concatenate([log_loss(prior.best()) for prior in self.priors])
        return float(targets.mean()), float(targets.std())

    def _target(self, standardised: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(standardised) if self._of_losses else standardised

    def _read(self, predicted: Any) -> NDArray[np.float64]:
        values = np.ravel(predicted).astype(np.float64)
        return log_loss(values) if self._of_losses else values

    def rung(self, epoch: int) -> _Rung:
        """Return what the priors say about an epoch, which is learnt when it is first asked for."""
        if epoch not in self._rungs:
            self._rungs[epoch] = self._learn(epoch)
        return self._rungs[epoch]

    def predict(self, known: Knowledge, epoch: int) -> dict[str, NDArray[np.float64]]:
        """Return what each model says of networks that stand at `epoch`, in standardised ln loss of its priors."""
        models = self.rung(epoch).models
        return {
            name: self._read(model.predict(self._input(known, epoch, kinds))) for name, (kinds, model) in models.items()
        }

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
            The rung.
        trust : dict of str to float
            Of each source, 1 by default; see :meth:`trust`.
        """
        prior_weights = self.rung(epoch).weights
        sources = {name: standardised(values) for name, values in said.items()}
        weights = {name: prior_weights.get(name, 0.0) * trust.get(name, 1.0) for name in sources}
        if epoch > 0:
            sources["loss"] = standardised(log_loss(best))
            # What the others lose goes to the loss, which is always at hand.
            weights["loss"] = sum(prior_weights.values()) - sum(weights.values())
        score = np.sum([weights[name] * v for name, v in sources.items()], axis=0) if sources else np.zeros(len(best))
        return Estimate(score, sources, weights)

    def trust(
        self, epoch: int, sources: Mapping[str, NDArray[np.float64]], outcome: NDArray[np.float64], later: int
    ) -> dict[str, float]:
        """Return how far each source is to be trusted after its candidates went on from `epoch` to `later`.

        Parameters
        ----------
        epoch : int
            The rung that was decided.
        sources : dict of str to ndarray of shape (n,)
            What the sources said about the candidates that went on.
        outcome : ndarray of shape (n,)
            Their loss at `later`.
        later : int
            The rung that tells how good it was.

        Returns
        -------
        dict of str to float in [0, 1]
            The rank correlation seen here, shrunk to that in the priors, as a share of that in the priors.
        """
        trust, n = {}, len(outcome)
        for name, said in sources.items():
            expected = self._expected(epoch, later, name)
            if expected > 0:
                shrunk = (PSEUDO_COUNT * expected + n * rank_correlation(said, outcome)) / (PSEUDO_COUNT + n)
                trust[name] = float(np.clip(shrunk / expected, 0, 1))
        return trust

    def worth_of_loss(self, epoch: int) -> float:
        """Return how well the loss at `epoch` ranks final losses in the priors; 1 without priors."""
        if epoch not in self._worth:
            pairs = [(prior.best(min(epoch, prior.max_epochs)), prior.best()) for prior in self.priors]
            correlations = [rank_correlation(log_loss(now), log_loss(end)) for now, end in pairs]
            self._worth[epoch] = max(float(np.mean(correlations)), 0.0) if pairs else 1.0
        return self._worth[epoch]

    def worth(self, epoch: int) -> float:
        """Return how well the belief at `epoch` ranks final losses in the priors, out of fold; 0 without priors."""
        if not self.priors:
            return 0.0
        if epoch not in self._worth_of_belief:
            self._worth_of_belief[epoch] = self._ranking_of_belief(self.rung(epoch))
        return self._worth_of_belief[epoch]

    def _ranking_of_belief(self, rung: _Rung) -> float:
        y = np.concatenate([standardised(log_loss(prior.best())) for prior in self.priors])
        score = np.sum([rung.weights[name] * standardised(values) for name, values in rung.said.items()], axis=0)
        return rank_correlation(score, y)

    def _learn(self, epoch: int) -> _Rung:
        models: dict[str, tuple[tuple[str, ...], Any]] = {}
        if _is_fitted(self.model):
            models[_GIVEN] = (self.kinds, self.model)
        if not self.priors:
            return _Rung(models, {}, dict.fromkeys(models, 1.0) or {"loss": 1.0}, 1.0)
        y = np.concatenate([standardised(log_loss(prior.best())) for prior in self.priors])
        at = [prior.nearest_epoch(epoch) for prior in self.priors]
        said = {}
        folds = KFold(_FOLDS, shuffle=True, random_state=0)
        for name, kinds in self._names(epoch).items():
            X = _concatenated([self._input(p, e, kinds) for p, e in zip(self.priors, at, strict=True)])
            said[name] = self._read(cross_val_predict(clone(self.model), X, self._target(y), cv=folds))
            models[name] = (kinds, clone(self.model).fit(X, self._target(y)))
        if epoch > 0:
            so_far = [log_loss(prior.best(max(e, 1))) for prior, e in zip(self.priors, at, strict=True)]
            said["loss"] = np.concatenate([standardised(values) for values in so_far])
        weights, residual = nnls(np.column_stack([standardised(values) for values in said.values()]), y)
        by_name = dict(zip(said, weights.tolist(), strict=True))
        if _GIVEN in models and _GIVEN not in by_name:
            by_name[_GIVEN] = sum(by_name.values())  # as much as all that was learnt here
        return _Rung(models, said, by_name, float(residual / np.sqrt(len(y))))

    def _names(self, epoch: int) -> dict[str, tuple[str, ...]]:
        """Return the sources that are models, and what they look at."""
        if self.on_networks:
            return {"networks": ()}
        usable = tuple(kind for kind in self.kinds if kind != "loss" or epoch > 0)
        names: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in usable if kind != "loss"}
        if len(usable) > 1:
            names["together"] = usable
        return names

    def _input(self, known: Knowledge, epoch: int, kinds: tuple[str, ...]) -> Any:
        if not self.on_networks:
            return known.features(epoch, kinds)
        assert known.networks_at is not None
        return known.networks_at(epoch)

    def _expected(self, epoch: int, later: int, name: str) -> float:
        """Return the rank correlation, in the priors, of what a source said at `epoch` with the loss at `later`."""
        key = epoch, later, name
        if key not in self._correlations:
            said = self.rung(epoch).said.get(name)
            if said is None:
                return _UNKNOWN_CORRELATION
            outcome = [log_loss(prior.best(min(later, prior.max_epochs))) for prior in self.priors]
            self._correlations[key] = rank_correlation(said, np.concatenate([standardised(o) for o in outcome]))
        return self._correlations[key]


def _is_fitted(model: Any) -> bool:
    try:
        check_is_fitted(model)
    except NotFittedError:
        return False
    return True


def _concatenated(inputs: Sequence[Any]) -> Any:
    if all(isinstance(table, pd.DataFrame) for table in inputs):
        return pd.concat(inputs, ignore_index=True)
    return [network for networks in inputs for network in networks]
