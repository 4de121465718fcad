"""Users' own step functions as cells."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor

from sklyap.cells.rows import RowsCell, check_copyable

__all__ = ["FunctionCell"]


class FunctionCell(RowsCell):
    """Any step function as a cell; its Jacobian comes from automatic differentiation.

    Before a spectrum is computed, the step is run on a few states: a step that mixes sequences, draws random numbers,
    changes its arguments, or whose derivative is not that of what it computes is refused with advice.

    Parameters
    ----------
    step : callable
        ``step(s, x) -> s'`` with `s` (n, state_size) and `x` (n, n_inputs), or None for an autonomous
        system, for any n. Written in torch operations, row by row, without in-place changes of
        its arguments; of the dtype of `s` (float64 unless a spectrum is asked for in float32). A step that is a
        module moves along.
    state_size : int
        N, the length of the state.
    n_inputs : int, optional
        Width of the input; None (default) for an autonomous system, or, where sequences are given and the step looks at
        its input, for their width. The attribute counts the noise as well.
    initial_state : array-like of shape (state_size,) or (n, state_size), or callable ``n -> Tensor``, optional
        Where sequences start. By default zeros for a driven system and, as zero is often a fixed point,
        small fixed pseudo-random values for an autonomous one. With shape (n, state_size) an autonomous
        run has n sequences, one from each row.
    output_size : int, optional
        How many leading entries of the state a readout sees; all by default.
    n_noise : int, default=0
        With k > 0, the step is called ``step(s, x, xi)`` with independent standard normal numbers xi (n, k). Each
        sequence has one frozen realisation, along which the exponents are those of a driven system.
    random_state : int or None, default=None
        Seeds the noise. None is 0.
    trust : {"derivative", "branches"} or a collection of them, default=()
        What not to refuse. "derivative": a derivative that is not that of the step, as surrogate and straight-through
        gradients are; the exponents are then those of the surrogate. "branches": Python that looks at values
        (assertions), where you know that rows stay independent. A step without forward-mode differentiation is
        differentiated in reverse mode.

    Raises
    ------
    StepError
        A ValueError, where a spectrum is asked for, if the step is not what is described here.

    References
    ----------
    Neftci, E. O., Mostafa, H. and Zenke, F. (2019). Surrogate gradient learning in spiking neural networks. IEEE
    Signal Processing Magazine 36.

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

    subject = "The 'step' parameter of FunctionCell"

    def __init__(
        self,
        step: Callable[..., Tensor],
        state_size: int,
        *,
        n_inputs: int | None = None,
        initial_state: Any = None,
        output_size: int | None = None,
        n_noise: int = 0,
        random_state: Any = None,
        trust: str | Collection[str] = (),
    ) -> None:
        super().__init__(
            state_size,
            n_inputs=n_inputs,
            initial_state=initial_state,
            output_size=output_size,
            n_noise=n_noise,
            random_state=random_state,
            trust=trust,
        )
        if not callable(step):
            raise TypeError(f"{self.subject} must be callable. Got {step!r} instead.")
        check_copyable(step, "step", "FunctionCell")
        self._step = step

    def _advance(self, s: Tensor, *inputs: Tensor | None) -> Any:
        return self._step(s, *inputs)
