"""Matplotlib displays: they hold computed arrays, `plot` only draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sklyap.gradients import LossGradient
from sklyap.lyapunov import LyapunovResult
from sklyap.matching import AlignmentResult
from sklyap.sensitivity import SensitivityResult
from sklyap.validation import check_choice, check_int

__all__ = [
    "AlignmentDisplay",
    "ConvergenceDisplay",
    "GradientEnergyDisplay",
    "LatentDisplay",
    "LocalExponentDisplay",
    "SensitivityDisplay",
    "SensitivitySweepDisplay",
    "SpectrumDisplay",
]


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


class _Display:
    """A display knows its axes and figure once it has been plotted."""

    ax_: Any
    figure_: Any

    def plot(self, ax: Any = None) -> Any:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        self
            With `ax_` and `figure_`.
        """
        self.ax_ = _axes(ax)
        self.figure_ = self.ax_.figure
        self._draw(self.ax_)
        return self

    def _draw(self, ax: Any) -> None:
        raise NotImplementedError


class SpectrumDisplay(_Display):
    """Lyapunov spectra against the relative index i/(N - 1), so that networks of any size share an axis.

    Parameters
    ----------
    spectra : sequence of array-like (n_exponents_i,), or array-like (n_networks, n_exponents)
        Each descending; entries of -inf are left out.
    standard_error : sequence like `spectra`, optional
        Drawn as a band of ± 2 standard errors.
    color : array-like of shape (n_networks,), optional
        A number for each network (its loss, say), shown as colour.
    color_label, unit : str
    """

    def __init__(
        self,
        spectra: Any,
        *,
        standard_error: Any = None,
        color: Any = None,
        color_label: str | None = None,
        unit: str = "nats",
    ) -> None:
        self.spectra = [np.asarray(s, dtype=float) for s in spectra]
        self.standard_error = None if standard_error is None else [np.asarray(e, dtype=float) for e in standard_error]
        self.color = None if color is None else np.asarray(color, dtype=float)
        if self.color is not None and self.color.shape != (len(self.spectra),):
            raise ValueError(
                f"The 'color' parameter of SpectrumDisplay must have shape ({len(self.spectra)},), one number for each "
                f"spectrum. Got shape {self.color.shape} instead."
            )
        self.color_label = color_label
        self.unit = unit

    @classmethod
    def from_results(
        cls, results: LyapunovResult | Sequence[LyapunovResult], *, ax: Any = None, **options: Any
    ) -> SpectrumDisplay:
        """Draw one result or several, with their standard errors; `options` as in the constructor."""
        results = [results] if isinstance(results, LyapunovResult) else list(results)
        errors = [np.where(np.isfinite(r.standard_error), r.standard_error, 0.0) for r in results]
        return cls([r.exponents for r in results], standard_error=errors, unit=results[0].unit, **options).plot(ax)

    @classmethod
    def from_transformer(cls, transformer: Any, *, ax: Any = None, **options: Any) -> SpectrumDisplay:
        """Draw what a LyapunovSpectrumTransformer computed last, each network with its own spectrum."""
        return cls.from_results([r for r in transformer.results_ if r is not None], ax=ax, **options)

    def _draw(self, ax: Any) -> None:
        import matplotlib as mpl

        palette = None
        if self.color is not None:
            palette = mpl.cm.ScalarMappable(
                mpl.colors.Normalize(np.nanmin(self.color), np.nanmax(self.color)), "viridis"
            )
            ax.figure.colorbar(palette, ax=ax, label=self.color_label)
        for i, spectrum in enumerate(self.spectra):
            index = np.linspace(0, 1, len(spectrum)) if len(spectrum) > 1 else np.zeros(1)
            shown = np.where(np.isfinite(spectrum), spectrum, np.nan)
            style: dict[str, Any] = {"linewidth": 1, "alpha": 0.8}
            if palette is not None:
                style["color"] = palette.to_rgba(self.color[i])
            (line,) = ax.plot(index, shown, marker="." if len(spectrum) < 5 else None, **style)
            if self.standard_error is not None:
                width = 2 * self.standard_error[i]
                ax.fill_between(index, shown - width, shown + width, color=line.get_color(), alpha=0.2, linewidth=0)
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(xlabel="relative index i / (N − 1)", ylabel=f"Lyapunov exponent ({self.unit} per step)")


