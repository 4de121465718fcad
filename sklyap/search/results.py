"""The tables of a finished search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from sklyap.search.knowledge import Board

__all__ = ["cv_results", "decision_table"]

_COLUMNS = ["candidate", "rung", "epoch", "loss", "predicted", "low", "high", "promoted", "reason"]


def decision_table(board: Board) -> pd.DataFrame:
    """Return a row for each candidate at each rung, in the order of the decisions."""
    return pd.DataFrame(board.decisions, columns=_COLUMNS)


def cv_results(board: Board, params: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the decisions as scikit-learn's halving searches name them."""
    rows = [row for row in board.decisions if row["epoch"] > 0]
    scores = np.array([-row["loss"] for row in rows])
    order = np.argsort(-scores, kind="stable")
    ranks = np.empty(len(rows), dtype=np.int32)
    # Equal scores share the best of their ranks, as in scikit-learn.
    for place, position in enumerate(order):
        before = order[place - 1] if place else position
        ranks[position] = ranks[before] if place and scores[before] == scores[position] else place + 1
    results: dict[str, Any] = {
        "iter": np.array([row["rung"] for row in rows], dtype=np.int64),
        "n_resources": np.array([row["epoch"] for row in rows], dtype=np.int64),
        "candidate": np.array([row["candidate"] for row in rows], dtype=np.int64),
        "params": [params[row["candidate"]] for row in rows],
        "split0_test_score": scores,
        "mean_test_score": scores,
        "std_test_score": np.zeros(len(rows)),
        "rank_test_score": ranks,
    }
    for name in dict.fromkeys(name for row in results["params"] for name in row):
        values = [row.get(name) for row in results["params"]]
        column = np.ma.MaskedArray(np.empty(len(rows), dtype=object), mask=[name not in r for r in results["params"]])
        column[:] = np.ma.MaskedArray(_objects(values), mask=column.mask)
        results[f"param_{name}"] = column
    return results


def _objects(values: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array
