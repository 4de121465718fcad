"""LyapunovSpectrumTransformer: trained networks in, one spectrum per row out."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, check_memory
from tqdm.auto import tqdm

from sklyap.cells import RecurrentCell, as_recurrent_cell
from sklyap.cells.drive import Drive
from sklyap.exceptions import (
    DegenerateSpectrumWarning,
    FailedNetworkWarning,
    PrecisionWarning,
)
from sklyap.lyapunov import LyapunovResult
from sklyap.networks.transformer import SharedSequencesMixin
from sklyap.spectrum.fingerprint import structure
from sklyap.spectrum.worker import Task, reason_of, spectra_of
from sklyap.tangent import check_settings, strain_budget, tangent_size
from sklyap.validation import check_choice, check_dtype, check_int, check_networks, resolve_device, seed_from

__all__ = ["LyapunovSpectrumTransformer"]

_ENSEMBLE_BYTES = 2**28
"""Of the tangent bases of networks in one batch on a GPU, which needs about ten times as much in all."""


class LyapunovSpectrumTransformer(SharedSequencesMixin, TransformerMixin, BaseEstimator):
    """Turn trained recurrent networks into their Lyapunov spectra.

    One sample is one network; every network is driven by the same sequences. What comes out is an
    ordinary array for any scikit-learn estimator.

    Parameters
    ----------
    sequences : array-like of shape (n_sequences, n_steps, n_inputs), list of arrays, or int
        What drives every network; a number of steps for autonomous systems. Clones share it.
    n_exponents : int, optional
        Number of columns. By default, with ``align="truncate"`` the size of the smallest spectrum seen in
        `fit`, with ``align="interpolate"`` that of the largest.
    align : {"truncate", "interpolate"}, default="truncate"
        How spectra of different sizes N share columns. "truncate" keeps the leading exponents.
        "interpolate" computes the whole spectrum and interpolates it linearly at `n_exponents` equally
        spaced points of the relative index i/(N - 1); both ends are kept exactly, and a spectrum of
        one exponent is constant.
    warmup, qr_interval, orthonormalizer, state, dtype, device, random_state
        See :func:`~sklyap.lyapunov_spectrum`.
    base : "e" or float > 1, default="e"
        Base of the logarithm: "e" for nats, 2 for bits per step.
    batch_size : int, optional
        How many sequences to carry at once, a bound on memory.
    memory : joblib.Memory or str, optional
        Cache of spectra. An entry depends on the network's weights, the sequences and the settings, not
        on the object, process or device, so no spectrum is computed twice across folds, grids and runs.
        Classes and step functions of your own count with their code and what it refers to; what has no hash is not
        cached.
        joblib unpickles what it finds there: name a directory that only you write to.
    n_jobs : int, optional
        How many networks to analyse at once, each on one thread; through joblib, so that
        ``joblib.parallel_config`` moves the work elsewhere. On a GPU, networks of one shape go in batches.
    verbose : int, default=0
        Whether to show a progress bar: over networks, or over the steps of a single one.
    on_error : {"raise", "warn"}, default="raise"
        What to do with a network that cannot be analysed: raise, or warn and give a row of NaN.

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
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags

    def fit(self, networks: Sequence[Any], y: Any = None) -> LyapunovSpectrumTransformer:
        """Learn the number of columns.

        Parameters
        ----------
        networks : sequence of networks
            See :func:`~sklyap.as_recurrent_cell`.
        y : ignored

        Returns
        -------
        self
        """
        name = type(self).__name__
        networks = check_networks(networks, name="networks", caller=name)
        check_choice(self.align, "align", ["truncate", "interpolate"], caller=name)
        check_choice(self.on_error, "on_error", ["raise", "warn"], caller=name)
        self._check_sequences_given()
        self._log_base()
        if self.n_exponents is not None:
            self.n_exponents_ = check_int(self.n_exponents, "n_exponents", low=1, caller=name)
            return self
        sizes = [size for size in map(self._size, networks) if size is not None]
        if not sizes:
            raise ValueError("The 'networks' parameter must hold at least one network that can be analysed. Got none.")
        self.n_exponents_ = min(sizes) if self.align == "truncate" else max(sizes)
        return self

    def transform(self, networks: Sequence[Any]) -> np.ndarray:
        """Compute the spectra.

        Parameters
        ----------
        networks : sequence of networks

        Returns
        -------
        spectra : ndarray of shape (n_networks, n_exponents_)
            Per step, descending, in the logarithm's `base`.
        """
        check_is_fitted(self)
        networks = check_networks(networks, name="networks", caller=type(self).__name__)
        log_base = self._log_base()
        settings = self._settings()
        memory = check_memory(self.memory)
        prepared = [self._prepare(index, network, settings) for index, network in enumerate(networks)]
        run = self._run(prepared, settings, memory)
        self.results_ = [result if isinstance(result, LyapunovResult) else None for result in run]
        self.failures_ = {i: result for i, result in enumerate(run) if isinstance(result, str)}
        self._warn()
        floor = math.log(torch.finfo(check_dtype(self.dtype)).eps)
        rows = [
            np.full(self.n_exponents_, np.nan)
            if result is None
            else self._aligned(np.maximum(result.exponents, floor)) / log_base
            for result in self.results_
        ]
        return np.stack(rows)

    def _run(
        self, prepared: list[Task | str], settings: dict[str, Any], memory: joblib.Memory
    ) -> list[LyapunovResult | str]:
        """Compute all spectra, with a bar where one is wanted."""
        if self.verbose and len(prepared) == 1 and not isinstance(prepared[0], str):
            with tqdm(total=sum(prepared[0][1].lengths), desc="spectrum", unit="step") as bar:
                return spectra_of(prepared, settings | {"progress": bar.update}, memory, self.on_error)
        groups = self._groups(prepared)
        jobs = (
            joblib.delayed(spectra_of)([prepared[i] for i in group], settings, memory, self.on_error)
            for group in groups
        )
        results: dict[int, LyapunovResult | str] = {}
        with tqdm(total=len(prepared), desc="spectra", unit="network", disable=not self.verbose) as bar:
            run = joblib.Parallel(n_jobs=self.n_jobs, return_as="generator" if self.verbose else "list")(jobs)
            for group, done in zip(groups, run, strict=True):
                results.update(zip(group, done, strict=True))
                bar.update(len(group))
        return [results[i] for i in range(len(prepared))]

    def _groups(self, prepared: list[Task | str]) -> list[list[int]]:
        """Return the indices of networks to analyse together: one by one, but on a GPU by structure."""
        if resolve_device(self.device).type == "cpu":
            return [[i] for i in range(len(prepared))]
        alike: dict[Any, list[int]] = defaultdict(list)
        for i, task in enumerate(prepared):
            kind = None if isinstance(task, str) or len(set(task[1].lengths)) > 1 else structure(task[0])
            alike[(i,) if kind is None or isinstance(task, str) else (kind, *task[1].lengths)].append(i)
        groups = []
        for members in alike.values():
            size = self._group_size(prepared[members[0]])
            groups += [members[i : i + size] for i in range(0, len(members), size)]
        return groups

    def _group_size(self, task: Task | str) -> int:
        """Return how many networks like this one fit into a batch."""
        if isinstance(task, str):
            return 1
        cell, drive = task
        N = tangent_size(cell, self.state)
        basis = N * min(self.n_exponents_, N) * check_dtype(self.dtype).itemsize
        most = _ENSEMBLE_BYTES // basis if self.batch_size is None else self.batch_size
        return max(1, most // drive.n_sequences)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return ``lyapunov_0``, ``lyapunov_1``, …; `input_features` is ignored."""
        check_is_fitted(self)
        return np.asarray([f"lyapunov_{i}" for i in range(self.n_exponents_)], dtype=object)

    def _check_sequences_given(self) -> None:
        if self.sequences is None:
            raise ValueError(
                f"The 'sequences' parameter of {type(self).__name__} must be given: what drives the networks, or a "
                "number of steps for autonomous systems. Got None."
            )

    def _log_base(self) -> float:
        if isinstance(self.base, str) and self.base == "e":
            return 1.0
        if isinstance(self.base, bool | str) or not isinstance(self.base, int | float) or not 1 < self.base < math.inf:
            raise ValueError(
                f"The 'base' parameter of {type(self).__name__} must be 'e' or a number > 1. Got {self.base!r} instead."
            )
        return math.log(self.base)

    def _settings(self) -> dict[str, Any]:
        """Return what lyapunov_spectrum is called with, beside network and sequences."""
        return {
            "n_exponents": self.n_exponents_ if self.align == "truncate" else None,
            "warmup": self.warmup,
            "qr_interval": self.qr_interval,
            "orthonormalizer": self.orthonormalizer,
            "state": self.state,
            "dtype": self.dtype,
            "device": self.device,
            "batch_size": self.batch_size,
            "random_state": seed_from(self.random_state),
        }

    def _cell(self, network: Any) -> RecurrentCell:
        if isinstance(network, BaseEstimator) and not hasattr(network, "module_"):
            check_is_fitted(network)
        return as_recurrent_cell(network)

    def _size(self, network: Any) -> int | None:
        """Return the length of a network's spectrum, None for one whose failure is left to `transform`."""
        try:
            return tangent_size(self._cell(network), self.state)
        except Exception:
            if self.on_error == "raise":
                raise
            return None

    def _prepare(self, index: int, network: Any, settings: dict[str, Any]) -> Task | str:
        """Return a cell with its drive, small enough to send to a worker, or why there is none."""
        try:
            cell = self._cell(network)
            check_settings(cell, settings["n_exponents"], self.qr_interval, self.orthonormalizer, self.state)
            drive = Drive.of(cell, self.sequences)
            cell.encoder = None
            return cell, drive
        except Exception as error:
            if self.on_error == "raise":
                error.add_note(f"This is network {index} of the list.")
                raise
            return reason_of(error)

    def _aligned(self, exponents: np.ndarray) -> np.ndarray:
        if self.align == "truncate":
            return exponents
        grid = np.linspace(0, 1, self.n_exponents_)
        return np.interp(grid, np.linspace(0, 1, len(exponents)), exponents)

    def _warn(self) -> None:
        """Sum the warnings of all networks up in one each; `results_` tells which."""
        n = len(self.results_)
        for index, reason in self.failures_.items():
            warnings.warn(
                f"Network {index} of {n} failed, its row is NaN: {reason}", FailedNetworkWarning, stacklevel=4
            )
        results = [result for result in self.results_ if result is not None]
        degenerate = sum(result.n_degenerate > 0 for result in results)
        if degenerate:
            warnings.warn(
                f"{degenerate} of {n} networks have directions that are annihilated to rounding; their exponents are "
                "reported as ln ε per step.",
                DegenerateSpectrumWarning,
                stacklevel=4,
            )
        budget = math.exp(strain_budget(check_dtype(self.dtype)))
        imprecise = sum(result.condition > budget for result in results)
        if self.qr_interval != "auto" and imprecise:
            warnings.warn(
                f"qr_interval={self.qr_interval} loses digits in {imprecise} of {n} networks; lower it or leave it "
                "at 'auto'.",
                PrecisionWarning,
                stacklevel=4,
            )
