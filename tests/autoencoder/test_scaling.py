"""What the encoder sees of spectra."""

from __future__ import annotations

import numpy as np
import pytest

from sklyap.autoencoder.scaling import SpectrumScaler

SPECTRA = np.array([[6.0, 5.0, 4.0], [0.5, -0.3, -4.0], [-5.0, -6.0, -7.0], [1.0, 0.1, -2.0]])


@pytest.mark.parametrize(
    ("exponent", "factor"),
    [(-3.0, np.exp(-3.0)), (-1e-9, 1 - 1e-9), (0.0, 1.0), (1e-9, 1 + 1e-9), (0.7, 1.7), (5.0, 6.0)],
)
def test_growth_factors_go_on_linearly_above_zero(exponent, factor):
    """exp λ of a chaotic network would outweigh all others."""
    scaler = SpectrumScaler("growth", None).fit(SPECTRA)
    seen = scaler.views(np.full((1, 3), exponent)) * scaler.view_scale + scaler.view_mean
    np.testing.assert_allclose(seen[0, 3:], factor, rtol=1e-12)
    np.testing.assert_allclose(seen[0, :3], np.arcsinh(exponent), atol=1e-12)
