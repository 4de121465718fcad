"""Gradients, their alignment with tangent directions, and sensitivity to inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sklyap.displays.base import Display, check_length
from sklyap.gradients import AlignmentResult, LossGradient
from sklyap.sensitivity import SensitivityResult
from sklyap.validation import check_choice, check_int

__all__ = ["AlignmentDisplay", "GradientEnergyDisplay", "SensitivityDisplay", "SensitivitySweepDisplay"]


class AlignmentDisplay(Display):
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


class GradientEnergyDisplay(Display):
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
        check_length(self.sizes, "sizes", len(self.energies), "GradientEnergyDisplay")
        self.labels = None if labels is None else [str(label) for label in labels]
        if self.labels is not None:
            check_length(self.labels, "labels", len(self.energies), "GradientEnergyDisplay")

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


class SensitivityDisplay(Display):
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


class SensitivitySweepDisplay(Display):
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
