"""Difference quotients of a step beside the derivative that it says it has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["size_of", "wrong_derivative"]

Step = Callable[[Tensor, Tensor | None], Tensor]

_RTOL = {torch.float64: 1e-5, torch.float32: 1e-2}
"""Relative error of a derivative that plain differences can tell."""
_SMOOTH_RTOL = 1e-9
"""Relative error of a derivative in float64 that extrapolated differences can tell of a smooth step."""
_SETTLED = 0.1
"""Maximum relative difference of difference quotients over two distances that are held for a derivative."""


def wrong_derivative(
    step: Step, s: Tensor, x: Tensor | None, v: Tensor, along: Tensor, *, resolution: float = 0.0
) -> tuple[int, int, float] | None:
    """Return a row, an entry and its difference quotient where a derivative is certainly wrong, None if nowhere.

    Parameters
    ----------
    step : callable
    s, x : Tensor of shape (n, state_size) and (n, n_inputs)
    v : Tensor of shape (n, state_size)
        A direction for each row.
    along : Tensor of shape (n, state_size)
        The derivative along it.
    resolution : float
        Relative error of what the step computes, beside rounding.
    """
    f, eps = step(s, x), torch.finfo(s.dtype).eps
    found = []
    for h in (eps ** (1 / 3), 30 * eps ** (1 / 3)):
        try:
            found.append((h * size_of(s), *_one_sided(step, s, x, v, f, h * size_of(s))))
        except Exception:  # of a state with a domain
            return None
    settled = _settled(*((ahead + behind) / 2 for _, ahead, behind in found))
    for h_s, ahead, behind in found:
        central = (ahead + behind) / 2
        # Kinks, jumps, curvature and coarse arithmetic inside the step show as a difference between both sides.
        between = (ahead - behind).abs().amax(-1)
        slack = (
            _RTOL[s.dtype] * torch.maximum(central.abs().amax(-1), along.abs().amax(-1))
            + 10 * torch.maximum(between, between.median())
            + 100 * eps * f.abs().amax(-1) / h_s.squeeze(-1)
        )
        wrong = _largest_error(along, central, settled, slack)
        if wrong is not None:
            return wrong
    return _finer(step, s, x, v, along, f, resolution) if s.dtype == torch.float64 else None


def size_of(s: Tensor) -> Tensor:
    """Return the size (n, 1) of states, one for zero."""
    size = s.abs().amax(-1, keepdim=True)
    return torch.where(size > 0, size, 1.0)


def _finer(
    step: Step, s: Tensor, x: Tensor | None, v: Tensor, along: Tensor, f: Tensor, resolution: float
) -> tuple[int, int, float] | None:
    """Return the same by Richardson's extrapolation, which tells the last digits where the step is smooth."""
    eps = torch.finfo(s.dtype).eps
    h = eps**0.2 * size_of(s)
    try:
        sides = [_one_sided(step, s, x, v, f, part) for part in (h, h / 2, h / 4)]
    except Exception:  # of a state with a domain
        return None
    central, between = [(a + b) / 2 for a, b in sides], [a - b for a, b in sides]
    coarse, fine = (4 * central[1] - central[0]) / 3, (4 * central[2] - central[1]) / 3
    # Differences between both sides fall with h but for a kink, which is what is left of them.
    kink = (2 * between[1] - between[0]).abs() + (2 * between[2] - between[1]).abs()
    doubt = torch.maximum((fine - coarse).abs(), kink).amax(-1)
    noise = 1e3 * (eps + resolution) * f.abs().amax(-1) / h.squeeze(-1)
    scale = torch.maximum(fine.abs().amax(-1), along.abs().amax(-1))
    slack = _SMOOTH_RTOL * scale + 10 * torch.maximum(doubt, doubt.nanmedian()) + noise
    return _largest_error(along, fine, _settled(coarse, fine), slack)


def _one_sided(step: Step, s: Tensor, x: Tensor | None, v: Tensor, f: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    return (step(s + h * v, x) - f) / h, (f - step(s - h * v, x)) / h


def _settled(coarse: Tensor, fine: Tensor) -> Tensor:
    """Tell for which rows difference quotients over two distances are about the same, as those of a derivative are."""
    size = torch.maximum(coarse.abs().amax(-1), fine.abs().amax(-1))
    return (coarse - fine).abs().amax(-1) <= _SETTLED * size


def _largest_error(along: Tensor, quotients: Tensor, settled: Tensor, slack: Tensor) -> tuple[int, int, float] | None:
    error = (along - quotients).abs()
    wrong = settled & (error.amax(-1) > slack)  # NaN, outside the domain of the step, is not larger
    if not bool(wrong.any()):
        return None
    row = int(wrong.nonzero()[0])
    entry = int(error[row].argmax())
    return row, entry, float(quotients[row, entry])
