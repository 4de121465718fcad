"""The loss gradient from the Q directions and R factors of the iteration, and how directions align with it."""

from sklyap.gradients.adjoint import state_gradients
from sklyap.gradients.alignment import alignment_features, gradient_alignment
from sklyap.gradients.alignment_result import AlignmentResult
from sklyap.gradients.criterion import Loss
from sklyap.gradients.loss_gradient import (
    LossGradient,
    default_ranks,
    gradient_from_qr,
    loss_gradient,
    parameter_names,
)
from sklyap.gradients.objective import Objective

__all__ = [
    "AlignmentResult",
    "Loss",
    "LossGradient",
    "Objective",
    "alignment_features",
    "default_ranks",
    "gradient_alignment",
    "gradient_from_qr",
    "loss_gradient",
    "parameter_names",
    "state_gradients",
]