class ConvergenceDisplay(_Display):
    """Running means of local exponents: how the spectrum settles along the sequences.

    Parameters
    ----------
    running : array-like of shape (n_steps, n_exponents)
        Mean growth up to each step.
    unit : str
    """

    def __init__(self, running: Any, *, unit: str = "nats") -> None:
        self.running = np.asarray(running, dtype=float)
        self.unit = unit

    @classmethod
    def from_result(
        cls, result: LyapunovResult, *, n_exponents: int | None = None, ax: Any = None
    ) -> ConvergenceDisplay:
        """Draw the leading `n_exponents` (all by default) of a result computed with ``return_local=True``."""
        local = _local(result)[..., :n_exponents]
        rates = np.nanmean(local, axis=0)  # sequences that have ended no longer count
        running = np.cumsum(rates, axis=0) / np.arange(1, len(rates) + 1)[:, None]
        return cls(running, unit=result.unit).plot(ax)

    def _draw(self, ax: Any) -> None:
        steps = np.arange(1, len(self.running) + 1)
        ax.plot(steps, np.where(np.isfinite(self.running), self.running, np.nan), linewidth=1)
        ax.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        ax.set(xlabel="steps averaged", ylabel=f"mean growth ({self.unit} per step)")


class LocalExponentDisplay(_Display):
    """Growth at every step and direction, as an image: where along a sequence a network expands.

    Parameters
    ----------
    local : array-like of shape (n_steps, n_exponents)
    unit : str
    """

    def __init__(self, local: Any, *, unit: str = "nats") -> None:
        self.local = np.asarray(local, dtype=float)
        self.unit = unit

    @classmethod
    def from_result(
        cls, result: LyapunovResult, *, sequence: int | None = None, ax: Any = None
    ) -> LocalExponentDisplay:
        """Draw one sequence, or the mean over all, of a result computed with ``return_local=True``."""
        local = _local(result)
        return cls(np.nanmean(local, axis=0) if sequence is None else local[sequence], unit=result.unit).plot(ax)

    def _draw(self, ax: Any) -> None:
        finite = np.where(np.isfinite(self.local), self.local, np.nan)
        limit = np.nanpercentile(np.abs(finite), 98)
        image = ax.imshow(finite.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        ax.figure.colorbar(image, ax=ax, label=f"growth ({self.unit} per step)")
        ax.set(xlabel="step", ylabel="direction i")


class LatentDisplay(_Display):
    """The latent code of spectra in its two leading principal components, good and bad networks apart.

    Parameters
    ----------
    components : array-like of shape (n_networks, 2)
    losses : array-like of shape (n_networks,)
    explained : array-like of shape (2,), optional
        Share of the variance that each component explains.
    """

    def __init__(self, components: Any, losses: Any, *, explained: Any = None) -> None:
        self.components = np.asarray(components, dtype=float)
        self.losses = np.asarray(losses, dtype=float)
        self.explained = explained

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, losses: Any, *, ax: Any = None) -> LatentDisplay:
        """Draw the latent code of a fitted SpectrumAutoencoder (or of a pipeline that ends in one) on X."""
        from sklearn.decomposition import PCA

        pca = PCA(2)
        components = pca.fit_transform(np.asarray(estimator.transform(X)))
        return cls(components, losses, explained=pca.explained_variance_ratio_).plot(ax)

    def _draw(self, ax: Any) -> None:
        good = self.losses <= np.median(self.losses)
        for chosen, label, color in ((good, "loss below the median", "tab:blue"), (~good, "above", "tab:red")):
            ax.scatter(*self.components[chosen].T, s=18, alpha=0.7, color=color, label=label)
        share = ["", ""] if self.explained is None else [f" ({e:.0%} of variance)" for e in self.explained]
        ax.set(xlabel=f"first principal component{share[0]}", ylabel=f"second{share[1]}")
        ax.legend()


