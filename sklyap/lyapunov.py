"""The Lyapunov spectrum of a recurrent network along given sequences: the functional core."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sklyap.accumulate import GrowthRecord, standard_error, time_bins
from sklyap.cells import as_recurrent_cell
from sklyap.drive import Drive
from sklyap.exceptions import ConvergenceWarning, DegenerateSpectrumWarning, PrecisionWarning
from sklyap.orthonormalize import random_bases
from sklyap.tangent import QRBlock, check_settings, flushed_denormals, qr_iteration, strain_budget
from sklyap.threads import one_thread
from sklyap.validation import check_choice, check_dtype, check_int, resolve_device, seed_from

__all__ = ["LyapunovResult", "lyapunov_spectrum"]

_LARGE = 2**13
"""From how many numbers in a basis on more than one thread pays."""
_SIGN_TOLERANCE = 0.01
"""A standard error below this share of the largest |exponent| is small enough to call zero zero."""


@dataclass(frozen=True)
class LyapunovResult:
    """Lyapunov exponents with their uncertainty and how they were computed.

    Attributes
    ----------
    exponents : ndarray of shape (k,)
        Mean over sequences, descending, in `unit` per step; -inf for annihilated directions.
    standard_error : ndarray of shape (k,)
        Of `exponents`, from the spread over sequences and over blocks of time; inf where one sample is
        all there is, NaN for annihilated directions.
    per_sequence : ndarray of shape (n_sequences, k)
        Each sequence's average over time, columns as in `exponents`.
    local : ndarray of shape (n_sequences, n_steps, k) or None
        Finite-time growth at each step; padded with NaN where sequences are shorter than the longest.
    log_abs_det : float or None
        Mean of ln|det J| per step; None for a truncated spectrum.
    condition : float
        The largest ratio of entries of a factor R to its diagonal that was met (with rows scaled to one size, where
        saturated units make them differ). Times machine precision it bounds the relative error of the most contracted
        direction over a block.
    qr_interval : int
        Steps between factorisations (the most frequent number where it was chosen automatically).
    n_steps : int
        Steps averaged over (of the longest sequence), the warm-up not counted.
    warmup : int
        Steps before them that were not averaged.
    n_degenerate : int
        How many directions are annihilated (exponent -inf).
    converged : bool
        Whether the sign of the largest exponent is settled.
    status : str
        The verdict in a sentence, with advice.
    basis : ndarray of shape (n_sequences, n_blocks + 1, N, k) or None
        Tangent basis before the first averaged block and after each.
    r_factors : ndarray of shape (n_sequences, n_blocks, k, k) or None
        Upper-triangular factors, ``J … J basis[:, i] = basis[:, i + 1] r_factors[:, i]``.
    block_steps : ndarray of shape (n_blocks,) or None
        Steps covered by each of these blocks.
    unit : {"nats", "bits"}
    """

    exponents: np.ndarray
    standard_error: np.ndarray
    per_sequence: np.ndarray
    local: np.ndarray | None
    log_abs_det: float | None
    condition: float
    qr_interval: int
    n_steps: int
    warmup: int
    n_degenerate: int
    converged: bool
    status: str
    basis: np.ndarray | None = None
    r_factors: np.ndarray | None = None
    block_steps: np.ndarray | None = None
    unit: str = "nats"

    def to(self, unit: str) -> LyapunovResult:
        """Return the result with rates in "nats" or "bits" per step."""
        check_choice(unit, "unit", ["nats", "bits"], caller="LyapunovResult.to")
        if unit == self.unit:
            return self
        factor = 1 / math.log(2) if unit == "bits" else math.log(2)
        scaled: dict[str, Any] = {
            name: None if value is None else value * factor
            for name in ("exponents", "standard_error", "per_sequence", "local", "log_abs_det")
            for value in [getattr(self, name)]
        }
        return replace(self, unit=unit, **scaled)

    def __repr__(self) -> str:
        shown = [f"{e:.4g} ± {se:.2g}" for e, se in zip(self.exponents[:4], self.standard_error[:4], strict=True)]
        more = f", … {self.exponents[-1]:.4g}" if len(self.exponents) > 4 else ""
        return (
            f"LyapunovResult: {len(self.exponents)} exponents in {self.unit} per step: {', '.join(shown)}{more}\n"
            f"  {len(self.per_sequence)} sequence(s), {self.n_steps} steps after {self.warmup} of warm-up, "
            f"QR every {self.qr_interval} step(s), condition {self.condition:.1g}\n"
            f"  {self.status}"
        )


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
    cell = as_recurrent_cell(network)
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

    def run(indices: list[int]) -> GrowthRecord:
        with torch.no_grad(), flushed_denormals():
            x, s, lengths = drive.padded(cell, indices)
            Q = random_bases(N, k, seed, indices, dtype=dtype, device=device)
            blocks = qr_iteration(
                cell, x, Q=Q, s=s, lengths=lengths, qr_interval=interval,
                orthonormalizer=orthonormalizer, state=state, breakpoints=[warmup], exact=bins,
                factors=return_local or return_basis,
            )  # fmt: skip
            if progress is not None:
                blocks = _reported(blocks, progress)
            return GrowthRecord.of(blocks, Q, indices, bins, return_local, return_basis)

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
    _warn(result, explicit=qr_interval != "auto", budget=strain_budget(dtype))
    return result


def _reported(blocks: Iterable[QRBlock], progress: Callable[[int], Any]) -> Iterator[QRBlock]:
    for block in blocks:
        yield block
        progress((block.stop - block.start) * len(block.log_growth))


def summarise(records: list[GrowthRecord], warmup: int, interval: int | str, complete: bool) -> LyapunovResult:
    order = np.argsort([i for record in records for i in record.indices])

    def gather(name: str) -> np.ndarray | None:
        parts = [getattr(record, name) for record in records]
        return None if parts[0] is None else np.concatenate(_same_width(parts))[order]

    sums, steps = gather("sums"), gather("steps")
    assert sums is not None and steps is not None
    n_steps = steps.sum(1)
    per_sequence = sums.sum(1) / n_steps[:, None]
    exponents = per_sequence.mean(0)
    errors = standard_error(sums, steps, exponents)
    # The basis is nearly sorted by itself; ties and noise may swap neighbours.
    rank = np.argsort(-exponents, kind="stable")
    exponents, errors, per_sequence = exponents[rank], errors[rank], per_sequence[:, rank]
    local = gather("local")
    n_degenerate = int(np.isneginf(exponents).sum())
    converged, status = _verdict(exponents, errors, n_degenerate)
    intervals = np.concatenate([record.intervals for record in records])
    return LyapunovResult(
        exponents=exponents,
        standard_error=errors,
        per_sequence=per_sequence,
        local=None if local is None else local[..., rank],
        log_abs_det=float(per_sequence.sum(1).mean()) if complete else None,
        condition=_exp(max(record.strain for record in records)),
        qr_interval=int(np.bincount(intervals).argmax()) if interval == "auto" else int(interval),
        n_steps=int(n_steps.max()),
        warmup=warmup,
        n_degenerate=n_degenerate,
        converged=converged,
        status=status,
        basis=gather("basis"),
        r_factors=gather("r_factors"),
        block_steps=np.array(records[0].intervals) if records[0].basis is not None else None,
    )


def _same_width(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Return arrays (n, m, ...) padded with zeros to the same m: batches may have filled more or fewer bins."""
    width = max(part.shape[1] for part in parts)
    return [np.pad(part, [(0, 0), (0, width - part.shape[1]), *[(0, 0)] * (part.ndim - 2)]) for part in parts]


