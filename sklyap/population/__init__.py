"""Populations: many networks trained on one task, safely, in parallel, and kept with their histories."""

from __future__ import annotations

from sklyap.population.features import HistoryFeatures
from sklyap.population.hyperparameters import HyperparameterFeatures
from sklyap.population.network_population import NetworkPopulation
from sklyap.population.network_sequence import NetworkSequence
from sklyap.population.records import NetworkRecord, Snapshot
from sklyap.population.training import train_population

__all__ = [
    "HistoryFeatures",
    "HyperparameterFeatures",
    "NetworkPopulation",
    "NetworkRecord",
    "NetworkSequence",
    "Snapshot",
    "train_population",
]
