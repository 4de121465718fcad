"""SpectrumAutoencoder: a latent code of Lyapunov spectra, and the loss it predicts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler, PrintLog

from sklyap.autoencoder.module import AutoencoderLoss, Autoencoders, BestWeights, SpectrumDataset, Stages
from sklyap.autoencoder.scaling import LossScaler, SpectrumScaler
from sklyap.autoencoder.settings import as_tuple, check_parameters
from sklyap.networks.keywords import suggests_keywords
from sklyap.networks.training import batch_loader
from sklyap.runtime import isolated_rng, one_thread, trainable
from sklyap.validation import check_exponents, resolve_device, seed_from

__all__ = ["SpectrumAutoencoder"]

Array = NDArray[np.float64]


class SpectrumAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RegressorMixin, BaseEstimator):
    """Lyapunov autoencoder: spectra to a latent code, back to spectra, and on to the loss.

    An encoder turns each spectrum into a code, a decoder turns codes back into spectra, and a linear head
    reads the loss off the code [1]_. All three are trained together by a skorch net. :func:`~sklyap.loss_predictor`
    weighs its predictions against those of other models.

    Parameters
    ----------
    latent_dim : int, default=8
        Length of the code.
    hidden_layer_sizes : sequence of int, default=(64, 32)
        Sizes of the encoder's hidden layers; the decoder mirrors them.
    prediction_weight : float or sequence of float, default=(1.0, 2.0, 5.0, 10.0)
        Weight of the prediction error beside the reconstruction error, raised in stages that share the
        epochs equally.
    reconstruction_loss : {"l1", "l2"}, default="l1"
        Mean absolute or mean squared error of the standardised spectra.
    dropout : float in [0, 1), default=0.1
        Of the hidden layers.
    max_epochs : int, default=150
        Most epochs of training.
    lr : float, default=1e-3
        Step size of AdamW.
    batch_size : int, default=64
        Rows of a batch.
    early_stopping : bool, default=True
        Whether to train `n_folds` autoencoders side by side, each without one fold of the spectra, and to
        keep copies of their weights from the epoch at which the mean error on the folds left out is lowest.
        Their mean predicts. If False, one autoencoder learns from all spectra to the end.
    target_transform : {"rank", "log"} or None, default="rank"
        What the head predicts: normal scores of the losses' ranks, their logarithms, or the losses themselves.
        Predictions are always losses; with "rank" they stay within the range of those seen.
    n_members : int, default=1
        How often to do all this, with other folds and initial weights; the mean predicts.
    n_folds : int, default=5
        Number of folds for `early_stopping`.
    input_transform : {"growth"} or None, default="growth"
        With "growth" the encoder sees asinh λ and the growth factor per step exp λ, and asinh λ is
        reconstructed, so that strong contraction does not outweigh all else. With None exponents are taken
        as they are.
    n_components : int or None, default=16
        Feed the encoder with at most this many principal components of its inputs; None for the inputs
        themselves.
    linear_path : bool, default=True
        Whether a linear map lies beside the hidden layers of encoder and decoder.
    activation : {"gelu", "relu", "tanh"}, default="gelu"
        Of the hidden layers.
    weight_decay : float, default=0.01
        Of the optimizer.
    lr_schedule : {"cosine", "constant"}, default="cosine"
        Whether the step size rises for a tenth of the epochs, then falls to zero along a cosine.
    device : str, default="auto"
        A torch device; "auto" is CUDA where there is one.
    random_state : int, RandomState instance or None, default=None
        Seeds folds, initial weights, batches and dropout. None is 0. Global generators are left alone.
    verbose : int, default=0
        Whether to print each epoch.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained autoencoders, side by side; its history is in ``net_.history``.
    loss_curve_ : ndarray of shape (n_epochs,)
        Training objective after each epoch, per autoencoder.
    validation_curve_ : ndarray of shape (n_epochs,), with `early_stopping`
        Mean squared error of the scaled losses that were held out.
    best_epoch_ : int
        The epoch whose weights are kept, from 1; 0 for the initial weights.
    n_features_in_ : int
        Number of exponents per spectrum.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the exponents, where the input had any.

    Notes
    -----
    The code is that of all autoencoders together: `transform` gives the `latent_dim` leading principal
    components of their codes side by side, by decreasing variance. With a single autoencoder that is its code
    up to a rotation.

    Exponents of −∞ are read as ln ε = −36.04 per step. Split networks, not snapshots of them, between training
    and test: two snapshots of one network are nearly the same sample.

    References
    ----------
    .. [1] Vogt, R., Zheng, Y. and Shlizerman, E. (2024). *Lyapunov-guided representation of recurrent neural
       network performance.* Neural Computing and Applications 36.

    Examples
    --------
    >>> import numpy as np
    >>> from sklyap.autoencoder import SpectrumAutoencoder
    >>> rng = np.random.default_rng(0)
    >>> slope = rng.uniform(0.5, 3, size=60)
    >>> spectra = -slope[:, None] * np.linspace(0, 1, 16)
    >>> autoencoder = SpectrumAutoencoder(latent_dim=2).fit(spectra, np.exp(-slope))
    >>> autoencoder.transform(spectra).shape
    (60, 2)
    >>> autoencoder.score(spectra, np.exp(-slope)) > 0.9
    True
    """

    def __init__(
        self,
        latent_dim: int = 8,
        *,
        hidden_layer_sizes: Iterable[int] = (64, 32),
        prediction_weight: float | Iterable[float] = (1.0, 2.0, 5.0, 10.0),
        reconstruction_loss: str = "l1",
        dropout: float = 0.1,
        max_epochs: int = 150,
        lr: float = 1e-3,
        batch_size: int = 64,
        early_stopping: bool = True,
        target_transform: str | None = "rank",
        n_members: int = 1,
        n_folds: int = 5,
        input_transform: str | None = "growth",
        n_components: int | None = 16,
        linear_path: bool = True,
        activation: str = "gelu",
        weight_decay: float = 0.01,
        lr_schedule: str = "cosine",
        device: Any = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.latent_dim = latent_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.prediction_weight = prediction_weight
        self.reconstruction_loss = reconstruction_loss
        self.dropout = dropout
        self.max_epochs = max_epochs
        self.lr = lr
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.target_transform = target_transform
        self.n_members = n_members
        self.n_folds = n_folds
        self.input_transform = input_transform
        self.n_components = n_components
        self.linear_path = linear_path
        self.activation = activation
        self.weight_decay = weight_decay
        self.lr_schedule = lr_schedule
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @suggests_keywords
    @trainable()
    def fit(self, X: ArrayLike, y: ArrayLike) -> SpectrumAutoencoder:
        """Train on spectra and losses.

        Parameters
        ----------
        X : array-like of shape (n_spectra, n_exponents)
            Spectra, a row for each network.
        y : array-like of shape (n_spectra,)
            A loss for each spectrum.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If a parameter is out of range, or a spectrum or loss is not one.
        """
        check_parameters(self)
        checked, losses = validate_data(
            self, X, y, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=2, y_numeric=True
        )
        spectra = check_exponents(checked, caller=type(self).__name__)
        seed, device = seed_from(self.random_state), resolve_device(self.device)
        losses = losses.astype(np.float64)
        self._spectra = SpectrumScaler(self.input_transform, self.n_components).fit(spectra)
        self._losses = LossScaler(self.target_transform).fit(losses)
        inputs, curves, targets = (
            self._spectra.inputs(spectra),
            self._spectra.curves(spectra),
            self._losses.targets(losses),
        )
        learns = self._folds(len(spectra), np.random.default_rng(seed))
        dataset = SpectrumDataset(inputs, curves, targets, learns)
        # Layers of this size are not worth a second thread, and on a busy machine threads wait for one another.
        with one_thread(), isolated_rng(device, seed):
            self._train(dataset, device)
        self._set_axes(inputs)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Return the latent codes of spectra.

        Parameters
        ----------
        X : array-like of shape (n_spectra, n_exponents)
            Spectra.

        Returns
        -------
        ndarray of shape (n_spectra, latent_dim), float64
        """
        spectra = self._checked(X)
        return (self._codes(self._spectra.inputs(spectra)) - self._origin) @ self._axes

    def inverse_transform(self, X: ArrayLike) -> Array:
        """Return the spectra that codes stand for.

        Parameters
        ----------
        X : array-like of shape (n_spectra, latent_dim)
            Codes.

        Returns
        -------
        ndarray of shape (n_spectra, n_exponents), float64
        """
        check_is_fitted(self)
        principal = check_array(X, dtype=np.float64)
        latent_dim = self._n_features_out
        if principal.shape[1] != latent_dim:
            raise ValueError(
                f"The 'X' parameter of inverse_transform must be codes of length {latent_dim}. "
                f"Got shape {principal.shape} instead."
            )
        codes = (principal @ self._axes.T + self._origin).reshape(len(principal), -1, latent_dim).transpose(1, 0, 2)
        module = self._module()
        with torch.no_grad():
            curves = module.decoder(torch.as_tensor(codes, dtype=torch.float64)).mean(0)
        return self._spectra.spectra(curves.numpy())

    def predict(self, X: ArrayLike) -> Array:
        """Return the losses that spectra predict.

        Parameters
        ----------
        X : array-like of shape (n_spectra, n_exponents)
            Spectra.

        Returns
        -------
        ndarray of shape (n_spectra,), float64
        """
        spectra = self._checked(X)
        module = self._module()
        with torch.no_grad():
            targets = module.head(module.encode(torch.as_tensor(self._spectra.inputs(spectra))))[..., 0].mean(0).numpy()
        return self._losses.losses(targets)

    @property
    def _n_features_out(self) -> int:
        return int(self._axes.shape[1])

    def _checked(self, X: ArrayLike) -> Array:
        check_is_fitted(self)
        checked = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite=False)
        return check_exponents(checked, caller=type(self).__name__)

    def _folds(self, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return which autoencoder learns from which row, (n, n_autoencoders)."""
        if not self.early_stopping:
            return np.ones((n, self.n_members), dtype=bool)
        n_folds = min(self.n_folds, n)
        return np.hstack([rng.permutation(n)[:, None] % n_folds != np.arange(n_folds) for _ in range(self.n_members)])

    def _train(self, dataset: SpectrumDataset, device: torch.device) -> None:
        n_batches = -(-len(dataset) // self.batch_size)
        callbacks: list[Callback] = [Stages(as_tuple(self.prediction_weight))]
        if self.lr_schedule == "cosine":
            schedule = partial(_warm_cosine, n_steps=n_batches * self.max_epochs)
            callbacks.append(LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=schedule, step_every="batch"))
        best = BestWeights(dataset, patience=max(20, self.max_epochs // 3)) if self.early_stopping else None
        if best is not None:
            callbacks.append(best)
        architecture = {
            "n": dataset.wanted["learns"].shape[1],
            "n_inputs": dataset.inputs.shape[1],
            "n_outputs": dataset.wanted["curves"].shape[1],
            "latent_dim": self.latent_dim,
            "hidden_layer_sizes": as_tuple(self.hidden_layer_sizes),
            "activation": self.activation,
            "dropout": self.dropout,
            "linear_path": self.linear_path,
        }
        net = self._new_net(architecture, device, callbacks)
        # skorch's own fit takes Ctrl-C for a callback's wish to stop; its loop, an epoch at a time, does not.
        net.notify("on_train_begin", X=dataset, y=None)
        for _ in range(self.max_epochs):
            net.fit_loop(dataset, epochs=1)
            if best is not None and best.finished:
                break
        net.notify("on_train_end", X=dataset, y=None)
        self.net_ = net
        self.loss_curve_ = np.array(net.history[:, "train_loss"]) / net.module_.n
        self.best_epoch_ = len(net.history) if best is None else best.best_epoch
        if best is not None:
            self.validation_curve_ = np.array(net.history[:, "valid_loss"])

    def _new_net(self, architecture: dict[str, Any], device: torch.device, callbacks: list[Callback]) -> NeuralNet:
        return NeuralNet(
            Autoencoders,
            criterion=AutoencoderLoss,
            criterion__reconstruction_loss=self.reconstruction_loss,
            criterion__prediction_weight=1.0,
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=self.weight_decay,
            optimizer__fused=True,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            iterator_train=batch_loader,
            iterator_train__shuffle=True,
            train_split=None,
            callbacks=callbacks,
            callbacks__print_log=PrintLog() if self.verbose else None,
            device=str(device),
            **{f"module__{name}": value for name, value in architecture.items()},
        ).initialize()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the net as numbers, so that files of it hold no code of torch or skorch."""
        state = dict(super().__getstate__())
        if "net_" in state:
            net = state["net_"]
            state["net_"] = {
                "architecture": dict(net.get_params_for("module")),
                "weights": {name: tensor.cpu().numpy() for name, tensor in net.module_.state_dict().items()},
                "history": [{k: v for k, v in row.items() if k != "batches"} for row in net.history],
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the net, without its optimizer's state."""
        saved = state.get("net_")
        super().__setstate__({name: value for name, value in state.items() if name != "net_"})
        if saved is not None:
            cpu = torch.device("cpu")
            with trainable(), isolated_rng(cpu, 0):
                net = self._new_net(saved["architecture"], cpu, callbacks=[])
            net.module_.load_state_dict({name: torch.as_tensor(array) for name, array in saved["weights"].items()})
            net.history.extend({**row, "batches": []} for row in saved["history"])
            self.net_ = net

    def _module(self) -> Autoencoders:
        """Return the autoencoders in float64, in which a row's result does not depend on the rows beside it."""
        return copy.deepcopy(self.net_.module_).cpu().double().eval()

    def _codes(self, inputs: Array) -> Array:
        """Return the codes of all autoencoders side by side, (n, n_autoencoders * latent_dim)."""
        with torch.no_grad():
            codes = self._module().encode(torch.as_tensor(inputs))
        return codes.permute(1, 0, 2).reshape(len(inputs), -1).numpy()

    def _set_axes(self, inputs: Array) -> None:
        """Find the principal axes of the codes, by decreasing variance, each with its largest entry positive."""
        codes = self._codes(inputs)
        self._origin = codes.mean(axis=0)
        # The Gram matrix has as many axes as the codes have entries, however few spectra there are.
        centred = codes - self._origin
        _, axes = np.linalg.eigh(centred.T @ centred)
        axes = axes[:, ::-1][:, : self.latent_dim]
        self._axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])


def _warm_cosine(step: int, n_steps: int) -> float:
    """Return the factor of the step size: up for a tenth of the steps, then down to zero along a cosine."""
    done = (step + 1) / n_steps
    return min(1.0, 10 * done) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
