"""Optuna: a pruner that looks at spectra, and the callback that reports them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklyap.search.belief import Belief
from sklyap.search.checks import params_table, prior_pairs
from sklyap.search.knowledge import FEATURES, Knowledge, log_loss
from sklyap.search.labels import PSEUDO_COUNT, standardised
from sklyap.search.rungs import rung_epochs
from sklyap.search.spectra import default_transformer, kept_epochs, read_population, timed_spectra
from sklyap.validation import check_int, check_probe, check_real

__all__ = ["SPECTRUM", "LyapunovPruner", "OptunaCallback"]

SPECTRUM = "sklyap:spectrum"
"""User attribute of a trial; a colon and the epoch follow."""


class OptunaCallback(Callback):
    """Report the validation loss and, at some epochs, the spectrum of a network to an Optuna trial.

    Parameters
    ----------
    trial : optuna.Trial
        The trial.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), optional
        What drives the network for its spectrum. Four are enough; None reports the losses alone.
    epochs : sequence of int, default=(1, 3, 9)
        When to compute the spectrum: the rungs of the pruner.

    Notes
    -----
    It raises ``optuna.TrialPruned`` out of `fit` where the study's pruner says so. The spectrum is kept in the user
    attributes of the trial.

    Examples
    --------
    ``RNNClassifier(..., callbacks=[OptunaCallback(trial, X[:4])]).fit(X, y, X_val, y_val)`` in the objective of a
    study, which returns the lowest ``history_[:, "valid_loss"]``. A trial with given parameters, outside of a study:

    >>> import optuna
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.search import OptunaCallback
    >>> X, y = make_recall(60, n_steps=5, random_state=0)
    >>> trial = optuna.create_study().ask()
    >>> callback = OptunaCallback(trial, X[:4], epochs=(1,))
    >>> network = RNNClassifier("gru", 4, max_epochs=2, callbacks=[callback], random_state=0)
    >>> len(network.fit(X[:40], y[:40], X[40:], y[40:]).history_)
    2
    """

    def __init__(self, trial: Any, sequences: Any = None, *, epochs: Any = (1, 3, 9)) -> None:
        self.trial = trial
        self.sequences = sequences
        self.epochs = epochs

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Report, and end the training if the pruner says so."""
        import optuna

        epoch, row = len(net.history), net.history[-1]
        if self.sequences is not None and epoch in self.epochs:
            spectrum, _ = timed_spectra(default_transformer(self.sequences), [net.module_])
            self.trial.set_user_attr(f"{SPECTRUM}:{epoch}", spectrum[0].tolist())
        self.trial.report(float(row.get("valid_loss", row["train_loss"])), epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"pruned after epoch {epoch}")


