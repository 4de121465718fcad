"""Hyperparameter search that uses the spectrum, and the replay of searches on a recorded population."""

from __future__ import annotations

from sklyap.search.halving import LyapunovHalvingSearch

__all__ = ["LyapunovHalvingSearch"]
