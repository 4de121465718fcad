"""A look at a step that somebody else wrote, before its exponents are computed: what would be wrong is refused.

The engine runs many sequences, and whole trajectories, as one batch of rows, and it trusts the derivative. Both hold
for the cells of this package by their tests. For a step from elsewhere a few calls tell: on states that it reaches
itself, and on states near them, as zero and other fixed points hide much.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.cells.advice import advice
from sklyap.cells.base import RecurrentCell
from sklyap.cells.differences import size_of, wrong_derivative
from sklyap.cells.rows import RowsCell
from sklyap.cells.stacked import StackedCell
from sklyap.exceptions import DivergedError, StepError
from sklyap.runtime import kept_rng

__all__ = ["is_known", "probe", "probe_end"]

_N_SEQUENCES, _N_STEPS = 3, 3
"""How many sequences, and how many of their first steps, give the states on which a step is looked at; later ones are
those of steps 4, 8, 16, …"""
_LAST_STEP, _LAST_STEP_BEFORE = 64, 1024
"""Up to which step a trajectory is followed to look at later states, where the last ones of the run are looked at after
it and where they are not. A step that is solved for, which takes long, is followed up to the first."""
_N_ALONE = 18
"""How many states are run one by one."""
_NEARBY = 0.01
"""Relative distance of further states from these."""


def probe(cell: RecurrentCell, s: Tensor, x: Tensor | int, *, before: bool = True) -> None:
    """Raise if the exponents of a step from outside this package would be wrong, saying what to do.

    Nothing happens for cells of this package, and for a cell that was looked at before. Random generators are left as
    they were.

    Parameters
    ----------
    cell : RecurrentCell
    s : Tensor of shape (n_sequences, state_size)
        Initial states.
    x : Tensor of shape (n_sequences, n_steps, n_inputs), or int
    before : bool
        Whether this is the only look, with none at where the run ends.

    Raises
    ------
    StepError
        If the step fails, returns something else than the next state, draws random numbers or remembers earlier calls,
        changes its arguments, mixes rows, looks at values in Python, or has a derivative that is not its own.
    DivergedError
        If its first step is not finite.
    """
    layers = list(cell.cells) if isinstance(cell, StackedCell) else [cell]
    if all(map(_is_known, layers)):
        return
    with kept_rng(), torch.no_grad():  # the state of random generators is the process's own
        like = _like(cell, s)
        solved = any(getattr(layer, "resolution", 0.0) for layer in layers)
        last = _LAST_STEP_BEFORE if before and not solved else _LAST_STEP
        n_steps = min(x if isinstance(x, int) else x.shape[1], last + 1)
        s, x = s[:_N_SEQUENCES].to(like), n_steps if isinstance(x, int) else x[:_N_SEQUENCES, :n_steps].to(like)
        for layer, part in zip(layers, s.split([layer.state_size for layer in layers], -1), strict=True):
            if not _is_known(layer):
                _Look(layer).at(part, x)
                layer._probed = True
            if layer is not layers[-1]:
                x = layer.output(layer.trajectory(part, x)[1:]).transpose(0, 1)


def probe_end(cell: RecurrentCell, s: Tensor, x: Tensor | None) -> None:
    """Raise if a step from outside this package is not, where a run has ended, what it was at the start.

    Parameters
    ----------
    cell : RecurrentCell
    s : Tensor of shape (n_sequences, state_size)
        The last states.
    x : Tensor of shape (n_sequences, n_inputs) or None
        The last inputs.

    Raises
    ------
    StepError
        As :func:`probe`.
    """
    if is_known(cell):
        return
    with kept_rng(), torch.no_grad():
        like = _like(cell, s)
        for layer in list(cell.cells) if isinstance(cell, StackedCell) else [cell]:
            _Look(layer).at_first_call()
        _Look(cell).at_end(s[:_N_SEQUENCES].to(like), None if x is None else x[:_N_SEQUENCES].to(like))


def is_known(cell: RecurrentCell) -> bool:
    """Tell whether a cell, with all its layers, is of this package: its steps need no look."""
    layers = list(cell.cells) if isinstance(cell, StackedCell) else [cell]
    return all(_is_ours(layer) for layer in layers)


def _is_ours(cell: RecurrentCell) -> bool:
    return type(cell).__module__.partition(".")[0] == "sklyap" and not isinstance(cell, RowsCell)


def _is_known(cell: RecurrentCell) -> bool:
    return _is_ours(cell) or cell._probed


def _like(cell: RecurrentCell, s: Tensor) -> Tensor:
    """Return a real tensor of the dtype and the device in which the cell computes."""
    weights = (t for t in chain(cell.parameters(), cell.buffers()) if t.is_floating_point() or t.is_complex())
    like = next(weights, s)
    return torch.view_as_real(like) if like.is_complex() else like


class _Look:
    """One look at the step of a cell."""

    def __init__(self, cell: RecurrentCell) -> None:
        self.cell = cell
        self.subject = getattr(cell, "subject", f"The 'step' method of {type(cell).__name__}")
        self._before = self._versions()
        self._function: Callable[[Tensor, Tensor | None], Tensor] = cell.step

    def at(self, s: Tensor, x: Tensor | int) -> None:
        inputs = None if isinstance(x, int) else x[:, 0]
        with _random_state_kept() as drawn:
            if isinstance(self.cell, RowsCell) and type(self.cell).by_row is not RowsCell.by_row:
                # First what the step is made from, as a solver may not end on a field that is none.
                self._function = self.cell.by_row
                self._check_call(s, inputs)
                self._check_memory(s, inputs, drawn)
                self._function = self.cell.step
            self._check_call(s, inputs)
            self._check_memory(s, inputs, drawn)
            self._check_weights()
            first = self._step(s, inputs)
            rows = self._along(s, x)
            self._check_same(first, self._step(s, inputs), drawn)
            self.cell._first_call = (s, inputs, first)
            rows = self._near(*rows)
            self._check_rows(*rows)
            self._check_branches(*rows)
            self._check_derivative(*rows)

    def at_end(self, s: Tensor, x: Tensor | None) -> None:
        with _random_state_kept():
            self._check_derivative(*self._near(s, x))

    def at_first_call(self) -> None:
        """Check that the step still returns what it returned at first."""
        if self.cell._first_call is not None:
            s, x, first = self.cell._first_call
            with _random_state_kept() as drawn:
                self._check_same(first, self._step(s, x), drawn)

    def _fail(self, wanted: str, got: str) -> None:
        raise StepError(f"{self.subject} must {wanted} Got {got}")

    def _step(self, s: Tensor, x: Tensor | None) -> Tensor:
        """Return the next state, from copies: the step may write into its arguments."""
        return self._function(s.clone(), None if x is None else x.clone())

    def _check_call(self, s: Tensor, x: Tensor | None) -> None:
        s_before, x_before = s.clone(), None if x is None else x.clone()
        s_given, x_given = s.clone(), None if x is None else x.clone()
        try:
            s_next = self._function(s_given, x_given)
        except StepError:
            raise
        except Exception as error:
            raise StepError(advice(self.cell, self.subject, self._step, s_before, x_before, error)) from error
        if not isinstance(s_next, Tensor) or s_next.shape != s.shape:
            got = f"shape {tuple(s_next.shape)}" if isinstance(s_next, Tensor) else type(s_next).__name__
            self._fail(f"return the next state, a tensor of shape {tuple(s.shape)} as `s` has.", f"{got} instead.")
        if s_next.dtype != s.dtype or s_next.device != s.device:
            self._fail(
                f"return the next state in the dtype and on the device of `s`, {s.dtype} on {s.device}.",
                f"{s_next.dtype} on {s_next.device}: {_how_to_keep(s_next.dtype)}.",
            )
        for name, before, given in (("s", s_before, s_given), ("x", x_before, x_given)):
            if before is not None and given is not None and not _identical(before, given):
                self._fail(
                    "not change its arguments in place.", f"a step that writes into `{name}`: work on `{name}.clone()`."
                )
        bad = ~torch.isfinite(s_next).all(-1)
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            raise DivergedError(
                f"The state of sequence {i} is not finite after its first step. It started from {_shown(s[i])}; choose "
                f"another initial state, or look at the step of the {type(self.cell).__name__} there."
            )

    def _check_memory(self, s: Tensor, x: Tensor | None, drawn: Callable[[], bool]) -> None:
        """Check that the step returns the same for the same arguments, in a new tensor."""
        first = self._step(s, x)
        kept = first.clone()
        self._step(first, x)
        if not _identical(first, kept):
            self._fail(
                "return a new tensor.",
                "one that the next call overwrites: the states of a trajectory would all be the last one. "
                "Return `.clone()` of a buffer.",
            )
        self._check_same(kept, self._step(s, x), drawn)

    def _check_same(self, first: Tensor, again: Tensor, drawn: Callable[[], bool]) -> None:
        if drawn() or not _same(first, again, 1e4 * torch.finfo(first.dtype).eps):
            self._fail(
                "return the same at every call with the same arguments.",
                ("random numbers" if drawn() else "two results that differ by " + _difference(first, again))
                + ". A step that draws random numbers takes them as an input, or with n_noise=k as `xi` in "
                "step(s, x, xi); dropout and batch normalisation belong in evaluation mode; a step that counts or "
                "remembers has more state than it says: make that a part of the state, and time an input.",
            )

    def _along(self, s: Tensor, x: Tensor | int) -> tuple[Tensor, Tensor | None]:
        """Return states of the trajectories, the first ones and later ones, in one batch, with their inputs."""
        states, inputs = [], []
        for t in range(x if isinstance(x, int) else x.shape[1]):
            x_t = None if isinstance(x, int) else x[:, t]
            if t < _N_STEPS or t & (t - 1) == 0:
                states.append(s)
                inputs.append(x_t)
            s = self._step(s, x_t)
            if not bool(torch.isfinite(s).all()):
                break  # the engine says where a trajectory diverges
        return torch.cat(states), None if isinstance(x, int) else torch.cat([i for i in inputs if i is not None])

    def _near(self, s: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return states and as many near them, if the step is defined there."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(s.shape, generator=generator, dtype=torch.float64).to(s)
        near = s + _NEARBY * size_of(s) * noise
        try:
            fine = torch.isfinite(self._step(near, x)).all(-1)
        except Exception:  # of a state with a domain, integers or probabilities say
            return s, x
        return torch.cat([s, near[fine]]), None if x is None else torch.cat([x, x[fine]])

    def _check_rows(self, s: Tensor, x: Tensor | None) -> None:
        """Check that what a row becomes does not depend on the other rows of the batch."""
        some = torch.linspace(0, len(s) - 1, min(len(s), _N_ALONE)).long().to(s.device)
        s, x = s[some], None if x is None else x[some]
        together = self._step(s, x)
        backwards = self._step(s.flip(0), None if x is None else x.flip(0)).flip(0)
        alone = []
        for i in range(len(s)):
            try:
                alone.append(self._step(s[i : i + 1], None if x is None else x[i : i + 1]))
            except Exception as error:
                self._fail(
                    "take any number of rows.",
                    f"{type(error).__name__} for a single row, `s` of shape {(1, s.shape[-1])}: {error}",
                )
        rtol = max(torch.finfo(s.dtype).eps ** 0.5, 1e3 * getattr(self.cell, "resolution", 0.0))
        for other, what in ((torch.cat(alone), "alone"), (backwards, "in another order")):
            if not _same(together, other, rtol):
                self._fail(
                    "compute each row (sequence) on its own.",
                    f"rows that differ by {_difference(together, other)} when they are run {what}. Reduce over the "
                    "last axis only (`dim=-1`), index it as `s[..., i]`, and leave out batch statistics.",
                )

    def _check_branches(self, s: Tensor, x: Tensor | None) -> None:
        """Check that no branch is chosen by values, which rows of a batch would take together."""
        if "branches" in self.cell.trust:
            return

        def one(s: Tensor, x: Tensor | None) -> Tensor:
            step = self.cell.by_row if isinstance(self.cell, RowsCell) else self.cell.step
            return step(s.unsqueeze(0), None if x is None else x.unsqueeze(0)).squeeze(0)

        try:
            torch.func.vmap(one, in_dims=(0, None if x is None else 0))(s[:2].clone(), None if x is None else x[:2])
        except Exception as error:  # many operations have no rule for vmap, which says nothing about branches
            if "data-dependent control flow" in str(error) or ".item()" in str(error):
                self._fail(
                    "not look at values in Python (`if s > 0`, `.item()`, `float(s)`), which is one look for all rows.",
                    "a step that does. Use torch.where, torch.clamp and the like; if it is an assertion, take it out "
                    "or pass trust='branches'.",
                )

    def _check_derivative(self, s: Tensor, x: Tensor | None) -> None:
        """Compare the derivative along one direction with differences, where these agree from both sides."""
        v = torch.randn(s.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(s)
        try:
            along = self.cell.push(s.clone(), x, v.unsqueeze(-1)).squeeze(-1)
        except Exception as error:
            raise StepError(advice(self.cell, self.subject, self._step, s, x, error, derivative=True)) from error
        if "derivative" in self.cell.trust:
            return
        wrong = wrong_derivative(self._step, s, x, v, along, resolution=getattr(self.cell, "resolution", 0.0))
        if wrong is not None:
            row, entry, by_differences = wrong
            self._fail(
                "have the derivative of what it computes.",
                f"{float(along[row, entry]):.10g} where finite differences give {by_differences:.10g} (entry {entry} "
                "of the new state). Something in it cuts or replaces gradients: detach, .data, no_grad, numpy, a "
                "rounding with straight-through or surrogate gradients, or a linearization of its own that is wrong. "
                "For the exponents of a surrogate, pass trust='derivative'.",
            )

    def _check_weights(self) -> None:
        """Check that the step has left weights and buffers alone."""
        changed = [name for name, version in self._versions().items() if self._before.get(name) != version]
        if changed:
            self._fail(
                "leave weights and buffers alone.",
                f"a step that changes {', '.join(changed)}, which is state that it does not say it has.",
            )

    def _versions(self) -> dict[str, tuple[int, int | None]]:
        named = chain(self.cell.named_parameters(), self.cell.named_buffers())
        return {name: (id(value), None if value.is_inference() else value._version) for name, value in named}


@contextmanager
def _random_state_kept() -> Iterator[Callable[[], bool]]:
    """Restore all global random generators at the end; yields a function that tells whether one has been used."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else range(0)

    def state() -> list[Any]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]

    before, numpy_before, python_before = state(), _numpy_state(), random.getstate()

    def drawn() -> bool:
        same = all(map(torch.equal, state(), before)) and random.getstate() == python_before
        now = _numpy_state()
        return not (same and now[2] == numpy_before[2] and np.array_equal(now[1], numpy_before[1]))

    try:
        yield drawn
    finally:
        torch.set_rng_state(before[0])
        for device, value in zip(devices, before[1:], strict=True):
            torch.cuda.set_rng_state(value, device)
        np.random.set_state(numpy_before)
        random.setstate(python_before)


