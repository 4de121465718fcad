"""The contract of transformers that take networks."""

from __future__ import annotations

import copy
import inspect
import math
import random
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklyap.cells.conversion import module_of
from sklyap.testing.assertions import expect, pickled, saying

__all__ = ["check_network_transformer"]


def check_network_transformer(transformer: Any, networks: list[Any]) -> None:
    """Check that an estimator that takes networks keeps the contract of such; silent if it does.

    scikit-learn's own checks take 2-D arrays only. These are their counterparts for lists of networks: the
    constructor stores, `fit` learns attributes that end in an underscore, `transform` gives a row for each
    network that depends on no other, names and containers of features, pickles, errors, pipelines and
    cross-validation, and networks that come out bit-identical. With a parameter `on_error`, networks that fail are
    named by their index, or become rows of NaN; with a parameter `sequences`, clones share it.
    A :class:`~sklyap.NetworkTransformer` keeps most of it for its subclasses.

    Parameters
    ----------
    transformer : estimator
        Not fitted; is not changed.
    networks : list of trained networks
        At least four, all of which it takes. Are not changed.

    Raises
    ------
    AssertionError
        Saying what is broken.

    Examples
    --------
    >>> import torch
    >>> from sklyap import LyapunovSpectrumTransformer
    >>> from sklyap.testing import check_network_transformer
    >>> networks = [torch.nn.GRU(2, 3) for _ in range(4)]
    >>> check_network_transformer(LyapunovSpectrumTransformer(torch.randn(3, 20, 2)), networks)
    """
    from sklearn.base import clone

    expect(isinstance(networks, list) and len(networks) >= 4, "networks must be a list of at least four")
    _check_parameters(transformer)
    fitted = _check_fit(clone(transformer), networks)
    _check_errors(clone(transformer), fitted, networks)
    rows = _check_rows(fitted, networks)
    _check_names(fitted, networks, rows)
    _check_failures(transformer, networks, rows)
    _check_untouched(clone(transformer), networks)
    _check_inside_sklearn(transformer, networks, rows)


def _check_parameters(transformer: Any) -> None:
    from sklearn.base import clone

    fresh = clone(transformer)
    parameters = fresh.get_params(deep=False)
    expect(set(vars(fresh)) == set(parameters), "the constructor must store its parameters and nothing else")
    signature = inspect.signature(type(transformer)).parameters
    declared = {name: signature[name].default for name in parameters}
    defaults = {name: value for name, value in declared.items() if value is not inspect.Parameter.empty}
    required = {name: value for name, value in parameters.items() if name not in defaults}
    for given in (parameters, required):
        twin = type(transformer)(**given)
        for name, value in {**defaults, **given}.items():
            expect(getattr(twin, name) is value, f"the constructor must store {name} as it is")
    expect(fresh.set_params(**parameters) is fresh, "set_params must return the estimator")
    if "sequences" in parameters:
        expect(fresh.sequences is transformer.sequences, "clones must share the sequences instead of copying them")
    expect(not fresh.__sklearn_tags__().input_tags.two_d_array, "tags must say that the input is no 2-D array")


def _check_errors(unfitted: Any, fitted: Any, networks: list[Any]) -> None:
    from sklearn.base import clone
    from sklearn.exceptions import NotFittedError

    def raises(kinds: tuple[type[Exception], ...], call: Callable[[], Any], what: str) -> None:
        names = " or ".join(kind.__name__ for kind in kinds)
        try:
            call()
        except kinds:
            return
        except Exception as error:
            raise AssertionError(f"{what} must raise {names}, not {error!r}.") from error
        raise AssertionError(f"{what} must raise {names}.")

    raises((NotFittedError,), lambda: unfitted.transform(networks), "transform before fit")
    raises((NotFittedError,), lambda: unfitted.get_feature_names_out(), "get_feature_names_out before fit")
    wrong = {"an empty list": [], "a single network": networks[0], "a numeric array": np.zeros((4, 3))}
    for what, X in wrong.items():
        raises((ValueError, TypeError), partial(clone(unfitted).fit, X), f"fit on {what}")
        raises((ValueError, TypeError), partial(fitted.transform, X), f"transform of {what}")


def _check_fit(transformer: Any, networks: list[Any]) -> Any:
    before = dict(vars(transformer))
    with saying("fit must take a list of networks alone"):
        returned = transformer.fit(networks)
    expect(returned is transformer, "fit must return the estimator")
    for name, value in before.items():
        expect(getattr(transformer, name) is value, f"fit must not change the parameter {name}")
    learned = set(vars(transformer)) - set(before)
    wrong = sorted(name for name in learned if not name.endswith("_") and not name.startswith("_"))
    expect(not wrong, f"attributes that fit sets must end in an underscore, but {', '.join(wrong)} do not")
    expect(any(name.endswith("_") for name in learned), "fit must set an attribute that ends in an underscore")
    return transformer


def _check_rows(fitted: Any, networks: list[Any]) -> np.ndarray:
    """Return what `transform` gives after checking that each row is one network's and no chance is in it."""
    from sklearn.base import clone

    rows = fitted.transform(networks)
    expect(isinstance(rows, np.ndarray) and rows.ndim == 2, "transform must return a 2-D array")
    expect(rows.dtype.kind == "f", f"transform must return floats, got {rows.dtype}")
    expect(len(rows) == len(networks), "transform must return a row for each network")
    expect(not np.isnan(rows).any(), "transform must not return NaN for networks that it takes")

    def same(networks: Any, expected: np.ndarray, what: str, estimator: Any = fitted) -> None:
        expect(np.array_equal(estimator.transform(networks), expected), what)

    same(networks, rows, "transform must return the same at every call")
    same(networks[::-1], rows[::-1], "rows must follow the order of the networks")
    same(networks[1:2], rows[1:2], "a row must not depend on the other networks of the list")
    boxed = np.empty(len(networks), dtype=object)
    for i, network in enumerate(networks):
        boxed[i] = network
    same(boxed, rows, "an object array of networks must do as a list does")
    again = clone(fitted)
    expect(np.array_equal(again.fit_transform(networks), rows), "fit_transform must equal fit and transform")
    targets = np.arange(len(networks), dtype=float)
    same(networks, rows, "fit must take and ignore targets y", clone(fitted).fit(networks, targets))
    same(networks, rows, "an unpickled estimator must transform the same", pickled(fitted))
    return rows


