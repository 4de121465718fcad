"""Lyapunov spectra of recurrent neural networks, as scikit-learn estimators."""

from sklyap.cells import as_recurrent_cell
from sklyap.lyapunov import LyapunovResult, lyapunov_spectrum

__all__ = ["LyapunovResult", "as_recurrent_cell", "lyapunov_spectrum"]
