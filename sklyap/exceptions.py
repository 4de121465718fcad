"""Errors and warnings, one sentence each."""

from __future__ import annotations

__all__ = [
    "ConvergenceWarning",
    "DegenerateSpectrumWarning",
    "DivergedError",
    "FailedNetworkWarning",
    "PaddedSpectrumWarning",
    "PrecisionWarning",
    "SklyapWarning",
    "StepError",
    "UntrustedFileError",
]


class SklyapWarning(UserWarning):
    """Base class of every warning that sklyap issues itself."""


class ConvergenceWarning(SklyapWarning):
    """The standard error of the leading exponents is too large to tell their sign."""


class PrecisionWarning(SklyapWarning):
    """An explicit setting (usually ``qr_interval``) loses digits that were asked for."""


class DegenerateSpectrumWarning(SklyapWarning):
    """Some directions are annihilated (to rounding) and their exponents are minus infinity."""


class FailedNetworkWarning(SklyapWarning):
    """A network of a list or population failed and is kept apart from the rest."""


class PaddedSpectrumWarning(SklyapWarning):
    """Networks have fewer exponents than the columns that were learned; their smallest exponent is repeated."""


class StepError(ValueError):
    """A step from outside this package is not one whose exponents can be computed."""


class UntrustedFileError(ValueError):
    """A file is not what sklyap wrote: truncated, of the wrong type, or outside its directory."""


class DivergedError(RuntimeError):
    """A loss, weights or a trajectory became NaN or infinite."""


def reason_of(error: BaseException) -> str:
    """Return an error as the sentence that is kept of a network that failed."""
    return f"{type(error).__name__}: {error}"
