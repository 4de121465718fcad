"""Recurrent networks that classify sequences, or every step of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklyap.networks.base import RecurrentEstimator
from sklyap.networks.checks import to_numpy
from sklyap.networks.keywords import suggests_keywords
from sklyap.networks.training import ClassifierNet, ValidAccuracy
from sklyap.networks.weights import class_weights

__all__ = ["RNNClassifier"]


class RNNClassifier(ClassifierMixin, RecurrentEstimator):
    """Recurrent network that classifies sequences, or every step of them.

    A thin estimator around a skorch net: it validates, then builds and owns the net, which trains torch's
    fused layers where they exist.

    Parameters
    ----------
    cell : str or RecurrentCell subclass, default="lstm"
        Architecture of the recurrent layers: "rnn" (Elman), "gru", "lstm", another name in
        :data:`sklyap.cells.CELLS`, or a class constructed as ``cell(n_inputs, hidden_size, **cell_params)``.
    hidden_size : int, default=64
        Units per layer.
    num_layers : int, default=1
        Recurrent layers, each driven by the outputs of the one before.
    nonlinearity : {"tanh", "relu"}, default="tanh"
        Of ``cell="rnn"``.
    bias : bool, default=True
        Whether the recurrent layers have biases.
    dropout : float, default=0.0
        Probability of dropping an output of a recurrent layer on its way to the next layer or the readout.
    init : {"default", "uniform", "normal", "orthogonal", "xavier", "critical", "chrono"}, default="default"
        Law of the initial weights of the recurrent layers: "default" is torch's (or the cell's) own, "uniform" is
        U(-init_scale, init_scale) for weights and biases, "critical" scales the default recurrent weights so
        that the largest Lyapunov exponent along the training data starts near zero, "chrono" sets the biases of LSTM
        and GRU gates for memories of up to `init_scale` steps. See ``sklyap.networks.initialization``.
    init_scale : float, optional
        Half-width of "uniform" (default ``1/sqrt(hidden_size)``); gain of "normal", "orthogonal" and "xavier"
        (default 1); longest dependency of "chrono", in steps (default: those of the training sequences). "default" and
        "critical" have no scale.
    cell_params : dict, optional
        Further arguments of every recurrent layer.
    input_type : {"values", "tokens"}, default="values"
        Whether `X` holds real inputs or integer tokens.
    n_tokens : int, optional
        Size of the vocabulary; by default the largest token that `fit` sees plus one.
    embedding_dim : int, optional
        Width of a trained embedding of the tokens; one-hot rows when None.
    readout : {"last", "all"}, default="last"
        Whether there is one target per sequence, or one at every step.
    max_epochs : int, default=10
        Passes over the training data. 0 leaves the initial weights.
    lr : float, default=1e-3
        Learning rate.
    batch_size : int, default=64
        Sequences per update.
    optimizer : {"adam", "sgd", "adamw", "rmsprop"} or torch.optim.Optimizer subclass, default="adam"
        The optimizer.
    gradient_clip : float, optional
        Largest norm of the gradient of all weights together.
    validation_fraction : float, optional
        Fraction of the sequences that is kept for validation; none by default.
    callbacks : list of skorch callbacks, optional
        They are used as they are, and can be looked at after `fit`.
    net_params : dict, optional
        Any other option of :class:`skorch.NeuralNet`, such as ``{"optimizer__weight_decay": 1e-4}``,
        ``{"iterator_train__drop_last": True}`` or ``{"criterion__label_smoothing": 0.1}``; what is given here
        goes. A criterion sees logits (n, n_classes) and class indices (n,).
    class_weight : dict of label to float, "balanced" or None, default=None
        Weights of the classes in the loss that is trained on; those not in the dict weigh 1. "balanced" gives every
        class the same mass. Only ratios matter. They multiply `sample_weight`. Losses on validation data, scores and
        everything else are not weighted.
    warm_start : bool, default=False
        Whether `fit` goes on training for `max_epochs` more epochs.
    device : str or torch.device, default="auto"
        Where to train; "auto" is CUDA where there is one.
    random_state : int, RandomState instance or None, default=None
        Decides initial weights, batches, dropout and the validation split. Torch's global generator is left
        as it was.
    verbose : int, default=0
        Whether to print a line per epoch.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The net; ``net_.module_`` is a :class:`~sklyap.networks.RecurrentNetwork`.
    history_ : skorch.history.History
        One row per epoch with `train_loss`, `valid_loss`, `valid_accuracy`, `dur` (seconds) and what callbacks
        record: ``history_[:, "train_loss"]``.
    classes_ : ndarray of shape (n_classes,)
        Classes in the targets of `fit`, validation data included.
    n_inputs_ : int
        Inputs per step, or the size of the vocabulary.
    n_features_in_ : int
        Inputs per step for X of three dimensions, columns for X of two. Not set for tokens.
    feature_names_in_ : ndarray of str
        Names of the columns, where X was a table with names.
    seed_ : int
        What was drawn from `random_state`.

    See Also
    --------
    RNNRegressor : The same for numbers.

    Notes
    -----
    Every epoch has a seed of its own, so `partial_fit` called five times trains the same network as
    ``max_epochs=5`` (unless a callback counts the epochs of a call). Predictions are computed in float64.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklyap import RNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X = X.reshape(-1, 8, 8) / 16  # sequences of 8 rows
    >>> network = RNNClassifier("gru", 32, max_epochs=5, lr=0.01, random_state=0).fit(X[:1000], y[:1000])
    >>> network.score(X[1000:], y[1000:]) > 0.8
    True

    Ones count five times as much as other classes, and sequences from the first half twice as much:

    >>> network = RNNClassifier("gru", 32, class_weight={1: 5.0}, max_epochs=1, random_state=0)
    >>> network = network.fit(X, y, sample_weight=[2.0 if i < len(X) // 2 else 1.0 for i in range(len(X))])
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # scikit-learn's yardstick is 87 % on 50 rows with class weights; by default these get 10 updates at lr=1e-3.
        tags.classifier_tags.poor_score = True
        return tags

    _net_class = ClassifierNet

    _criterion = nn.CrossEntropyLoss

    def __init__(
        self,
        cell="lstm",
        hidden_size=64,
        num_layers=1,
        *,
        nonlinearity="tanh",
        bias=True,
        dropout=0.0,
        init="default",
        init_scale=None,
        cell_params=None,
        input_type="values",
        n_tokens=None,
        embedding_dim=None,
        readout="last",
        max_epochs=10,
        lr=1e-3,
        batch_size=64,
        optimizer="adam",
        gradient_clip=None,
        validation_fraction=None,
        callbacks=None,
        net_params=None,
        class_weight=None,
        warm_start=False,
        device="auto",
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            cell,
            hidden_size,
            num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            dropout=dropout,
            init=init,
            init_scale=init_scale,
            cell_params=cell_params,
            input_type=input_type,
            n_tokens=n_tokens,
            embedding_dim=embedding_dim,
            readout=readout,
            max_epochs=max_epochs,
            lr=lr,
            batch_size=batch_size,
            optimizer=optimizer,
            gradient_clip=gradient_clip,
            validation_fraction=validation_fraction,
            callbacks=callbacks,
            net_params=net_params,
            warm_start=warm_start,
            device=device,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    @suggests_keywords
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch on X and y, going on from where training stands.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        classes : array-like of shape (n_classes,), optional
            All classes that later calls may bring; looked at in the first call.
        sample_weight : array-like of shape (n_sequences,), optional
            As in `fit`; only ratios within one call matter.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            With ``class_weight="balanced"`` too: a part of the data does not tell how frequent classes are.
        """
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ValueError(
                f"The 'class_weight' parameter of {type(self).__name__} can't be 'balanced' in partial_fit, which does "
                "not see all data. Give a dict of weights, from sklearn.utils.class_weight.compute_class_weight."
            )
        fresh = not hasattr(self, "net_")
        return self._train(X, y, sample_weight=sample_weight, fresh=fresh, epochs=1, classes=classes)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return class probabilities.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_sequences, n_classes), or (n_sequences, n_steps, n_classes) with ``readout="all"``
            A list of arrays where sequences have unequal lengths and every step is read out.
        """
        return self._as_given(self._collect(X, lambda logits: logits.softmax(-1)), X)

    def predict(self, X: ArrayLike) -> NDArray:
        """Return the most probable classes.

        Parameters
        ----------
        X : array-like
            As in `fit`.

        Returns
        -------
        ndarray of shape (n_sequences,), or (n_sequences, n_steps) with ``readout="all"``
            A list of arrays where sequences have unequal lengths and every step is read out.
        """
        return self._as_given(self._predicted(X), X)

    def _predicted(self, X: Any) -> NDArray:
        indices = self._collect(X, lambda logits: logits.argmax(-1))
        return self.classes_[indices]

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy, over all steps with ``readout="all"``.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.
        sample_weight : array-like of shape (n_sequences,), optional
            Weights of the sequences.

        Returns
        -------
        float
        """
        check_is_fitted(self)
        predicted = self._predicted(X)
        X, y = self._check_data(X, y, fresh=False)
        there = self._there(X, y.shape)
        if self.readout == "all" and sample_weight is not None:
            sample_weight = np.repeat(sample_weight, there.sum(1))
        return float(accuracy_score(y[there], predicted[there], sample_weight=sample_weight))

    def bits_per_token(self, X: ArrayLike, y: ArrayLike) -> float:
        """Return the mean cross entropy of the targets in bits, over all steps with ``readout="all"``.

        For next-token prediction of characters these are the bits per character.

        Parameters
        ----------
        X, y : array-like
            As in `fit`.

        Returns
        -------
        float
        """

        def nats(logits: Tensor, classes: Tensor) -> Tensor:
            return logits.log_softmax(-1).gather(-1, classes.unsqueeze(-1)).neg()

        check_is_fitted(self)
        checked, y = self._check_data(X, y, fresh=False)
        found = self._collect(X, nats, self._encode(y, "y"))[..., 0]
        return float(found[self._there(checked, found.shape)].mean()) / math.log(2)

    def _check_y(self, y: Any, name: str) -> NDArray:
        y = check_array(to_numpy(y), ensure_2d=False, allow_nd=True, dtype=None, input_name=name)
        if self.readout == "last":
            if y.ndim == 2 and y.shape[1] > 1:
                raise ValueError(
                    f"The {name!r} parameter of {type(self).__name__} must have shape (n_sequences,) with "
                    f"readout='last'. Got shape {y.shape}; readout='all' is for a class at every step."
                )
            y = column_or_1d(y, warn=True)
        check_classification_targets(y.ravel())
        return y

    def _learn_targets(self, ys: list[NDArray], classes: ArrayLike | None) -> None:
        self.classes_ = np.unique(np.concatenate([y.ravel() for y in ys]) if classes is None else classes)

    def _encode(self, y: NDArray, name: str) -> Tensor:
        encoder = LabelEncoder()
        encoder.classes_ = self.classes_
        try:
            return torch.from_numpy(encoder.transform(y.ravel()).reshape(y.shape))
        except ValueError as error:
            who = type(self).__name__
            raise ValueError(f"The {name!r} parameter of {who} must hold known classes: {error}") from None

    def _export_targets(self) -> dict[str, Any]:
        classes = self.classes_.tolist()
        if not all(isinstance(label, bool | int | float | str) for label in classes):
            raise ValueError(f"Classes of dtype {self.classes_.dtype} can't be exported; use numbers or strings.")
        return {"classes": classes, "dtype": self.classes_.dtype.str}

    def _restore_targets(self, state: Mapping[str, Any]) -> None:
        dtype = np.dtype(state["dtype"])
        if dtype.kind not in "biufUO":
            raise ValueError(f"it has classes of dtype {dtype}")
        self.classes_ = np.array(state["classes"], dtype=dtype)
        if self.classes_.ndim != 1 or not np.array_equal(np.unique(self.classes_), self.classes_):
            raise ValueError("its classes are not a sorted list")

    def _width(self) -> int:
        return len(self.classes_)

    def _class_weights(self, targets: Tensor, weight: NDArray | None) -> Tensor | None:
        return class_weights(self.class_weight, self.classes_, targets, weight, type(self).__name__)

    def _strata(self, y: Tensor) -> Tensor | None:
        return y if self.readout == "last" else None

    def _metrics(self) -> list[tuple[str, Any]]:
        return [("valid_accuracy", ValidAccuracy("valid_accuracy", lower_is_better=False))]
