"""Matplotlib displays: they hold computed arrays, `plot` only draws."""

from __future__ import annotations

from sklyap.displays.dynamics import ConvergenceDisplay, LocalExponentDisplay
from sklyap.displays.gradients import AlignmentDisplay, GradientEnergyDisplay
from sklyap.displays.prediction import LatentDisplay, LossPredictorsDisplay
from sklyap.displays.search import RegretDisplay, SearchDisplay
from sklyap.displays.sensitivity import SensitivityDisplay, SensitivitySweepDisplay
from sklyap.displays.spectrum import SpectrumDisplay
from sklyap.displays.training import TrainingDisplay

__all__ = [
    "AlignmentDisplay",
    "ConvergenceDisplay",
    "GradientEnergyDisplay",
    "LatentDisplay",
    "LocalExponentDisplay",
    "LossPredictorsDisplay",
    "RegretDisplay",
    "SearchDisplay",
    "SensitivityDisplay",
    "SensitivitySweepDisplay",
    "SpectrumDisplay",
    "TrainingDisplay",
]
