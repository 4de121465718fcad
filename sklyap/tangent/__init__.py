"""The QR iteration: a state and its tangent basis carried along sequences, block by block."""

from sklyap.tangent.blocks import QRBlock, strain_budget
from sklyap.tangent.iteration import check_settings, qr_iteration, tangent_size

__all__ = ["QRBlock", "check_settings", "qr_iteration", "strain_budget", "tangent_size"]
