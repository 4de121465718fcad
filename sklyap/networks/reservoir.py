"""Echo state networks: a reservoir that is drawn once, and a readout by ridge regression."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from sklyap.cells import LeakyCell
from sklyap.networks.base import RecurrentEstimator
from sklyap.networks.inputs import InputsMixin
from sklyap.networks.keywords import suggests_keywords
from sklyap.networks.regressor import RNNRegressor
from sklyap.networks.weights import check_sample_weight
from sklyap.runtime import undrawn
from sklyap.validation import check_bool, check_choice, check_int, check_real, check_seed

__all__ = ["ESNRegressor", "EchoStateNetwork"]


class EchoStateNetwork(nn.Module):
    """A reservoir with a linear readout of its state, and of squares of half of it.

    Parameters
    ----------
    cell : LeakyCell
    n_outputs : int
    quadratic : bool
        Whether the readout sees the squares of the first half of the units, too.
    every_step : bool
        Whether to read out every step, or the last one.
    """

    def __init__(self, cell: LeakyCell, n_outputs: int, *, quadratic: bool, every_step: bool) -> None:
        super().__init__()
        n = cell.state_size
        self.cell, self.quadratic, self.every_step = cell, quadratic, every_step
        self.readout = nn.Linear(n + n // 2 if quadratic else n, n_outputs, dtype=torch.float64)

    def features(self, h: Tensor) -> Tensor:
        """Return what the readout sees of states (..., n_units)."""
        return torch.cat([h, h[..., : h.shape[-1] // 2] ** 2], -1) if self.quadratic else h

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs (n_sequences, n_steps, n_outputs), or (n_sequences, n_outputs) of the last step."""
        h = self.cell(x)[0]
        return self.readout(self.features(h if self.every_step else h[:, -1]))


