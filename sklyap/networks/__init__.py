"""Recurrent networks as scikit-learn estimators: thin shells that own a skorch net."""

from sklyap.networks.classifier import RNNClassifier
from sklyap.networks.modules import RecurrentNetwork
from sklyap.networks.regressor import RNNRegressor
from sklyap.networks.reservoir import ESNRegressor
from sklyap.networks.transformer import NetworkTransformer

__all__ = ["ESNRegressor", "NetworkTransformer", "RNNClassifier", "RNNRegressor", "RecurrentNetwork"]