class AlignmentDisplay(_Display):
    """Alignment of directions with a singular vector of the gradient, as an image with chance in the middle.

    Parameters
    ----------
    alignment : array-like of shape (n_columns, n_directions)
        ``|cos|``.
    columns : sequence of length n_columns
        What the columns are: epochs, or lengths of prefixes.
    baseline : float
        What chance gives.
    column_label : str
    """

    def __init__(self, alignment: Any, columns: Any, *, baseline: float, column_label: str = "epoch") -> None:
        self.alignment = np.asarray(alignment, dtype=float)
        self.columns = [str(column) for column in columns]
        if self.alignment.ndim != 2 or len(self.alignment) != len(self.columns):
            raise ValueError(
                "The 'alignment' parameter of AlignmentDisplay must have shape (n_columns, n_directions), with a "
                f"row for each of the {len(self.columns)} 'columns'. Got shape {self.alignment.shape} instead."
            )
        self.baseline = baseline
        self.column_label = column_label

    @classmethod
    def from_training(
        cls, results: Mapping[Any, Sequence[AlignmentResult]], *, singular: int = 0, ax: Any = None
    ) -> AlignmentDisplay:
        """Draw the alignment through epochs, mean over networks, as `analyze_training` returns it.

        Parameters
        ----------
        results : mapping of epoch to list of AlignmentResult
        singular : int, default=0
            Which singular vector.
        ax : matplotlib Axes, optional
        """
        means = [
            np.mean([_column(result.alignment, singular) for result in epoch], axis=0) for epoch in results.values()
        ]
        baseline = np.mean([result.baseline for epoch in results.values() for result in epoch])
        return cls(means, list(results), baseline=float(baseline)).plot(ax)

    @classmethod
    def from_result(cls, result: AlignmentResult, *, singular: int = 0, ax: Any = None) -> AlignmentDisplay:
        """Draw one network's alignment with the gradients of the losses of prefixes, by their length."""
        if not len(result.prefixes):
            raise ValueError("The 'result' parameter must be computed with prefixes. Got one without.")
        by_prefix = [_column(alignment, singular) for alignment in result.alignment_by_prefix]
        return cls(by_prefix, result.prefixes, baseline=result.baseline, column_label="sequences end after step").plot(
            ax
        )

    def _draw(self, ax: Any) -> None:
        import matplotlib as mpl

        # White is chance, red more and blue less, down to orthogonality.
        norm = mpl.colors.TwoSlopeNorm(self.baseline, vmin=0, vmax=max(self.alignment.max(), 1.5 * self.baseline))
        image = ax.imshow(self.alignment.T, aspect="auto", cmap="RdBu_r", interpolation="nearest", norm=norm)
        ax.figure.colorbar(image, ax=ax, label=f"|cos| (by chance {self.baseline:.2f})")
        shown = np.unique(np.linspace(0, len(self.columns) - 1, min(len(self.columns), 10)).round().astype(int))
        ax.set_xticks(shown, [self.columns[i] for i in shown])
        ax.set(xlabel=self.column_label, ylabel="direction i")


class GradientEnergyDisplay(_Display):
    """How much of the loss gradient lies in the span of the first q directions.

    Parameters
    ----------
    energies : sequence of array-like (k_i,)
        Shares for q = 1, 2, … k.
    sizes : sequence of int
        N of each network, whose chance is q/N.
    labels : sequence of str, optional
    """

    def __init__(self, energies: Any, sizes: Sequence[int], *, labels: Sequence[Any] | None = None) -> None:
        self.energies = [np.asarray(energy, dtype=float) for energy in energies]
        self.sizes = list(sizes)
        self.labels = None if labels is None else [str(label) for label in labels]

    @classmethod
    def from_results(
        cls,
        results: AlignmentResult | LossGradient | Sequence[AlignmentResult | LossGradient],
        *,
        labels: Sequence[Any] | None = None,
        ax: Any = None,
    ) -> GradientEnergyDisplay:
        """Draw one result or several."""
        results = [results] if isinstance(results, AlignmentResult | LossGradient) else list(results)
        return cls([r.energy for r in results], [r.tangent_size for r in results], labels=labels).plot(ax)

    def _draw(self, ax: Any) -> None:
        for i, (energy, N) in enumerate(zip(self.energies, self.sizes, strict=True)):
            q = np.arange(1, len(energy) + 1)
            label = None if self.labels is None else self.labels[i]
            ax.plot(q / N, energy, linewidth=1.5, marker="." if len(q) < 5 else None, label=label)
        ax.plot([0, 1], [0, 1], color="0.5", linestyle=":", label="chance")
        ax.set(xlabel="share of directions q / N", ylabel="share of gradient energy", xlim=(0, 1), ylim=(0, 1.02))
        ax.legend()


