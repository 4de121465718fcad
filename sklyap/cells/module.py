"""Any torch module with a step of its own as a cell: several layers, attention inside the loop, complex states."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from torch import Tensor, nn

from sklyap.cells.nest import NestLayout
from sklyap.cells.rows import RowsCell, check_copyable

__all__ = ["ModuleCell"]


class ModuleCell(RowsCell):
    """A module whose step is written out, as one system on its whole state.

    For networks that are more than one recurrent layer: layers that feed one another, attention or convolution
    inside the loop, state-space models. The analysis runs on a copy of the module in evaluation mode, with the weights
    that the module has then; random generators stay as they are. The step is looked at before, as that of a
    :class:`FunctionCell` is.

    Parameters
    ----------
    module : torch.nn.Module
        Its parameters are those of the cell.
    step : callable
        ``step(module, state, x) -> state`` with `x` (n, n_inputs), or None for an autonomous system. It uses the
        module that it is handed.
    initial_state : nest of tensors (n, ...), or callable ``n -> nest``
        Everything that is carried from step to step: a nest of tuples, lists and dicts of real or complex tensors,
        whose first axis is that of sequences. A complex number counts as a pair of reals. With n = 1 all
        sequences start from it; with more, an autonomous run has a sequence for each.
    n_inputs, output_size, n_noise, random_state, trust
        See :class:`FunctionCell`; noise is the fourth argument of the step.

    Attributes
    ----------
    state_size : int
        N, the number of real entries of the state.

    Raises
    ------
    TypeError, ValueError
        If the state is no nest of real or complex tensors with one first axis.
    StepError
        A ValueError, where a spectrum is asked for, if the step cannot be analysed.

    Examples
    --------
    Two layers that feed each other:

    >>> import torch
    >>> from torch import nn
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.cells import ModuleCell
    >>> class Loop(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.below, self.above = nn.GRUCell(3 + 4, 8), nn.LSTMCell(8, 4)
    ...
    ...     def advance(self, state, x):
    ...         h, (u, c) = state
    ...         h = self.below(torch.cat([x, u], -1), h)
    ...         return h, self.above(h, (u, c))
    >>> _ = torch.manual_seed(0)
    >>> start = torch.zeros(1, 8), (torch.zeros(1, 4), torch.zeros(1, 4))
    >>> cell = ModuleCell(Loop(), Loop.advance, start, n_inputs=3)
    >>> cell.state_size
    16
    >>> lyapunov_spectrum(cell, torch.randn(20, 30, 3)).exponents.shape
    (16,)
    """

    subject = "The 'step' parameter of ModuleCell"
    remedy = (
        "Use the module that the step is handed, a copy that is moved, and make new tensors like the state "
        "(`state.new_zeros(...)`)"
    )
    arguments = "the module, the state, the input (None without one)"

    def __init__(
        self,
        module: nn.Module,
        step: Callable[..., Any],
        initial_state: Any,
        *,
        n_inputs: int | None = None,
        output_size: int | None = None,
        n_noise: int = 0,
        random_state: Any = None,
        trust: str | Collection[str] = (),
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"The 'module' parameter of ModuleCell must be a torch module. Got {type(module).__name__} instead."
            )
        check_copyable(module, "module", "ModuleCell")
        if not callable(step):
            raise TypeError(f"{self.subject} must be callable. Got {step!r} instead.")
        owner = "The 'initial_state' parameter of ModuleCell"
        start = initial_state(1) if callable(initial_state) else initial_state
        layout = NestLayout.of(start, owner)
        rows = None if callable(initial_state) else layout.flat(start, _n_rows(start), owner)
        super().__init__(
            sum(layout.sizes),
            n_inputs=n_inputs,
            initial_state=initial_state if rows is None else rows,
            output_size=output_size,
            n_noise=n_noise,
            random_state=random_state,
            trust=trust,
        )
        self.module = module
        self._layout = layout
        self._step = step

    def _start_at(self, n: int) -> Any:
        return self._layout.flat(super()._start_at(n), n, "The 'initial_state' parameter of ModuleCell")

    def _advance(self, s: Tensor, *inputs: Tensor | None) -> Any:
        nest = self._step(self.module, self._layout.nest(s), *inputs)
        return self._layout.flat(nest, len(s), "What the 'step' parameter of ModuleCell returns", s.dtype)

    def state(self, s: Tensor) -> Any:
        """Return the nest of states (n, state_size)."""
        return self._layout.nest(s)


def _n_rows(nest: Any) -> int:
    while not isinstance(nest, Tensor):
        nest = next(iter(v for v in (nest.values() if isinstance(nest, dict) else nest) if v is not None))
    return len(nest)
