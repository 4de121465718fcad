"""Lyapunov exponents in the history of a training run."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from skorch import NeuralNet
from skorch.callbacks import Callback

from sklyap.cells import as_recurrent_cell
from sklyap.exceptions import DivergedError
from sklyap.lyapunov import LyapunovResult, lyapunov_spectrum
from sklyap.runtime import one_thread, unwarned
from sklyap.statistics.transformer import evaluate, resolve
from sklyap.training.setup import check_read, check_rhythm, check_size, leading_steps, probe_of, some, warn_of
from sklyap.validation import check_instance, check_int, check_probe, check_seed

__all__ = ["LyapunovMonitor", "MonitoredSpectrum"]

_NAME = "LyapunovMonitor"

_BETWEEN_LOOKS = 200
"""Milliseconds of training of which a look, 10 ms, is 5 %."""
_STEPS_PER_MILLISECOND = 28
"""Steps of a batch that a small Elman network is trained on in a millisecond, beside one for the batch itself."""


@dataclass(frozen=True)
class MonitoredSpectrum:
    """The exponents at one moment of training.

    Attributes
    ----------
    epoch : float
        After how many epochs; 0 is the untrained network, 1.5 the middle of the second epoch.
    exponents, standard_error : ndarray of shape (k,)
        In nats per step.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.training import LyapunovMonitor
    >>> monitor = LyapunovMonitor(n_exponents=2)
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, callbacks=[monitor], random_state=0).fit(X, y)
    >>> monitor.spectra_[1].epoch, monitor.spectra_[1].exponents.shape
    (1.0, (2,))
    """

    epoch: float
    exponents: NDArray[np.float64]
    standard_error: NDArray[np.float64]


class LyapunovMonitor(Callback):
    """Compute Lyapunov exponents while a network is trained, and put them into the history.

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list of arrays, or int, optional
        What drives the network, see :func:`~sklyap.lyapunov_spectrum`; by default the first training batch, the same
        at every look.
    every : int or "auto", default=1
        A look every so many epochs (or batches, with `unit`), and one before training. "auto" estimates from the number
        of batches and their steps how many keep the looks below 5 % of the training time; it depends on nothing else,
        so that two runs look at the same epochs.
    unit : {"epoch", "batch"}, default="epoch"
        Whether `every` counts epochs or batches.
    n_exponents : int or None, default=4
        How many leading exponents; None for the whole spectrum.
    statistics : sequence of str and callables, default=()
        What :class:`~sklyap.SpectrumStatistics` knows; most need the whole spectrum (``n_exponents=None``).
    n_sequences, n_steps : int or None, default=2, 50
        How many of the sequences, and of their first steps, are used; None for all.
    warmup : int or "auto", default="auto"
        See :func:`~sklyap.lyapunov_spectrum`.
    layer : str, optional
        Which recurrent layer, where the net has several, see :func:`~sklyap.as_recurrent_cell`.
    random_state : int or None, default=None
        Seeds the tangent basis, which is the same at every look.

    Attributes
    ----------
    spectra_ : list of MonitoredSpectrum
        What was seen at each look.
    every_ : int
        `every`, or what "auto" has come to.
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
        If exponents cannot be computed, for weights or states that are not finite; training goes on.

    Notes
    -----
    A look costs about 10 ms at the defaults (``python -m benchmarks.monitor_overhead``), below 5 % of epochs that take
    more than 0.3 s; use ``every="auto"`` for shorter ones.

    Each row of the history that is looked at has `lyapunov_exponents` and `lyapunov_standard_error` (lists of k
    numbers, not printed), `largest_exponent`, and the statistics by their names; a row without a look has NaN. With
    ``unit="batch"`` they are in the rows of batches, and in that of the epoch as they were last.

    See Also
    --------
    sklyap.displays.TrainingDisplay : Draws `spectra_`.

    Examples
    --------
    >>> from sklyap import RNNClassifier
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.training import LyapunovMonitor
    >>> X, y = make_recall(128, n_steps=20, random_state=0)
    >>> monitor = LyapunovMonitor(statistics=["n_positive"])
    >>> network = RNNClassifier("gru", 8, max_epochs=3, callbacks=[monitor], random_state=0).fit(X, y)
    >>> len(network.history_[:, "largest_exponent"]), len(network.history_[-1, "lyapunov_exponents"])
    (3, 4)
    >>> [spectrum.epoch for spectrum in monitor.spectra_]
    [0.0, 1.0, 2.0, 3.0]
    """

    spectra_: list[MonitoredSpectrum]

    def __init__(
        self,
        sequences: Any = None,
        *,
        every: int | str = 1,
        unit: str = "epoch",
        n_exponents: int | None = 4,
        statistics: Sequence[Any] = (),
        n_sequences: int | None = 2,
        n_steps: int | None = 50,
        warmup: int | str = "auto",
        layer: str | None = None,
        random_state: Any = None,
    ) -> None:
        self.sequences = sequences
        self.every = every
        self.unit = unit
        self.n_exponents = n_exponents
        self.statistics = statistics
        self.n_sequences = n_sequences
        self.n_steps = n_steps
        self.warmup = warmup
        self.layer = layer
        self.random_state = random_state

    def initialize(self) -> Self:
        """Forget earlier spectra."""
        self.spectra_ = []
        self.seconds_ = 0.0
        return self

    # Hooks of skorch

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Check everything, by a look at the network as it is."""
        self._check(net)
        probe = probe_of(self.sequences, net, X, y, _NAME)
        probe = probe if self.n_sequences is None else some(probe, self.n_sequences)
        self._probe = probe if self.n_steps is None else leading_steps(probe, self.n_steps)
        self._n_batches = 0
        self.every_ = self._how_often(net, X, y) if self.every == "auto" else int(self.every)
        self._keep_off_the_print_log(net)
        start = time.perf_counter()
        result = self._spectrum(net)
        check_read(len(result.per_sequence), self._probe, _NAME)
        self.seconds_ += time.perf_counter() - start
        if not len(net.history):
            self._keep(result, 0.0)

    def on_epoch_begin(self, net: NeuralNet, dataset_train: Any = None, **kwargs: Any) -> None:
        self._row = self._empty(net)
        self._in_epoch = 0
        if self.unit == "batch":
            self._batches_per_epoch = max(1, len(net.get_iterator(dataset_train, training=True)))

    def on_batch_end(self, net: NeuralNet, training: bool = False, **kwargs: Any) -> None:
        """Look after the batch, where it is time."""
        if self.unit != "batch" or not training:
            return
        self._n_batches += 1
        self._in_epoch += 1
        if self._n_batches % self.every_ == 0:
            self._row = self._look(net, len(net.history) - 1 + self._in_epoch / self._batches_per_epoch)
            for name, value in self._row.items():
                net.history.record_batch(name, value)

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Look after the epoch, where it is time, and fill its row."""
        epoch = len(net.history)
        if self.unit == "epoch" and epoch % self.every_ == 0:
            self._row = self._look(net, float(epoch))
        for name, value in self._row.items():
            net.history.record(name, value)

    def _how_often(self, net: NeuralNet, X: Any, y: Any) -> int:
        """Return how many epochs or batches take about `_BETWEEN_LOOKS` milliseconds at the least."""
        steps = max(len(sequence) for sequence in probe_of(None, net, X, y, _NAME))
        batch = 1 + steps / _STEPS_PER_MILLISECOND
        n_batches = 1 if self.unit == "batch" else len(net.get_iterator(net.get_dataset(X, y), training=True))
        return max(1, math.ceil(_BETWEEN_LOOKS / (batch * n_batches)))

    # One look

    def _spectrum(self, net: NeuralNet) -> LyapunovResult:
        with unwarned(), one_thread():  # a short run leaves signs open; its standard error says so
            return lyapunov_spectrum(
                net if self.layer is None else as_recurrent_cell(net, layer=self.layer), self._probe,
                n_exponents=self.n_exponents, warmup=self.warmup, device=net.device, random_state=self.random_state,
            )  # fmt: skip

    def _look(self, net: NeuralNet, epoch: float) -> dict[str, Any]:
        start = time.perf_counter()
        try:
            result = self._spectrum(net)
        except (DivergedError, ValueError) as error:
            warn_of(f"{_NAME} could not look at the network after {epoch:g} epochs", error)
            return self._empty(net)
        finally:
            self.seconds_ += time.perf_counter() - start
        return self._keep(result, epoch)

    def _keep(self, result: LyapunovResult, epoch: float) -> dict[str, Any]:
        self.spectra_.append(MonitoredSpectrum(epoch, result.exponents, result.standard_error))
        values = evaluate(self._chosen, result.exponents[None])[0] if self._chosen else []
        return {
            "lyapunov_exponents": result.exponents.tolist(),
            "lyapunov_standard_error": result.standard_error.tolist(),
            "largest_exponent": float(result.exponents[0]),
            **{name: float(value) for name, value in zip(self._chosen, values, strict=True)},
        }

    def _empty(self, net: NeuralNet) -> dict[str, Any]:
        """Return a row without a look; all rows of a history need the same names."""
        none = [math.nan] * self._k
        scalars = ("largest_exponent", *self._chosen)
        return {"lyapunov_exponents": none, "lyapunov_standard_error": none, **dict.fromkeys(scalars, math.nan)}

    # Checks

    def _check(self, net: NeuralNet) -> None:
        if isinstance(self.every, str) and self.every != "auto":
            raise ValueError(f"The 'every' parameter of {_NAME} must be an int or 'auto'. Got {self.every!r} instead.")
        check_rhythm(1 if self.every == "auto" else self.every, self.unit, _NAME)
        for name in ("n_sequences", "n_steps"):
            if getattr(self, name) is not None:
                check_int(getattr(self, name), name, low=1, caller=_NAME)
        if self.warmup != "auto":
            check_int(self.warmup, "warmup", low=0, caller=_NAME)
        check_probe(self.sequences, caller=_NAME)
        check_seed(self.random_state, caller=_NAME)
        statistics = self.statistics
        if not callable(statistics):
            check_instance(statistics, "statistics", (str, Collection), caller=_NAME)
        empty = not isinstance(statistics, str) and not callable(statistics) and len(statistics) == 0
        self._chosen = {} if empty else resolve(statistics, 0.01, _NAME)
        self._k = check_size(net, self.layer, self.n_exponents, _NAME)

    @staticmethod
    def _keep_off_the_print_log(net: NeuralNet) -> None:
        for _, callback in net.callbacks_:
            ignored = getattr(callback, "keys_ignored_", None)
            if isinstance(ignored, set):
                ignored.update(("lyapunov_exponents", "lyapunov_standard_error"))
