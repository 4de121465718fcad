"""Lyapunov spectra of recurrent networks along given sequences: the functional core."""

from sklyap.lyapunov.differentiable import finite_time_exponents
from sklyap.lyapunov.ensemble import EnsembleCell, ensemble_spectra
from sklyap.lyapunov.growth import GrowthRecord, standard_error, time_bins
from sklyap.lyapunov.result import LyapunovResult
from sklyap.lyapunov.resumption import RunEnd
from sklyap.lyapunov.spectrum import lyapunov_spectrum

__all__ = [
    "EnsembleCell",
    "GrowthRecord",
    "LyapunovResult",
    "RunEnd",
    "ensemble_spectra",
    "finite_time_exponents",
    "lyapunov_spectrum",
    "standard_error",
    "time_bins",
]
