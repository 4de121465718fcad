"""GradientAlignmentAnalyzer: features of how the dynamics of trained networks align with the gradient of their loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sklyap.gradients import AlignmentResult, alignment_features, gradient_alignment
from sklyap.networks.transformer import NetworkTransformer
from sklyap.orthonormalize import METHODS
from sklyap.validation import check_bool, check_choice, check_int

__all__ = ["AlignmentResult", "GradientAlignmentAnalyzer"]


_SETTINGS = (
    "n_directions", "n_singular", "state", "loss", "weight", "orthonormalizer", "checkpoint", "batch_size", "layer",
    "forward_kwargs", "dtype", "device", "random_state",
)  # fmt: skip
_FOR_ANALYSIS = ("prefixes", "rank", "covariant", "n_baseline")


class GradientAlignmentAnalyzer(NetworkTransformer):
    """Compare the Lyapunov directions of trained networks with the gradient of their loss.

    `analyze` looks closely at one network; `fit` and `transform` turn a list of networks into features for any
    scikit-learn estimator; `analyze_training` follows a population through its snapshots.

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), or tokens (n_sequences, n_steps)
        At the networks' input. Clones share them.
    targets : array-like of shape (n_sequences, ...)
        What the networks should answer.
    n_directions : int, default=8
        How many leading Lyapunov directions.
    n_singular : int, default=3
        How many leading singular vectors of the gradient of the recurrent weights.
    state : {"full", "hidden"}, default="full"
        With "hidden" (all but the hidden state frozen) the gradient rebuilt from Q and R is an approximation.
    loss : "auto", "cross_entropy", "mse", or callable ``(outputs, targets) -> loss``, default="auto"
        See :func:`~sklyap.loss_gradient`.
    weight : str, optional
        Which recurrent weights of a stack: ``"weight_hh_l1"`` or ``"cells.1.weight_hh"``; the first layer's by default.
    prefixes : "auto", sequence of int, or None, default="auto"
        Steps after which `analyze` cuts the sequences off to look at the gradient of the loss there; "auto" is every
        step, or 32 of them.
    rank : int, optional
        How many directions `analyze` carries; all by default, which makes the rebuilt gradient exact. `transform`
        never needs more than `n_directions`.
    covariant : bool, default=False
        Whether `analyze` compares covariant Lyapunov vectors too.
    n_baseline : int, default=100
        Random rotations behind the intervals of `analyze`; 0 for none.
    orthonormalizer, checkpoint, batch_size, layer, forward_kwargs, dtype, device, random_state
        See :func:`~sklyap.loss_gradient`.
    n_jobs : int, optional
        How many networks to transform at once, each on one thread, through joblib.
    verbose : int, default=0
        Whether to show a progress bar.
    on_error : {"raise", "warn"}, default="raise"
        What `transform` does with a network that cannot be analysed: raise, or warn and give a row of NaN.

    Attributes
    ----------
    n_features_out_ : int
        Number of columns.
    failures_ : dict of int to str
        Index and reason of each network of the last `transform` that failed.

    Notes
    -----
    Which side of the gradient belongs to which Q at which time follows from the chain rule. Recurrent weights U enter
    step t through gates ``a_t = U h_t + …``, so with ``g_{t+1} = ∂L/∂s_{t+1}`` and ``A_t = ∂s_{t+1}/∂a_t``

        ∂L/∂U = Σ_t (A_tᵀ g_{t+1}) h_tᵀ = Σ_j σ_j u_j v_jᵀ .

    Left vectors u_j live in the space of gates (4H for an LSTM), right ones v_j in that of h_t. A change of U along
    ``u_j v_jᵀ`` perturbs the state after the step by ``A_t u_j (v_jᵀ h_t)``, which lives in the tangent space that
    ``Q_{t+1}`` is a basis of, for any architecture; `alignment` is the cosine between the two. For an Elman network
    ``A_t`` is the diagonal of slopes of its nonlinearity and the rest is u_j itself, with ``|⟨Q_i, u_j⟩|`` as the limit
    of slopes all alike. The match is exact in the sense that σ_j is a sum over times and directions

        σ_j = Σ_t g_{t+1} · A_t u_j (v_jᵀ h_t) = Σ_i Σ_t c_{t+1,i} (Q_{t+1,i} · A_t u_j) (v_jᵀ h_t) ,

    `contribution` being its terms i. ``v_jᵀ h_t`` reads the state before the step: in `right_alignment`, v_j is
    compared with Q_t, not Q_{t+1}. That v_j lies in the span of the states that were visited, not of tangents, so
    that nothing ties it to Q but what the states and their tangents have in common.

    References
    ----------
    Linking finite-time Lyapunov exponents to RNN gradient subspaces and input sensitivity (2024). Submission
    UHZVrhQuO1 to ICLR.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.alignment import GradientAlignmentAnalyzer
    >>> from sklyap.datasets import load_sequential_digits
    >>> X, y = load_sequential_digits(return_X_y=True)
    >>> networks = [RNNClassifier("rnn", 16, max_epochs=1, random_state=i).fit(X[:200], y[:200]) for i in range(3)]
    >>> analyzer = GradientAlignmentAnalyzer(X[:25], y[:25], n_directions=4, n_singular=2)
    >>> analyzer.fit_transform(networks).shape
    (3, 16)
    >>> result = analyzer.analyze(networks[0])
    >>> result.gradient.shape, bool(result.relative_error < 1e-12)
    ((16, 16), True)
    """

    def __init__(
        self,
        sequences=None,
        targets=None,
        *,
        n_directions=8,
        n_singular=3,
        state="full",
        loss="auto",
        weight=None,
        prefixes="auto",
        rank=None,
        covariant=False,
        n_baseline=100,
        orthonormalizer="auto",
        checkpoint="auto",
        batch_size=None,
        layer=None,
        forward_kwargs=None,
        dtype="float64",
        device="auto",
        n_jobs=None,
        verbose=0,
        on_error="raise",
        random_state=None,
    ):
        self.sequences = sequences
        self.targets = targets
        self.n_directions = n_directions
        self.n_singular = n_singular
        self.state = state
        self.loss = loss
        self.weight = weight
        self.prefixes = prefixes
        self.rank = rank
        self.covariant = covariant
        self.n_baseline = n_baseline
        self.orthonormalizer = orthonormalizer
        self.checkpoint = checkpoint
        self.batch_size = batch_size
        self.layer = layer
        self.forward_kwargs = forward_kwargs
        self.dtype = dtype
        self.device = device
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.on_error = on_error
        self.random_state = random_state

    def analyze(self, network: Any) -> AlignmentResult:
        """Analyse one network.

        Parameters
        ----------
        network : torch module, fitted skorch net or fitted sklyap estimator
            With one recurrent layer and a readout. It is not changed.

        Returns
        -------
        AlignmentResult

        Raises
        ------
        ValueError, TypeError
            If the network has no readout, targets or parameters do not fit, or the loss is not differentiable.
        DivergedError
            If the loss or the trajectory is not finite.
        """
        self.check_parameters()
        return self._analyze(network)

    def analyze_training(self, population: Any, epochs: Iterable[Any]) -> dict[Any, list[AlignmentResult]]:
        """Analyse every network of a population at several epochs.

        Parameters
        ----------
        population : NetworkPopulation
            Anything whose ``networks(epoch)`` is a list of networks.
        epochs : iterable of int or "last"
            Snapshots to look at, 0 for the networks before training.

        Returns
        -------
        dict of epoch to list of AlignmentResult
        """
        self.check_parameters()
        if isinstance(epochs, str) or not isinstance(epochs, Iterable):
            raise TypeError(
                f"The 'epochs' parameter of analyze_training must be a list of epochs. Got {epochs!r} instead."
            )
        epochs = list(epochs)
        if not hasattr(population, "networks"):
            raise TypeError(
                "The 'population' parameter of analyze_training must be a NetworkPopulation. "
                f"Got {population!r} instead."
            )
        networks = [(epoch, network) for epoch in epochs for network in population.networks(epoch)]
        results = self._map(self._analyze, [network for _, network in networks])
        return {
            epoch: [result for (at, _), result in zip(networks, results, strict=True) if at == epoch]
            for epoch in epochs
        }

    def feature_names(self) -> list[str]:
        """Return the names of the features: what they are, then direction and singular vector by number."""
        return ["_".join([name, *map(str, i)]) for name, shape in self._shapes().items() for i in np.ndindex(shape)]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the kinds of features, in order, and how many there are along directions and singular vectors."""
        q, n = self.n_directions, self.n_singular
        return {
            "gradient_energy": (q,),
            "alignment": (q, n),
            "log_singular_value": (n,),
            "principal_angle": (min(q, n),),
        }

    def check_parameters(self) -> None:
        """Raise TypeError or ValueError for parameters that are wrong."""
        who = type(self).__name__
        for name in ("sequences", "targets"):
            if getattr(self, name) is None:
                raise ValueError(f"The {name!r} parameter of {who} must be given, as an array. Got None.")
        for name in ("n_directions", "n_singular"):
            check_int(getattr(self, name), name, low=1, caller=who)
        check_int(self.n_baseline, "n_baseline", low=0, caller=who)
        check_bool(self.covariant, "covariant", caller=who)
        if self.rank is not None:
            check_int(self.rank, "rank", low=1, caller=who)
        for name in ("weight", "layer"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"The {name!r} parameter of {who} must be a name. Got {getattr(self, name)!r} instead.")
        for name, choices in (
            ("state", ["full", "hidden"]), ("orthonormalizer", METHODS), ("on_error", ["raise", "warn"]),
        ):  # fmt: skip
            check_choice(getattr(self, name), name, choices, caller=who)

    def _settings(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*_SETTINGS, *names)}

    def _analyze(self, network: Any) -> AlignmentResult:
        return gradient_alignment(network, self.sequences, self.targets, **self._settings(*_FOR_ANALYSIS))

    def features_of(self, network: Any) -> np.ndarray:
        """Return the features of one network.

        Parameters
        ----------
        network : torch module, fitted skorch net or fitted sklyap estimator
            A trained network.

        Returns
        -------
        ndarray of shape (n_features_out_,)
            The share of gradient energy in the first 1 … n_directions directions; `alignment`, directions first; the
            natural logarithms of the leading singular values, zeros as ln ε times the largest; the principal angles.
        """
        found = alignment_features(network, self.sequences, self.targets, **self._settings())
        sizes = found["singular_values"]
        # A gradient of rank below n_singular (or none at all) has singular values of zero to rounding.
        floor = np.finfo(sizes.dtype).eps * (sizes[0] or 1.0)
        features = {
            "gradient_energy": found["energy"][: self.n_directions],
            "alignment": found["alignment"],
            "log_singular_value": np.log(np.maximum(sizes[: self.n_singular], floor)),
            "principal_angle": found["principal_angles"],
        }
        return np.concatenate([features[name].ravel() for name in self._shapes()]).astype(np.float64)