def _check_names(fitted: Any, networks: list[Any], rows: np.ndarray) -> None:
    names = fitted.get_feature_names_out()
    expect(len(names) == rows.shape[1], f"get_feature_names_out must name {rows.shape[1]} features, not {len(names)}")
    expect(all(isinstance(name, str) for name in names), "feature names must be strings")
    expect(len(set(names)) == len(names), "feature names must differ")
    framed = copy.deepcopy(fitted).set_output(transform="pandas").transform(networks)
    expect(hasattr(framed, "columns"), 'set_output(transform="pandas") must make transform return a DataFrame')
    expect(list(framed.columns) == list(names), "the columns of a DataFrame must be the feature names")
    expect(np.array_equal(framed.to_numpy(), rows), "a DataFrame must hold the same values as the array")


def _check_failures(transformer: Any, networks: list[Any], rows: np.ndarray) -> None:
    """Check what `on_error` promises, where there is such a parameter, with an object that is no network."""
    from sklearn.base import clone

    from sklyap.exceptions import FailedNetworkWarning

    if "on_error" not in transformer.get_params(deep=False):
        return
    mixed = [networks[0], object(), *networks[1:]]
    strict = clone(transformer).set_params(on_error="raise").fit(networks)
    try:
        strict.transform(mixed)
    except Exception as error:
        named = "network 1 of the list" in " ".join(getattr(error, "__notes__", []))
        expect(named, "with on_error='raise', a note must name the network that failed by its index in the list")
    else:
        raise AssertionError("with on_error='raise', what is no network must be an error.")
    with warnings.catch_warnings(record=True) as caught, saying("with on_error='warn', no network may raise"):
        warnings.simplefilter("always")
        lenient = clone(transformer).set_params(on_error="warn").fit(mixed)
        found = lenient.transform(mixed)
    warned = any(issubclass(w.category, FailedNetworkWarning) for w in caught)
    expect(warned, "with on_error='warn', a network that fails must be warned about by a FailedNetworkWarning")
    expect(bool(np.isnan(found[1]).all()), "with on_error='warn', the row of a network that fails must be NaN")
    others = np.delete(found, 1, axis=0)
    expect(np.array_equal(others, rows), "with on_error='warn', the rows of other networks must stay as they are")
    expect(list(lenient.failures_) == [1], "failures_ must hold the index of each network that failed, and no other")


def _check_untouched(transformer: Any, networks: list[Any]) -> None:
    """Check on copies in training mode, with gradients, that nothing about networks or random states changes."""
    twins = copy.deepcopy(networks)
    for i, twin in enumerate(twins):
        module = module_of(twin).train(i % 2 == 0)
        for j, parameter in enumerate(module.parameters()):
            parameter.requires_grad_(j != 1)
            parameter.grad = torch.ones_like(parameter)
    before = _fingerprint(twins)
    transformer.fit(twins).transform(twins)
    after = _fingerprint(twins)
    for what in before:
        expect(before[what] == after[what], f"fit and transform must leave {what} as it was")


def _fingerprint(networks: list[Any]) -> dict[str, Any]:
    """Return everything about networks and global random states that must survive, comparable by ``==``."""
    seen: dict[str, Any] = {
        "torch's random state": _bytes(torch.get_rng_state()),
        "numpy's random state": str(np.random.get_state()),
        "Python's random state": random.getstate(),
    }
    for i, network in enumerate(networks):
        module: nn.Module = module_of(network)
        tensors = [*module.named_parameters(), *module.named_buffers()]
        seen |= {f"{name} of network {i}": _bytes(tensor) for name, tensor in tensors}
        for name, parameter in module.named_parameters():
            seen[f"requires_grad of {name} of network {i}"] = parameter.requires_grad
            seen[f"grad of {name} of network {i}"] = None if parameter.grad is None else _bytes(parameter.grad)
        seen[f"training flags of network {i}"] = [m.training for m in module.modules()]
        seen[f"hooks of network {i}"] = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    return seen


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _check_inside_sklearn(transformer: Any, networks: list[Any], rows: np.ndarray) -> None:
    """Check that lists of networks pass through pipelines, unions and cross-validation."""
    from sklearn.base import clone
    from sklearn.dummy import DummyRegressor
    from sklearn.model_selection import KFold, cross_validate
    from sklearn.pipeline import FeatureUnion, make_pipeline

    union = FeatureUnion([("first", clone(transformer)), ("second", clone(transformer))])
    joined = union.fit_transform(networks)
    expect(np.array_equal(joined, np.hstack([rows, rows])), "a FeatureUnion must join the features")
    targets = np.arange(len(networks), dtype=float)
    pipeline = make_pipeline(clone(transformer), DummyRegressor())
    with saying("cross_validate must slice lists of networks for a pipeline"):
        scores = cross_validate(
            pipeline, networks, targets, cv=KFold(2), scoring="neg_mean_squared_error", error_score="raise"
        )
    expect(all(math.isfinite(score) for score in scores["test_score"]), "cross_validate must score every fold")
