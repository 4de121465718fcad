"""Running until the standard errors are small enough: longer, or along more sequences."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sklyap.cells.drive import Drive
from sklyap.lyapunov.growth import GrowthRecord
from sklyap.lyapunov.run import Run

__all__ = ["largest_error", "run_longer", "run_more_sequences", "stops_in_time"]

_FIRST_STEPS = 512
"""Steps of the first stage: for less, a standard error from correlations in time is a guess."""
_FIRST_SEQUENCES = 8
"""Sequences of the first stage, and maximum sequences of a driven network for a run that stops in time."""
_BINS, _BINS_OF_MANY = 64, 16
"""Bins of time of the first stage, of up to eight sequences and of more; they are merged in pairs at twice as many."""
_TRANSIENT_SHARE = 0.1
"""Share of the steps so far that is left out as warm-up where `warmup` is "auto"."""
_MARGIN = 1.1
"""Factor on what a standard error that falls as one over the square root of time or sequences would need."""


def largest_error(record: GrowthRecord) -> float:
    """Return the largest standard error of the exponents, annihilated directions aside; 0 if there are no others."""
    errors = record.exponents()[2]
    return float(np.max(errors, where=~np.isnan(errors), initial=0.0))


def stops_in_time(drive: Drive) -> bool:
    """Tell whether a run can stop early in time: a long one, autonomous or along a few sequences of one length."""
    few = drive.inputs is None or drive.n_sequences <= _FIRST_SEQUENCES
    return few and len(set(drive.lengths)) == 1 and drive.lengths[0] > _FIRST_STEPS


def run_more_sequences(run: Run, drive: Drive, bins: list[int], tolerance: float) -> GrowthRecord:
    """Run along more and more of the sequences, in their order, until the standard errors are below `tolerance`."""
    record = run.record(drive, bins, indices=range(min(_FIRST_SEQUENCES, drive.n_sequences)))
    while (error := largest_error(record)) > tolerance and (n := len(record.indices)) < drive.n_sequences:
        more = range(n, min(_next(n, error / tolerance), drive.n_sequences))
        record = GrowthRecord.beside([record, run.record(drive, bins, indices=more)])
    return record


def run_longer(
    run: Run, drive: Drive, warmup: int | None, tolerance: float, Q: Tensor | None, before: GrowthRecord | None
) -> tuple[GrowthRecord, int, int]:
    """Run for more and more steps until the standard errors are below `tolerance`.

    Parameters
    ----------
    run : Run
    drive : Drive
        Sequences of one length, the most steps.
    warmup : int or None
        Steps that are not averaged; None for a tenth of those run.
    tolerance : float
    Q : Tensor or None
        Bases to start from.
    before : GrowthRecord or None
        Growth that counts beside what is run.

    Returns
    -------
    record : GrowthRecord
    warmup : int
        Steps that were not averaged.
    n_steps : int
        Steps that were run.
    """
    n_steps, first = drive.lengths[0], warmup or 0
    wanted_bins = _BINS if drive.n_sequences <= _FIRST_SEQUENCES else _BINS_OF_MANY
    width = max(1, _FIRST_STEPS // wanted_bins)
    done, stop, record = 0, first + _FIRST_STEPS, None
    while True:
        stop = min(stop, n_steps)
        part = drive.between(done, stop)
        bins = [*range(0 if done else first, stop - done, width), stop - done]
        new = run.record(part, bins, Q=Q)
        record = new if record is None else record.then(new)
        if new.s is not None and new.Q is not None:
            drive, Q = replace(drive, starts=_like(new.s, run)), _like(new.Q, run)
        done = stop
        while record.steps.shape[1] >= 2 * wanted_bins:
            record, width = record.coarsened(), 2 * width
        counted = record if warmup is not None else record.without_bins(int(_TRANSIENT_SHARE * record.steps.shape[1]))
        joint = counted if before is None else before.then(counted)
        error = largest_error(joint)
        if error <= tolerance or done == n_steps:
            return joint, done - counted.n_steps, done
        # Bins of one width, so whole ones.
        stop = first + math.ceil((_next(done, error / tolerance) - first) / width) * width


def _next(n: int, ratio: float) -> int:
    """Return up to how many steps or sequences to go on from n, where the error is `ratio` times what is wanted."""
    needed = _MARGIN * n * ratio**2 if math.isfinite(ratio) else math.inf
    return math.ceil(min(max(needed, 1.25 * n), 2 * n))


def _like(values: np.ndarray, run: Run) -> Tensor:
    return torch.as_tensor(values).to(dtype=run.dtype, device=run.device)
