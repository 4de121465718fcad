"""The Kaplan-Yorke dimension of a spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklyap.validation import check_dense

__all__ = ["kaplan_yorke_dimension"]


def kaplan_yorke_dimension(spectra: ArrayLike) -> NDArray[np.float64]:
    """Kaplan-Yorke (Lyapunov) dimension j + (λ₁ + … + λⱼ) / abs(λⱼ₊₁), a pure number.

    j is the largest number of leading exponents whose sum is not negative. The dimension is 0 when λ₁ < 0
    and the number of exponents when their whole sum is not negative (of a truncated spectrum, a lower
    bound). An exponent of −∞ adds no fraction.

    References
    ----------
    Kaplan, J. L. and Yorke, J. A. (1979). *Chaotic behavior of multidimensional difference equations.*
    Lecture Notes in Mathematics 730, 204-227.

    Examples
    --------
    >>> round(float(kaplan_yorke_dimension([0.906, 0.0, -14.572])), 3)  # Lorenz
    2.062
    >>> [float(d) for d in kaplan_yorke_dimension([[-0.1, -0.2], [0.2, -0.1]])]
    [0.0, 2.0]
    """
    check_dense(spectra, "spectra")
    spectra = -np.sort(-np.asarray(spectra, dtype=np.float64), axis=-1)
    if 0 in spectra.shape[-1:]:
        raise ValueError("The 'spectra' parameter must hold at least one exponent in each spectrum. Got none.")
    sums = np.cumsum(spectra, axis=-1)
    # The sums rise, then fall, so those that are not negative come first.
    j = np.sum(sums >= 0, axis=-1, keepdims=True)
    k = spectra.shape[-1]
    volume = np.take_along_axis(sums, np.maximum(j - 1, 0), axis=-1)
    following = np.take_along_axis(spectra, np.minimum(j, k - 1), axis=-1)
    within = (j > 0) & (j < k)
    fraction = np.divide(volume, -following, out=np.zeros_like(volume), where=within)
    return (j + fraction)[..., 0]
