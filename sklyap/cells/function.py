"""Users' own step functions as cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sklyap.cells.base import RecurrentCell
from sklyap.validation import check_int

__all__ = ["FunctionCell"]

_DEFAULT_SPREAD = 0.1


class FunctionCell(RecurrentCell):
    """Any step function as a cell; its Jacobian comes from forward-mode differentiation.

    Parameters
    ----------
    step : callable
        ``step(s, x) -> s'`` with `s` (n, state_size) and `x` (n, n_inputs), or None for an autonomous
        system, for any n. Written in torch operations, differentiable, row by row, without in-place changes of
        its arguments; of the dtype of `s` (float64 unless a spectrum is asked for in float32). A step that is a
        module moves along.
    state_size : int
        N, the length of the state.
    n_inputs : int, optional
        Width of the input; None (default) for an autonomous system.
    initial_state : array-like of shape (state_size,) or (n, state_size), or callable ``n -> Tensor``, optional
        Where sequences start. By default zeros for a driven system and, as zero is often a fixed point,
        small fixed pseudo-random values for an autonomous one. With shape (n, state_size) an autonomous
        run has n sequences, one from each row.
    output_size : int, optional
        How many leading entries of the state a readout sees; all by default.

    Examples
    --------
    >>> import torch
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.cells import FunctionCell
    >>> def henon(s, x):
    ...     return torch.stack([1 - 1.4 * s[..., 0] ** 2 + s[..., 1], 0.3 * s[..., 0]], -1)
    >>> result = lyapunov_spectrum(FunctionCell(henon, 2), 5000)
    >>> print(f"{result.exponents.sum():.4f}")  # ln 0.3
    -1.2040
    """

    _like: Tensor

    def __init__(
        self,
        step: Callable[[Tensor, Tensor | None], Tensor],
        state_size: int,
        *,
        n_inputs: int | None = None,
        initial_state: Any = None,
        output_size: int | None = None,
    ) -> None:
        super().__init__()
        if not callable(step):
            raise TypeError(f"The 'step' parameter of FunctionCell must be callable. Got {step!r} instead.")
        self._step = step
        self.state_size = check_int(state_size, "state_size", low=1, caller="FunctionCell")
        self.n_inputs = None if n_inputs is None else check_int(n_inputs, "n_inputs", low=1, caller="FunctionCell")
        self.output_size = (
            self.state_size
            if output_size is None
            else check_int(output_size, "output_size", low=1, high=self.state_size, caller="FunctionCell")
        )
        self._start = initial_state if initial_state is None or callable(initial_state) else self._rows(initial_state)
        # The buffer follows .to(dtype, device), so initial states have the right ones.
        self.register_buffer("_like", torch.empty(0, dtype=torch.float64), persistent=False)

    def _rows(self, start: Any) -> Tensor:
        rows = torch.as_tensor(start, dtype=torch.float64).detach()
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.state_size:
            raise ValueError(
                f"The 'initial_state' parameter of FunctionCell must have shape ({self.state_size},) or "
                f"(n, {self.state_size}). Got shape {tuple(rows.shape)} instead."
            )
        return rows

    @property
    def n_starts(self) -> int:
        """How many sequences an autonomous run has: one for each given initial state."""
        return len(self._start) if isinstance(self._start, Tensor) and self._start.ndim == 2 else 1

    def step(self, s: Tensor, x: Tensor | None) -> Tensor:
        # Users write for (n_sequences, state_size); a whole trajectory is one long batch to them.
        batch = s.shape[:-1]
        rows = s.reshape(-1, self.state_size)
        s_next = self._step(rows, None if x is None else x.reshape(-1, x.shape[-1]))
        if not isinstance(s_next, Tensor) or s_next.shape != rows.shape:
            got = f"shape {tuple(s_next.shape)}" if isinstance(s_next, Tensor) else type(s_next).__name__
            raise ValueError(
                f"The 'step' parameter of FunctionCell must return the next state, a tensor of shape "
                f"{tuple(rows.shape)} as `s` has. Got {got} instead."
            )
        return s_next.reshape(*batch, self.state_size)

    def initial_state(self, n: int) -> Tensor:
        if callable(self._start):
            start = torch.as_tensor(self._start(n)).expand(n, self.state_size)
        elif self._start is not None:
            if self._start.ndim == 2 and len(self._start) not in (1, n):
                raise ValueError(
                    f"The 'initial_state' parameter of FunctionCell has {len(self._start)} rows, "
                    f"but there are {n} sequences."
                )
            start = self._start.expand(n, self.state_size)
        elif self.n_inputs is None:
            generator = torch.Generator().manual_seed(0)
            start = _DEFAULT_SPREAD * torch.randn(n, self.state_size, generator=generator, dtype=torch.float64)
        else:
            start = torch.zeros(n, self.state_size)
        return start.to(self._like)
