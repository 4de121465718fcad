"""The QR iteration: a state and its tangent basis carried along sequences, block by block."""

from sklyap.tangent.blocks import Factors, GrowthBlock, QRBlock
from sklyap.tangent.iteration import check_settings, growth_iteration, qr_iteration, spread_budget, tangent_size

__all__ = [
    "Factors",
    "GrowthBlock",
    "QRBlock",
    "check_settings",
    "growth_iteration",
    "qr_iteration",
    "spread_budget",
    "tangent_size",
]
