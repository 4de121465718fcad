"""How the Lyapunov directions of a network align with the singular vectors of its loss gradient."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklyap.cells import RecurrentCell, StackedCell
from sklyap.covariant import covariant_from_qr
from sklyap.exceptions import SklyapWarning
from sklyap.gradients.adjoint import BackwardPass, ParameterMap, backward_pass, shares, state_gradients
from sklyap.gradients.alignment_result import AlignmentResult
from sklyap.gradients.criterion import Loss
from sklyap.gradients.directions import (
    cosines,
    expected_cosine,
    principal_angles,
    under_chance,
    unit,
    weights_of_points,
)
from sklyap.gradients.loss_gradient import parameter_names
from sklyap.gradients.objective import Objective
from sklyap.orthonormalize import METHODS
from sklyap.runtime import outside_inference_mode
from sklyap.tangent import tangent_size
from sklyap.validation import check_bool, check_choice, check_dtype, check_int, resolve_device, seed_from

__all__ = ["alignment_features", "gradient_alignment"]

_MOST_PREFIXES = 32


@outside_inference_mode
def gradient_alignment(
    network: Any,
    sequences: Any,
    targets: Any,
    *,
    prefixes: str | Sequence[int] | None = "auto",
    rank: int | None = None,
    covariant: bool = False,
    n_baseline: int = 100,
    **settings: Any,
) -> AlignmentResult:
    """Analyse one network.

    Parameters
    ----------
    network : torch module, fitted skorch net or fitted sklyap estimator
        A trained network.
    sequences, targets : array-like
        What drives the network, and what it should answer.
    prefixes, rank, covariant, n_baseline, **settings
        As in :class:`~sklyap.alignment.GradientAlignmentAnalyzer`.

    Returns
    -------
    AlignmentResult

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> from sklyap.gradients import gradient_alignment
    >>> result = gradient_alignment(network, X[:10], y[:10], n_directions=2, n_singular=1, n_baseline=0)
    >>> result.alignment.shape
    (2, 1)
    """
    subject = _Subject.of(network, sequences, targets, **settings)
    objective, weight, N, q = subject.objective, subject.weight, subject.size, subject.n_directions
    k = N if rank is None else check_int(rank, "rank", low=q, high=N)
    check_int(n_baseline, "n_baseline", low=0)
    check_bool(covariant, "covariant")
    cuts = _check_prefixes(prefixes, objective)
    loss, delta = objective.delta(objective.states)
    cut_losses, cut_deltas = _cut_off(objective, cuts)
    found = subject.backward(torch.cat([delta.unsqueeze(-1), cut_deltas], -1), k)
    gradients = found.parameters[weight]
    exact = objective.gradient_by_autograd([weight])[1][weight]
    total = subject.match(exact.unsqueeze(0), [slice(0, objective.n_steps)], found.basis)
    by_prefix = subject.match(gradients[1:], [slice(t - 1, t) for t in cuts], found.basis)
    g = subject.exact_gradients(delta)
    intervals = _intervals(subject, total, by_prefix, g, n_baseline)
    shared = _shared_fields(subject, total, found)
    return AlignmentResult(
        loss=loss.item(),
        weight=weight,
        gradient=_numpy(gradients[0]),
        autograd_gradient=_numpy(exact),
        relative_error=float(shares(torch.linalg.vector_norm(gradients[0] - exact), torch.linalg.vector_norm(exact))),
        left_vectors=_numpy(total.left[0]),
        right_vectors=_numpy(total.right[0]),
        **shared,
        alignment_by_step=_numpy(total.mean_cosines(0)),
        right_alignment=_numpy(subject.right_alignment(total.right[0], found.basis)),
        covariant_alignment=_covariant_alignment(found, total) if covariant else None,
        contribution=_contribution(found, total),
        tangent_size=N,
        baseline=expected_cosine(N),
        baseline_interval=intervals[0],
        energy_interval=intervals[2],
        r_values=_numpy(found.log_growth.exp()),
        prefixes=np.asarray(cuts, dtype=int),
        losses_by_prefix=np.asarray(cut_losses),
        singular_values_by_prefix=_numpy(by_prefix.singular_values),
        left_vectors_by_prefix=_numpy(by_prefix.left),
        right_vectors_by_prefix=_numpy(by_prefix.right),
        alignment_by_prefix=_numpy(by_prefix.mean_cosines(0)),
        baseline_interval_by_prefix=intervals[1],
        energy_by_prefix=found.energy[1:],
    )


@outside_inference_mode
def alignment_features(network: Any, sequences: Any, targets: Any, **settings: Any) -> dict[str, np.ndarray]:
    """Return the fields of an AlignmentResult that make features, from the leading directions alone.

    Parameters
    ----------
    network, sequences, targets, **settings
        As in :func:`gradient_alignment`.

    Returns
    -------
    dict of str to ndarray
        `singular_values`, `alignment`, `principal_angles` and `energy`, the last one of `n_directions` entries.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> from sklyap.gradients import alignment_features
    >>> features = alignment_features(network, X[:10], y[:10], n_directions=2, n_singular=1)
    >>> sorted(features)[:1]
    ['alignment']
    """
    subject = _Subject.of(network, sequences, targets, **settings)
    _, delta = subject.objective.delta(subject.objective.states)
    found = subject.backward(delta.unsqueeze(-1), subject.n_directions)
    exact = subject.objective.gradient_by_autograd([subject.weight])[1][subject.weight]
    steps = [slice(0, subject.objective.n_steps)]
    return _shared_fields(subject, subject.match(exact.unsqueeze(0), steps, found.basis), found)


def _shared_fields(subject: _Subject, total: _Match, found: BackwardPass) -> dict[str, np.ndarray]:
    return {
        "singular_values": _numpy(total.singular_values[0]),
        "alignment": _numpy(total.mean_cosines((0, 1))),
        "principal_angles": _numpy(total.mean_angles()),
        "energy": found.energy[0],
    }


@dataclass(frozen=True)
class _Match:
    """Singular vectors of m gradients, and what they do at certain steps, beside the basis after these steps.

    Attributes
    ----------
    singular_values : Tensor of shape (m, n_values)
    left, right : Tensor of shape (m, rows, S) and (m, columns, S)
    perturbations : Tensor of shape (n_sequences, L, N, S)
        What a change of the weights along each pair of singular vectors does to the state in each step.
    basis : Tensor of shape (n_sequences, L, N, q)
    """

    singular_values: Tensor
    left: Tensor
    right: Tensor
    perturbations: Tensor
    basis: Tensor

    def mean_cosines(self, dim: int | tuple[int, ...]) -> Tensor:
        return (cosines(self.basis, self.perturbations) * weights_of_points(self.perturbations, dim)).sum(dim)

    def mean_angles(self) -> Tensor:
        angles = principal_angles(self.basis, self.perturbations)
        acting = self.perturbations.abs().amax((-2, -1)) > 0
        return angles[acting].mean(0) if bool(acting.any()) else torch.full_like(angles[0, 0], math.pi / 2)


@dataclass(frozen=True)
class _Subject:
    """A network, the loss and the weights that are looked at."""

    objective: Objective
    weight: str
    part: list[int]
    n_directions: int
    n_singular: int
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        network: Any,
        sequences: Any,
        targets: Any,
        *,
        n_directions: int = 8,
        n_singular: int = 3,
        state: str = "full",
        loss: str | Loss = "auto",
        weight: str | None = None,
        orthonormalizer: str = "auto",
        checkpoint: int | str | None = "auto",
        batch_size: int | None = None,
        layer: str | None = None,
        forward_kwargs: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype = "float64",
        device: str | torch.device = "auto",
        random_state: Any = None,
    ) -> _Subject:
        """Check the settings and evaluate the network."""
        check_choice(state, "state", ["full", "hidden"])
        check_choice(orthonormalizer, "orthonormalizer", METHODS)
        objective = Objective(
            network, sequences, targets, loss=loss, layer=layer, forward_kwargs=forward_kwargs,
            dtype=check_dtype(dtype), device=resolve_device(device),
        )  # fmt: skip
        objective.check_one_length()
        cell = objective.cell
        name = _weight_name(cell, weight)
        objective.check_used_once([name])
        check_int(n_directions, "n_directions", low=1, high=tangent_size(cell, state))
        check_int(n_singular, "n_singular", low=1, high=min(cell.get_parameter(name).shape))
        options = {
            "state": state, "orthonormalizer": orthonormalizer, "checkpoint": checkpoint, "batch_size": batch_size,
            "seed": seed_from(random_state),
        }  # fmt: skip
        part = cell.hidden_entries if state == "hidden" else list(range(cell.state_size))
        return cls(objective, name, part, n_directions, n_singular, options)

    @property
    def size(self) -> int:
        """N, the dimension of the tangent space."""
        return len(self.part)

    def backward(self, deltas: Tensor, k: int) -> BackwardPass:
        """Carry k directions forward and the gradients of losses with these δ (n, T, state_size, m) back."""
        objective = self.objective
        return backward_pass(
            objective.cell, objective.x, objective.trajectory, deltas,
            names=[self.weight], rank=k, n_leading=self.n_directions, **self.options,
        )  # fmt: skip

    def match(self, gradients: Tensor, steps: Sequence[slice], basis: Tensor) -> _Match:
        """Take gradients (m, rows, columns) apart; the i-th is looked at in the i-th steps."""
        S = self.n_singular
        U, sizes, Vh = torch.linalg.svd(gradients, full_matrices=False)
        # Singular vectors of singular value zero are arbitrary, so a gradient of low rank has none.
        real = sizes > sizes[..., :1] * max(gradients.shape[1:]) * torch.finfo(sizes.dtype).eps
        left, right = (vectors * real[..., None, :S] for vectors in (U[..., :S], Vh.mT[..., :S]))
        n, N, q = basis.shape[0], self.size, self.n_directions
        perturbations = [self._perturbations(u, v, at) for u, v, at in zip(left, right, steps, strict=True)]
        after = [basis[:, at.start + 1 : at.stop + 1] for at in steps]
        return _Match(
            sizes, left, right,
            torch.cat([basis.new_zeros(n, 0, N, S), *perturbations], 1),
            torch.cat([basis.new_zeros(n, 0, N, q), *after], 1),
        )  # fmt: skip

    def _perturbations(self, u: Tensor, v: Tensor, at: slice) -> Tensor:
        before, x = self.objective.trajectory[:, at], self.objective.x[:, at]
        steps = ParameterMap(self.objective.cell, [self.weight], before, x)
        changes = [{self.weight: torch.outer(u_j, v_j)} for u_j, v_j in zip(u.mT, v.mT, strict=True)]
        with torch.no_grad():
            return torch.stack([steps.push(change)[..., self.part] for change in changes], -1)

    def exact_gradients(self, delta: Tensor) -> Tensor:
        """Return ``∂L/∂s_t``, t = 1 … T, (n, T, N), by automatic differentiation."""
        objective = self.objective
        return state_gradients(objective.cell, objective.x, objective.start, delta.unsqueeze(-1))[..., self.part, 0]

    def right_alignment(self, right: Tensor, basis: Tensor) -> Tensor:
        """Return |cos| between bases before steps and what right vectors (columns, S) read of the state there."""
        cell = self.objective.cell
        reads = right.new_zeros(cell.state_size, right.shape[1])
        offset = _offset(cell, self.weight)
        reads[offset : offset + len(right)] = right
        converged = basis[:, 1:-1]  # the first basis is random
        values = cosines(converged, reads[self.part])
        return values.mean((0, 1)) if values.shape[1] else values.new_zeros(values.shape[2:])


def _covariant_alignment(found: BackwardPass, total: _Match) -> np.ndarray:
    """Return |cos| between covariant vectors and perturbations, mean over steps and sequences."""
    q = found.basis.shape[-1]
    # Directions annihilated to rounding have a zero on the diagonal.
    annihilated = torch.diag_embed(found.log_growth[..., :q] == -math.inf)
    vectors, _ = covariant_from_qr(found.basis, found.r_factors.masked_fill(annihilated, 0.0))
    values = cosines(vectors[:, 1:], total.perturbations)
    return _numpy((values * weights_of_points(total.perturbations, (0, 1))).sum((0, 1)))


def _contribution(found: BackwardPass, total: _Match) -> np.ndarray:
    """Return the share of each singular value that comes through each direction."""
    q, S = total.basis.shape[-1], total.perturbations.shape[-1]
    through = torch.einsum("nti,ntai,ntaj->ij", found.coefficients[..., :q], total.basis, total.perturbations)
    return shares(through, total.singular_values[0, :S])


def _intervals(
    subject: _Subject, total: _Match, by_prefix: _Match, g: Tensor, n_draws: int
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Return what chance gives of alignment, in total and by prefix, and of energy in the leading directions."""
    if n_draws == 0:
        return None, None, None
    # float32 is enough for the level of chance. Vectors are rows, so that products run along memory.
    (Q, K, weights), (Q_ends, K_ends, weights_ends) = (
        (match.basis.mT.float().contiguous(), unit(match.perturbations).mT.float().contiguous(), weights.float())
        for match, weights in (
            (total, weights_of_points(total.perturbations, (0, 1))),
            (by_prefix, weights_of_points(by_prefix.perturbations, 0)),
        )
    )
    # Squares of a vanishing gradient would underflow in float32.
    g = (g / g.abs().max().clamp(min=torch.finfo(g.dtype).tiny)).float()

    def statistic(rotation: Tensor) -> Tensor:
        inside = (Q @ (g @ rotation).unsqueeze(-1)).square().sum((0, 1, 3)).cumsum(0)
        return torch.cat([
            ((Q @ (K @ rotation).mT).abs() * weights).sum((0, 1)).flatten(),
            ((Q_ends @ (K_ends @ rotation).mT).abs() * weights_ends).sum(0).flatten(),
            inside,
        ])  # fmt: skip

    quantiles = under_chance(statistic, subject.size, n_draws, subject.options["seed"], like=g)
    q, S, P = subject.n_directions, subject.n_singular, by_prefix.perturbations.shape[1]
    in_total, in_prefix, inside = quantiles.split([q * S, P * q * S, q], 1)
    return (
        _numpy(in_total.unflatten(1, (q, S))),
        _numpy(in_prefix.unflatten(1, (P, q, S))),
        shares(inside, g.square().sum()),
    )


