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
    """Base class of every warning that sklyap issues itself.

    Examples
    --------
    >>> from sklyap.exceptions import ConvergenceWarning, SklyapWarning
    >>> issubclass(ConvergenceWarning, SklyapWarning)
    True
    """


class ConvergenceWarning(SklyapWarning):
    """The standard error of the leading exponents is too large to tell their sign.

    Examples
    --------
    >>> import warnings
    >>> from sklyap.exceptions import ConvergenceWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", ConvergenceWarning)  # or "error", to stop at it
    """


class PrecisionWarning(SklyapWarning):
    """An explicit setting (usually ``qr_interval``) loses digits that were asked for.

    Examples
    --------
    >>> import warnings
    >>> from sklyap.exceptions import PrecisionWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", PrecisionWarning)  # or "error", to stop at it
    """


class DegenerateSpectrumWarning(SklyapWarning):
    """Some directions are annihilated (to rounding) and their exponents are minus infinity.

    Examples
    --------
    >>> import warnings
    >>> from sklyap.exceptions import DegenerateSpectrumWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", DegenerateSpectrumWarning)  # or "error", to stop at it
    """


class FailedNetworkWarning(SklyapWarning):
    """A network of a list or population failed and is kept apart from the rest.

    Examples
    --------
    >>> import warnings
    >>> from sklyap.exceptions import FailedNetworkWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", FailedNetworkWarning)  # or "error", to stop at it
    """


class PaddedSpectrumWarning(SklyapWarning):
    """Networks have fewer exponents than the columns that were learned; their smallest exponent is repeated.

    Examples
    --------
    >>> import warnings
    >>> from sklyap.exceptions import PaddedSpectrumWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", PaddedSpectrumWarning)  # or "error", to stop at it
    """


class StepError(ValueError):
    """A step from outside this package is not one whose exponents can be computed.

    Examples
    --------
    >>> from sklyap import FunctionCell, lyapunov_spectrum
    >>> from sklyap.exceptions import StepError
    >>> try:
    ...     lyapunov_spectrum(FunctionCell(lambda s, x: s.detach() / 2, 1), 100)
    ... except StepError:
    ...     print("refused")
    refused
    """


class UntrustedFileError(ValueError):
    """A file is not what sklyap wrote: truncated, of the wrong type, or outside its directory.

    Examples
    --------
    >>> from sklyap.exceptions import UntrustedFileError
    >>> issubclass(UntrustedFileError, ValueError)
    True
    """


class DivergedError(RuntimeError):
    """A loss, weights or a trajectory became NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from sklyap import FunctionCell, lyapunov_spectrum
    >>> from sklyap.exceptions import DivergedError
    >>> try:
    ...     lyapunov_spectrum(FunctionCell(lambda s, x: 10 * s + 1, 1), 1000)
    ... except DivergedError:
    ...     print("diverged")
    diverged
    """


def reason_of(error: BaseException) -> str:
    """Return an error as the sentence that is kept of a network that failed."""
    return f"{type(error).__name__}: {error}"
