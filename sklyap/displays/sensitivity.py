"""Sensitivity to inputs: along a sequence, and for growing numbers of perturbed steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from sklyap.displays.base import Display, check_array, whole_ticks
from sklyap.sensitivity import SensitivityResult, input_sensitivity
from sklyap.validation import check_choice, check_dense, check_instance, check_int

__all__ = ["SensitivityDisplay", "SensitivitySweepDisplay"]


class SensitivityDisplay(Display):
    """Where along a sequence a network expands, and what it costs to perturb each step, over the sequence itself.

    Parameters
    ----------
    sequence : array-like of shape (n_steps, n_inputs) or (n_steps,)
        The inputs, drawn behind.
    score : array-like of shape (n_steps,)
        By which steps were ranked.
    effect : array-like of shape (n_steps,), optional
        Of perturbing one step alone.
    score_label, effect_label : str
        What they are, in words.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap import RNNClassifier, input_sensitivity
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.displays import SensitivityDisplay
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> result = input_sensitivity(network, X[:10], y[:10], n_random=5, every_step=True, random_state=0)
    >>> SensitivityDisplay.from_result(result, X[:10], index=3).score.shape
    (8,)
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
        who = type(self).__name__
        check_dense(sequence, "sequence", caller=who, filled=True)
        inputs = ("n_inputs",) if np.ndim(sequence) > 1 else ()
        sequence = check_array(sequence, "sequence", ("n_steps", *inputs), who)
        self.sequence = sequence.reshape(len(sequence), -1)
        self.score = check_array(score, "score", (len(sequence),), who)
        self.effect = check_array(effect, "effect", (len(sequence),), who, optional=True)
        self.score_label = check_instance(score_label, "score_label", str, caller=who)
        self.effect_label = check_instance(effect_label, "effect_label", str, caller=who)

    @classmethod
    def from_result(
        cls, result: SensitivityResult, sequences: Any, *, index: int = 0, effect: str = "loss", ax: Any = None
    ) -> SensitivityDisplay:
        """Draw one of the sequences; the effect of single steps is there if computed with ``every_step=True``.

        Parameters
        ----------
        result : SensitivityResult
            Of :func:`~sklyap.input_sensitivity`.
        sequences : array-like of shape (n_sequences, n_steps, n_inputs) or (n_sequences, n_steps)
            The inputs that it was computed with.
        index : int, default=0
            Which of them to draw.
        effect : {"loss", "output"}, default="loss"
            What a perturbation changes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        SensitivityDisplay
        """
        check_instance(result, "result", SensitivityResult)
        check_dense(sequences, "sequences", filled=True)
        check_choice(effect, "effect", ["loss", "output"])
        check_int(index, "index", low=0, high=len(result.score) - 1)
        by_step = getattr(result, effect).by_step
        labels = {"score_label": f"score ({result.by})", "effect_label": f"change of the {effect}"}
        one = None if by_step is None else by_step[index]
        return cls(np.asarray(sequences)[index], result.score[index], one, **labels).plot(ax)

    @classmethod
    def from_estimator(
        cls,
        network: Any,
        sequences: Any,
        targets: Any,
        *,
        index: int = 0,
        effect: str = "loss",
        ax: Any = None,
        **options: Any,
    ) -> SensitivityDisplay:
        """Measure the sensitivity of a network and draw one of the sequences, with the effect of each step alone.

        Parameters
        ----------
        network : torch module, fitted skorch net or fitted sklyap estimator
            What is perturbed at its inputs.
        sequences : array-like of shape (n_sequences, n_steps, n_inputs), or tokens (n_sequences, n_steps)
            The inputs that are perturbed.
        targets : array-like of shape (n_sequences, ...)
            What the network should answer.
        index : int, default=0
            Which of the sequences to draw.
        effect : {"loss", "output"}, default="loss"
            What a perturbation changes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Of :func:`~sklyap.input_sensitivity`.

        Returns
        -------
        SensitivityDisplay
        """
        check_choice(effect, "effect", ["loss", "output"])
        result = input_sensitivity(network, sequences, targets, **{"every_step": True, **options})
        return cls.from_result(result, sequences, index=index, effect=effect, ax=ax)

    def _draw(self, ax: Any) -> None:
        T, width = self.sequence.shape
        steps = np.arange(1, T + 1)
        background = ax.twinx()
        background.set_yticks([])
        if width > 1:
            extent = (0.5, T + 0.5, width + 0.5, 0.5)
            background.imshow(self.sequence.T, aspect="auto", cmap="Greys", alpha=0.5, extent=extent)
        else:
            background.fill_between(steps, self.sequence[:, 0], color="0.85", step="mid")
        ax.set_zorder(background.get_zorder() + 1)
        ax.patch.set_visible(False)
        every = max(1, T // 20)
        style = {"color": "tab:blue", "marker": "o", "markersize": 4, "markevery": every}
        ax.plot(steps, self.score, label=self.score_label, **style)
        ax.set(xlabel="step", xlim=(0.5, T + 0.5))
        ax.set_ylabel(f"● {self.score_label}", color="tab:blue")  # a legend would hide what lies beneath
        if self.effect is not None:
            right = ax.twinx()
            style = {"color": "tab:red", "marker": "^", "markersize": 4, "markevery": every, "linestyle": "--"}
            right.plot(steps, self.effect, label=self.effect_label, **style)
            right.set_ylabel(f"▲ {self.effect_label}", color="tab:red")
        whole_ticks(ax.xaxis)


class SensitivitySweepDisplay(Display):
    """What perturbing k steps changes: those of largest and smallest score, and random ones.

    Parameters
    ----------
    result : SensitivityResult
        Of :func:`~sklyap.input_sensitivity`.
    effect : {"loss", "output"}, default="loss"
        What a perturbation changes.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        Where it was drawn.

    Examples
    --------
    >>> from sklyap import RNNClassifier, input_sensitivity
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.displays import SensitivitySweepDisplay
    >>> X, y = make_recall(40, n_steps=8, random_state=0)
    >>> network = RNNClassifier("rnn", 6, max_epochs=2, random_state=0).fit(X, y)
    >>> result = input_sensitivity(network, X[:10], y[:10], n_random=5, random_state=0)
    >>> SensitivitySweepDisplay.from_result(result, effect="output").ax_.get_ylabel()
    'change of the output'
    """

    def __init__(self, result: SensitivityResult, *, effect: str = "loss") -> None:
        self.result = check_instance(result, "result", SensitivityResult)
        self.effect = check_choice(effect, "effect", ["loss", "output"])

    @classmethod
    def from_result(cls, result: SensitivityResult, *, effect: str = "loss", ax: Any = None) -> SensitivitySweepDisplay:
        """Draw the means over sequences; bands are 95 % intervals of the difference to random steps.

        Parameters
        ----------
        result : SensitivityResult
            Of :func:`~sklyap.input_sensitivity`.
        effect : {"loss", "output"}, default="loss"
            What a perturbation changes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        SensitivitySweepDisplay
        """
        return cls(result, effect=effect).plot(ax)

    @classmethod
    def from_estimator(
        cls, network: Any, sequences: Any, targets: Any, *, effect: str = "loss", ax: Any = None, **options: Any
    ) -> SensitivitySweepDisplay:
        """Measure the sensitivity of a network and draw the means over sequences.

        Parameters
        ----------
        network : torch module, fitted skorch net or fitted sklyap estimator
            What is perturbed at its inputs.
        sequences : array-like of shape (n_sequences, n_steps, n_inputs), or tokens (n_sequences, n_steps)
            The inputs that are perturbed.
        targets : array-like of shape (n_sequences, ...)
            What the network should answer.
        effect : {"loss", "output"}, default="loss"
            What a perturbation changes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Of :func:`~sklyap.input_sensitivity`.

        Returns
        -------
        SensitivitySweepDisplay
        """
        check_choice(effect, "effect", ["loss", "output"])
        return cls.from_result(input_sensitivity(network, sequences, targets, **options), effect=effect, ax=ax)

    def _draw(self, ax: Any) -> None:
        effect, k = getattr(self.result, self.effect), self.result.n_steps
        random = effect.random.mean((0, 1))
        for name, color, marker in (("largest", "tab:red", "^"), ("smallest", "tab:blue", "v")):
            comparison = getattr(effect, f"{name}_against_random")
            ax.plot(k, random + comparison.difference, color=color, marker=marker, label=f"{name} {self.result.by}")
            ends = random + comparison.interval
            ax.fill_between(k, *ends, color=color, alpha=0.2, linewidth=0)
            if len(k) == 1:  # there is no band
                ax.vlines(k, *ends, color=color, alpha=0.5)
        ax.plot(k, random, color="0.4", marker="o", linestyle="--", label="random steps")
        ax.set_xscale("log", base=2)
        ax.set_xticks(k, [str(number) for number in k])
        ax.set(xlabel="perturbed steps k", ylabel=f"change of the {self.effect}")
        ax.legend()
