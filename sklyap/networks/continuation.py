"""What training needs beside the weights to go on exactly where it stopped, as plain data.

Every epoch of a :class:`~sklyap.networks.training.SequenceNet` has a seed of its own, so the weights, the state of
the optimizer and the number of epochs are all there is, as long as no callback remembers anything. A callback that
does not says so by an attribute ``remembers_nothing``.
"""

from __future__ import annotations

from typing import Any

from skorch.callbacks import PassthroughScoring
from torch import Tensor

from sklyap.storage import sha256

__all__ = ["can_continue", "export_optimizer", "own_callbacks", "restore_optimizer"]

_TENSOR, _ITEMS = "__tensor__", "__items__"


def can_continue(estimator: Any) -> bool:
    """Tell whether training in several calls is the same as in one: callbacks of the user's may remember things."""
    from_net = any(name.partition("__")[0] == "callbacks" for name in estimator.net_params or {})
    return not from_net and all(getattr(callback, "remembers_nothing", False) for callback in own_callbacks(estimator))


def own_callbacks(estimator: Any) -> list[Any]:
    """Return the callbacks that an estimator was given, without the names that they may have."""
    return [item[-1] if isinstance(item, tuple) else item for item in estimator.callbacks or []]


def export_optimizer(estimator: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of a fitted estimator's optimizer, fit for safetensors and JSON.

    Parameters
    ----------
    estimator : RNNClassifier or RNNRegressor, fitted

    Returns
    -------
    tensors : dict of str to Tensor
        Copies on the CPU.
    attributes : dict
        The structure that they belong to, and what the weights were.

    Raises
    ------
    TypeError
        If the optimizer keeps something that is neither a tensor nor a plain value.
    """
    tensors: dict[str, Tensor] = {}
    structure = _take_apart(estimator.net_.optimizer_.state_dict(), tensors)
    return tensors, {
        "optimizer": structure,
        "epochs": len(estimator.history_),
        "weights": weights_digest(estimator),
    }


def restore_optimizer(estimator: Any, tensors: dict[str, Tensor], attributes: dict[str, Any]) -> Any:
    """Give a restored estimator the optimizer's state that belongs to its weights.

    Parameters
    ----------
    estimator : RNNClassifier or RNNRegressor
        After :meth:`restore_state`.
    tensors, attributes : dict
        From :func:`export_optimizer`. Nothing in them is executed.

    Returns
    -------
    estimator
        With `warm_start` it trains on, to the last bit as if it had never stopped.

    Raises
    ------
    ValueError
        If the state is malformed, or that of other weights.
    """
    net = estimator.net_
    if attributes.get("epochs") != len(net.history) or attributes.get("weights") != weights_digest(estimator):
        raise ValueError("The state of the optimizer is not that of these weights.")
    try:
        net.optimizer_.load_state_dict(_put_together(attributes["optimizer"], tensors))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"The state is not one that {type(net.optimizer_).__name__} can take: {error}") from error
    for _, callback in net.callbacks_:
        if isinstance(callback, PassthroughScoring):
            _recall_best(callback, net.history)
    return estimator


def weights_digest(estimator: Any) -> str:
    """Return the SHA-256 of the weights, which ties the optimizer's state to them."""
    state = estimator.net_.network.state_dict()
    return sha256(b"".join(state[name].detach().cpu().contiguous().numpy().tobytes() for name in sorted(state)))


def _recall_best(scoring: PassthroughScoring, history: Any) -> None:
    """Let skorch's scoring mark the best epoch as if it had seen all."""
    values = [row[scoring.name] for row in history if scoring.name in row]
    if values:
        scoring.best_score_ = (min if scoring.lower_is_better else max)(values)


def _take_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return `value` for JSON; its tensors go to `tensors` under numbers."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        # Pairs, because JSON has no numbers for keys.
        return {_ITEMS: [[key, _take_apart(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_take_apart(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"The optimizer keeps a {type(value).__name__}, which can't be written as plain data.")


def _put_together(structure: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(structure, dict):
        if _TENSOR in structure:
            return tensors[structure[_TENSOR]].clone()
        return {key: _put_together(item, tensors) for key, item in structure[_ITEMS]}
    if isinstance(structure, list):
        return [_put_together(item, tensors) for item in structure]
    return structure
