"""Gradient flossing: pushing Lyapunov exponents towards zero, so that gradients neither vanish nor explode."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sklyap.exceptions import DivergedError
from sklyap.lyapunov import finite_time_exponents
from sklyap.training.setup import check_read, check_rhythm, check_size, inputs_of, probe_of, some, warn_of
from sklyap.validation import check_int, check_probe, check_real

__all__ = ["FlossingRound", "GradientFlossing"]

_NAME = "GradientFlossing"


@dataclass(frozen=True)
class FlossingRound:
    """One round of flossing.

    Attributes
    ----------
    epoch, batch : int
        When: before that batch; batch 1 of epoch 1 is the first. Epoch 0, batch 0 is a pass before training.
    loss : float
        Mean squared distance of the finite exponents to the target, before the round.
    before, after : ndarray of shape (k,)
        Exponents before and after the round, in nats per step, mean over its sequences.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.training import GradientFlossing
    >>> flossing = GradientFlossing(pretrain_epochs=1, every=None)
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, callbacks=[flossing], random_state=0).fit(X, y)
    >>> type(flossing.rounds_[0]).__name__
    'FlossingRound'
    """

    epoch: int
    batch: int
    loss: float
    before: NDArray[np.float64]
    after: NDArray[np.float64]


class GradientFlossing(Callback):
    """Push the largest Lyapunov exponents of a network towards a target, before and during its training [1]_.

    Gradients of a loss at step T with respect to a state at step t are products of T - t Jacobians: they shrink or
    grow with the exponents. A round of flossing takes gradient steps on the mean squared distance
    ``(λ_i - target)²`` of the k largest finite-time exponents, along the sequences that the network is trained on, with
    an Adam optimizer of its own; the net's optimizer, its schedule and the clipping of its gradients do not notice.

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), optional
        Where to compute exponents; by default the current batch.
    n_exponents : int, optional
        k; by default all. Half of the state or more costs least per exponent; [1]_ uses 75 of 80.
    target : float, default=0.0
        In nats per step.
    weight : float, default=1.0
        How strong flossing is beside the task: its learning rate is `weight` times the current one of the net.
    every : int or None, default=10
        A round before every so many training batches (or epochs, with `unit`); None for none during training.
    unit : {"batch", "epoch"}, default="batch"
        What `every` counts.
    pretrain_epochs : int, default=0
        Passes over the training data before training, each a round with a gradient step of flossing, and none on the
        task, for every batch.
    tolerance : float, default=0.0
        Root mean squared distance of the exponents to the target, in nats per step, that is close enough: passes before
        training end there, and rounds during training take no gradient step. One over the number of steps leaves
        gradients within a factor of about e over a sequence.
    until : int, optional
        The last epoch with rounds during training; no limit by default.
    n_updates : int, default=1
        Gradient steps per round during training.
    n_sequences : int, default=16
        How many sequences of the batch (or of `sequences`) a round uses.
    warmup : int, default=0
        First steps of each sequence that are not averaged.
    gradient_clip : float or None, default=1.0
        Largest norm of the gradient of the flossing loss. Along chaotic trajectories single gradients are huge.
    layer : str, optional
        Which recurrent layer, where the net has several, see :func:`~sklyap.as_recurrent_cell`.

    Attributes
    ----------
    rounds_ : list of FlossingRound
        What each round did.
    n_skipped_ : int
        Rounds that were left because something in them was not finite.
    seconds_ : float
        Time spent.

    Raises
    ------
    ValueError, TypeError
        At `fit`, before anything is trained, if a parameter is not as documented, the net holds no recurrent layer, or
        the sequences do not fit it.

    Warns
    -----
    SklyapWarning
        If a round is left because something in it is not finite, saying where; training goes on.

    Notes
    -----
    Annihilated directions (exponent -inf, as in ReLU networks) have no gradient and are left out.

    The history has, in the row of each batch with a round, `flossing_loss`, `flossing_before` and `flossing_after`
    (lists of k exponents), and in that of each epoch the mean `flossing_loss` of its rounds, NaN where there were none.

    References
    ----------
    .. [1] Engelken, R. (2023). Gradient flossing: improving gradient descent through dynamic control of Jacobians.
       NeurIPS.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.training import GradientFlossing
    >>> X, y = make_recall(128, n_steps=20, random_state=0)
    >>> flossing = GradientFlossing(pretrain_epochs=5, every=None)
    >>> _ = RNNClassifier("rnn", 16, max_epochs=1, callbacks=[flossing], random_state=0).fit(X, y)
    >>> first, last = flossing.rounds_[0], flossing.rounds_[-1]
    >>> bool(abs(last.after).mean() < abs(first.before).mean())
    True
    """

    rounds_: list[FlossingRound]

    def __init__(
        self,
        sequences: Any = None,
        *,
        n_exponents: int | None = None,
        target: float = 0.0,
        weight: float = 1.0,
        every: int | None = 10,
        unit: str = "batch",
        pretrain_epochs: int = 0,
        tolerance: float = 0.0,
        until: int | None = None,
        n_updates: int = 1,
        n_sequences: int = 16,
        warmup: int = 0,
        gradient_clip: float | None = 1.0,
        layer: str | None = None,
    ) -> None:
        self.sequences = sequences
        self.n_exponents = n_exponents
        self.target = target
        self.weight = weight
        self.every = every
        self.unit = unit
        self.pretrain_epochs = pretrain_epochs
        self.tolerance = tolerance
        self.until = until
        self.n_updates = n_updates
        self.n_sequences = n_sequences
        self.warmup = warmup
        self.gradient_clip = gradient_clip
        self.layer = layer

    def initialize(self) -> Self:
        """Forget earlier rounds."""
        self.rounds_ = []
        self.n_skipped_ = 0
        self.seconds_ = 0.0
        self._optimizer: torch.optim.Optimizer | None = None
        return self

    # Hooks of skorch

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check everything; floss before training, if this is its beginning."""
        self._check(net, X, y)
        self._optimizer = None
        self._n_batches = 0
        if len(net.history) or not self.pretrain_epochs:
            return
        dataset = net.get_dataset(X, y)
        for epoch in range(1, self.pretrain_epochs + 1):
            batches = (self._sequences(data) for data in net.get_iterator(dataset, training=True))
            done = self._round(net, batches, f"pass {epoch} before training", epoch=0, batch=0)
            if done is not None and self._close(done.after):
                break

    def on_epoch_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        self._losses: list[float] = []
        self._batch = 0

    def on_batch_begin(self, net: NeuralNet, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        """Floss before the batch, where it is time."""
        if not training:
            return
        epoch, self._batch = len(net.history), self._batch + 1
        due = self._due(epoch)
        self._n_batches += 1
        if not due:
            return
        sequences = itertools.repeat(self._sequences(batch), self.n_updates)
        where = f"batch {self._batch} of epoch {epoch}"
        done = self._round(net, sequences, where, epoch=epoch, batch=self._batch)
        if done is not None:
            self._losses.append(done.loss)
            net.history.record_batch("flossing_loss", done.loss)
            net.history.record_batch("flossing_before", done.before.tolist())
            net.history.record_batch("flossing_after", done.after.tolist())

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        net.history.record("flossing_loss", float(np.mean(self._losses)) if self._losses else math.nan)

    def _due(self, epoch: int) -> bool:
        if self.every is None or (self.until is not None and epoch > self.until):
            return False
        if self.unit == "epoch":
            return self._batch == 1 and (epoch - 1) % self.every == 0
        return self._n_batches % self.every == 0

    # One round

    def _sequences(self, batch: Any) -> Any:
        return some(inputs_of(batch, _NAME) if self.sequences is None else self.sequences, self.n_sequences)

    def _exponents(self, net: NeuralNet, sequences: Any) -> Tensor:
        return finite_time_exponents(net, sequences, n_exponents=self.n_exponents, warmup=self.warmup, layer=self.layer)

    def _round(
        self, net: NeuralNet, batches: Iterable[Any], where: str, *, epoch: int, batch: int
    ) -> FlossingRound | None:
        """Take a gradient step on each of `batches`."""
        start = time.perf_counter()
        first = None
        try:
            for sequences in batches:
                with torch.enable_grad():
                    loss, before = self._update(net, sequences)
                first = first or (loss, before)
                if self._close(before):
                    after = before
                    break
            else:
                with torch.no_grad():
                    after = _mean(self._exponents(net, sequences))
        except (DivergedError, ValueError, _NotFiniteError) as error:
            self.n_skipped_ += 1
            warn_of(f"A round of {_NAME} was left at {where}", error)
            return None
        finally:
            self.seconds_ += time.perf_counter() - start
        assert first is not None
        done = FlossingRound(epoch, batch, *first, after)
        self.rounds_.append(done)
        return done

    def _update(self, net: NeuralNet, sequences: Any) -> tuple[float, NDArray[np.float64]]:
        """Take one gradient step; return the loss and the exponents before it."""
        exponents = self._exponents(net, sequences)
        finite = torch.isfinite(exponents)
        if bool(exponents.isnan().any()) or not bool(finite.any()):
            kind = "NaN" if bool(exponents.isnan().any()) else "-inf, all directions are annihilated"
            raise _NotFiniteError(f"its exponents are {kind}.")
        loss, mean = (exponents[finite] - self.target).square().mean(), _mean(exponents)
        if self._close(mean):
            return loss.item(), mean
        parameters = [p for p in net.module_.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        moved = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
        if not all(bool(torch.isfinite(g).all()) for _, g in moved):
            raise _NotFiniteError("the gradient of its loss is NaN or infinite.")
        if moved:
            self._step(net, parameters, moved)
        return loss.item(), mean

    def _close(self, exponents: NDArray[np.float64]) -> bool:
        distance = exponents[np.isfinite(exponents)] - self.target
        return bool(np.square(distance).mean() < self.tolerance**2) if distance.size else False

    def _step(self, net: NeuralNet, parameters: list[nn.Parameter], moved: list[tuple[nn.Parameter, Tensor]]) -> None:
        if self._optimizer is None:
            self._optimizer = torch.optim.Adam(parameters)
        for group in self._optimizer.param_groups:
            group["lr"] = self.weight * net.optimizer_.param_groups[0]["lr"]
        # The net's own gradients, which it may accumulate, are lent for the step.
        kept = [p.grad for p in parameters]
        for parameter in parameters:
            parameter.grad = None
        for parameter, gradient in moved:
            parameter.grad = gradient
        if self.gradient_clip is not None:
            nn.utils.clip_grad_norm_([p for p, _ in moved], self.gradient_clip)
        self._optimizer.step()
        for parameter, own in zip(parameters, kept, strict=True):
            parameter.grad = own

    # Checks

    def _check(self, net: NeuralNet, X: Any, y: Any) -> None:
        check_real(self.target, "target", caller=_NAME)
        for name in ("weight", "tolerance"):
            check_real(getattr(self, name), name, low=0.0, caller=_NAME)
        check_rhythm(1 if self.every is None else self.every, self.unit, _NAME)
        check_int(self.pretrain_epochs, "pretrain_epochs", low=0, caller=_NAME)
        check_int(self.warmup, "warmup", low=0, caller=_NAME)
        for name in ("n_updates", "n_sequences"):
            check_int(getattr(self, name), name, low=1, caller=_NAME)
        if self.until is not None:
            check_int(self.until, "until", low=1, caller=_NAME)
        if self.gradient_clip is not None:
            check_real(self.gradient_clip, "gradient_clip", low=0.0, caller=_NAME)
        check_size(net, self.layer, self.n_exponents, _NAME)
        check_probe(self.sequences, caller=_NAME)
        sequences = some(probe_of(self.sequences, net, X, y, _NAME), 2)
        with torch.enable_grad():
            leading = finite_time_exponents(net, sequences, n_exponents=1, warmup=self.warmup, layer=self.layer)
        check_read(len(leading), sequences, _NAME)
        if not leading.requires_grad:
            raise ValueError(
                f"{_NAME} needs a net with weights that it can move. Those of its recurrent layer, and of what comes "
                "before it, do not require gradients."
            )


class _NotFiniteError(RuntimeError):
    """Something in a round is not finite."""


def _mean(exponents: Tensor) -> NDArray[np.float64]:
    return exponents.detach().double().mean(0).cpu().numpy()
