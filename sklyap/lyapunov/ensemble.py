"""Networks of one structure analysed in one batch, which is what makes many small networks fast on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sklyap.cells import DenseLinearization, Linearization, RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.lyapunov.growth import GrowthRecord, time_bins
from sklyap.lyapunov.result import LyapunovResult, summarise, time_step_of
from sklyap.orthonormalize import random_bases
from sklyap.runtime import flushed_denormals
from sklyap.tangent import check_settings, growth_iteration
from sklyap.validation import check_dtype, resolve_device

__all__ = ["EnsembleCell", "ensemble_spectra"]


def ensemble_spectra(
    cells: Sequence[RecurrentCell],
    drives: Sequence[Drive],
    *,
    n_exponents: int | None,
    warmup: int | str,
    qr_interval: int | str,
    orthonormalizer: str,
    state: str,
    dtype: str,
    device: Any,
    random_state: int,
) -> list[LyapunovResult]:
    """Return each network's Lyapunov spectrum, as :func:`~sklyap.lyapunov_spectrum` does to rounding.

    Parameters
    ----------
    cells : sequence of RecurrentCell
        Of one ``sklyap.spectrum.fingerprint.structure``.
    drives : sequence of Drive
        One per cell, all sequences of one length and of the same number.
    n_exponents, warmup, qr_interval, orthonormalizer, state, dtype, device, random_state
        See :func:`~sklyap.lyapunov_spectrum`.

    Returns
    -------
    list of LyapunovResult
        What belongs to the run as a whole (`condition`, `qr_interval`) is the same in all.

    Raises
    ------
    DivergedError
        If one of the networks diverges.
    RuntimeError
        If vmap cannot run the cells.

    Examples
    --------
    >>> import torch
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.cells.drive import Drive
    >>> from sklyap.lyapunov import ensemble_spectra
    >>> cells = [GRUCell(2, 4), GRUCell(2, 4)]
    >>> drives = [Drive(list(torch.ones(3, 40, 2)), None, [40] * 3) for _ in cells]
    >>> results = ensemble_spectra(
    ...     cells, drives, n_exponents=None, warmup=10, qr_interval="auto", orthonormalizer="auto", state="full",
    ...     dtype="float64", device="cpu", random_state=0,
    ... )
    >>> [result.exponents.shape for result in results]
    [(4,), (4,)]
    """
    k, N = check_settings(cells[0], n_exponents, qr_interval, orthonormalizer, state)
    place: dict[str, Any] = {"dtype": check_dtype(dtype), "device": resolve_device(device)}
    indices = list(range(drives[0].n_sequences))
    warmup = drives[0].transient_steps(warmup)
    bins = time_bins(warmup, drives[0].lengths[0], len(indices))
    with torch.no_grad(), flushed_denormals():
        parts = [drive.padded(cell, indices) for cell, drive in zip(cells, drives, strict=True)]
        inputs = [x.to(**place) for x, _, _ in parts if isinstance(x, Tensor)]
        x = torch.cat(inputs) if inputs else drives[0].lengths[0]
        s = torch.cat([s.to(**place) for _, s, _ in parts])
        Q = random_bases(N, k, random_state, indices, **place).repeat(len(cells), 1, 1)
        blocks = growth_iteration(
            EnsembleCell(cells).to(**place), x, Q=Q, s=s, qr_interval=qr_interval,
            orthonormalizer=orthonormalizer, state=state, breakpoints=[warmup], exact=bins,
        )  # fmt: skip
        record = GrowthRecord.of(blocks, Q, indices, bins)
    eps, dt = torch.finfo(place["dtype"]).eps, time_step_of(cells[0])
    return [
        summarise(replace(record, sums=sums, steps=steps), warmup, qr_interval, complete=k == N, eps=eps, time_step=dt)
        for sums, steps in zip(_split(record.sums, len(cells)), _split(record.steps, len(cells)), strict=True)
    ]


def _split(values: Any, n: int) -> Any:
    return values.reshape(n, -1, *values.shape[1:])


class EnsembleCell(RecurrentCell):
    """Cells of one structure as one cell, by `torch.func.vmap` over their stacked weights.

    The last batch axis of all tensors runs over networks and their sequences, those of one network side by side.

    Parameters
    ----------
    cells : sequence of RecurrentCell
        One for each network.

    Examples
    --------
    >>> from sklyap.cells import GRUCell
    >>> from sklyap.lyapunov import EnsembleCell
    >>> EnsembleCell([GRUCell(3, 8), GRUCell(3, 8)]).state_size
    8
    """

    def __init__(self, cells: Sequence[RecurrentCell]) -> None:
        super().__init__()
        first = cells[0]
        self.n_inputs, self.state_size, self.output_size = first.n_inputs, first.state_size, first.output_size
        self.n_networks = len(cells)
        models = [_AnyMethod(cell) for cell in cells]
        # Not registered as a submodule, because its weights are substituted at each call.
        self._template = (models[0],)
        parameters, buffers = torch.func.stack_module_state(models)
        self._names = list(parameters | buffers)
        for i, name in enumerate(self._names):
            self.register_buffer(f"stacked_{i}", (parameters | buffers)[name].detach())

    @property
    def hidden_entries(self) -> list[int]:
        return self._template[0].cell.hidden_entries

    def step(self, s: Tensor, x: Tensor | None) -> Tensor:
        return self.each(lambda cell, s, x: cell.step(s, x), s, x)

    def trajectory(self, s: Tensor, x: Tensor | int) -> Tensor:
        if isinstance(x, int):
            return self.each(lambda cell, s, _: cell.trajectory(s, x), s, None)
        return self.each(lambda cell, s, x: cell.trajectory(s, x.transpose(0, 1)), s, x.transpose(0, 1))

    def linearize(self, s: Tensor, x: Tensor | None) -> Linearization:
        return EnsembleLinearization(self, "linearize", s, x)

    def hidden_linearization(self, s: Tensor, x: Tensor | None) -> Linearization:
        return EnsembleLinearization(self, "hidden_linearization", s, x)

    def each(self, method: Callable[..., Tensor], *tensors: Tensor | None, matrices: bool = False) -> Tensor:
        """Run ``method(cell, *tensors)`` for every network on its part of the batch.

        Parameters
        ----------
        method : callable
            Returns vectors (*batch, n), or matrices (*batch, n, k) if `matrices`.
        *tensors : Tensor of shape (*batch, n) or None
            The third, if there is one, holds matrices (*batch, n, k).
        """
        weights = {name: getattr(self, f"stacked_{i}") for i, name in enumerate(self._names)}
        parts, axes = [], []
        for position, tensor in enumerate(tensors):
            axis = -3 if position == 2 else -2
            parts.append(None if tensor is None else tensor.unflatten(axis, (self.n_networks, -1)))
            axes.append(None if tensor is None else tensor.ndim + axis)

        def one(weights: dict[str, Tensor], *parts: Tensor | None) -> Tensor:
            return torch.func.functional_call(self._template[0], weights, (method, *parts))

        axis = -4 if matrices else -3
        return torch.func.vmap(one, (0, *axes), axis)(weights, *parts).flatten(axis, axis + 1)


class _AnyMethod(nn.Module):
    """`torch.func.functional_call` calls `forward` only."""

    def __init__(self, cell: RecurrentCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, method: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        return method(self.cell, *tensors)


@dataclass(frozen=True)
class EnsembleLinearization(Linearization):
    """The derivatives of all networks' steps; `method` is what linearizes one."""

    cell: EnsembleCell
    method: str
    s: Tensor
    x: Tensor | None

    def push(self, Q: Tensor, P: Tensor | None = None) -> Tensor:
        if P is not None:
            raise NotImplementedError("inputs of an ensemble do not vary")
        return self.cell.each(
            lambda cell, s, x, Q: getattr(cell, self.method)(s, x).push(Q), self.s, self.x, Q, matrices=True
        )

    def dense(self) -> Tensor:
        return self.cell.each(
            lambda cell, s, x: getattr(cell, self.method)(s, x).dense(), self.s, self.x, matrices=True
        )

    def fold(self, k: int, *, inputs: bool = True) -> Linearization:
        # One full matrix per step costs about as much as pushing a few of its columns.
        return self if 2 * k < self.s.shape[-1] else DenseLinearization(self.dense())

    def __getitem__(self, index: int | slice) -> EnsembleLinearization:
        return replace(self, s=self.s[index], x=None if self.x is None else self.x[index])
