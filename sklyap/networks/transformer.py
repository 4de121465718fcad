"""What transformers that take networks share."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["SharedSequencesMixin"]


class SharedSequencesMixin:
    """For estimators with a `sequences` parameter: clones share it instead of copying it.

    A search clones its estimator hundreds of times; probe sequences are read only.
    """

    sequences: Any

    def __sklearn_clone__(self) -> Any:
        bare = copy.copy(self)
        bare.sequences = None
        twin = super(SharedSequencesMixin, bare).__sklearn_clone__()  # type: ignore[misc]
        twin.sequences = self.sequences
        return twin