def _exp(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(float).max) else math.inf


def _verdict(exponents: np.ndarray, standard_error: np.ndarray, n_degenerate: int) -> tuple[bool, str]:
    finite = np.abs(exponents[np.isfinite(exponents)])
    degenerate = (
        f" {n_degenerate} direction(s) are annihilated to rounding and have exponent -inf." if n_degenerate else ""
    )
    if not len(finite):
        return True, "Every direction is annihilated within the sequences." + degenerate
    first, error = exponents[0], standard_error[0]
    if abs(first) <= 2 * error and error > _SIGN_TOLERANCE * finite.max():
        return False, (
            f"Not converged: the largest exponent is {first:.3g} ± {error:.2g} per step, so its sign cannot be told; "
            "use more or longer sequences." + degenerate
        )
    return True, "Converged: the sign of the largest exponent is settled." + degenerate


def _warn(result: LyapunovResult, *, explicit: bool, budget: float) -> None:
    if not result.converged:
        warnings.warn(result.status, ConvergenceWarning, stacklevel=3)
    if result.n_degenerate:
        warnings.warn(
            f"{result.n_degenerate} of {len(result.exponents)} directions are annihilated to rounding; "
            "their exponents are -inf and their standard errors NaN.",
            DegenerateSpectrumWarning,
            stacklevel=3,
        )
    if explicit and result.qr_interval > 1 and result.condition > math.exp(budget):
        warnings.warn(
            f"qr_interval={result.qr_interval} loses digits: directions separate by a factor {result.condition:.1e} "
            "between factorisations, and the smallest exponents carry that much rounding error. "
            "Lower qr_interval or leave it at 'auto'.",
            PrecisionWarning,
            stacklevel=3,
        )
