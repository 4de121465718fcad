"""LyapunovSpectrumTransformer: trained networks in, one spectrum per row out."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from sklyap.cells import RecurrentCell
from sklyap.cells.conversion import opened
from sklyap.cells.drive import Drive
from sklyap.exceptions import DegenerateSpectrumWarning, PaddedSpectrumWarning, PrecisionWarning, SklyapWarning
from sklyap.lyapunov import LyapunovResult, lyapunov_spectrum
from sklyap.networks.keywords import suggests_keywords
from sklyap.networks.transformer import Failure, NetworkTransformer, attempt
from sklyap.runtime import is_unwarned, outside_inference_mode
from sklyap.spectrum.cache import SpectrumCache
from sklyap.spectrum.fingerprint import structure
from sklyap.spectrum.worker import Spectrum, SpectrumTask, spectra_of
from sklyap.tangent import check_settings, spread_budget, tangent_size
from sklyap.validation import check_choice, check_dtype, check_int, resolve_device, seed_from

__all__ = ["LyapunovSpectrumTransformer"]

_ENSEMBLE_BYTES = 2**28
"""Of the tangent bases of networks in one batch on a GPU, which needs about ten times as much in all."""


class LyapunovSpectrumTransformer(NetworkTransformer):
    """Turn trained recurrent networks into their Lyapunov spectra.

    One sample is one network; every network is driven by the same sequences. What comes out is an
    ordinary array for any scikit-learn estimator.

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list of arrays, or int
        What drives every network; a number of steps for autonomous systems. Clones share it.
    n_exponents : int, optional
        Number of columns. By default, with ``align="truncate"`` the size of the smallest spectrum seen in
        `fit`, with ``align="interpolate"`` that of the largest. A number that is given is refused for networks that
        have fewer exponents, with ``align="truncate"``.
    align : {"truncate", "interpolate"}, default="truncate"
        How spectra of different sizes N share columns. "truncate" keeps the leading exponents. Where the number of
        columns was learned, a network of `transform` may have fewer exponents: cross-validation may put the smallest
        network into a test fold. Its smallest exponent is then repeated in the columns beyond, with a
        :class:`~sklyap.exceptions.PaddedSpectrumWarning`. "interpolate" computes the whole spectrum and interpolates
        it linearly at `n_exponents` equally spaced points of the relative index i/(N - 1); both ends are kept exactly,
        and a spectrum of one exponent is constant.
    warmup, qr_interval, orthonormalizer, state, dtype, device, random_state
        See :func:`~sklyap.lyapunov_spectrum`.
    base : "e" or float > 1, default="e"
        Base of the logarithm: "e" for nats, 2 for bits per step.
    batch_size : int, optional
        How many sequences to carry at once, a bound on memory.
    memory : str, path-like or joblib.Memory, optional
        Cache of spectra. An entry depends on the network's weights, the sequences and the settings, not
        on the object, process or device, so no spectrum is computed twice across folds, grids and runs.
        Classes and step functions of your own count with their code and what it refers to; what has no hash is not
        cached.
        Spectra are npz files with a checksum; one that was damaged or swapped is computed again, with a warning.
    n_jobs : int, optional
        How many networks to analyse at once, each on one thread; through joblib, so that
        ``joblib.parallel_config`` moves the work elsewhere. On a GPU, networks of one shape go in batches.
    verbose : int, default=0
        Whether to show a progress bar: over networks, or over the steps of a single one.
    on_error : {"raise", "warn"}, default="raise"
        What to do with a network that cannot be analysed: raise, or warn and give a row of NaN.
    layer : str, optional
        Which recurrent layer, where networks hold several; see :func:`~sklyap.as_recurrent_cell`.

    Attributes
    ----------
    n_exponents_ : int
        Number of columns.
    results_ : list of LyapunovResult
        Of the last `transform`, in nats per step, with standard errors; None for a network that failed.
    failures_ : dict of int to str
        Index and reason of each network of the last `transform` that failed.

    Notes
    -----
    Exponents below ``ln ε`` per step (-36.04 in float64), -inf of annihilated directions included, are
    reported as ``ln ε``: contraction by more than rounding in every step. `results_` has the raw values.

    Lists of networks are sliced by scikit-learn's cross-validation, searches and unions. What converts
    its input to a numeric array first (bagging, permutation importance) belongs behind this transformer.

    References
    ----------
    Vogt, R., Zheng, Y. and Shlizerman, E. (2024). Lyapunov-guided representation of recurrent neural
    network performance. Neural Computing and Applications 36.

    Examples
    --------
    >>> import torch
    >>> from sklyap import LyapunovSpectrumTransformer
    >>> _ = torch.manual_seed(0)
    >>> networks = [torch.nn.GRU(3, size) for size in (8, 12, 16)]
    >>> transformer = LyapunovSpectrumTransformer(torch.randn(4, 30, 3), n_exponents=10, align="interpolate")
    >>> transformer.fit_transform(networks).shape
    (3, 10)
    """

    def __init__(
        self,
        sequences=None,
        *,
        n_exponents=None,
        align="truncate",
        warmup="auto",
        qr_interval="auto",
        orthonormalizer="auto",
        state="full",
        base="e",
        dtype="float64",
        device="auto",
        batch_size=None,
        memory=None,
        n_jobs=None,
        verbose=0,
        on_error="raise",
        layer=None,
        random_state=None,
    ):
        self.sequences = sequences
        self.n_exponents = n_exponents
        self.align = align
        self.warmup = warmup
        self.qr_interval = qr_interval
        self.orthonormalizer = orthonormalizer
        self.state = state
        self.base = base
        self.dtype = dtype
        self.device = device
        self.batch_size = batch_size
        self.memory = memory
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.on_error = on_error
        self.layer = layer
        self.random_state = random_state

    def check_parameters(self) -> None:
        """Raise TypeError or ValueError for parameters that are wrong."""
        who = type(self).__name__
        check_choice(self.align, "align", ["truncate", "interpolate"], caller=who)
        if self.n_exponents is not None:
            check_int(self.n_exponents, "n_exponents", low=1, caller=who)
        if self.sequences is None:
            raise ValueError(
                f"The 'sequences' parameter of {who} must be given: what drives the networks, or a number of steps for "
                "autonomous systems. Got None."
            )
        self._log_base()

    @suggests_keywords
    @outside_inference_mode
    def fit(self, networks: Sequence[Any], y: Any = None) -> LyapunovSpectrumTransformer:
        """Learn the number of columns.

        Parameters
        ----------
        networks : sequence of networks
            A list, an object array, a pandas Series, or a table with one column of what
            :func:`~sklyap.as_recurrent_cell` takes.
        y : ignored
            Not used.

        Returns
        -------
        self
        """
        networks = self._checked(networks)
        sizes = [] if self.n_exponents is not None else self._attempts(self._size, networks)
        return self._learn(sizes)

    @outside_inference_mode
    def transform(self, networks: Sequence[Any]) -> np.ndarray:
        """Compute the spectra.

        Parameters
        ----------
        networks : sequence of networks
            Trained networks.

        Returns
        -------
        spectra : ndarray of shape (n_networks, n_exponents_)
            Per step, descending, in the logarithm's `base`.
        """
        check_is_fitted(self)
        return self._spectra(self._attempts(self._prepare, self._checked(networks)))

    @outside_inference_mode
    def fit_transform(self, networks: Sequence[Any], y: Any = None) -> np.ndarray:
        """Learn the number of columns and compute the spectra; each network is copied once for both.

        Parameters
        ----------
        networks : sequence of networks
            Trained networks.
        y : ignored
            Not used.

        Returns
        -------
        spectra : ndarray of shape (n_networks, n_exponents_)
            Per step, descending, in the logarithm's `base`.
        """
        prepared = self._attempts(self._prepare, self._checked(networks))
        sizes = [task if isinstance(task, Failure) else tangent_size(task[0], self.state) for task in prepared]
        return self._learn(sizes)._spectra(prepared)

    def feature_names(self) -> list[str]:
        """Return ``lyapunov_0``, ``lyapunov_1``, …."""
        return [f"lyapunov_{i}" for i in range(self.n_exponents_)]

    def features_of(self, network: Any) -> np.ndarray:
        """Return one network's row."""
        check_is_fitted(self)
        cell, drive = self._prepare(network)
        settings = self._settings(self.n_exponents_)
        if self._is_bound:
            settings["n_exponents"] = min(self.n_exponents_, tangent_size(cell, self.state))
        result = lyapunov_spectrum(cell, drive, **settings)
        self._warn_of_padding([len(result.exponents)], stacklevel=4)
        return self._row(result)

    @outside_inference_mode
    def analyze(self, network: Any, *, return_local: bool = False) -> LyapunovResult:
        """Compute one network's spectrum, with the sequences and settings of this transformer.

        Parameters
        ----------
        network : torch module, fitted skorch net or fitted sklyap estimator
            What is analysed. It is not changed.
        return_local : bool, default=False
            Whether the result holds growth at every step.

        Returns
        -------
        LyapunovResult
            In nats per step, and never from the cache; all exponents of a network that has fewer than `n_exponents`,
            and with ``align="interpolate"``.

        Examples
        --------
        >>> import torch
        >>> from sklyap import LyapunovSpectrumTransformer
        >>> transformer = LyapunovSpectrumTransformer(torch.zeros(2, 30, 3), n_exponents=4, warmup=10)
        >>> transformer.analyze(torch.nn.GRU(3, 8), return_local=True).local.shape
        (2, 20, 4)
        """
        self.check_parameters()
        cell, drive = self._prepare(network)
        k = None if self.n_exponents is None else min(self.n_exponents, tangent_size(cell, self.state))
        return lyapunov_spectrum(cell, drive, **self._settings(k), return_local=return_local)

    def _attempts(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Return ``function(item)``, or a Failure, for each item, in this process."""
        return [
            item if isinstance(item, Failure) else attempt(function, item, index=i, on_error=self._on_error)
            for i, item in enumerate(items)
        ]

    def _cell(self, network: Any) -> RecurrentCell:
        if isinstance(network, BaseEstimator) and not hasattr(network, "module_"):
            check_is_fitted(network)
        return opened(network, layer=self.layer)

    def _size(self, network: Any) -> int:
        return tangent_size(self._cell(network), self.state)

    def _prepare(self, network: Any) -> SpectrumTask:
        """Return a cell, the only copy that is made of a network, with its drive: small enough to send to a worker."""
        cell = self._cell(network)
        drive = Drive.of(cell, self.sequences)
        cell.encoder = None
        return cell, drive

    def _learn(self, sizes: list[int | Failure]) -> LyapunovSpectrumTransformer:
        """Set the number of columns, from the lengths of spectra where it is not given."""
        if self.n_exponents is not None:
            self.n_exponents_ = int(self.n_exponents)
        else:
            known = [size for size in sizes if not isinstance(size, Failure)]
            if not known:
                raise ValueError(
                    "The 'networks' parameter must hold at least one network that can be analysed. Got none."
                )
            self.n_exponents_ = min(known) if self.align == "truncate" else max(known)
        self.n_features_out_ = self.n_exponents_
        return self

    def _spectra(self, prepared: list[SpectrumTask | Failure]) -> np.ndarray:
        """Compute the spectra of cells with their drives; set `results_`."""
        settings = self._settings(self.n_exponents_)
        prepared = self._attempts(partial(_checked_settings, settings, self._is_bound), prepared)
        done = self._run(prepared, settings)
        results = [task if isinstance(task, Failure) else done[i] for i, task in enumerate(prepared)]
        self.results_ = [None if isinstance(result, Failure) else result for result in results]
        rows = self._stacked([result if isinstance(result, Failure) else self._row(result) for result in results])
        self._warn()
        return rows

    def _run(
        self, prepared: list[SpectrumTask | Failure], settings: dict[str, Any]
    ) -> dict[int, LyapunovResult | Failure]:
        """Compute all spectra, with a bar where one is wanted: over the steps, if there is one network only."""
        todo = {i: task for i, task in enumerate(prepared) if not isinstance(task, Failure)}
        cache = SpectrumCache(self.memory, type(self).__name__)
        compute = partial(spectra_of, cache=cache, on_error=self._on_error, at_most=self._is_bound)
        if self.verbose and len(todo) == len(prepared) == 1:
            with tqdm(total=sum(todo[0][1].lengths), desc="spectrum", unit="step") as bar:
                return _results(compute(todo, settings=settings | {"progress": bar.update}))
        groups = [{i: todo[i] for i in group} for group in self._groups(todo)]
        return _results(self._map_groups(partial(compute, settings=settings), groups, len(todo)))

    def _groups(self, todo: dict[int, SpectrumTask]) -> list[list[int]]:
        """Return the indices of networks to analyse together: one by one, but on a GPU by structure."""
        if resolve_device(self.device).type == "cpu":
            return [[i] for i in todo]
        alike: dict[Any, list[int]] = defaultdict(list)
        for i, (cell, drive) in todo.items():
            kind = None if len(set(drive.lengths)) > 1 else structure(cell)
            alike[(i,) if kind is None else (kind, *drive.lengths)].append(i)
        groups = []
        for members in alike.values():
            size = self._group_size(todo[members[0]])
            groups += [members[i : i + size] for i in range(0, len(members), size)]
        return groups

    def _group_size(self, task: SpectrumTask) -> int:
        """Return how many networks like this one fit into a batch."""
        cell, drive = task
        N = tangent_size(cell, self.state)
        basis = N * min(self.n_exponents_, N) * check_dtype(self.dtype).itemsize
        most = _ENSEMBLE_BYTES // basis if self.batch_size is None else self.batch_size
        return max(1, most // drive.n_sequences)

    def _log_base(self) -> float:
        if isinstance(self.base, str) and self.base == "e":
            return 1.0
        if isinstance(self.base, bool | str) or not isinstance(self.base, int | float) or not 1 < self.base < math.inf:
            raise ValueError(
                f"The 'base' parameter of {type(self).__name__} must be 'e' or a number > 1. Got {self.base!r} instead."
            )
        return math.log(self.base)

    @property
    def _is_bound(self) -> bool:
        """Whether the number of columns is one that was learned, which smaller networks need not reach."""
        return self.align == "truncate" and self.n_exponents is None

    def _settings(self, n_exponents: int | None) -> dict[str, Any]:
        """Return what lyapunov_spectrum is called with, beside network and sequences; interpolation needs them all."""
        return {
            "n_exponents": n_exponents if self.align == "truncate" else None,
            "warmup": self.warmup,
            "qr_interval": self.qr_interval,
            "orthonormalizer": self.orthonormalizer,
            "state": self.state,
            "dtype": self.dtype,
            "device": self.device,
            "batch_size": self.batch_size,
            "random_state": seed_from(self.random_state),
        }

    def _row(self, result: LyapunovResult) -> np.ndarray:
        """Return the exponents of one network, floored, aligned and in the base asked for."""
        exponents = np.maximum(result.exponents, math.log(torch.finfo(check_dtype(self.dtype)).eps))
        if self.align == "interpolate":
            grid = np.linspace(0, 1, self.n_exponents_)
            exponents = np.interp(grid, np.linspace(0, 1, len(exponents)), exponents)
        elif len(exponents) < self.n_exponents_:
            exponents = np.pad(exponents, (0, self.n_exponents_ - len(exponents)), mode="edge")
        return exponents / self._log_base()

    def _warn(self) -> None:
        """Sum the warnings of all networks up in one each; `results_` tells which."""
        if is_unwarned():
            return
        n = len(self.results_)
        results = [result for result in self.results_ if result is not None]
        degenerate = sum(result.n_degenerate > 0 for result in results)
        if degenerate:
            warnings.warn(
                f"{degenerate} of {n} networks have directions that are annihilated to rounding; their exponents are "
                "reported as ln ε per step.",
                DegenerateSpectrumWarning,
                stacklevel=5,
            )
        self._warn_of_padding([len(result.exponents) for result in results], stacklevel=6)
        budget = math.exp(spread_budget(check_dtype(self.dtype)))
        imprecise = sum(result.condition > budget for result in results)
        if self.qr_interval != "auto" and imprecise:
            warnings.warn(
                f"qr_interval={self.qr_interval} loses digits in {imprecise} of {n} networks; lower it or leave it "
                "at 'auto'.",
                PrecisionWarning,
                stacklevel=5,
            )

    def _warn_of_padding(self, sizes: list[int], stacklevel: int) -> None:
        short = sum(size < self.n_exponents_ for size in sizes)
        if short and self.align == "truncate":
            warnings.warn(
                f"{short} of {len(sizes)} networks have fewer exponents than the {self.n_exponents_} columns that fit "
                f"learned, and their smallest exponent is repeated. Use n_exponents={min(sizes)} or "
                "align='interpolate' for columns that all networks have.",
                PaddedSpectrumWarning,
                stacklevel=stacklevel,
            )


def _checked_settings(settings: dict[str, Any], is_bound: bool, task: SpectrumTask) -> SpectrumTask:
    """Return a task after checking the settings against its cell, the number of exponents if it was asked for."""
    names = ("qr_interval", "orthonormalizer", "state")
    check_settings(task[0], None if is_bound else settings["n_exponents"], *(settings[name] for name in names))
    return task


def _results(done: dict[int, Spectrum]) -> dict[int, LyapunovResult | Failure]:
    """Return what was computed, and warn of files of the cache."""
    for complaint in dict.fromkeys(text for spectrum in done.values() for text in spectrum.complaints):
        warnings.warn(complaint, SklyapWarning, stacklevel=5)
    return {i: spectrum.result for i, spectrum in done.items()}
