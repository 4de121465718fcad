"""The contract of cells."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sklyap.cells import ElmanCell, Linearization, RecurrentCell, StackedCell
from sklyap.cells.rows import RowsCell
from sklyap.exceptions import SklyapWarning
from sklyap.lyapunov import lyapunov_spectrum
from sklyap.runtime import isolated_rng, pushforward
from sklyap.testing.assertions import expect, pickled, saying
from sklyap.validation import check_dtype, check_int

__all__ = ["check_cell"]

_RTOL = {torch.float64: 1e-12, torch.float32: 1e-5}


def check_cell(
    cell: RecurrentCell,
    *,
    n_sequences: int = 3,
    n_steps: int = 4,
    rtol: float | None = None,
    dtype: str | torch.dtype = "float64",
) -> None:
    """Check that a cell keeps the contract of :class:`~sklyap.RecurrentCell`; silent if it does.

    Shapes, dtypes and devices; no changed arguments and no chance; the Jacobian action against automatic
    differentiation of `step`, at one step and along a trajectory, in all forms that it has; layers on top;
    gradients of the parameters; copies and pickles; and the sum of the Lyapunov exponents against the determinant.

    Parameters
    ----------
    cell : RecurrentCell
        Is not changed.
    n_sequences, n_steps : int, default=3 and 4
        Size of the trajectory on which the cell is checked.
    rtol : float, optional
        Largest error of the Jacobian relative to its largest entry; 1e-12 in float64 and 1e-5 in float32 by
        default.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the computation.

    Raises
    ------
    AssertionError
        Saying what is broken.

    Examples
    --------
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.testing import check_cell
    >>> check_cell(GRUCell(3, 5))
    """
    check_int(n_sequences, "n_sequences", low=1, caller="check_cell")
    check_int(n_steps, "n_steps", low=2, caller="check_cell")
    dtype = check_dtype(dtype)
    rtol = _RTOL[dtype] if rtol is None else rtol
    expect(isinstance(cell, RecurrentCell), f"{type(cell).__name__} must be a RecurrentCell")
    with saying("copy.deepcopy must copy the cell"):
        cell = copy.deepcopy(cell).to(dtype).eval()
    _check_sizes(cell)
    n_sequences = _given_starts(cell) or n_sequences
    x = None if cell.n_inputs is None else _normal(n_sequences, n_steps, cell.n_inputs, like=dtype)
    with torch.no_grad():
        states = _check_steps(cell, x, n_sequences, n_steps, dtype)
        s, inputs = states[:-1], None if x is None else x.transpose(0, 1)  # (T, n, ...)
        J, Jx = _check_derivative(cell, s, inputs, rtol)
        _check_forms(cell.linearize(s, inputs), J, Jx, rtol, "linearize")
        hidden = cell.hidden_entries
        Jx_hidden = None if Jx is None else Jx[..., hidden, :]
        expect(
            hidden == sorted(set(hidden)) and set(hidden) <= set(range(cell.state_size)),
            f"hidden_entries must be different entries of the state, in order, got {hidden}",
        )
        J_hidden, linearization = J[..., hidden, :][..., hidden], cell.hidden_linearization(s, inputs)
        _check_forms(linearization, J_hidden, Jx_hidden, rtol, "hidden_linearization")
        _check_as_layer(cell, n_steps if x is None else x, n_sequences, rtol)
        _check_copies(cell, s, inputs)
        _check_moves(cell, x, n_sequences)
        _check_spectrum(cell, n_steps if x is None else x, rtol)
    _check_gradients(cell, n_steps if x is None else x, n_sequences)


def _given_starts(cell: RecurrentCell) -> int | None:
    """Return how many initial states a cell was given as rows: the number of sequences it runs with."""
    return cell.n_starts if cell.n_starts > 1 else None


def _normal(*shape: int, like: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)


def _expect_close(actual: Tensor, expected: Tensor, rtol: float, what: str) -> None:
    expect(actual.shape == expected.shape, f"{what} must have shape {tuple(expected.shape)}, got {tuple(actual.shape)}")
    expect(bool(torch.isfinite(actual).all()), f"{what} must be finite")
    scale = max(float(expected.abs().max()), 1.0)
    error = float((actual - expected).abs().max()) / scale
    expect(error <= rtol, f"{what} is off by {error:.1e}, relative to the largest entry; {rtol:.1e} is allowed")


def _check_sizes(cell: RecurrentCell) -> None:
    for name in ("state_size", "output_size"):
        value = getattr(cell, name, None)
        expect(isinstance(value, int) and value >= 1, f"{name} must be a positive int, got {value!r}")
    expect(cell.output_size <= cell.state_size, "output_size must not exceed state_size")
    n_inputs = getattr(cell, "n_inputs", "nothing")
    expect(
        n_inputs is None or (isinstance(n_inputs, int) and n_inputs >= 1),
        f"n_inputs must be a positive int, or None for an autonomous cell, got {n_inputs!r}",
    )


def _check_steps(cell: RecurrentCell, x: Tensor | None, n: int, n_steps: int, dtype: torch.dtype) -> Tensor:
    """Return the states (n_steps + 1, n, N) of a trajectory after checking how it came about."""
    s = cell.initial_state(n)
    expect(s.shape == (n, cell.state_size), f"initial_state(n) must have shape (n, state_size), got {tuple(s.shape)}")
    expect(
        s.dtype == dtype,
        f"initial_state must follow cell.to(dtype): it is {s.dtype}, not {dtype}. "
        "A cell without parameters needs a buffer to tell its dtype and device by",
    )
    expect(torch.equal(s, cell.initial_state(n)), "initial_state must return the same at every call")
    states = [s]
    for t in range(n_steps):
        x_t = None if x is None else x[:, t]
        before = states[-1].clone(), None if x_t is None else x_t.clone()
        s = cell.step(states[-1], x_t)
        expect(s.shape == before[0].shape, f"step must return shape {tuple(before[0].shape)}, got {tuple(s.shape)}")
        expect(s.dtype == dtype, f"step must return {dtype} for arguments of that dtype, got {s.dtype}")
        expect(bool(torch.isfinite(s).all()), f"step must return finite states, but not at step {t}")
        _expect_unchanged(before, (states[-1], x_t), "step")
        expect(torch.equal(s, cell.step(states[-1], x_t)), "step must return the same at every call, in eval mode")
        states.append(s)
    stacked = torch.stack(states)
    rounding = max(100 * torch.finfo(dtype).eps, 1e3 * getattr(cell, "resolution", 0.0))
    _expect_close(cell.trajectory(states[0], n_steps if x is None else x), stacked, rounding, "trajectory")
    with saying("step must work on a trajectory, with leading axes (n_steps, n_sequences)"):
        along = cell.step(stacked[:-1], None if x is None else x.transpose(0, 1))
    _expect_close(along, stacked[1:], rounding, "step on a trajectory, with leading axes (n_steps, n_sequences),")
    if x is not None:
        outputs, last = cell(x)
        _expect_close(outputs, cell.output(stacked[1:]).transpose(0, 1), rounding, "what forward returns first")
        _expect_close(last, states[-1], rounding, "the last state that forward returns")
    return stacked


def _expect_unchanged(before: Sequence[Tensor | None], after: Sequence[Tensor | None], what: str) -> None:
    for a, b in zip(before, after, strict=True):
        expect(a is None or b is None or torch.equal(a, b), f"{what} must not change its arguments")


def _check_derivative(cell: RecurrentCell, s: Tensor, x: Tensor | None, rtol: float) -> tuple[Tensor, Tensor | None]:
    """Return ``∂f/∂s`` and ``∂f/∂x`` by reverse mode, after comparing forward mode, `push` and `jacobian`."""
    J = _reverse_mode(lambda s: cell.step(s, x), s)
    Jx = None if x is None else _reverse_mode(lambda x: cell.step(s, x), x)
    Q = _normal(*s.shape, 2, like=s.dtype)
    before = s.clone(), Q.clone()
    for t in range(len(s)):
        x_t = None if x is None else x[t]
        with saying(f"push(s, x, Q) must work with s of shape {tuple(s[t].shape)}"):
            pushed, dense = cell.push(s[t], x_t, Q[t]), cell.jacobian(s[t], x_t)
        _expect_close(pushed, J[t] @ Q[t], rtol, f"push, against reverse mode at step {t},")
        _expect_close(dense, J[t], rtol, f"jacobian, against reverse mode at step {t},")
    _expect_unchanged(before, (s, Q), "push")
    try:
        columns = [pushforward(lambda s: cell.step(s, x), (s,), (q,)) for q in Q.unbind(-1)]
    except (NotImplementedError, RuntimeError):
        return J, Jx  # a step without a forward-mode formula, whose closed form is its own
    _expect_close(cell.push(s, x, Q), torch.stack(columns, -1), rtol, "push, against forward mode,")
    return J, Jx


def _reverse_mode(function: Callable[[Tensor], Tensor], point: Tensor) -> Tensor:
    """Return the derivative (*batch, m, n) of a function of rows, (*batch, n) to (*batch, m)."""
    with torch.enable_grad():
        point = point.detach().requires_grad_()
        outputs = function(point)
        expect(outputs.requires_grad, "step must be differentiable, but nothing in it depends on its arguments")
        rows = []
        for i in range(outputs.shape[-1]):
            (row,) = torch.autograd.grad(outputs[..., i].sum(), point, retain_graph=True, allow_unused=True)
            rows.append(torch.zeros_like(point) if row is None else row)
    return torch.stack(rows, -2)


def _check_forms(linearization: Linearization, J: Tensor, Jx: Tensor | None, rtol: float, name: str) -> None:
    """Compare `push`, `dense`, `fold` and indexing of a linearization along (n_steps, n_sequences) with matrices."""
    for k in sorted({1, J.shape[-1]}):
        Q = _normal(*J.shape[:-1], k, like=J.dtype)
        P = None if Jx is None else _normal(*Jx.shape[:-2], Jx.shape[-1], k, like=J.dtype)
        before = Q.clone(), None if P is None else P.clone()
        forms = {name: linearization, f"{name}.fold({k})": linearization.fold(k)}
        for label, form in forms.items():
            _check_form(form, J, Q, rtol, label)
            if Jx is not None and P is not None:
                _expect_close(form.push(Q, P), J @ Q + Jx @ P, rtol, f"{label}.push with tangents of the input")
                _expect_close(form[0].push(Q[0], P[0]), (J @ Q + Jx @ P)[0], rtol, f"{label}[0].push of both tangents")
        _check_form(linearization.fold(k, inputs=False), J, Q, rtol, f"{name}.fold({k}, inputs=False)")
        _expect_unchanged(before, (Q, P), f"{name}.push")


def _check_form(form: Linearization, J: Tensor, Q: Tensor, rtol: float, label: str) -> None:
    _expect_close(form.push(Q), J @ Q, rtol, f"{label}.push along a trajectory")
    _expect_close(form.dense(), J, rtol, f"{label}.dense along a trajectory")
    _expect_close(form[0].push(Q[0]), J[0] @ Q[0], rtol, f"{label}[0].push")
    _expect_close(form[1:].push(Q[1:]), J[1:] @ Q[1:], rtol, f"{label}[1:].push")
    _expect_close(form[1:][0].dense(), J[1], rtol, f"{label}[1:][0].dense")


def _check_as_layer(cell: RecurrentCell, x: Tensor | int, n: int, rtol: float) -> None:
    """Check the derivative of a layer on top, which must see the first `output_size` entries of the state."""
    with isolated_rng(torch.device("cpu"), 0):
        above = ElmanCell(cell.output_size, 2)
    stack = StackedCell([cell, above.to(cell.initial_state(n).dtype)]).eval()
    s = stack.trajectory(stack.initial_state(n), x)[:-1]
    inputs = None if isinstance(x, int) else x.transpose(0, 1)
    expected = _reverse_mode(lambda s: stack.step(s, inputs), s)
    _expect_close(stack.jacobian(s, inputs), expected, rtol, "the Jacobian of a StackedCell with a layer on top")


def _check_copies(cell: RecurrentCell, s: Tensor, x: Tensor | None) -> None:
    with saying("the cell must survive a pickle (joblib's, which takes local functions) for parallel runs"):
        twin = pickled(cell)
    expect(torch.equal(twin.step(s, x), cell.step(s, x)), "an unpickled cell must step as the cell does")
    twin = copy.deepcopy(cell)
    expect(torch.equal(twin.step(s, x), cell.step(s, x)), "a deep copy must step as the cell does")


def _check_moves(cell: RecurrentCell, x: Tensor | None, n: int) -> None:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for dtype in _RTOL:
            twin = copy.deepcopy(cell).to(device=device, dtype=dtype)
            with saying(f"the cell must work after cell.to({device!r}, {dtype})"):
                s = twin.initial_state(n)
                s_next = twin.step(s, None if x is None else x[:, 0].to(device=device, dtype=dtype))
            for state, what in ((s, "initial_state"), (s_next, "step")):
                expect(
                    state.dtype == dtype and state.device.type == device,
                    f"{what} must return {dtype} on {device} after cell.to, got {state.dtype} on {state.device.type}",
                )


def _check_spectrum(cell: RecurrentCell, x: Tensor | int, rtol: float) -> None:
    """Check that the exponents add up to the mean of ln|det J|."""
    with warnings.catch_warnings(), saying("lyapunov_spectrum must take the cell"):
        warnings.simplefilter("ignore", SklyapWarning)
        dtype = cell.initial_state(_given_starts(cell) or 1).dtype
        given, x = _with_own_noise(cell, x)
        result = lyapunov_spectrum(cell, given, warmup=0, qr_interval=1, dtype=dtype, device="cpu")
    states = cell.trajectory(cell.initial_state(len(result.per_sequence)), x)
    J = cell.jacobian(states[:-1], None if isinstance(x, int) else x.transpose(0, 1))
    expected = float(torch.linalg.slogdet(J).logabsdet.mean())
    if result.n_degenerate or expected == -math.inf:
        return  # a direction is annihilated, and what is left of it is rounding
    allowed = cell.state_size * (100 * rtol + 10 * torch.finfo(dtype).eps * result.condition)
    error = abs(float(result.exponents.sum()) - expected)
    expect(error <= allowed, f"the exponents must add up to the mean of ln|det J|, {expected:.6g}, off by {error:.1e}")


def _with_own_noise(cell: RecurrentCell, x: Tensor | int) -> tuple[Tensor | int, Tensor | int]:
    """Return what is given to a cell that draws noise itself, and that with its noise."""
    if isinstance(x, int) or not isinstance(cell, RowsCell) or not cell.n_noise:
        return x, x
    given = x[..., : -cell.n_noise] if cell.n_inputs != cell.n_noise else x.shape[1]
    noisy = cell.with_noise(given)
    return given, torch.stack(list(noisy)).to(x)


def _check_gradients(cell: RecurrentCell, x: Tensor | int, n: int) -> None:
    twin = copy.deepcopy(cell).requires_grad_(True)
    parameters = dict(twin.named_parameters())
    if not parameters:
        return
    outputs = twin.output(twin.trajectory(twin.initial_state(n), x))
    expect(outputs.requires_grad, "the outputs must depend on the parameters, so that the cell can be trained")
    outputs.square().sum().backward()
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            expect(bool(torch.isfinite(parameter.grad).all()), f"the gradient of {name} must be finite")
