"""Values, tables and settings of estimators as a page shows them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd

from sklyap.population import NetworkPopulation

__all__ = ["DIGITS", "changed_settings", "shown", "table"]

DIGITS = 4
"""Significant digits of the numbers in tables."""


def shown(value: Any) -> Any:
    """Return a value as a table shows it."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating):
        return float(f"{value:.{DIGITS}g}") if np.isfinite(value) else str(float(value))
    if isinstance(value, int | np.integer):
        return int(value)
    return getattr(value, "__name__", str(value))


def table(caption: str, frame: pd.DataFrame) -> tuple[str, list[str], list[list[Any]]]:
    """Return the caption, the head and the rows of a table."""
    frame = frame.reset_index() if frame.index.name else frame
    return caption, [str(name) for name in frame.columns], [[shown(v) for v in row] for row in frame.to_numpy(object)]


def changed_settings(estimator: Any) -> str:
    """Return an estimator as one would write it: what differs from the defaults, without the data in it."""
    defaults = _defaults(type(estimator))
    parts = [
        f"{name}={_written(value)}"
        for name, value in estimator.get_params(deep=False).items()
        if name not in defaults or not _equal(value, defaults[name])
    ]
    return f"{type(estimator).__name__}({', '.join(parts)})"


def _defaults(kind: type) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _equal(value: Any, default: Any) -> bool:
    return type(value) is type(default) and bool(np.all(value == default))


def _written(value: Any) -> str:
    """Return a value as one would write it; data by their size."""
    if isinstance(value, NetworkPopulation):
        return f"<population of {len(value)} networks>"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_written(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list | tuple) and len(value) <= 20:
        inside = ", ".join(map(_written, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if hasattr(value, "dist") and hasattr(value, "args"):  # a frozen distribution of scipy
        settings = [*map(_written, value.args), *(f"{key}={_written(v)}" for key, v in value.kwds.items())]
        return f"{value.dist.name}({', '.join(settings)})"
    if hasattr(value, "get_params") and not isinstance(value, type):
        return changed_settings(value)
    if isinstance(value, type):
        return value.__name__
    if isinstance(value, str | int | float | bool | None):
        return repr(value)
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"<array of shape {tuple(shape)}>"
    return f"<{type(value).__name__}>"