def _cut_off(objective: Objective, cuts: Sequence[int]) -> tuple[list[float], Tensor]:
    """Return losses of sequences cut off after certain steps, and their δ (n, T, state_size, n_cuts)."""
    losses = []
    deltas = objective.states.new_zeros(*objective.states.shape, len(cuts))
    for i, t in enumerate(cuts):
        loss, delta = objective.delta(objective.states[:, :t])
        deltas[:, :t, :, i] = delta
        losses.append(loss.item())
    return losses, deltas


def _check_prefixes(prefixes: str | Sequence[int] | None, objective: Objective) -> list[int]:
    T = objective.n_steps
    if prefixes is None:
        return []
    if not isinstance(prefixes, str):
        if not isinstance(prefixes, Sequence | np.ndarray | range):
            raise TypeError(
                f"The 'prefixes' parameter must be 'auto', None or a list of ints. Got {prefixes!r} instead."
            )
        return sorted({check_int(t, "prefixes", low=1, high=T) for t in prefixes})
    check_choice(prefixes, "prefixes", ["auto"])
    try:
        objective.delta(objective.states[:, :1])
    except ValueError as error:
        warnings.warn(
            f"The network cannot be run on sequences that end early, so there is nothing by prefix ({error}). "
            "Set prefixes=None to leave it out.",
            SklyapWarning,
            stacklevel=4,
        )
        return []
    return sorted({round(t) for t in np.linspace(1, T, min(T, _MOST_PREFIXES))})


def _weight_name(cell: RecurrentCell, weight: str | None) -> str:
    """Return the cell's name of recurrent weights, which may be given by their name in torch."""
    known = dict(cell.named_parameters())
    name = parameter_names(cell)[0] if weight is None else weight
    if name not in known:
        own, _, depth = name.rpartition("_l")
        if isinstance(cell, StackedCell):
            name = f"cells.{depth}.{own}"
        elif depth == "0":
            name = own
    if name not in known or known[name].ndim != 2:
        matrices = [n for n, p in known.items() if p.ndim == 2]
        raise ValueError(
            "The 'weight' parameter must be the name of a matrix of the recurrent layer, one of "
            f"{', '.join(matrices)}. Got {weight!r} instead."
        )
    return name


def _offset(cell: RecurrentCell, name: str) -> int:
    """Return where the state of the layer begins that a parameter belongs to; weights act on its first entries."""
    return sum(cell.sizes[: int(name.split(".")[1])]) if isinstance(cell, StackedCell) else 0


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
