"""Differential equations as cells: one step of the cell is one interval of time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sklyap.cells.base import DenseLinearization, JvpLinearization, Linearization
from sklyap.cells.rows import RowsCell
from sklyap.exceptions import StepError
from sklyap.validation import check_choice, check_int, check_real

__all__ = ["FlowCell"]

Field = Callable[[Tensor, Tensor | None], Tensor]

_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
_FINEST = 30
"""Units of rounding: no solver is asked for a smaller relative error."""

_MOST_STEPS = 10_000


def _euler(field: Callable[[Tensor], Tensor], dt: float, s: Tensor) -> Tensor:
    return s + dt * field(s)


def _midpoint(field: Callable[[Tensor], Tensor], dt: float, s: Tensor) -> Tensor:
    return s + dt * field(s + dt / 2 * field(s))


def _rk4(field: Callable[[Tensor], Tensor], dt: float, s: Tensor) -> Tensor:
    k1 = field(s)
    k2 = field(s + dt / 2 * k1)
    k3 = field(s + dt / 2 * k2)
    k4 = field(s + dt * k3)
    return s + dt / 6 * (k1 + 2 * (k2 + k3) + k4)


_FIXED = {"euler": _euler, "midpoint": _midpoint, "rk4": _rk4}


class FlowCell(RowsCell):
    """A differential equation ``ds/dt = field(s, x)`` as a cell whose step advances it by `dt`.

    Exponents come per step; ``result.per_time()`` gives them per unit of time, and ``result.lyapunov_time`` the time in
    which errors grow e-fold. The field is looked at before, as the step of a :class:`FunctionCell` is.

    Parameters
    ----------
    field : callable
        ``field(s, x) -> ds/dt`` of rows `s` (n, state_size) and `x` (n, n_inputs), or None for an autonomous system.
        Written as the step of a :class:`FunctionCell` is. The input is constant over a step.
    state_size : int
        N, the length of the state.
    dt : float
        Time that one step takes.
    method : {"rk4", "midpoint", "euler", "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"}, default="rk4"
        The classical Runge-Kutta method of fourth order [1]_, the midpoint method and Euler's take `substeps` equal
        steps, and exponents are those of the resulting map. The others choose their steps by `rtol` and `atol`; they
        integrate the tangents along with the state, and need torchdiffeq (``pip install sklyap[ode]``).
    substeps : int, default=1
        Steps of a fixed method within `dt`.
    rtol, atol : float, default=1e-9 and 1e-11
        Errors that an adaptive method allows per step, of state and tangents. No row of a batch has a larger one.
    n_inputs, initial_state, output_size, trust
        See :class:`FunctionCell`.

    Attributes
    ----------
    dt : float
        Time that one step takes.

    Raises
    ------
    ImportError
        For an adaptive method without torchdiffeq.
    StepError
        A ValueError, where a spectrum is asked for, if the field cannot be analysed.

    References
    ----------
    .. [1] Hairer, E., Nørsett, S. P. and Wanner, G. (1993). Solving Ordinary Differential Equations I. Springer.

    Examples
    --------
    >>> import torch
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.cells import FlowCell
    >>> def damped(s, x):
    ...     position, velocity = s.unbind(-1)
    ...     return torch.stack([velocity, -position - 0.5 * velocity], -1)
    >>> result = lyapunov_spectrum(FlowCell(damped, 2, dt=0.1), 3000)
    >>> print(f"{result.exponents.sum() / 0.1:.4f}")  # minus the damping, per unit of time
    -0.5000
    """

    subject = "The 'field' parameter of FlowCell"

    def __init__(
        self,
        field: Field,
        state_size: int,
        *,
        dt: float,
        method: str = "rk4",
        substeps: int = 1,
        rtol: float = 1e-9,
        atol: float = 1e-11,
        n_inputs: int | None = None,
        initial_state: Any = None,
        output_size: int | None = None,
        trust: str | Collection[str] = (),
    ) -> None:
        super().__init__(
            state_size,
            n_inputs=n_inputs,
            initial_state=initial_state,
            output_size=output_size,
            n_noise=0,
            random_state=None,
            trust=trust,
        )
        if not callable(field):
            raise TypeError(f"{self.subject} must be callable. Got {field!r} instead.")
        tiny = torch.finfo(torch.float64).tiny
        self.dt = check_real(dt, "dt", low=tiny, caller="FlowCell")
        self.method = check_choice(method, "method", [*_FIXED, *_ADAPTIVE], caller="FlowCell")
        self.substeps = check_int(substeps, "substeps", low=1, caller="FlowCell")
        self.rtol = check_real(rtol, "rtol", low=tiny, caller="FlowCell")
        self.atol = check_real(atol, "atol", low=tiny, caller="FlowCell")
        self._field = field
        if method in _ADAPTIVE:
            self.resolution = self.rtol
            _solver()

    def by_row(self, s: Tensor, x: Tensor | None) -> Tensor:
        ds = self._field(s, x)
        # A wrong shape would broadcast in the sum with the state.
        return ds if isinstance(ds, Tensor) and ds.shape == s.shape else _mistaken(ds, s)

    def _advance(self, s: Tensor, *inputs: Tensor | None) -> Any:
        (x,) = inputs
        velocity = partial(_first, self.by_row, x)
        if self.method in _FIXED:
            for _ in range(self.substeps):
                s = _FIXED[self.method](velocity, self.dt / self.substeps, s)
            return s
        return self._solved(velocity, s)

    def linearize(self, s: Tensor, x: Tensor | None) -> Linearization:
        return super().linearize(s, x) if self.method in _FIXED else FlowLinearization(self, s, x)

    def _solved(self, velocity: Callable[[Tensor], Tensor], s: Tensor) -> Tensor:
        """Return rows (n, m) after `dt`, the step chosen for the row that needs the shortest."""
        rtol = max(self.rtol, _FINEST * torch.finfo(s.dtype).eps)
        times = torch.tensor([0.0, self.dt], dtype=s.dtype, device=s.device)
        options = {
            "norm": lambda e: e.detach().reshape(len(s), -1).square().mean(-1).sqrt().max(),
            "step_t": times[1:],  # else the end is interpolated, less accurately than steps are
            "max_num_steps": _MOST_STEPS,  # else a field that no step resolves runs for ever
        }
        settings = {"rtol": rtol, "atol": self.atol, "method": self.method, "options": options}
        return _solver()(lambda t, s: velocity(s), s, times, **settings)[-1]

    def tangents_after(self, s: Tensor, x: Tensor | None, Q: Tensor, P: Tensor | None) -> Tensor:
        """Return tangents (n, N, k) after `dt` by the variational equation ``dQ/dt = ∂f/∂s Q + ∂f/∂x P``."""
        n, N = s.shape

        def velocity(both: Tensor) -> Tensor:
            s, Q = both[:, :N], both[:, N:].reshape(n, N, -1)
            dQ = JvpLinearization(self._field, s, x).push(Q, P)
            return torch.cat([self._field(s, x), dQ.reshape(n, -1)], -1)

        after = self._solved(velocity, torch.cat([s, Q.reshape(n, -1)], -1))
        return after[:, N:].reshape(n, N, -1)


@dataclass(frozen=True)
class FlowLinearization(Linearization):
    """The derivative of an adaptive step, integrated along with the state."""

    cell: FlowCell
    s: Tensor
    x: Tensor | None

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        batch, N = self.s.shape[:-1], self.s.shape[-1]
        x = None if self.x is None else self.x.reshape(-1, self.x.shape[-1])
        P = None if P is None else P.reshape(-1, *P.shape[-2:])
        Z = self.cell.tangents_after(self.s.reshape(-1, N), x, Q.reshape(-1, *Q.shape[-2:]), P)
        return Z.reshape(*batch, N, -1)

    def dense(self) -> Tensor:
        N = self.s.shape[-1]
        return self.push(torch.eye(N, dtype=self.s.dtype, device=self.s.device).expand(*self.s.shape, N))

    def fold(self, k: int, *, inputs: bool = True) -> Linearization:
        if self.x is None or not inputs:
            return DenseLinearization(self.dense())
        M = self.x.shape[-1]
        P = torch.eye(M, dtype=self.s.dtype, device=self.s.device).expand(*self.x.shape, M)
        return DenseLinearization(self.dense(), self.push(self.s.new_zeros(*self.s.shape, M), P))

    def __getitem__(self, index: int | slice) -> FlowLinearization:
        return replace(self, s=self.s[index], x=None if self.x is None else self.x[index])


def _first(field: Field, x: Tensor | None, s: Tensor) -> Tensor:
    return field(s, x)


def _mistaken(ds: Any, s: Tensor) -> Tensor:
    got = f"shape {tuple(ds.shape)}" if isinstance(ds, Tensor) else type(ds).__name__
    raise StepError(
        f"The 'field' parameter of FlowCell must return the velocity, a tensor of shape {tuple(s.shape)} as `s` has. "
        f"Got {got} instead. Rows are sequences: index entries as `s[..., i]` and put them together with "
        "torch.stack(..., dim=-1)."
    )


def _solver() -> Callable[..., Tensor]:
    try:
        from torchdiffeq import odeint
    except ImportError as error:
        raise ImportError(
            "The 'method' parameter of FlowCell asks for an adaptive solver, which needs torchdiffeq: "
            "pip install 'sklyap[ode]'. The methods 'rk4', 'midpoint' and 'euler' do without."
        ) from error
    return odeint
