"""Where a run ended, and going on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sklyap.cells import RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.cells.encoder import LayerInput
from sklyap.lyapunov.growth import GrowthRecord

__all__ = ["RunEnd", "digest_of_weights", "last_inputs"]

_SAME_STEP, _UNITS = 1e-10, 1e3
"""Maximum relative difference between two computations of one step for the networks to count as the same, and in units
of rounding, whichever is larger; another device stays below."""


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
    weights : str
        Digest of the network's weights.
    seen : tuple of (int, str)
        Steps and digest of each stretch of inputs so far, by which sequences are recognised that come again.

    Examples
    --------
    >>> from sklyap import lyapunov_spectrum
    >>> from sklyap.datasets import systems
    >>> end = lyapunov_spectrum(systems.henon().cell, 100, random_state=0).end
    >>> end.s.shape, end.Q.shape
    ((1, 2), (1, 2, 2))
    """

    record: GrowthRecord
    s: np.ndarray
    Q: np.ndarray
    x: np.ndarray | None
    probe: np.ndarray
    weights: str
    seen: tuple[tuple[int, str], ...]

    @classmethod
    def of(
        cls, cell: RecurrentCell, drive: Drive, record: GrowthRecord, weights: str, before: RunEnd | None = None
    ) -> RunEnd | None:
        """Return the end of a run along `drive` that goes on from `before`, None where `record` has kept none."""
        if record.s is None or record.Q is None:
            return None
        last = last_inputs(drive, record)
        x = None if last is None else last.cpu().numpy()
        probe = _one_step(cell, record.s, x)
        seen = (() if before is None else before.seen) + tuple(
            (len(x), _digest([x])) for x in drive.inputs or () if _varies(x)
        )
        return cls(replace(record, s=None, Q=None), record.s, record.Q, x, probe, weights, seen)

    def check_continues(self, cell: RecurrentCell, k: int, N: int, drive: Drive, weights: str) -> None:
        """Raise ValueError if the run of a cell with such weights along `drive` cannot go on from here."""
        n_sequences = drive.n_sequences
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
        eps = max(float(np.finfo(values.dtype).eps) for values in (probe, self.probe, self.s))
        rtol = max(_SAME_STEP, _UNITS * eps)
        same = np.allclose(probe, self.probe, rtol=rtol, atol=rtol * np.abs(self.probe).max())
        if weights != self.weights or not same:
            raise ValueError(
                "The 'resume' parameter must be a result of the same network. Got one of another: "
                + (
                    "its weights differ."
                    if same
                    else "from the last state of the result, this network takes another step than that one did."
                )
            )
        for i, x in enumerate(drive.inputs or ()):
            if any(length <= len(x) and _digest([x[:length]]) == digest for length, digest in self.seen):
                raise ValueError(
                    "The 'sequences' parameter must hold the next steps of the sequences that the result given as "
                    f"'resume' has seen. Got, as number {i}, steps that it has seen: hand over what follows them."
                )

    def bases(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the last bases as a tensor."""
        return torch.as_tensor(self.Q).to(dtype=dtype, device=device)

    def states(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the last states as a tensor."""
        return torch.as_tensor(self.s).to(dtype=dtype, device=device)


def digest_of_weights(cell: RecurrentCell) -> str:
    """Return a digest of all weights of a cell and of the network around it."""
    around = cell.encoder.module if isinstance(cell.encoder, LayerInput) else None
    modules = [cell] if around is None else [cell, around]
    return _digest(
        tensor for module in modules for tensor in module.state_dict().values() if isinstance(tensor, Tensor)
    )


def _digest(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha1(usedforsecurity=False)
    for tensor in tensors:
        flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
        found.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        found.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return found.hexdigest()


def _varies(x: Tensor) -> bool:
    """Tell whether inputs change in time: constant ones come again as they go on."""
    return not torch.equal(x, x[:1].expand_as(x))


def last_inputs(drive: Drive, record: GrowthRecord) -> Tensor | None:
    """Return the last inputs (n_sequences, n_inputs) of the sequences of a record, None for an autonomous run."""
    return None if drive.inputs is None else torch.stack([drive.inputs[i][-1] for i in record.indices])


def _one_step(cell: RecurrentCell, s: np.ndarray, x: np.ndarray | None) -> np.ndarray:
    like = cell.initial_state(len(s))
    with torch.no_grad():
        return cell.step(torch.as_tensor(s).to(like), None if x is None else torch.as_tensor(x).to(like)).cpu().numpy()
