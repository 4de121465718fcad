"""From networks to spectra, as a scikit-learn transformer."""

from sklyap.spectrum.transformer import LyapunovSpectrumTransformer

__all__ = ["LyapunovSpectrumTransformer"]
