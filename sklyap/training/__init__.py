"""skorch callbacks that watch or steer the Lyapunov spectrum of a network while it is trained."""

from sklyap.training.flossing import FlossingRound, GradientFlossing
from sklyap.training.monitor import LyapunovMonitor, MonitoredSpectrum
from sklyap.training.stop import LossForecast, StopHopeless

__all__ = [
    "FlossingRound",
    "GradientFlossing",
    "LossForecast",
    "LyapunovMonitor",
    "MonitoredSpectrum",
    "StopHopeless",
]