class ESNRegressor(RegressorMixin, InputsMixin, BaseEstimator):
    """Echo state network that predicts numbers at the end of sequences, or at every step of them.

    The recurrent weights are drawn and stay, ``h' = (1 - leak) h + leak tanh(W h + W_in x + b)``; the readout is fitted
    by ridge regression [1]_. In float64.

    Parameters
    ----------
    n_units : int, default=200
        Number of units.
    leak : float, default=1.0
        In (0, 1].
    spectral_radius : float, default=0.9
        Of W.
    input_scale, bias_scale : float, default=1.0 and 0.0
        Entries of W_in and b are uniform up to these moduli.
    density : float, default=0.1
        Share of entries of W that are not zero, at least five a row.
    alpha : float, default=1e-6
        Strength of the ridge regression.
    quadratic : bool, default=False
        Whether the readout sees squares of half of the units, which breaks the symmetry of tanh [2]_.
    spin_up : int, default=0
        First steps of each sequence that the readout is not fitted on, as the reservoir forgets its start.
    readout : {"last", "all"}, default="last"
        Whether targets belong to the last step or to every step.
    random_state : int, RandomState instance or None, default=None
        Draws the reservoir.

    Attributes
    ----------
    net_ : EchoStateNetwork
        A torch module, for everything that takes networks.
    n_inputs_, n_outputs_ : int
        Numbers of inputs and of outputs.
    n_features_in_ : int
        Steps of a table of sequences, inputs per step otherwise.

    Raises
    ------
    ValueError, TypeError
        If a parameter is out of range, or no step is left to fit on.

    References
    ----------
    .. [1] Jaeger, H. and Haas, H. (2004). Harnessing nonlinearity: predicting chaotic systems and saving energy in
       wireless communication. Science 304.
    .. [2] Pathak, J., Lu, Z., Hunt, B. R., Girvan, M. and Ott, E. (2017). Using machine learning to replicate chaotic
       attractors and calculate Lyapunov exponents from data. Chaos 27, 121102.

    Examples
    --------
    >>> from sklyap import ESNRegressor, closed_loop, lyapunov_spectrum
    >>> from sklyap.datasets import make_chaotic_series
    >>> X, y = make_chaotic_series("lorenz", 6, 600, dt=0.05, random_state=0)
    >>> network = ESNRegressor(
    ...     100, leak=0.6, spectral_radius=0.6, input_scale=0.4, bias_scale=0.5, quadratic=True, spin_up=100,
    ...     readout="all", random_state=0,
    ... ).fit(X[:4], y[:4])
    >>> network.score(X[4:, 100:], y[4:, 100:]) > 0.99
    True
    >>> result = lyapunov_spectrum(closed_loop(network, X[:, :100]), 1000, n_exponents=2)
    >>> bool(result.exponents[0] > 0.02)  # Lorenz: 0.906 a unit of time, 0.045 a step
    True
    """

    input_type = "values"
    _there = RecurrentEstimator._there
    _as_given = RecurrentEstimator._as_given
    _base_rank = RNNRegressor._base_rank
    _check_y = RNNRegressor._check_y
    _learn_targets = RNNRegressor._learn_targets
    predict = RNNRegressor.predict
    forecast = RNNRegressor.forecast
    score = RNNRegressor.score

    def __init__(
        self,
        n_units=200,
        *,
        leak=1.0,
        spectral_radius=0.9,
        input_scale=1.0,
        bias_scale=0.0,
        density=0.1,
        alpha=1e-6,
        quadratic=False,
        spin_up=0,
        readout="last",
        random_state=None,
    ):
        self.n_units = n_units
        self.leak = leak
        self.spectral_radius = spectral_radius
        self.input_scale = input_scale
        self.bias_scale = bias_scale
        self.density = density
        self.alpha = alpha
        self.quadratic = quadratic
        self.spin_up = spin_up
        self.readout = readout
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        # The columns of a table are steps in time, which a reservoir forgets.
        tags.regressor_tags.poor_score = True
        return tags

    @suggests_keywords
    def fit(self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Self:
        """Draw the reservoir and fit its readout.

        Parameters
        ----------
        X : array-like of shape (n_sequences, n_steps, n_inputs) or (n_sequences, n_steps), or list of arrays
            Two dimensions are one input per step; a list holds sequences of unequal length.
        y : array-like
            (n_sequences,) or (n_sequences, n_outputs); with ``readout="all"`` a target at every step,
            (n_sequences, n_steps) or (n_sequences, n_steps, n_outputs), or a list.
        sample_weight : array-like of shape (n_sequences,), optional
            Weights of the sequences in the squared error, none negative.

        Returns
        -------
        self
        """
        self._check_parameters()
        X, y = self._check_data(X, y, fresh=True)
        weight = check_sample_weight(sample_weight, len(X), type(self).__name__)
        self._learn_targets([y], None)
        self.n_inputs_ = X.shape[2]
        with undrawn():
            net = EchoStateNetwork(
                self._reservoir(X.shape[2]), self.n_outputs_, quadratic=self.quadratic, every_step=self.readout == "all"
            )
        states, there = self._states(net, X), ~np.isnan(X[..., 0])
        if self.readout == "all":
            there = there & (np.cumsum(there, 1) > self.spin_up)
            if not there.any():
                raise ValueError(
                    f"The 'spin_up' parameter of ESNRegressor must leave steps to fit on. Got {self.spin_up} for "
                    f"sequences of {X.shape[1]} steps."
                )
            rows, targets = states[there], y[there]
            weight = None if weight is None else np.repeat(weight, there.sum(1))
        else:
            rows, targets = self._last(states, there), y
        features = net.features(torch.from_numpy(rows)).numpy()
        ridge = Ridge(self.alpha).fit(features, targets, sample_weight=weight)
        with torch.no_grad():
            net.readout.weight.copy_(torch.from_numpy(np.atleast_2d(ridge.coef_)))
            net.readout.bias.copy_(torch.from_numpy(np.broadcast_to(ridge.intercept_, (self.n_outputs_,)).copy()))
        self.net_ = net.eval()
        return self

    def _check_parameters(self) -> None:
        who = "ESNRegressor"
        check_int(self.n_units, "n_units", low=1, caller=who)
        check_int(self.spin_up, "spin_up", low=0, caller=who)
        check_real(self.leak, "leak", low=np.finfo(float).tiny, high=1.0, caller=who)
        check_real(self.density, "density", low=0.0, high=1.0, caller=who)
        for name in ("spectral_radius", "input_scale", "bias_scale", "alpha"):
            check_real(getattr(self, name), name, low=0.0, caller=who)
        check_bool(self.quadratic, "quadratic")
        check_choice(self.readout, "readout", ["last", "all"], caller=who)

    def _reservoir(self, n_inputs: int) -> LeakyCell:
        draw, n = check_random_state(check_seed(self.random_state, caller=type(self).__name__)), self.n_units
        W = draw.normal(size=(n, n)) * (draw.uniform(size=(n, n)) < max(self.density, min(1.0, 5 / n)))
        radius = np.abs(np.linalg.eigvals(W)).max()
        W_in = self.input_scale * draw.uniform(-1, 1, size=(n, n_inputs))
        bias = self.bias_scale * draw.uniform(-1, 1, size=n)
        return LeakyCell.from_weights(
            W * (self.spectral_radius / radius if radius else 0.0), W_in, leak=self.leak, bias=bias
        )

    @staticmethod
    def _states(net: EchoStateNetwork, X: NDArray) -> NDArray[np.float64]:
        """Return the states (n_sequences, n_steps, n_units) along padded sequences."""
        with torch.no_grad():
            return net.cell(torch.from_numpy(np.nan_to_num(X)).double())[0].numpy()

    @staticmethod
    def _last(states: NDArray, there: NDArray[np.bool_]) -> NDArray:
        return states[np.arange(len(states)), there.sum(1) - 1]

    def _predicted(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = self._check_X(X, fresh=False)
        states = self._states(self.net_, X)
        if self.readout != "all":
            states = self._last(states, ~np.isnan(X[..., 0]))
        with torch.no_grad():
            outputs = self.net_.readout(self.net_.features(torch.from_numpy(states))).numpy()
        return outputs if self._has_output_axis else outputs[..., 0]
