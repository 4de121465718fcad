"""Lyapunov spectra of recurrent neural networks, as scikit-learn estimators.

A name is imported when it is first used: the spectrum of a torch network needs torch, and no scikit-learn or pandas.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; a test compares it with `_NAMES`
    from sklyap.alignment import GradientAlignmentAnalyzer
    from sklyap.autoencoder import SpectrumAutoencoder
    from sklyap.cells import FlowCell, FunctionCell, ModuleCell, RecurrentCell, as_recurrent_cell, closed_loop
    from sklyap.comparison import compare_loss_predictors
    from sklyap.comparison.loss_predictor import loss_predictor
    from sklyap.covariant import covariant_lyapunov_vectors
    from sklyap.gradients import gradient_from_qr, loss_gradient
    from sklyap.lyapunov import LyapunovResult, finite_time_exponents, lyapunov_spectrum
    from sklyap.networks import ESNRegressor, NetworkTransformer, RNNClassifier, RNNRegressor
    from sklyap.population import HistoryFeatures, HyperparameterFeatures, NetworkPopulation, train_population
    from sklyap.report import __version__, show_versions
    from sklyap.search import LyapunovHalvingSearch, replay_search
    from sklyap.sensitivity import input_sensitivity
    from sklyap.spectrum import LyapunovSpectrumTransformer
    from sklyap.statistics import SpectrumStatistics, spectrum_distance, spectrum_loss_correlation

__all__ = [
    "ESNRegressor",
    "FlowCell",
    "FunctionCell",
    "GradientAlignmentAnalyzer",
    "HistoryFeatures",
    "HyperparameterFeatures",
    "LyapunovHalvingSearch",
    "LyapunovResult",
    "LyapunovSpectrumTransformer",
    "ModuleCell",
    "NetworkPopulation",
    "NetworkTransformer",
    "RNNClassifier",
    "RNNRegressor",
    "RecurrentCell",
    "SpectrumAutoencoder",
    "SpectrumStatistics",
    "__version__",
    "as_recurrent_cell",
    "closed_loop",
    "compare_loss_predictors",
    "covariant_lyapunov_vectors",
    "finite_time_exponents",
    "gradient_from_qr",
    "input_sensitivity",
    "loss_gradient",
    "loss_predictor",
    "lyapunov_spectrum",
    "replay_search",
    "show_versions",
    "spectrum_distance",
    "spectrum_loss_correlation",
    "train_population",
]

_NAMES = {
    "alignment": ["GradientAlignmentAnalyzer"],
    "autoencoder": ["SpectrumAutoencoder"],
    "cells": ["FlowCell", "FunctionCell", "ModuleCell", "RecurrentCell", "as_recurrent_cell", "closed_loop"],
    "comparison": ["compare_loss_predictors"],
    "comparison.loss_predictor": ["loss_predictor"],
    "covariant": ["covariant_lyapunov_vectors"],
    "gradients": ["gradient_from_qr", "loss_gradient"],
    "lyapunov": ["LyapunovResult", "finite_time_exponents", "lyapunov_spectrum"],
    "networks": ["ESNRegressor", "NetworkTransformer", "RNNClassifier", "RNNRegressor"],
    "population": ["HistoryFeatures", "HyperparameterFeatures", "NetworkPopulation", "train_population"],
    "report": ["__version__", "show_versions"],
    "search": ["LyapunovHalvingSearch", "replay_search"],
    "sensitivity": ["input_sensitivity"],
    "spectrum": ["LyapunovSpectrumTransformer"],
    "statistics": ["SpectrumStatistics", "spectrum_distance", "spectrum_loss_correlation"],
}
_ROOM_OF = {name: room for room, names in _NAMES.items() for name in names}
_ROOMS = {room.name for room in iter_modules(__path__) if not room.name.startswith("_")}


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(import_module(f"sklyap.{_ROOM_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return import_module(f"sklyap.{name}")
    raise AttributeError(f"module 'sklyap' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
