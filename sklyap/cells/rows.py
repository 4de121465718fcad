"""What cells share whose step a user writes: where they start, their noise, and how their step is differentiated."""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sklyap.cells.base import DenseLinearization, JvpLinearization, Linearization, RecurrentCell
from sklyap.cells.batches import grouped
from sklyap.exceptions import StepError
from sklyap.runtime import kept_rng
from sklyap.validation import check_choice, check_int, check_sequences, seed_from

__all__ = ["ReverseLinearization", "RowsCell", "check_copyable"]

_DEFAULT_SPREAD = 0.1
_TRUSTABLE = ("derivative", "branches")


class RowsCell(RecurrentCell):
    """Base of cells whose step is written by a user, for rows (n, state_size).

    Subclasses implement `_advance` and say in `subject` how errors name what the user wrote.

    Parameters
    ----------
    state_size : int
    n_inputs : int or None
    initial_state : array-like, callable or None
    output_size : int or None
    n_noise : int
    random_state : int or None
    trust : str or collection of str
        See :class:`FunctionCell`.
    """

    _like: Tensor
    subject = "The step"
    remedy = "Bring its weights along with `W.to(s)`, or pass a torch module as the step, which is moved"
    arguments = "the state, the input (None without one)"
    resolution = 0.0  # relative, of what the step computes; 0 for that of its dtype

    def __init__(
        self,
        state_size: int,
        *,
        n_inputs: int | None,
        initial_state: Any,
        output_size: int | None,
        n_noise: int,
        random_state: Any,
        trust: str | Collection[str],
    ) -> None:
        super().__init__()
        caller = type(self).__name__
        self.state_size = check_int(state_size, "state_size", low=1, caller=caller)
        n_given = 0 if n_inputs is None else check_int(n_inputs, "n_inputs", low=1, caller=caller)
        self.n_noise = check_int(n_noise, "n_noise", low=0, caller=caller)
        self.n_inputs = n_given + self.n_noise or None
        self.output_size = (
            self.state_size
            if output_size is None
            else check_int(output_size, "output_size", low=1, high=self.state_size, caller=caller)
        )
        self.trust = (trust,) if isinstance(trust, str) else tuple(trust)
        for name in self.trust:
            check_choice(name, "trust", _TRUSTABLE, caller=caller)
        self._seed = seed_from(random_state)
        self._start = initial_state if initial_state is None or callable(initial_state) else self._rows(initial_state)
        self._by_forward_mode: bool | None = None
        # The buffer follows .to(dtype, device), so initial states have the right ones.
        self.register_buffer("_like", torch.empty(0, dtype=torch.float64), persistent=False)

    @abc.abstractmethod
    def _advance(self, s: Tensor, *inputs: Tensor | None) -> Any:
        """Return the next states (n, state_size) of rows, from the inputs and, where there is noise, the noise."""

    # Where it starts

    def _rows(self, start: Any, n: int | None = None) -> Tensor:
        """Return given initial states as rows of finite real numbers (n, state_size), or one of them (state_size,)."""
        N = self.state_size
        owner = f"The 'initial_state' parameter of {type(self).__name__} must"
        try:
            rows = start if isinstance(start, Tensor) else torch.as_tensor(np.asarray(start))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{owner} be an array of numbers of shape ({N},) or (n, {N}). Got {start!r}.") from error
        if rows.is_complex():
            raise TypeError(
                f"{owner} hold real numbers. Got {rows.dtype}: keep complex numbers as pairs of reals "
                "(torch.view_as_real), or use ModuleCell, which takes complex tensors in its state."
            )
        if n is not None and rows.shape in ((n, 1), (1, N), (1, 1), (1,), ()):
            rows = rows.expand(n, N)
        if rows.ndim not in (1, 2) or rows.shape[-1] != N:
            raise ValueError(f"{owner} have shape ({N},) or (n, {N}). Got shape {tuple(rows.shape)} instead.")
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(f"{owner} be finite. Got {float(rows[~torch.isfinite(rows)][0])}.")
        return rows.to(torch.float64)

    def _start_at(self, n: int) -> Any:
        """Return what the function that was given as initial state says."""
        assert callable(self._start)
        return self._start(n)

    @property
    def n_starts(self) -> int:
        return len(self._start) if isinstance(self._start, Tensor) and self._start.ndim == 2 else 1

    def initial_state(self, n: int) -> Tensor:
        start: Tensor
        if callable(self._start):
            start = self._rows(self._start_at(n), n)
            if not torch.equal(start, self._rows(self._start_at(n), n)):
                raise ValueError(
                    f"The 'initial_state' parameter of {type(self).__name__} must return the same at every call. Got "
                    "states that differ from one call to the next: draw them once and hand them over as rows."
                )
        elif self._start is not None:
            start = self._start
        elif not self._n_given:
            generator = torch.Generator().manual_seed(0)
            start = _DEFAULT_SPREAD * torch.randn(n, self.state_size, generator=generator, dtype=torch.float64)
        else:
            start = torch.zeros(n, self.state_size)
        if start.ndim == 2 and len(start) not in (1, n):
            raise ValueError(
                f"The 'initial_state' parameter of {type(self).__name__} has {len(start)} rows, "
                f"but there are {n} sequences."
            )
        return start.expand(n, self.state_size).to(self._like)

    # What drives it

    @property
    def _n_given(self) -> int:
        """Width of the input without the noise, zero for none."""
        return (self.n_inputs or 0) - self.n_noise

    def infer_inputs(self, sequences: Any, lengths: Any = None) -> None:
        """Set `n_inputs` to the width of sequences, if they have one and the step looks at its input."""
        if sequences is None or isinstance(sequences, bool | float | str):
            return
        widths = {part.shape[2] for _, part in grouped(sequences, lengths) if part.ndim == 3}
        if len(widths) != 1:
            return
        (n_inputs,) = widths
        s = torch.randn(2, self.state_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        x = torch.randn(2, 2, n_inputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(self._like)
        try:
            with kept_rng(), torch.no_grad():
                first, second = (self.step(s.to(self._like), x_t) for x_t in x)
        except Exception:  # what is wrong with the step is said where it is looked at
            self.n_inputs = n_inputs
            return
        if not torch.equal(first, second):
            self.n_inputs = n_inputs

    def with_noise(self, sequences: Any) -> list[Tensor] | Tensor:
        """Return `sequences`, or a number of steps, with the noise of each sequence as its last inputs.

        The noise is standard normal. That of a sequence depends on `random_state` and on the sequence's place in the
        list alone, and that of a longer run goes on where a shorter one ends.
        """
        n_given = self._n_given
        if not n_given:
            if isinstance(sequences, bool) or not isinstance(sequences, int | np.integer):
                raise TypeError(
                    f"The 'sequences' parameter must be a number of steps for a {type(self).__name__} that is driven "
                    f"by noise alone. Got {type(sequences).__name__} instead."
                )
            n_steps = check_int(sequences, "sequences", low=1)
            return torch.stack([self._noise(i, n_steps) for i in range(self.n_starts)])
        if isinstance(sequences, Sequence) and not isinstance(sequences, str):
            inputs = [check_sequences(x[None], n_inputs=n_given)[0] for x in map(torch.as_tensor, sequences)]
        else:
            inputs = [*check_sequences(sequences, n_inputs=n_given)]
        return [torch.cat([x, self._noise(i, len(x)).to(x)], -1) for i, x in enumerate(inputs)]

    def _noise(self, index: int, n_steps: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng([self._seed, index]).normal(size=(n_steps, self.n_noise)))

    # One step and its derivative

    def by_row(self, s: Tensor, x: Tensor | None) -> Tensor:
        """Return what must not branch on values, of rows: the step, or what it is made from."""
        return self.step(s, x)

    def step(self, s: Tensor, x: Tensor | None) -> Tensor:
        # Users write for (n_sequences, state_size); a whole trajectory is one long batch to them.
        batch = s.shape[:-1]
        rows = s.reshape(-1, self.state_size)
        inputs = None if x is None else x.reshape(-1, x.shape[-1])
        versions = _version(rows), _version(inputs)
        s_next = self._advance(rows, *self._parts(inputs))
        if not isinstance(s_next, Tensor) or s_next.shape != rows.shape:
            raise StepError(
                f"{self.subject} must return the next state, a tensor of shape {tuple(rows.shape)} as `s` has. "
                f"Got {_described(s_next)} instead.{_hint(s_next)}"
            )
        if (_version(rows), _version(inputs)) != versions:
            name = "s" if _version(rows) != versions[0] else "x"
            raise StepError(
                f"{self.subject} must not change its arguments in place. Got a step that writes into `{name}`: work on "
                f"`{name}.clone()`."
            )
        return s_next.reshape(*batch, self.state_size)

    def _parts(self, inputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return what `_advance` takes beside the state: the input and, where there is noise, the noise."""
        if inputs is None or not self.n_noise:
            return (inputs,)
        x, noise = inputs[..., : -self.n_noise], inputs[..., -self.n_noise :]
        return (x if x.shape[-1] else None), noise

    def linearize(self, s: Tensor, x: Tensor | None) -> Linearization:
        if self._by_forward_mode is None:
            self._by_forward_mode = self._has_forward_mode(s, x)
        return (JvpLinearization if self._by_forward_mode else ReverseLinearization)(self.step, s, x)

    def _has_forward_mode(self, s: Tensor, x: Tensor | None) -> bool:
        """Tell whether the step can be run with forward-mode tangents, which custom gradients often cannot."""
        s = s.reshape(-1, self.state_size)[:1].detach()
        x = None if x is None else x.reshape(-1, x.shape[-1])[:1].detach()
        try:
            JvpLinearization(self.step, s, x).push(torch.ones_like(s).unsqueeze(-1))
        except Exception:  # whatever the operations of a user's step raise
            return False
        return True


@dataclass(frozen=True)
class ReverseLinearization(Linearization):
    """The derivative of a step without forward mode, by reverse mode: a pass per entry of the new state."""

    step: Any
    s: Tensor
    x: Tensor | None

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        return self.fold(Q.shape[-1], inputs=P is not None).push(Q, P)

    def dense(self) -> Tensor:
        return self._by(self.s, lambda s: self.step(s, self.x))

    def fold(self, k: int, *, inputs: bool = True) -> DenseLinearization:
        if self.x is None or not inputs:
            return DenseLinearization(self.dense())
        return DenseLinearization(self.dense(), self._by(self.x, lambda x: self.step(self.s, x)))

    def __getitem__(self, index: int | slice) -> ReverseLinearization:
        return ReverseLinearization(self.step, self.s[index], None if self.x is None else self.x[index])

    @staticmethod
    def _by(point: Tensor, function: Any) -> Tensor:
        """Return the derivative (*batch, m, n) of a function of rows (*batch, n)."""
        attached = torch.is_grad_enabled()
        with torch.enable_grad():
            point = point if attached and point.requires_grad else point.detach().requires_grad_()
            s_next = function(point)
            if not s_next.requires_grad:  # nothing in it depends on the point
                return point.new_zeros(*s_next.shape, point.shape[-1])
            rows = [
                torch.autograd.grad(entry.sum(), point, retain_graph=True, create_graph=attached, allow_unused=True)[0]
                for entry in s_next.unbind(-1)
            ]
        return torch.stack([torch.zeros_like(point) if row is None else row for row in rows], -2)


def check_copyable(module: Any, name: str, caller: str) -> None:
    """Raise TypeError for a module that holds a scripted or traced one: it cannot be copied with its weights."""
    if isinstance(module, nn.Module) and any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise TypeError(
            f"The {name!r} parameter of {caller} must not be a scripted or traced module, which is analysed as a copy "
            "and cannot be copied. Hand over the module that it was made from."
        )


def _version(tensor: Tensor | None) -> int:
    """Return how often a tensor was written to; tensors of inference mode do not count."""
    return 0 if tensor is None or tensor.is_inference() else tensor._version


def _described(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _hint(value: Any) -> str:
    if isinstance(value, Tensor):
        return " Rows are sequences: index entries as `s[..., i]` and put them together with torch.stack(..., dim=-1)."
    if isinstance(value, tuple | list):
        return " Return the state alone; what a readout sees is `output_size` of its leading entries."
    return " Write it in torch operations." if isinstance(value, np.ndarray | float) else ""
