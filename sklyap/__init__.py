"""Lyapunov spectra of recurrent neural networks, as scikit-learn estimators."""

from sklyap.alignment import GradientAlignmentAnalyzer
from sklyap.autoencoder import SpectrumAutoencoder
from sklyap.cells import FlowCell, FunctionCell, ModuleCell, RecurrentCell, as_recurrent_cell, closed_loop
from sklyap.comparison import compare_loss_predictors, loss_predictor
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
