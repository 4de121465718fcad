"""Displays of gradients and sensitivity: what is drawn is what was computed."""

import numpy as np
import pytest

from sklyap import RNNClassifier, sensitivity, train_population
from sklyap.alignment import GradientAlignmentAnalyzer
from sklyap.displays import AlignmentDisplay, GradientEnergyDisplay, SensitivityDisplay, SensitivitySweepDisplay
from sklyap.gradients import loss_gradient
from sklyap.sensitivity import input_sensitivity

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 8, 3)).astype("f4"), rng.integers(0, 3, size=6)


@pytest.fixture(scope="module")
def network(task):
    return RNNClassifier("gru", 5, max_epochs=1, random_state=0).fit(*task)


@pytest.fixture(scope="module")
def result(task, network):
    return GradientAlignmentAnalyzer(*task, n_directions=4, n_singular=2, n_baseline=0).analyze(network)


def test_alignment_through_training(result):
    display = AlignmentDisplay.from_training({0: [result, result], 3: [result]}, singular=1)
    image = display.ax_.images[0]
    np.testing.assert_allclose(image.get_array(), np.stack([result.alignment[:, 1]] * 2, 1))
    assert image.norm(result.baseline) == pytest.approx(0.5) and image.get_clim()[0] == 0  # white is chance
    assert [tick.get_text() for tick in display.ax_.get_xticklabels()] == ["0", "3"]
    with pytest.raises(ValueError, match=r"'singular' parameter must be an int in the range \[0, 1\]. Got 2"):
        AlignmentDisplay.from_training({0: [result]}, singular=2)
    with pytest.raises(ValueError, match="must have shape"):
        AlignmentDisplay([[0.1, 0.2]], [0, 1], baseline=0.1)


def test_alignment_by_prefix(result, task, network):
    ax = plt.subplots()[1]
    display = AlignmentDisplay.from_result(result, ax=ax)
    assert display.ax_ is ax and display.figure_ is ax.figure
    np.testing.assert_allclose(ax.images[0].get_array(), result.alignment_by_prefix[:, :, 0].T)
    without = GradientAlignmentAnalyzer(*task, n_directions=4, prefixes=None, n_baseline=0).analyze(network)
    with pytest.raises(ValueError, match="computed with prefixes"):
        AlignmentDisplay.from_result(without)


def test_gradient_energy(result, task, network):
    gradient = loss_gradient(network, *task, rank=3)
    display = GradientEnergyDisplay.from_results([result, gradient], labels=["full", "three"])
    full, three, chance = display.ax_.lines
    np.testing.assert_allclose(full.get_ydata(), result.energy)
    np.testing.assert_allclose(three.get_xdata(), [0.2, 0.4, 0.6])
    assert chance.get_label() == "chance" and three.get_label() == "three"
    assert len(GradientEnergyDisplay.from_results(result).ax_.lines) == 2


@pytest.mark.parametrize("width", [1, 3])
def test_sensitivity_along_a_sequence(width, task):
    X, y = task[0][..., :width], task[1]
    network = RNNClassifier("rnn", 4, max_epochs=1, random_state=0).fit(X, y)
    found = input_sensitivity(network, X, y, n_random=3, every_step=True)
    display = SensitivityDisplay.from_result(found, X, index=2)
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata(), found.score[2])
    drawn = [line.get_ydata() for ax in display.figure_.axes for line in ax.lines]
    assert any(np.array_equal(line, found.loss.by_step[2]) for line in drawn)
    assert bool(display.figure_.axes[1].images) == (width > 1)
    display.figure_.canvas.draw()
    with pytest.raises(ValueError, match="'index' parameter"):
        SensitivityDisplay.from_result(found, X, index=6)


def test_sensitivity_sweep(task, network):
    found = input_sensitivity(network, *task, n_random=3)
    display = SensitivitySweepDisplay.from_result(found, effect="output")
    largest, smallest, random = display.ax_.lines
    np.testing.assert_allclose(largest.get_ydata(), found.output.largest.mean(0))
    np.testing.assert_allclose(smallest.get_ydata(), found.output.smallest.mean(0))
    np.testing.assert_allclose(random.get_xdata(), found.n_steps)
    assert SensitivityDisplay.from_result(found, task[0]).effect is None
    with pytest.raises(ValueError, match="'effect' parameter must be one of 'loss', 'output'"):
        SensitivitySweepDisplay(found, effect="accuracy")


def test_where_there_is_no_gradient_is_left_out(result):
    display = AlignmentDisplay.from_result(result)
    values = result.singular_values_by_prefix[:, 0]
    assert values[0] == 0  # the first step starts from zeros: no recurrent weight acts
    np.testing.assert_array_equal(np.isnan(display.alignment).all(1), values == 0)
    assert "grey: no gradient" in display.ax_.get_xlabel()


def test_alignment_of_a_population(task):
    population = train_population(
        RNNClassifier("rnn", 4, max_epochs=1), {"lr": [0.01, 0.1]}, *task, snapshot_epochs=(0, 1), validation=None,
        random_state=0, verbose=0,
    )  # fmt: skip
    analyzer = GradientAlignmentAnalyzer(*task, n_directions=2, n_singular=1, n_baseline=0)
    assert AlignmentDisplay.from_population(population, analyzer, epochs=(0, 1)).columns == ["0", "1"]


def test_a_ratio_to_next_to_nothing_is_not_printed():
    random = np.array([[[0.1]], [[-0.1]], [[0.001]]])
    chosen = np.array([[-0.1], [0.0], [0.055]])
    comparison = sensitivity._compare(chosen, random, np.random.default_rng(0))
    assert np.isnan(comparison.ratio[0]) and np.isfinite(comparison.difference[0])
    effect = sensitivity.Effect(chosen, chosen, random, None, comparison, comparison)
    shown = repr(sensitivity.SensitivityResult(np.array([1]), np.zeros((3, 4)), effect, effect, "flip", "leading"))
    assert "random steps hardly hurt, difference" in shown and "times" not in shown
