"""What the contracts share: an assertion with a sentence, and the way to a worker and back."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["expect", "pickled", "saying"]


def expect(condition: bool, sentence: str) -> None:
    """Raise AssertionError with `sentence` unless `condition` holds."""
    if not condition:
        raise AssertionError(sentence + ".")


@contextmanager
def saying(sentence: str) -> Iterator[None]:
    """Turn an exception into an AssertionError that says what should have worked."""
    try:
        yield
    except Exception as error:
        raise AssertionError(f"{sentence}, but it raises {error!r}.") from error


def pickled(value: Any) -> Any:
    """Return `value` after the way that joblib sends it to its workers."""
    import joblib

    return pickle.loads(pickle.dumps(joblib.wrap_non_picklable_objects(value, keep_wrapper=False)))