class LyapunovPruner:
    """Prune the trials of an Optuna study by their predicted final loss.

    At every rung a trial goes on if it is among the best part, one in `factor`, of all trials that have got there,
    as in asynchronous successive halving; what orders them is the loss that is predicted from spectrum, losses so
    far and hyperparameters, or the loss alone where nothing is known. While there are few trials, one that is kept for
    its prediction has to be among the best part of the prior's networks too.

    Parameters
    ----------
    prior : NetworkPopulation, pair (NetworkPopulation, sequences), or list of these, optional
        What predictions are learnt from, see :class:`LyapunovHalvingSearch`; hyperparameters of the same names as
        those of the trials.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), optional
        What drives the networks of priors that come without sequences.
    factor : float, default=3
        One in so many goes on at a rung.
    min_epochs : int, default=1
        The first rung.
    max_epochs : int, default=15
        The rungs, which those of :class:`OptunaCallback` have to be.
    loss_share : float, default=0.5
        Share of the trials that go on whose loss alone is good enough.

    References
    ----------
    L. Li et al. (2020), A system for massively parallel hyperparameter tuning, MLSys.

    Examples
    --------
    >>> from sklyap.search import LyapunovPruner
    >>> LyapunovPruner(max_epochs=27).epochs
    [1, 3, 9, 27]
    """

    def __init__(
        self,
        prior: Any = None,
        sequences: Any = None,
        *,
        factor: float = 3,
        min_epochs: int = 1,
        max_epochs: int = 15,
        loss_share: float = 0.5,
    ) -> None:
        caller = "LyapunovPruner"
        if check_real(factor, "factor", caller=caller) <= 1:
            raise ValueError(f"The 'factor' parameter of {caller} must be a float above 1. Got {factor!r} instead.")
        check_int(max_epochs, "max_epochs", low=1, caller=caller)
        check_int(min_epochs, "min_epochs", low=1, high=max_epochs, caller=caller)
        check_real(loss_share, "loss_share", low=0.0, high=1.0, caller=caller)
        check_probe(sequences, caller=caller)
        self.factor, self.loss_share = factor, loss_share
        self.epochs = rung_epochs(min_epochs, max_epochs, factor)
        pairs = prior_pairs(prior, caller)
        if any(own is None for _, own in pairs) and sequences is None:
            raise ValueError(f"The 'sequences' parameter of {caller} must be given with a prior. Got None instead.")
        self._belief = Belief(
            [_knowledge(population, sequences if own is None else own) for population, own in pairs], kinds=FEATURES
        )

    def prune(self, study: Any, trial: Any) -> bool:
        """Tell Optuna whether to end a trial.

        Parameters
        ----------
        study : optuna.Study
            The study.
        trial : optuna.trial.FrozenTrial
            The trial.

        Returns
        -------
        bool
        """
        epoch = trial.last_step
        if epoch not in self.epochs[:-1]:
            return False
        there = [t for t in study.get_trials(deepcopy=False) if epoch in t.intermediate_values]
        losses = np.array([min(v for e, v in t.intermediate_values.items() if e <= epoch) for t in there])
        own = next(i for i, t in enumerate(there) if t.number == trial.number)
        n_keep = max(1, math.ceil(len(there) / self.factor))
        scores = self._scores(there, losses, epoch)
        if scores is None:
            return _place(losses, own) >= n_keep
        n_loss = int(self.loss_share * n_keep)
        if _place(losses, own) < n_loss:
            return False
        # Among few trials the best third may be poor: it has to be one among networks of the prior as well.
        among_all = np.concatenate([scores, self._prior_scores(epoch)])
        n_all = math.ceil(len(among_all) / self.factor)
        return _place(scores, own) >= max(n_keep - n_loss, 1) or _place(among_all, own) >= n_all

    def _scores(self, trials: list[Any], losses: NDArray[np.float64], epoch: int) -> NDArray[np.float64] | None:
        """Return predicted ln losses on the scale of the prior; None where nothing is known."""
        spectra = [t.user_attrs.get(f"{SPECTRUM}:{epoch}") for t in trials]
        if not self._belief.priors or any(spectrum is None for spectrum in spectra):
            return None
        table = pd.DataFrame([t.params for t in trials])
        for name in self._belief.priors[0].params.columns:
            if name not in table:
                raise ValueError(
                    f"The trials of the study have no hyperparameter {name!r}, which varies in the prior of "
                    "LyapunovPruner; suggest it under this name."
                )
        curves = np.array([[t.intermediate_values.get(e, np.nan) for e in range(1, epoch + 1)] for t in trials])
        known = Knowledge(table, curves, {epoch: np.array(spectra, dtype=np.float64)}, kept=[epoch])
        said, rung = self._belief.predict(known, epoch), self._belief.rung(epoch)
        # Losses of another task are on another scale: those of trials are compared among themselves.
        return _weighed(said, rung) + rung.weights.get("loss", 0.0) * standardised(log_loss(losses))

    def _prior_scores(self, epoch: int) -> NDArray[np.float64]:
        """Return what the networks of the prior would be predicted, at as many quantiles as they count as trials."""
        rung = self._belief.rung(epoch)
        scores = _weighed(rung.said, rung) + rung.weights.get("loss", 0.0) * rung.said["loss"]
        shares: NDArray[np.float64] = np.quantile(scores, (np.arange(PSEUDO_COUNT) + 0.5) / PSEUDO_COUNT)
        return shares


def _weighed(said: Mapping[str, NDArray[np.float64]], rung: Any) -> NDArray[np.float64]:
    total: NDArray[np.float64] = np.sum(
        [rung.weights.get(name, 0.0) * values for name, values in said.items() if name != "loss"], axis=0
    )
    return total


def _place(values: NDArray[np.float64], own: int) -> int:
    """Return how many values are lower, earlier ones that are equal included."""
    return int(np.count_nonzero(values < values[own]) + np.count_nonzero(values[:own] == values[own]))


def _knowledge(population: Any, sequences: Any) -> Knowledge:
    known, _ = read_population(population, default_transformer(sequences), epochs=kept_epochs(population))
    known.params = params_table([record.params for record in population.records], population.records[0].estimator())
    return known
