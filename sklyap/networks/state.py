"""The fitted state of an RNN estimator as plain data, for files that nothing has to unpickle."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sklyap.networks.checks import check_parameters
from sklyap.networks.layout import check_finite, check_layout, check_tensors, layout_of, parameter_names
from sklyap.validation import check_int

__all__ = ["StateMixin", "plain"]


class StateMixin:
    """Export and restore of a :class:`~sklyap.networks.base.RecurrentEstimator`, which it is part of."""

    def export_state(self: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the fitted state as plain data, fit for safetensors and JSON.

        Returns
        -------
        tensors : dict of str to Tensor
            Weights and buffers, copied to the CPU.
        attributes : dict
            Everything else that `restore_state` needs, and the history without its batches. The state of
            the optimizer is not kept.
        """
        check_is_fitted(self)
        tensors = {name: t.detach().cpu().clone() for name, t in self.net_.network.state_dict().items()}
        names = getattr(self, "feature_names_in_", None)
        attributes = {
            "estimator": type(self).__name__,
            "architecture": plain(self.net_.get_params_for("module")),
            "targets": self._export_targets(),
            "n_columns": self._n_columns,
            "feature_names": None if names is None else names.tolist(),
            "seed": self.seed_,
            "history": [plain({k: v for k, v in row.items() if k != "batches"}) for row in self.history_],
        }
        return tensors, attributes

    def restore_state(self: Any, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> Any:
        """Become the fitted estimator whose state was exported.

        Parameters
        ----------
        tensors, attributes : dict
            From `export_state` of an estimator with the same architecture parameters. Nothing in them is
            executed; a `cell` given as a class is taken from this estimator.

        Returns
        -------
        self
            It predicts as the exported one did, and goes on training (`warm_start`, `partial_fit`) with
            a new optimizer.

        Raises
        ------
        ValueError
            If the state is malformed, or that of another kind of estimator or architecture.
        """
        check_parameters(self)
        self.__dict__.pop("net_", None)
        who = type(self).__name__
        try:
            self._restore_architecture(attributes)
            check_layout(layout_of(tensors), self._architecture())  # before memory is allocated
            history = [{**row, "batches": []} for row in attributes["history"]]
            net = self._new_net(self._net_options())
            check_tensors(tensors, net.network)
            net.network.load_state_dict(tensors)
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as error:
            raise _not_its_state(who, error) from error
        net.history.extend(history)
        self.net_ = net
        return self

    def check_layout(self: Any, layout: Mapping[str, tuple[str, tuple[int, ...]]], attributes: Any) -> None:
        """Raise ValueError unless tensors of such dtypes and shapes are those of a network with `attributes`.

        Nothing is allocated, so that a file can be judged by its header.

        Parameters
        ----------
        layout : dict of str to (str, tuple of int)
            Dtypes, as safetensors spells them, and shapes.
        attributes : dict
            From `export_state`.
        """
        twin = copy.copy(self)
        try:
            twin._restore_architecture(attributes)
            check_layout(layout, twin._architecture())
        except (KeyError, TypeError, AttributeError, RuntimeError, ValueError, OverflowError) as error:
            raise _not_its_state(type(self).__name__, error) from error

    def check_weights(self: Any, tensors: Mapping[str, Tensor], attributes: Any) -> None:
        """Raise ValueError unless the tensors, of a layout that was checked, are finite."""
        twin = copy.copy(self)
        try:
            twin._restore_architecture(attributes)
            names = parameter_names(twin._architecture())
            check_finite(tensors, [n for n, t in tensors.items() if t.is_floating_point()] if names is None else names)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise _not_its_state(type(self).__name__, error) from error

    def _restore_architecture(self: Any, attributes: Mapping[str, Any]) -> None:
        """Take over the sizes that only data tell, and check that the rest is as this estimator has it."""
        if attributes["estimator"] != type(self).__name__:
            raise ValueError(f"it is that of a {attributes['estimator']!s:.50}")
        self._restore_sizes(attributes)
        for name, value in plain(self._architecture()).items():
            if attributes["architecture"][name] != value:
                raise ValueError(f"it has {name}={attributes['architecture'][name]!r}, and not {value!r}")

    def _restore_sizes(self: Any, attributes: Mapping[str, Any]) -> None:
        self.seed_ = check_int(attributes["seed"], "seed", low=0)
        self.n_inputs_ = check_int(attributes["architecture"]["n_inputs"], "n_inputs", low=1)
        self._n_columns = attributes["n_columns"]
        if self._n_columns is not None:
            check_int(self._n_columns, "n_columns", low=1)
        n_features = None if self.input_type == "tokens" else self._n_columns or self.n_inputs_
        self._set_features(n_features, attributes["feature_names"])
        self._restore_targets(attributes["targets"])


def _not_its_state(who: str, error: Exception) -> ValueError:
    # Torch's messages have several lines, and a KeyError's is the key alone.
    reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return ValueError(f"The state is not one that this {who} can take: {reason.rstrip('. ')}.")


def plain(value: Any) -> Any:
    """Return `value` as JSON would bring it back; a class by its name, other objects by that of their type."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | float | str | None):
        return value
    return (value if isinstance(value, type) else type(value)).__qualname__
