"""Hyperparameter search that uses the spectrum, and the replay of searches on a recorded population."""

from __future__ import annotations

from sklyap.search.belief import Belief
from sklyap.search.distance import DistancePolicy
from sklyap.search.halving import LyapunovHalvingSearch
from sklyap.search.knowledge import Board, Knowledge
from sklyap.search.policies import (
    ExtrapolationPolicy,
    HalvingPolicy,
    HyperbandPolicy,
    OraclePolicy,
    Policy,
    RandomPolicy,
    Ranking,
    Request,
)
from sklyap.search.predicted import PredictorPolicy
from sklyap.search.pruning import LyapunovPruner, OptunaCallback
from sklyap.search.replay import ReplayResult, replay_search

__all__ = [
    "Belief",
    "Board",
    "DistancePolicy",
    "ExtrapolationPolicy",
    "HalvingPolicy",
    "HyperbandPolicy",
    "Knowledge",
    "LyapunovHalvingSearch",
    "LyapunovPruner",
    "OptunaCallback",
    "OraclePolicy",
    "Policy",
    "PredictorPolicy",
    "RandomPolicy",
    "Ranking",
    "ReplayResult",
    "Request",
    "replay_search",
]
