"""The Lyapunov spectrum of a recurrent network along given sequences: the functional core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sklyap.cells.conversion import opened
from sklyap.cells.drive import Drive
from sklyap.cells.probe import is_known, probe_end
from sklyap.lyapunov.growth import time_bins
from sklyap.lyapunov.result import LyapunovResult, summarise, time_step_of, warn_about
from sklyap.lyapunov.resumption import RunEnd, digest_of_weights, last_inputs
from sklyap.lyapunov.run import Run
from sklyap.lyapunov.until import run_longer, run_more_sequences, stops_in_time
from sklyap.runtime import outside_inference_mode
from sklyap.tangent import check_settings, spread_budget
from sklyap.validation import check_bool, check_dtype, check_int, check_real, resolve_device, seed_from

__all__ = ["lyapunov_spectrum"]


@outside_inference_mode
def lyapunov_spectrum(
    network: Any,
    sequences: Any,
    *,
    n_exponents: int | None = None,
    warmup: int | str = "auto",
    qr_interval: int | str = "auto",
    orthonormalizer: str = "auto",
    state: str = "full",
    dtype: str | torch.dtype = "float64",
    device: str | torch.device = "auto",
    return_local: bool = False,
    return_basis: bool = False,
    tolerance: float | None = None,
    resume: LyapunovResult | None = None,
    batch_size: int | None = None,
    layer: str | None = None,
    lengths: Any = None,
    forward_kwargs: Mapping[str, Any] | None = None,
    resumable: bool = True,
    random_state: Any = None,
    progress: Callable[[int], Any] | None = None,
) -> LyapunovResult:
    """Compute the Lyapunov spectrum of a recurrent network along sequences.

    The network's Jacobians ``J_t = ∂s_{t+1}/∂s_t`` along its own trajectory carry an orthonormal basis
    ``J_t Q_t = Q_{t+1} R_{t+1}``; the exponents are the averages of ``ln R_ii`` [1]_.

    Parameters
    ----------
    network : RecurrentCell, torch module, fitted skorch net or fitted sklyap estimator
        See :func:`~sklyap.as_recurrent_cell`. It is not changed.
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list, PackedSequence, or int
        What drives the network, at the network's input, sequences first whatever order its forward takes; a list of
        arrays (n_steps_i, n_inputs) for sequences of unequal length; a number of steps for an autonomous system. Two
        dimensions are one input per step, or a single series (n_steps, n_inputs) of a network with several inputs.
    n_exponents : int, optional
        How many leading exponents; the whole spectrum by default.
    warmup : int or "auto", default="auto"
        First steps of each sequence, the transient of state and basis; they are not averaged. "auto" is a
        tenth of the shortest sequence, and of short ones up to a quarter to reach ten steps.
    qr_interval : int or "auto", default="auto"
        Steps between orthonormalisations. "auto" measures how far directions separate and takes the
        longest interval that keeps half of the digits of every wanted exponent; it is 1 with
        `return_local` or `return_basis`.
    orthonormalizer : {"auto", "householder", "cholesky"}, default="auto"
        See :func:`~sklyap.orthonormalize.orthonormalize`.
    state : {"full", "hidden"}, default="full"
        "hidden" freezes all but the hidden state (the cell state of an LSTM, the velocities of a coRNN), the variant of
        [2]_; it is not the Lyapunov spectrum of the network.
    dtype : {"float64", "float32"}, default="float64"
        A run in float32 goes on in float64 where single steps part directions by so much that float64 is faster,
        as those of a full LSTM state do (with `qr_interval` "auto", and without `return_local` and `return_basis`).
    device : str, default="auto"
        A torch device; "auto" is CUDA where there is one.
    return_local : bool, default=False
        Whether to keep the growth at every step.
    return_basis : bool, default=False
        Whether to keep the tangent bases and factors R, O(n_steps · N · k) numbers.
    tolerance : float, optional
        Stop as soon as the standard error of every exponent, in nats per step, is below it; `sequences` is then the
        most that is run. An autonomous system, and a network along up to eight sequences of one length, stops early in
        time, after 512 steps at the earliest; along more sequences, it takes as many of them, in their order, as are
        needed.
    resume : LyapunovResult, optional
        A result of the same network with the same settings to go on from, with its last states and bases: `sequences`
        are the next steps of the same sequences (a number of further steps for an autonomous system), and the new
        result is that of all steps together. "auto" then means no further warm-up.
    batch_size : int, optional
        How many sequences to carry at once, a bound on memory; all by default.
    layer : str, optional
        Which recurrent layer, where the network holds several; see :func:`~sklyap.as_recurrent_cell`.
    lengths : sequence of int, optional
        How many steps of each sequence of a padded array count.
    forward_kwargs : dict, optional
        Further arguments of the network's `forward` (a hidden state, lengths that it packs sequences to).
    resumable : bool, default=True
        Whether the result keeps where the run ended, for `resume`; False saves O(n_sequences · N · k) numbers.
    random_state : int, numpy random generator or None
        Seeds the tangent basis. None is 0: the same call gives the same numbers.
    progress : callable, optional
        Called now and then with how many steps, added up over sequences, have been done since the last call: the
        ``update`` of a progress bar whose total is the steps of all sequences.

    Returns
    -------
    LyapunovResult
        In nats per step; ``.to("bits")`` converts.

    Raises
    ------
    ValueError, TypeError
        For a network or sequences that cannot be analysed, or a parameter out of range, before any work.
    DivergedError
        If the trajectory is not finite.

    Warns
    -----
    ConvergenceWarning
        If neither the sign of the largest exponent can be told nor that it is zero to within a tolerance, or if the
        `tolerance` that was asked for is not reached.
    PrecisionWarning
        If an explicit `qr_interval` loses more than half of the digits.
    DegenerateSpectrumWarning
        If directions are annihilated: their exponents are -inf.

    References
    ----------
    .. [1] Benettin, G., Galgani, L., Giorgilli, A. and Strelcyn, J.-M. (1980). Lyapunov characteristic
       exponents for smooth dynamical systems. Meccanica 15.
    .. [2] Vogt, R., Puelma Touzel, M., Shlizerman, E. and Lajoie, G. (2022). On Lyapunov exponents for
       RNNs. Frontiers in Applied Mathematics and Statistics 8.

    Examples
    --------
    >>> import torch
    >>> from sklyap import lyapunov_spectrum
    >>> _ = torch.manual_seed(0)
    >>> result = lyapunov_spectrum(torch.nn.GRU(3, 8), torch.randn(20, 50, 3))
    >>> result.exponents.shape
    (8,)
    """
    for name, value in (("return_local", return_local), ("return_basis", return_basis), ("resumable", resumable)):
        check_bool(value, name)
    # A Drive comes with a cell that is the caller's copy already.
    cell = network if isinstance(sequences, Drive) else opened(network, layer=layer)
    end = None if resume is None else _end_of(resume)
    if n_exponents is None and end is not None:
        n_exponents = end.Q.shape[2]
    k, N = check_settings(cell, n_exponents, qr_interval, orthonormalizer, state)
    asked, device = check_dtype(dtype), resolve_device(device)
    seed = seed_from(random_state)
    drive = Drive.of(cell, sequences, lengths=lengths, forward_kwargs=forward_kwargs).to(asked, device)
    if batch_size is not None:
        check_int(batch_size, "batch_size", low=1)
    _check_combination(drive, tolerance, end, return_local, return_basis)
    weights = digest_of_weights(cell) if resumable or end is not None else ""
    # A run in float32 may have ended in float64.
    dtype = asked if end is None else torch.promote_types(asked, torch.as_tensor(end.Q).dtype)
    cell, drive, Q = cell.to(device=device, dtype=dtype), drive.to(dtype, device), None
    if end is not None:
        if drive.inputs is None:
            drive = replace(drive, lengths=drive.lengths[:1] * len(end.s))
        end.check_continues(cell, k, N, drive, weights)
        drive, Q = replace(drive, starts=end.states(dtype, device)), end.bases(dtype, device)
    no_transient = end is not None and warmup == "auto"
    skipped = 0 if no_transient else drive.transient_steps(warmup)
    # Growth or bases at every step need a factorisation at every step.
    interval = 1 if (return_local or return_basis) and qr_interval == "auto" else qr_interval
    run = Run(
        cell, k, N, dtype, device, seed, interval, orthonormalizer, state, keep_local=return_local,
        keep_basis=return_basis, keep_ends=resumable or not is_known(cell), batch_size=batch_size, progress=progress,
    )  # fmt: skip
    before = None if end is None else end.record
    if tolerance is not None and stops_in_time(drive):
        fixed = skipped if no_transient or warmup != "auto" else None
        record, skipped, done = run_longer(replace(run, keep_ends=True), drive, fixed, tolerance, Q, before)
        drive = drive.between(0, done)
    else:
        bins = time_bins(skipped, max(drive.lengths), drive.n_sequences)
        if tolerance is not None and end is None:
            record = run_more_sequences(run, drive, bins, tolerance)
        else:
            record = run.record(drive, bins, Q=Q)
        record = record if before is None else before.then(record)
    if not is_known(cell) and record.s is not None:
        probe_end(cell, torch.as_tensor(record.s), last_inputs(drive, record))
    result = summarise(
        record, skipped if resume is None else resume.warmup + skipped, interval, k == N,
        end=RunEnd.of(cell, drive, record, weights, end) if resumable else None,
        tolerance=tolerance, time_step=time_step_of(cell), eps=torch.finfo(asked).eps,
    )  # fmt: skip
    warn_about(result, explicit=qr_interval != "auto", budget=spread_budget(dtype))
    return result


def _end_of(resume: Any) -> RunEnd:
    if not isinstance(resume, LyapunovResult):
        raise TypeError(
            f"The 'resume' parameter must be a LyapunovResult or None. Got {type(resume).__name__} instead."
        )
    if resume.end is None:
        raise ValueError(
            "The 'resume' parameter must be a result of lyapunov_spectrum that knows where its run ended. Got one "
            "without: it comes from a transformer, or from a call with resumable=False."
        )
    return resume.end


def _check_combination(
    drive: Drive, tolerance: float | None, end: RunEnd | None, return_local: bool, return_basis: bool
) -> None:
    if return_basis and len(set(drive.lengths)) > 1:
        raise ValueError("The 'return_basis' parameter needs sequences of one length. Got a list of several.")
    if tolerance is not None:
        check_real(tolerance, "tolerance", low=np.finfo(float).tiny)
        if return_local or return_basis:
            raise ValueError(
                "The 'tolerance' parameter must be None with 'return_local' or 'return_basis', which keep every step. "
                f"Got {tolerance!r}: find out with it how many steps are needed, then run those."
            )
    if end is not None and ((return_local and end.record.local is None) or (return_basis and end.record.basis is None)):
        raise ValueError(
            "The 'resume' parameter must be a result with 'return_local' and 'return_basis' as in this call. Got one "
            "without what they keep."
        )
