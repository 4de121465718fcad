"""Functions of a Lyapunov spectrum, and how they go with the loss.

To add a statistic, see ``sklyap/statistics/functions.py``.
"""

from __future__ import annotations

from sklyap.statistics.correlation import spectrum_loss_correlation
from sklyap.statistics.distances import spectrum_distance
from sklyap.statistics.functions import (
    FAMILIES,
    STATISTICS,
    kaplan_yorke_dimension,
    kolmogorov_sinai_entropy,
    largest_exponent,
    largest_gap,
    mean_exponent,
    median_exponent,
    n_near_zero,
    n_positive,
    smallest_exponent,
    spectrum_quantile,
    spectrum_slope,
    spectrum_std,
    spectrum_sum,
    spectrum_variance,
    top_mean,
)
from sklyap.statistics.transformer import SpectrumStatistics

__all__ = [
    "FAMILIES",
    "STATISTICS",
    "SpectrumStatistics",
    "kaplan_yorke_dimension",
    "kolmogorov_sinai_entropy",
    "largest_exponent",
    "largest_gap",
    "mean_exponent",
    "median_exponent",
    "n_near_zero",
    "n_positive",
    "smallest_exponent",
    "spectrum_distance",
    "spectrum_loss_correlation",
    "spectrum_quantile",
    "spectrum_slope",
    "spectrum_std",
    "spectrum_sum",
    "spectrum_variance",
    "top_mean",
]
