"""Correlations of many columns with one, as fast as a bootstrap needs them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["column_correlations"]


def column_correlations(
    table: NDArray[np.float64], y: NDArray[np.float64], method: str = "spearman"
) -> NDArray[np.float64]:
    """Return the correlation of each column with y.

    scipy's functions give one pair at a time with its p-value; a bootstrap needs many columns and no p-values.

    Parameters
    ----------
    table : ndarray of shape (n_rows, n_columns)
    y : ndarray of shape (n_rows,)
    method : {"spearman", "pearson"}

    Returns
    -------
    ndarray of shape (n_columns,)
        NaN where a column or y is constant.
    """
    sample = np.column_stack([table, y])
    if method == "spearman":
        sample = rankdata(sample, axis=0)
    sample = sample - sample.mean(axis=0)
    norms = np.sqrt(np.sum(sample**2, axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlations: NDArray[np.float64] = (sample[:, -1] @ sample[:, :-1]) / (norms[:-1] * norms[-1])
    return correlations
