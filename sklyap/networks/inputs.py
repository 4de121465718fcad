"""What the RNN estimators take for sequences: values or tokens, in arrays, tables, or lists of unequal length."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import validate_data
from torch.nn.utils.rnn import PackedSequence

from sklyap.cells.batches import one_by_one
from sklyap.networks.checks import check_tokens, check_values, rank, to_numpy
from sklyap.networks.padding import is_ragged, pad, rows_of

__all__ = ["InputsMixin"]


class InputsMixin:
    """Checks of data of a :class:`~sklyap.networks.base.RecurrentEstimator`, which it is part of."""

    def _check_data(self: Any, X: Any, y: Any, *, fresh: bool) -> tuple[NDArray, NDArray]:
        if y is None:
            raise ValueError(f"This {type(self).__name__} estimator requires y to be passed, but the target y is None.")
        checked = self._check_X(X, fresh=fresh)
        self._check_steps(X, y, "y")
        X, y = checked, self._check_y(self._rectangular(y, "y"), "y")
        self._check_lengths(X, y, "y")
        return X, y

    def _check_steps(self: Any, X: Any, y: Any, name: str) -> None:
        """Refuse targets that are not as many at every sequence as it has steps."""
        if self.readout != "all" or not (is_ragged(X) or is_ragged(y)):
            return
        steps, targets = ([len(row) for row in (one_by_one(a) if isinstance(a, PackedSequence) else a)] for a in (X, y))
        for i, (a, b) in enumerate(zip_longest(steps, targets, fillvalue="no")):
            if a != b:
                raise ValueError(
                    f"The {name!r} parameter of {type(self).__name__} must hold a target for every step of each "
                    f"sequence, with readout='all'. Sequence {i} has {a} steps and {b} targets."
                )

    def _rectangular(self: Any, y: Any, name: str) -> Any:
        """Return targets of sequences of unequal length as one array, repeated to the longest."""
        if self.readout != "all" or not is_ragged(y):
            return y
        rows = rows_of(y, name, type(self).__name__)
        padded = pad(rows, rows[0].flat[0])
        return padded if any(np.ndim(row) > 1 for row in y) else padded[..., 0]

    def _check_valid_data(
        self: Any, X_val: Any, y_val: Any, X: NDArray, *, fresh: bool
    ) -> tuple[NDArray, NDArray] | None:
        if (X_val is None) != (y_val is None):
            raise ValueError(
                "The 'X_val' and 'y_val' parameters must be given together. Got only one of them; "
                "weights are given by name, sample_weight=..."
            )
        if X_val is None:
            return None
        if (self.net_params or {}).get("train_split"):
            raise ValueError("The 'X_val' parameter and net_params['train_split'] exclude each other. Got both.")
        self._check_steps(X_val, y_val, "y_val")
        X_val, y_val = to_numpy(X_val), self._check_y(self._rectangular(y_val, "y_val"), "y_val")
        if self.input_type == "tokens":
            n_tokens = self.n_tokens if fresh else self.n_inputs_
            X_val = self._checked_tokens(X_val, "X_val", n_tokens)
        else:
            X_val = self._checked_values(X_val, "X_val")
            if X_val.shape[2] != X.shape[2]:
                raise ValueError(f"X_val has {X_val.shape[2]} inputs per step, but X has {X.shape[2]}.")
        self._check_lengths(X_val, y_val, "y_val")
        return X_val, y_val

    def _check_lengths(self: Any, X: NDArray, y: NDArray, name: str) -> None:
        check_consistent_length(X, y)
        if self.readout == "all" and y.shape[:2] != X.shape[:2]:
            raise ValueError(
                f"The {name!r} parameter of {type(self).__name__} must hold a target at every step, shape "
                f"{X.shape[:2]}, with readout='all'. Got shape {y.shape} instead."
            )

    def _check_X(self: Any, X: Any, *, fresh: bool) -> NDArray:
        """Return float32 (n_sequences, n_steps, n_inputs), or int64 tokens (n_sequences, n_steps)."""
        X, who = to_numpy(X), type(self).__name__
        if self.input_type == "tokens":
            X = self._checked_tokens(X, "X", self.n_tokens if fresh else self.n_inputs_)
            if fresh:
                self._n_columns = None
                self._set_features(None)
            return X
        table = not is_ragged(X) and rank(X) <= 2
        if table and (fresh or self._n_columns is not None):
            # To scikit-learn our steps are its features: their number and names are checked and recorded.
            X = validate_data(self, X, dtype=np.float32, reset=fresh)
        X = self._checked_values(X, "X")
        if fresh:
            self._n_columns = X.shape[1] if table else None
            if not table:
                self._set_features(X.shape[2])
        elif X.shape[2] != self.n_inputs_:
            raise ValueError(f"X has {X.shape[2]} inputs per step, but {who} was fitted with {self.n_inputs_}.")
        return X

    def _checked_values(self: Any, X: Any, name: str) -> NDArray:
        if not is_ragged(X):
            return check_values(X, name, self)
        rows = rows_of(X, name, type(self).__name__)
        values = check_values(np.concatenate(rows)[np.newaxis], name, self)[0]
        return pad(np.split(values, np.cumsum([len(row) for row in rows])[:-1]), np.nan)

    def _checked_tokens(self: Any, X: Any, name: str, n_tokens: int | None) -> NDArray:
        who = type(self).__name__
        if not is_ragged(X):
            return check_tokens(X, name, n_tokens, who)
        rows = [row[:, 0] for row in rows_of(X, name, who)]
        tokens = check_tokens(np.concatenate(rows)[np.newaxis], name, n_tokens, who)[0]
        return pad(np.split(tokens, np.cumsum([len(row) for row in rows])[:-1]), -1)

    def _set_features(self: Any, n_features: int | None, names: list[str] | None = None) -> None:
        """Record what scikit-learn calls features: columns of a table, inputs per step otherwise, never tokens."""
        for attribute in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(attribute, None)
        if n_features is not None:
            self.n_features_in_ = n_features
        if names is not None:
            if not all(isinstance(name, str) for name in names) or len(names) != n_features:
                raise ValueError(f"it has feature names {names!r:.80} for {n_features} features")
            self.feature_names_in_ = np.array(names, dtype=object)

    def _learn_inputs(self: Any, Xs: list[NDArray]) -> None:
        if self.input_type == "tokens":
            self.n_inputs_ = int(self.n_tokens or 1 + max(X.max() for X in Xs))
        else:
            self.n_inputs_ = Xs[0].shape[2]
