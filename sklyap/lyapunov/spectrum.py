"""The Lyapunov spectrum of a recurrent network along given sequences: the functional core."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from sklyap.cells import as_recurrent_cell
from sklyap.cells.drive import Drive
from sklyap.lyapunov.growth import GrowthRecord, time_bins
from sklyap.lyapunov.result import LyapunovResult, summarise, warn_about
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals, one_thread
from sklyap.tangent import Factors, check_settings, growth_iteration, qr_iteration, spread_budget
from sklyap.validation import check_dtype, check_int, resolve_device, seed_from

__all__ = ["lyapunov_spectrum"]

_LARGE = 2**13
"""From how many numbers in a basis on more than one thread pays."""


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
    batch_size: int | None = None,
    layer: str | None = None,
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
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list of arrays (n_steps_i, n_inputs), or int
        What drives the network, at the network's input; a list for sequences of unequal length; a number
        of steps for an autonomous system.
    n_exponents : int, optional
        How many leading exponents; the whole spectrum by default.
    warmup : int or "auto", default="auto"
        First steps of each sequence in which state and basis settle; they are not averaged. "auto" is a
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
        A run in float32 goes on in float64 where single steps part directions by more than float32 has digits for,
        as those of a full LSTM state do (with `qr_interval` "auto", and without `return_local` and `return_basis`).
    device : str, default="auto"
        A torch device; "auto" is CUDA where there is one.
    return_local : bool, default=False
        Whether to keep the growth at every step.
    return_basis : bool, default=False
        Whether to keep the tangent bases and factors R, O(n_steps · N · k) numbers.
    batch_size : int, optional
        How many sequences to carry at once, a bound on memory; all by default.
    layer : str, optional
        Which recurrent layer, where the network holds several; see :func:`~sklyap.as_recurrent_cell`.
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
        If the sign of the largest exponent cannot be told.
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
    # A Drive comes with a cell that is the caller's copy already.
    cell = network if isinstance(sequences, Drive) else as_recurrent_cell(network, layer=layer)
    k, N = check_settings(cell, n_exponents, qr_interval, orthonormalizer, state)
    dtype, device = check_dtype(dtype), resolve_device(device)
    seed = seed_from(random_state)
    drive = Drive.of(cell, sequences).to(dtype, device)
    warmup = drive.settling(warmup)
    if batch_size is not None:
        check_int(batch_size, "batch_size", low=1)
    if return_basis and len(set(drive.lengths)) > 1:
        raise ValueError("The 'return_basis' parameter needs sequences of one length. Got a list of several.")
    # Growth or bases at every step need a factorisation at every step.
    interval = 1 if (return_local or return_basis) and qr_interval == "auto" else qr_interval
    cell = cell.to(device=device, dtype=dtype)

    bins = time_bins(warmup, max(drive.lengths), drive.n_sequences)
    options: dict[str, Any] = {
        "qr_interval": interval, "orthonormalizer": orthonormalizer, "state": state, "breakpoints": [warmup],
    }  # fmt: skip
    factored = return_local or return_basis
    carry: Any = partial(qr_iteration, **options) if factored else partial(growth_iteration, exact=bins, **options)

    def run(indices: list[int]) -> GrowthRecord:
        with torch.no_grad(), flushed_denormals():
            x, s, lengths = drive.padded(cell, indices)
            Q = random_bases(N, k, seed, indices, dtype=dtype, device=device)
            blocks, factors = carry(cell, x, Q=Q, s=s, lengths=lengths), None
            if return_basis:
                factors = Factors([Q], [], [])
                blocks = factors.collecting(blocks, warmup)
            if progress is not None:
                blocks = _reported(blocks, progress)
            return GrowthRecord.of(blocks, Q, indices, bins, keep_local=return_local, factors=factors)

    n_threads = torch.get_num_threads()
    size = min(batch_size or drive.n_sequences, drive.n_sequences)
    if device.type == "cpu" and N * k < _LARGE:
        with one_thread():  # more would wait for one another longer than they work
            records = [run(indices) for indices in drive.batches(size)]
    elif device.type == "cpu" and n_threads > 1 and size > 1:
        # A thread for each share of the sequences factors large matrices faster than threads inside a factorisation.
        # How many threads MKL takes is a setting of each thread.
        with one_thread(), ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            records = list(pool.map(run, drive.batches(math.ceil(size / n_threads))))
    else:
        records = [run(indices) for indices in drive.batches(size)]
    result = summarise(records, warmup, interval, k == N)
    warn_about(result, explicit=qr_interval != "auto", budget=spread_budget(dtype))
    return result


def _reported(blocks: Iterable[Any], progress: Callable[[int], Any]) -> Iterator[Any]:
    for block in blocks:
        yield block
        progress((block.stop - block.start) * len(block.log_growth))
