"""skorch callbacks that watch or steer the Lyapunov spectrum of a network while it is trained."""

from sklyap.training.flossing import FlossingRound, GradientFlossing
from sklyap.training.monitor import LyapunovMonitor, MonitoredSpectrum

__all__ = ["FlossingRound", "GradientFlossing", "LyapunovMonitor", "MonitoredSpectrum"]
