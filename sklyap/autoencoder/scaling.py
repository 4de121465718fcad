"""Spectra and losses, scaled for the networks of the autoencoder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from sklyap.validation import check_choice, floor_exponents

__all__ = ["LossScaler", "SpectrumScaler"]

Array = NDArray[np.float64]

# A standardised input further out than this says no more than one there.
_OUTERMOST = 10.0


def _growth(spectra: Array) -> Array:
    """Return the factor exp λ by which a perturbation shrinks in a step, continued linearly where it grows."""
    return np.where(spectra < 0, np.exp(np.minimum(spectra, 0)), 1 + spectra)


def _standardisation(values: Array) -> tuple[Array, Array]:
    scale = values.std(axis=0)
    # Columns that vary by rounding alone are constant.
    return values.mean(axis=0), np.where(scale > 1e-10 * (1 + np.abs(values).max(axis=0)), scale, 1.0)


class SpectrumScaler:
    """Spectra to standardised curves (n, k), which are reconstructed, and to inputs (n, n_inputs) of the encoder.

    Parameters
    ----------
    transform : {"growth"} or None
        With "growth" curves are asinh λ, which compresses strong contraction and leaves exponents near zero as
        they are, and inputs come from two views, asinh λ and the growth factor exp λ.
        With None both are the exponents themselves.
    n_components : int or None
        Inputs are this many leading principal components of the views, each divided by the square root of its
        standard deviation: halfway between principal components, of which only the first count, and whitened
        ones, which amplify noise. With None inputs are the views.
    """

    def __init__(self, transform: str | None, n_components: int | None) -> None:
        self.transform = transform
        self.n_components = n_components

    def fit(self, spectra: Array) -> SpectrumScaler:
        curves, views = self._curves_and_views(spectra)
        self.curve_mean, self.curve_scale = _standardisation(curves)
        self.view_mean, self.view_scale = _standardisation(views)
        self.components = None
        if self.n_components is not None:
            standardised = (views - self.view_mean) / self.view_scale
            _, s, Vt = np.linalg.svd(standardised, full_matrices=False)
            spread = s / np.sqrt(len(spectra))
            rank = max(1, min(self.n_components, int(np.sum(spread > 1e-6 * max(spread[0], 1e-6)))))
            halfway = np.sqrt(np.maximum(spread[:rank], 1e-12))
            # The sum of the components' variances after the division is the sum of their standard deviations.
            unit = np.sqrt(np.mean(spread[:rank])) or 1.0
            self.components = Vt[:rank].T / (halfway * unit)
        return self

    def inputs(self, spectra: Array) -> Array:
        """Return what the encoder sees, (n, n_inputs)."""
        views = self.views(spectra)
        return views if self.components is None else views @ self.components

    def views(self, spectra: Array) -> Array:
        """Return the standardised views, (n, k) or (n, 2k)."""
        views = (self._curves_and_views(spectra)[1] - self.view_mean) / self.view_scale
        return np.clip(views, -_OUTERMOST, _OUTERMOST)

    def curves(self, spectra: Array) -> Array:
        """Return what the decoder is to give, (n, k)."""
        return (self._curves_and_views(spectra)[0] - self.curve_mean) / self.curve_scale

    def spectra(self, curves: Array) -> Array:
        """Return the spectra of curves, (n, k)."""
        curves = curves * self.curve_scale + self.curve_mean
        return curves if self.transform is None else np.sinh(curves)

    def _curves_and_views(self, spectra: Array) -> tuple[Array, Array]:
        spectra = floor_exponents(spectra)
        if self.transform is None:
            return spectra, spectra
        compressed = np.arcsinh(spectra)
        return compressed, np.hstack([compressed, _growth(spectra)])


class LossScaler:
    """Losses to targets of mean 0 and standard deviation 1, and back.

    Parameters
    ----------
    transform : {"rank", "log"} or None
        "rank" gives normal scores of the ranks, and interpolates between the losses on the way back, so that
        predictions stay in their range; "log" is for positive losses.
    """

    def __init__(self, transform: str | None) -> None:
        self.transform = transform

    def fit(self, losses: Array) -> LossScaler:
        check_choice(self.transform, "target_transform", ["rank", "log", None], caller="SpectrumAutoencoder")
        if self.transform == "log" and losses.min() <= 0:
            raise ValueError(
                "The 'target_transform' parameter of SpectrumAutoencoder is 'log', which needs positive losses. "
                f"Got {losses.min()}."
            )
        if self.transform == "rank":
            self.values, counts = np.unique(losses, return_counts=True)
            self.scores = norm.ppf((np.cumsum(counts) - counts / 2) / len(losses))
        else:
            losses = self._log(losses)
            self.mean = losses.mean()
            self.scale = losses.std() or 1.0
        return self

    def targets(self, losses: Array) -> Array:
        if self.transform == "rank":
            return np.interp(losses, self.values, self.scores)
        return (self._log(losses) - self.mean) / self.scale

    def losses(self, targets: Array) -> Array:
        if self.transform == "rank":
            return np.interp(targets, self.scores, self.values)
        losses = targets * self.scale + self.mean
        return np.exp(losses) if self.transform == "log" else losses

    def bounds(self, targets: Array) -> Array:
        """Return the losses of targets as `losses` does, with "rank" continued beyond those that were seen.

        The line from the median loss to the outermost one goes on; positive losses do so in their logarithms.
        """
        if self.transform != "rank":
            return self.losses(targets)
        positive = self.values[0] > 0
        values = np.log(self.values) if positive else self.values
        middle = np.interp(0.0, self.scores, values)
        bounds = np.interp(targets, self.scores, values)
        for end, beyond in ((0, targets < self.scores[0]), (-1, targets > self.scores[-1])):
            slope = (values[end] - middle) / self.scores[end] if self.scores[end] else 0.0
            bounds = np.where(beyond, values[end] + slope * (targets - self.scores[end]), bounds)
        return np.exp(bounds) if positive else bounds

    def _log(self, losses: Array) -> Array:
        return np.log(losses) if self.transform == "log" else losses
