"""Keyword arguments that a method does not take: the nearest that there is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from sklyap.validation import suggestion

__all__ = ["suggests_keywords"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def suggests_keywords(method: _Method) -> _Method:
    """Return a method of an estimator that names the nearest keyword for one that it does not take.

    Parameters
    ----------
    method : callable
        Its signature is kept.
    """
    known = [name for name in inspect.signature(method).parameters if name != "self"]

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                raise TypeError(_unknown(self, method.__name__, name, known))
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def _unknown(estimator: Any, method: str, name: str, known: list[str]) -> str:
    who = type(estimator).__name__
    sentence = f"{who}.{method} has no parameter {name!r}; it takes {', '.join(known)}."
    near = suggestion(name, known)
    if near:
        return sentence + near
    of_constructor = suggestion(name, estimator.get_params(deep=False))
    if of_constructor:
        return f"{sentence}{of_constructor[:-1]}, which is a parameter of {who}(...)?"
    return sentence
