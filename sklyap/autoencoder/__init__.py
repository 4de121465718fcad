"""The Lyapunov autoencoder: spectra to a latent code, and the loss that the code predicts."""

from __future__ import annotations

from sklyap.autoencoder.estimator import SpectrumAutoencoder
from sklyap.autoencoder.settings import A24_SETTINGS

__all__ = ["A24_SETTINGS", "SpectrumAutoencoder"]
