"""The honest table: what the spectrum says about the final loss, beside what one knows without it."""

from __future__ import annotations

from sklyap.comparison.loss_predictor import LossPredictor, loss_predictor
from sklyap.comparison.predictors import FEATURES, default_loss_predictors
from sklyap.comparison.scores import score_predictions
from sklyap.comparison.table import compare_loss_predictors

__all__ = [
    "FEATURES",
    "LossPredictor",
    "compare_loss_predictors",
    "default_loss_predictors",
    "loss_predictor",
    "score_predictions",
]
