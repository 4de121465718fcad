"""What is found where the Lyapunov directions of a network are matched with the gradient of its loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["AlignmentResult"]


@dataclass(frozen=True)
class AlignmentResult:
    """How the Lyapunov directions of one network align with the gradient of its loss.

    Directions ``i`` are columns of Q, ``j`` numbers the singular vectors of ``∂L/∂U = Σ_j σ_j u_j v_jᵀ``, U being the
    recurrent weights. The notes of :class:`~sklyap.alignment.GradientAlignmentAnalyzer` say what is compared with what.

    Attributes
    ----------
    loss : float
        L, the mean over the sequences.
    weight : str
        The name of U in the recurrent layer.
    gradient, autograd_gradient : ndarray of the shape of U
        ``∂L/∂U`` put together from Q and R, and by automatic differentiation.
    relative_error : float
        Of `gradient` against `autograd_gradient`.
    singular_values : ndarray of shape (n_values,)
        σ, all of them, descending.
    left_vectors, right_vectors : ndarray of shape (rows, n_singular) and (columns, n_singular)
        u_j and v_j, from `autograd_gradient`; zeros where σ_j is zero to rounding, which gives alignments of 0.
    alignment : ndarray of shape (n_directions, n_singular)
        ``|cos|`` between Q_i after a step and the perturbation that a change of U along ``u_j v_jᵀ`` gives to the
        state in that step, mean over steps and sequences.
    alignment_by_step : ndarray of shape (n_steps, n_directions, n_singular)
        The same for each step, mean over sequences; 0 for a step that starts from a state of zeros, where no weight
        acts.
    right_alignment : ndarray of shape (n_directions, n_singular)
        ``|cos|`` between Q_i before a step and the direction of the state that v_j reads, mean over steps and
        sequences.
    covariant_alignment : ndarray of shape (n_directions, n_singular) or None
        As `alignment`, for covariant Lyapunov vectors in place of Q's columns.
    contribution : ndarray of shape (n_directions, n_singular)
        Signed share of σ_j that comes through direction i; over all N directions the shares sum to 1.
    principal_angles : ndarray of shape (min(n_directions, n_singular),)
        Between the spans of the leading columns of Q and of the perturbations, mean over steps and sequences, in
        radians.
    energy : ndarray of shape (k,)
        Share of the gradients ``Σ |∂L/∂s_t|²`` inside the span of the first 1, 2, … k directions.
    tangent_size : int
        N, the dimension of the tangent space.
    baseline : float
        The mean of ``|cos|`` for a random direction.
    baseline_interval : ndarray of shape (2, n_directions, n_singular) or None
        Where 95 % of `alignment` would lie if directions had nothing to do with the gradient.
    energy_interval : ndarray of shape (2, n_directions) or None
        The same for the leading entries of `energy`, whose mean is then q/N.
    r_values : ndarray of shape (n_sequences, n_steps, k)
        R_ii at each step: 0 where a direction is annihilated.
    prefixes : ndarray of shape (n_prefixes,)
        Steps t after which sequences were cut off for what follows.
    losses_by_prefix : ndarray of shape (n_prefixes,)
        L_t, the loss if the sequences end after t steps.
    singular_values_by_prefix : ndarray of shape (n_prefixes, n_values)
        σ of each prefix.
    left_vectors_by_prefix, right_vectors_by_prefix : ndarray of shape (n_prefixes, ·, n_singular)
        u and v of each prefix.
    alignment_by_prefix : ndarray of shape (n_prefixes, n_directions, n_singular)
        Between Q_i after step t and the perturbation of ``∂L_t/∂U`` in that step, mean over sequences.
    baseline_interval_by_prefix : ndarray of shape (2, n_prefixes, n_directions, n_singular) or None
        As `baseline_interval`, for `alignment_by_prefix`.
    energy_by_prefix : ndarray of shape (n_prefixes, k)
        As `energy`, at the last step of each prefix.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> from sklyap import GradientAlignmentAnalyzer
    >>> result = GradientAlignmentAnalyzer(X[:10], y[:10], n_directions=3, n_baseline=0).analyze(network)
    >>> result.alignment.shape, bool(result.relative_error < 1e-10)
    ((3, 3), True)
    """

    loss: float
    weight: str
    gradient: np.ndarray
    autograd_gradient: np.ndarray
    relative_error: float
    singular_values: np.ndarray
    left_vectors: np.ndarray
    right_vectors: np.ndarray
    alignment: np.ndarray
    alignment_by_step: np.ndarray
    right_alignment: np.ndarray
    covariant_alignment: np.ndarray | None
    contribution: np.ndarray
    principal_angles: np.ndarray
    energy: np.ndarray
    tangent_size: int
    baseline: float
    baseline_interval: np.ndarray | None
    energy_interval: np.ndarray | None
    r_values: np.ndarray
    prefixes: np.ndarray
    losses_by_prefix: np.ndarray
    singular_values_by_prefix: np.ndarray
    left_vectors_by_prefix: np.ndarray
    right_vectors_by_prefix: np.ndarray
    alignment_by_prefix: np.ndarray
    baseline_interval_by_prefix: np.ndarray | None
    energy_by_prefix: np.ndarray

    def __repr__(self) -> str:
        best = self.alignment[0, 0]
        interval = ""
        if self.baseline_interval is not None:
            low, high = self.baseline_interval[:, 0, 0]
            interval = f", 95 % of it in [{low:.3f}, {high:.3f}]"
        return (
            f"AlignmentResult: loss {self.loss:.4g}, gradient of {self.weight} from Q and R off by "
            f"{self.relative_error:.1e}\n"
            f"  |cos| of the leading direction and the leading singular vector {best:.3f} "
            f"(by chance {self.baseline:.3f}{interval})\n"
            f"  {self.energy[0]:.1%} of the gradient in the first direction, "
            f"{self.energy[min(len(self.energy), len(self.alignment)) - 1]:.1%} in the first {len(self.alignment)}"
        )
