"""LyapunovHalvingSearch: successive halving that looks at the dynamics of its candidates."""

from __future__ import annotations

import warnings
from typing import Any, Self

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklyap.exceptions import SklyapWarning
from sklyap.networks.keywords import suggests_keywords
from sklyap.population.plan import Plan, make_plan
from sklyap.runtime import outside_inference_mode
from sklyap.search.checks import Checked, check_search, params_table
from sklyap.search.directory import SearchDirectory
from sklyap.search.live import LiveBoard
from sklyap.search.policies import HalvingPolicy
from sklyap.search.results import cv_results, decision_table
from sklyap.search.rungs import halving_cost, rung_epochs
from sklyap.search.spectra import default_transformer
from sklyap.search.strategies import make_policy

__all__ = ["LyapunovHalvingSearch"]

_CALLER = "LyapunovHalvingSearch"


def _estimator_has(name: str) -> Any:
    """Return a check that the network has a method, the fitted one if there is one."""

    def check(self: Any) -> bool:
        return hasattr(self.best_estimator_ if hasattr(self, "best_estimator_") else self.estimator, name)

    return check


class LyapunovHalvingSearch(MetaEstimatorMixin, BaseEstimator):
    """Search for hyperparameters by successive halving that looks at the Lyapunov spectra of its candidates.

    Networks with random hyperparameters are trained for a few epochs; the most promising part of them is trained on,
    and so on in rungs. Where the loss stays on a plateau before it falls, the spectrum knows earlier than the loss
    which networks will learn: with a `prior` population of a shorter or smaller version of the task, candidates are
    even chosen before they are trained. Training goes on exactly where it stopped: a network that was promoted three
    times is the same, to the last bit, as one trained at once.

    Parameters
    ----------
    estimator : RNNClassifier or RNNRegressor
        The candidates are copies of it.
    param_distributions : dict or list of dicts
        Hyperparameters to draw, as in :func:`~sklyap.train_population`; `max_epochs` and `random_state` are not among
        them.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs) or None
        What drives the networks when their spectra are computed. Four sequences are enough; None takes the first
        four of X.
    n_candidates : int, default=64
        Networks at the first rung; fewer, for as many epochs in all, if a third of these finish those that a `prior`
        ranks first.
    factor : float, default=3
        One in `factor` candidates goes on from each rung to the next, and is trained `factor` times as long.
    min_epochs : int, default=1
        Epochs at the first rung.
    max_epochs : int, optional
        Epochs at the last; by default those of `estimator`.
    promote_by : {"predictor", "loss", "distance"}, default="predictor"
        What decides who goes on. "loss" is plain successive halving. "predictor" predicts the final loss from
        spectrum, losses so far and hyperparameters; without `prior`, `predictor` fitted beforehand, or labels
        (`n_labelled`) there is nothing to learn from, and the loss decides. "distance" prefers networks whose spectrum
        is like that of `reference`.
    predictor : estimator, optional
        A regressor of the final loss, in place of the default (randomised trees). It gets a table of what is known of
        the candidates or, like :func:`~sklyap.loss_predictor` with sequences, a list of networks. A fitted one is used
        as it is, in addition to what can be learnt.
    prior : NetworkPopulation, pair (NetworkPopulation, sequences), or list of these, optional
        Populations whose training has ended: of a shorter or smaller version of the task, of other architectures.
        They must have been kept at some early epochs (``snapshot_epochs=(0, 1, 3, "last")``). Their spectra are
        computed along `sequences` unless they come with sequences of their own.
    reference : fitted network, optional
        What spectra are compared with by ``promote_by="distance"``.
    n_screened : int, optional
        Candidates that are drawn and looked at before they are trained, of which `n_candidates` are trained; by
        default `factor` times `n_candidates` with a `prior` and ``promote_by="predictor"``, unless `predictor` takes
        networks (their losses, say, which the untrained have not); otherwise none more.
    n_labelled : int, default=0
        Candidates, chosen at random, that are finished right after the first rung so that there is something to learn
        from.
    validation : float or tuple (X_val, y_val), default=0.2
        Share of the data that is split off once for all candidates, or the validation data.
    directory : path-like, optional
        Where candidates are kept at every rung with the state of their optimizers. A search that was killed goes on
        from there, to the same result.
    resume : bool, default=True
        Whether to go on in a directory that holds a part of this search; False begins anew.
    refit : bool, default=True
        Whether to train the best candidate once more on all data, the validation data included, for as many epochs
        as it took to its lowest loss. If that does worse on the validation data than the candidate did, or with False,
        `best_estimator_` is the candidate itself at its best epoch.
    n_jobs : int, optional
        Candidates to train at the same time, through joblib, as in :func:`~sklyap.train_population`.
    random_state : int, RandomState instance or None, default=None
        Determines candidates, split, seeds and everything that is drawn.
    verbose : int, default=1
        Whether to show a progress bar.

    Attributes
    ----------
    best_estimator_ : estimator
        The fitted network.
    best_params_ : dict
        Hyperparameters of the best candidate.
    best_loss_ : float
        Lowest validation loss of the best candidate.
    best_index_ : int
        Its number, which is its row in `cv_results_` at its last rung.
    best_candidate_ : int
        Its number among the candidates.
    cv_results_ : dict of arrays
        A row for each candidate at each rung, as in :class:`sklearn.model_selection.HalvingRandomSearchCV`; scores are
        the negative of the lowest validation loss so far. For ``pandas.DataFrame(...)``.
    population_ : NetworkPopulation
        All candidates that were trained, as far as they were; failures in ``population_.failures``.
    decisions_ : DataFrame
        A row for each candidate at each rung: ``loss`` so far, ``predicted`` final loss with its interval ``low`` to
        ``high`` (one standard error of prediction in the priors, on the scale of their losses), ``promoted`` and the
        ``reason``: "predicted", "finalist", "loss", "chance" or "distance".
    epochs_spent_ : int
        Epochs trained, those of `refit` left out.
    seconds_spent_ : dict
        Seconds in ``"training"``, ``"spectra"`` and ``"refit"``, summed over workers.
    n_features_in_, classes_
        As `best_estimator_` has them.

    See Also
    --------
    replay_search : Tries a policy on a recorded population, in seconds.

    References
    ----------
    K. Jamieson and A. Talwalkar (2016), Non-stochastic best arm identification and hyperparameter optimization,
    AISTATS. Y. Zheng and E. Shlizerman (2025), Hyperpruning, arXiv 2506.07975, for the distance.

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.search import LyapunovHalvingSearch
    >>> X, y = make_recall(200, n_steps=5, random_state=0)
    >>> search = LyapunovHalvingSearch(
    ...     RNNClassifier("gru", 8), {"lr": loguniform(1e-4, 1e-1)}, X[:4], n_candidates=9, max_epochs=9,
    ...     promote_by="loss", refit=False, random_state=0, verbose=0,
    ... ).fit(X, y)
    >>> search.epochs_spent_, search.decisions_.groupby("epoch")["candidate"].count().tolist()
    (21, [9, 3, 1])
    >>> search.score(X, y) > 0.5
    True
    """

    def __init__(
        self,
        estimator,
        param_distributions,
        sequences,
        *,
        n_candidates=64,
        factor=3,
        min_epochs=1,
        max_epochs=None,
        promote_by="predictor",
        predictor=None,
        prior=None,
        reference=None,
        n_screened=None,
        n_labelled=0,
        validation=0.2,
        directory=None,
        resume=True,
        refit=True,
        n_jobs=None,
        random_state=None,
        verbose=1,
    ):
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.sequences = sequences
        self.n_candidates = n_candidates
        self.factor = factor
        self.min_epochs = min_epochs
        self.max_epochs = max_epochs
        self.promote_by = promote_by
        self.predictor = predictor
        self.prior = prior
        self.reference = reference
        self.n_screened = n_screened
        self.n_labelled = n_labelled
        self.validation = validation
        self.directory = directory
        self.resume = resume
        self.refit = refit
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = inner.estimator_type
        tags.classifier_tags = inner.classifier_tags
        tags.regressor_tags = inner.regressor_tags
        tags.input_tags = inner.input_tags
        tags.target_tags = inner.target_tags
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "best_estimator_")

    @property
    def classes_(self) -> NDArray:
        """Classes in the targets, for a classifier."""
        check_is_fitted(self)
        return self.best_estimator_.classes_

    @property
    def n_features_in_(self) -> int:
        """What scikit-learn calls features of X, see the network's class."""
        check_is_fitted(self)
        return self.best_estimator_.n_features_in_

    @suggests_keywords
    @outside_inference_mode
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Search.

        Parameters
        ----------
        X, y : array-like
            The data, as `estimator` takes them.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter is not as documented, before the first network is trained; or if all candidates fail.
        OSError
            If `directory` can't be written to.

        Warns
        -----
        FailedNetworkWarning
            Once, if candidates failed.
        """
        checked = check_search(self, X)
        plan = make_plan(
            self.estimator,
            self.param_distributions,
            X,
            y,
            n_networks=checked.n_drawn,
            validation=self.validation,
            snapshot_epochs=(),
            random_state=self._entropy(),
            caller=_CALLER,
        )
        if self.directory is None:
            return self._search(checked, plan, None, X, y)
        call = plan.describe()
        with SearchDirectory.claim(self.directory, call, wait=bool(self.resume)):
            directory = SearchDirectory(self.directory, call, anew=not self.resume)
            return self._search(checked, plan, directory, X, y)

    def _search(self, checked: Checked, plan: Plan, directory: SearchDirectory | None, X: Any, y: Any) -> Self:
        params = params_table(plan.params, plan.estimator, checked.prior_names)
        transformer = default_transformer(checked.sequences, n_jobs=self.n_jobs)
        policy, seconds = make_policy(self, checked, transformer, seed=plan.entropy % 2**31)
        with tqdm(total=_planned(policy, checked), unit="epoch", disable=not self.verbose) as bar:
            board = LiveBoard(
                plan,
                params,
                checked.max_epochs,
                transformer=transformer,
                settings=joblib.hash(checked.sequences),
                directory=directory,
                n_jobs=self.n_jobs,
                bar=bar,
            )
            board.spectra_seconds += seconds
            self._run(policy, board, plan)
        board.warn_of_failures()
        return self._conclude(board, plan, X, y)

    def _entropy(self) -> Any:
        """Return what the search is seeded with; a directory goes on from the seed it was begun with."""
        if self.random_state is None and self.directory is not None and self.resume:
            return SearchDirectory.seed_of(self.directory)
        return self.random_state

    def _run(self, policy: HalvingPolicy, board: LiveBoard, plan: Plan) -> None:
        rng = np.random.RandomState(plan.entropy % 2**32)
        try:
            for request in policy.requests(board, rng):
                board.train(request.candidates, request.epoch)
        except KeyboardInterrupt:
            if board.directory is not None:
                raise
            warnings.warn(
                f"The search was interrupted after {board.epochs_spent} epochs; the best candidate so far is kept.",
                SklyapWarning,
                stacklevel=3,
            )

    def _conclude(self, board: LiveBoard, plan: Plan, X: Any, y: Any) -> Self:
        losses = np.where(board.failed, np.inf, board.best())
        if not np.isfinite(losses).any():
            failed = [record for record in board.records.values() if record.reason is not None]
            reason = f" The first: {failed[0].reason}" if failed else ""
            raise ValueError(f"All {len(failed)} candidates of {_CALLER} failed; there is no best one.{reason}")
        best = int(np.argmin(losses))
        self.population_ = board.population()
        self.decisions_ = decision_table(board)
        self.cv_results_ = cv_results(board, plan.params)
        self.best_candidate_, self.best_loss_ = best, float(losses[best])
        self.best_params_ = plan.params[best]
        at = [i for i, candidate in enumerate(self.cv_results_["candidate"]) if candidate == best]
        self.best_index_ = at[-1] if at else 0
        self.epochs_spent_ = board.epochs_spent
        self.seconds_spent_ = {
            "training": float(sum(record.duration for record in board.records.values())),
            "spectra": float(board.spectra_seconds),
            "refit": 0.0,
        }
        network = board.records[best].network("best")
        self.best_estimator_ = self._refitted(network, board, plan, X, y) if self.refit else network
        return self

    def _refitted(self, network: Any, board: LiveBoard, plan: Plan, X: Any, y: Any) -> Any:
        """Return the best network trained on all data, unless that went wrong."""
        record = board.records[self.best_candidate_]
        n_epochs = int(record.snapshots["best"].epoch)
        X_val, y_val = plan.data[2:]
        if X_val is None:  # it has seen all data
            return network
        data = (X, y) if isinstance(self.validation, float) else _joined(plan.data)
        refitted = clone(network).set_params(max_epochs=n_epochs, random_state=record.seed)
        try:
            refitted.fit(*data, X_val, y_val)
        except Exception as error:
            refitted, reason = None, f"it failed with {type(error).__name__}: {error}"
        else:
            self.seconds_spent_["refit"] = float(sum(row["dur"] for row in refitted.history_))
            loss = refitted.history_[-1].get("valid_loss", np.inf)
            # It has seen the validation data; a loss above that of the candidate means that it did not learn.
            reason = "" if loss <= self.best_loss_ else f"its loss is {loss:.4g}"
        if not reason:
            return refitted.set_params(max_epochs=self.estimator.max_epochs)
        warnings.warn(
            f"The best candidate, trained again on all data, did worse than it had before ({reason}, "
            f"was {self.best_loss_:.4g}); best_estimator_ is the candidate itself. refit=False does without.",
            SklyapWarning,
            stacklevel=3,
        )
        return network

    @available_if(_estimator_has("predict"))
    def predict(self, X: ArrayLike) -> NDArray:
        """Return the predictions of the best network."""
        check_is_fitted(self)
        return self.best_estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the class probabilities of the best network."""
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(X)

    @available_if(_estimator_has("score"))
    def score(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the score of the best network: accuracy of a classifier, R² of a regressor."""
        check_is_fitted(self)
        return self.best_estimator_.score(X, y)


def _planned(policy: HalvingPolicy, checked: Any) -> int:
    """Return the epochs of a search in which none of the candidates fails."""
    epochs = rung_epochs(checked.min_epochs, checked.max_epochs, policy.factor)
    return halving_cost(checked.n_candidates, epochs, policy.factor)


def _joined(data: tuple[Any, ...]) -> tuple[Any, Any]:
    X, y, X_val, y_val = data
    return np.concatenate([X, X_val]), np.concatenate([y, y_val])