class SensitivityDisplay(_Display):
    """Where along a sequence a network expands, and what it costs to perturb each step, over the sequence itself.

    Parameters
    ----------
    sequence : array-like of shape (n_steps, n_inputs) or (n_steps,)
    score : array-like of shape (n_steps,)
        By which steps were ranked.
    effect : array-like of shape (n_steps,), optional
        Of perturbing one step alone.
    score_label, effect_label : str
    """

    def __init__(
        self,
        sequence: Any,
        score: Any,
        effect: Any = None,
        *,
        score_label: str = "expansion (nats)",
        effect_label: str = "change of the loss",
    ) -> None:
        sequence = np.asarray(sequence, dtype=float)
        self.sequence = sequence.reshape(len(sequence), -1)
        self.score = np.asarray(score, dtype=float)
        self.effect = None if effect is None else np.asarray(effect, dtype=float)
        self.score_label, self.effect_label = score_label, effect_label

    @classmethod
    def from_result(
        cls, result: SensitivityResult, sequences: Any, *, index: int = 0, effect: str = "loss", ax: Any = None
    ) -> SensitivityDisplay:
        """Draw one of the sequences; the effect of single steps is there if computed with ``every_step=True``."""
        check_choice(effect, "effect", ["loss", "output"])
        check_int(index, "index", low=0, high=len(result.score) - 1)
        by_step = getattr(result, effect).by_step
        labels = {"score_label": f"score ({result.by})", "effect_label": f"change of the {effect}"}
        one = None if by_step is None else by_step[index]
        return cls(np.asarray(sequences)[index], result.score[index], one, **labels).plot(ax)

    def _draw(self, ax: Any) -> None:
        T, width = self.sequence.shape
        background = ax.twinx()
        background.set_yticks([])
        if width > 1:
            background.imshow(self.sequence.T, aspect="auto", cmap="Greys", alpha=0.6, extent=(-0.5, T - 0.5, width, 0))
        else:
            background.fill_between(np.arange(T), self.sequence[:, 0], color="0.8", step="mid")
        ax.set_zorder(background.get_zorder() + 1)
        ax.patch.set_visible(False)
        lines = ax.plot(self.score, color="tab:blue", label=self.score_label)
        ax.set(xlabel="step", ylabel=self.score_label, xlim=(-0.5, T - 0.5))
        if self.effect is not None:
            right = ax.twinx()
            lines += right.plot(self.effect, color="tab:red", label=self.effect_label)
            right.set_ylabel(self.effect_label)
        ax.legend(lines, [line.get_label() for line in lines])


class SensitivitySweepDisplay(_Display):
    """What perturbing k steps changes: those of largest and smallest score, and random ones.

    Parameters
    ----------
    result : SensitivityResult
    effect : {"loss", "output"}, default="loss"
    """

    def __init__(self, result: SensitivityResult, *, effect: str = "loss") -> None:
        self.result = result
        self.effect = check_choice(effect, "effect", ["loss", "output"])

    @classmethod
    def from_result(cls, result: SensitivityResult, *, effect: str = "loss", ax: Any = None) -> SensitivitySweepDisplay:
        """Draw the means over sequences; bands are 95 % intervals of the difference to random steps."""
        return cls(result, effect=effect).plot(ax)

    def _draw(self, ax: Any) -> None:
        effect, k = getattr(self.result, self.effect), self.result.n_steps
        random = effect.random.mean((0, 1))
        for name, color in (("largest", "tab:red"), ("smallest", "tab:blue")):
            comparison = getattr(effect, f"{name}_against_random")
            ax.plot(k, random + comparison.difference, color=color, marker=".", label=f"{name} {self.result.by}")
            ax.fill_between(k, *(random + comparison.interval), color=color, alpha=0.2, linewidth=0)
        ax.plot(k, random, color="0.4", marker=".", linestyle="--", label="random steps")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="perturbed steps k", ylabel=f"change of the {self.effect}")
        ax.legend()


def _column(alignment: np.ndarray, singular: int) -> np.ndarray:
    return alignment[:, check_int(singular, "singular", low=0, high=alignment.shape[1] - 1)]


def _local(result: LyapunovResult) -> np.ndarray:
    if result.local is None:
        raise ValueError(
            "The 'result' parameter must be computed with return_local=True. Got one without local growth."
        )
    return result.local
