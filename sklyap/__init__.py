"""Lyapunov spectra of recurrent neural networks, as scikit-learn estimators."""

from sklyap.cells import as_recurrent_cell
from sklyap.lyapunov import LyapunovResult, lyapunov_spectrum
from sklyap.networks import RNNClassifier, RNNRegressor
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.statistics import SpectrumStatistics, spectrum_loss_correlation

__all__ = [
    "LyapunovResult",
    "LyapunovSpectrumTransformer",
    "RNNClassifier",
    "RNNRegressor",
    "SpectrumStatistics",
    "as_recurrent_cell",
    "lyapunov_spectrum",
    "spectrum_loss_correlation",
]