def _numpy_state() -> tuple[Any, ...]:
    state = np.random.get_state(legacy=True)
    assert isinstance(state, tuple)
    return state


def _identical(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan())


def _same(a: Tensor, b: Tensor, rtol: float) -> bool:
    """Tell whether rows are the same, relative to the largest entry of each; NaN is the same as NaN."""
    if a.shape != b.shape:
        return False
    scale = a.nan_to_num().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(a.dtype).tiny)
    return bool((((a - b).abs() <= rtol * scale) | (a == b) | (a.isnan() & b.isnan())).all())


def _difference(a: Tensor, b: Tensor) -> str:
    return f"{float((a - b).abs().max()):.2g}" if a.shape == b.shape else f"shape, {tuple(a.shape)}, {tuple(b.shape)}"


def _shown(s: Tensor) -> str:
    return f"[{', '.join(f'{v:.3g}' for v in s[:4].tolist())}{', …' if len(s) > 4 else ''}]"


def _how_to_keep(dtype: torch.dtype) -> str:
    if dtype.is_complex:
        return "keep complex numbers as pairs of reals (torch.view_as_real), or use ModuleCell, which takes them"
    if not dtype.is_floating_point:
        return "a state of integers has no exponents"
    return "make constants and weights like `s`, with `W.to(s)` or `s.new_zeros(...)`"
