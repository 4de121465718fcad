"""Where a run ended, and going on from there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sklyap.cells import RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.lyapunov.growth import GrowthRecord

__all__ = ["RunEnd", "last_inputs"]

_SAME_STEP = 1e-3
"""Maximum relative difference between two computations of one step for the networks to count as the same; float32 on
another device stays far below."""


@dataclass(frozen=True)
class RunEnd:
    """Where a run ended: what :func:`~sklyap.lyapunov_spectrum` goes on from with `resume`.

    Attributes
    ----------
    record : GrowthRecord
        The growth so far.
    s : ndarray of shape (n_sequences, state_size)
        The last states.
    Q : ndarray of shape (n_sequences, N, k)
        The last bases.
    x : ndarray of shape (n_sequences, n_inputs) or None
        The last inputs.
    probe : ndarray of shape (n_sequences, state_size)
        Where one more step with these inputs would lead, by which the network is recognised.
    """

    record: GrowthRecord
    s: np.ndarray
    Q: np.ndarray
    x: np.ndarray | None
    probe: np.ndarray

    @classmethod
    def of(cls, cell: RecurrentCell, drive: Drive, record: GrowthRecord) -> RunEnd | None:
        """Return the end of a run along `drive`, None where `record` has kept none."""
        if record.s is None or record.Q is None:
            return None
        last = last_inputs(drive, record)
        x = None if last is None else last.cpu().numpy()
        probe = _one_step(cell, record.s, x)
        return cls(replace(record, s=None, Q=None), record.s, record.Q, x, probe)

    def check_continues(self, cell: RecurrentCell, k: int, N: int, n_sequences: int) -> None:
        """Raise ValueError if the run of a cell with `n_sequences` sequences cannot go on from here."""
        if cell.n_noise:
            raise ValueError(
                f"The 'resume' parameter cannot go on with a {type(cell).__name__} that draws its own noise, which "
                "would come again from the start. Ask for all steps at once, or give the noise as an input."
            )
        if self.s.shape[1] != cell.state_size or self.Q.shape[1:] != (N, k):
            raise ValueError(
                "The 'resume' parameter must be a result of the same network with the same 'n_exponents' and 'state'. "
                f"Got one with {self.Q.shape[2]} exponents of {self.Q.shape[1]} dimensions instead; {k} of {N} are "
                "asked for."
            )
        if len(self.s) != n_sequences:
            raise ValueError(
                f"The 'sequences' parameter must hold the next steps of the {len(self.s)} sequence(s) of the result "
                f"given as 'resume'. Got {n_sequences} sequence(s) instead. Further sequences are not a continuation: "
                "compute them together with the first ones."
            )
        probe = _one_step(cell, self.s, self.x)
        if not np.allclose(probe, self.probe, rtol=_SAME_STEP, atol=_SAME_STEP * np.abs(self.probe).max()):
            raise ValueError(
                "The 'resume' parameter must be a result of the same network. Got one of another: from the last state "
                "of the result, this network takes another step than that one did."
            )

    def bases(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the last bases as a tensor."""
        return torch.as_tensor(self.Q).to(dtype=dtype, device=device)

    def states(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the last states as a tensor."""
        return torch.as_tensor(self.s).to(dtype=dtype, device=device)


def last_inputs(drive: Drive, record: GrowthRecord) -> Tensor | None:
    """Return the last inputs (n_sequences, n_inputs) of the sequences of a record, None for an autonomous run."""
    return None if drive.inputs is None else torch.stack([drive.inputs[i][-1] for i in record.indices])


def _one_step(cell: RecurrentCell, s: np.ndarray, x: np.ndarray | None) -> np.ndarray:
    like = cell.initial_state(len(s))
    with torch.no_grad():
        return cell.step(torch.as_tensor(s).to(like), None if x is None else torch.as_tensor(x).to(like)).cpu().numpy()
