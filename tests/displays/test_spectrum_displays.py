"""Displays of spectra and their convergence: labels, bands, steps from 1, warm-up, populations."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from sklyap import LyapunovSpectrumTransformer, RNNClassifier, SpectrumAutoencoder, lyapunov_spectrum, train_population
from sklyap.datasets import make_recall
from sklyap.displays import (
    ConvergenceDisplay,
    LatentDisplay,
    LocalExponentDisplay,
    LossPredictorsDisplay,
    SpectrumDisplay,
    TrainingDisplay,
)

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def results():
    torch.manual_seed(0)
    x = torch.randn(5, 60, 3)
    layers = (torch.nn.LSTM(3, 8, batch_first=True), torch.nn.RNN(3, 10, batch_first=True))
    return [lyapunov_spectrum(layer, x, return_local=True) for layer in layers]


@pytest.fixture(scope="module")
def population():
    X, y = make_recall(60, n_steps=6, random_state=0)
    network = RNNClassifier("gru", 4, max_epochs=2)
    return train_population(network, {"lr": [0.001, 0.01]}, X, y, n_networks=12, random_state=0, verbose=0)


def edges(collection):
    return collection.get_paths()[0].vertices


def test_spectra_have_labels_markers_and_bands(results):
    ax = SpectrumDisplay.from_results(results, labels=["LSTM", "Elman"]).ax_
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["LSTM", "Elman"]
    first, second = ax.lines[:2]
    assert first.get_marker() != second.get_marker() and first.get_color() != second.get_color()
    for line, band, result in zip(ax.lines, ax.collections, results, strict=False):
        np.testing.assert_allclose(line.get_ydata(), result.exponents)
        top = (result.exponents + 2 * result.standard_error).max()
        assert edges(band)[:, 1].max() == pytest.approx(top)
    with pytest.raises(ValueError, match=r"'labels' parameter of SpectrumDisplay must have 2 entries\. Got 1"):
        SpectrumDisplay.from_results(results, labels="LSTM")
    with pytest.raises(ValueError, match=r"in one unit\. Got bits per step, nats per step"):
        SpectrumDisplay.from_results([results[0], results[1].to("bits")])
    with pytest.raises(ValueError, match="Got no result"):
        SpectrumDisplay.from_results([])


def test_spectra_of_a_transformer_and_of_a_population(population):
    X = make_recall(60, n_steps=6, random_state=0)[0][:4]
    transformer = LyapunovSpectrumTransformer(X, align="interpolate")
    display = SpectrumDisplay.from_population(population, transformer, epoch=1)
    np.testing.assert_allclose(display.color, np.log(population.best_losses))
    assert not hasattr(transformer, "results_") and display.color_label == "ln lowest loss"
    transformer.fit_transform(population.networks(1)[:3])
    transformer.results_[1] = None  # as of a network that failed
    assert SpectrumDisplay.from_transformer(transformer, labels=["a", "b", "c"]).labels == ["a", "c"]


def test_convergence_ends_at_the_exponents_with_their_errors(results):
    result = results[0]
    display = ConvergenceDisplay.from_result(result)
    assert len(display.indices) == 6 and display.indices[0] == 0 and display.indices[-1] == 15
    np.testing.assert_allclose(display.running[-1], result.exponents[display.indices], atol=1e-12)
    np.testing.assert_allclose(display.standard_error[-1], result.standard_error[display.indices], rtol=0.3)
    lines = [line for line in display.ax_.lines if len(line.get_xdata()) == result.n_steps]
    assert len(lines) == 6 and len({line.get_marker() for line in lines}) == 6
    assert lines[0].get_xdata()[0] == result.warmup + 1 and lines[0].get_xdata()[-1] == 60
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[:2] == ["warm-up", r"$\lambda_{1}$"] and labels[-1] == r"$\lambda_{16}$"
    assert ConvergenceDisplay.from_result(result, indices=[2]).running.shape[1] == 1
    assert ConvergenceDisplay.from_result(result, n_exponents=3).indices == [0, 1, 2]
    with pytest.raises(ValueError, match="'indices' parameter"):
        ConvergenceDisplay.from_result(result, indices=[16])


def test_local_growth_counts_steps_and_directions_from_one(results):
    result = results[1]
    display = LocalExponentDisplay.from_result(result, sequence=2)
    image = display.ax_.images[0]
    np.testing.assert_allclose(image.get_array(), result.local[2].T)
    assert image.get_extent() == [result.warmup + 0.5, 60.5, 10.5, 0.5]
    assert display.ax_.get_xlim() == (0.5, 60.5) and f"steps 1 to {result.warmup}" in display.ax_.get_title()
    with pytest.raises(ValueError, match="'sequence' parameter"):
        LocalExponentDisplay.from_result(result, sequence=5)


def test_scores_far_off_are_cut_off_and_say_so():
    names = ["good", "far", "unknown", "wide"]
    display = LossPredictorsDisplay(names, [0.4, -44.4, np.nan, -0.2], [0.3, -80, np.nan, -3], [0.5, -20, np.nan, 0.1])
    ax = display.plot().ax_
    assert ax.get_xlim()[0] == -1 and "cut off at −1" in ax.get_xlabel()
    assert [text.get_text() for text in ax.texts] == ["−44"]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["good", "far", "wide"]
    assert min(edges(path)[:, 0].min() for path in ax.collections[:1]) >= -1
    tame = LossPredictorsDisplay(["good"], [0.4], [0.3], [0.5]).plot().ax_
    assert not tame.texts and "cut" not in tame.get_xlabel()


def test_predictors_and_codes_of_a_population(population):
    X = make_recall(60, n_steps=6, random_state=0)[0][:4]
    from sklearn.linear_model import Ridge

    display = LossPredictorsDisplay.from_population(
        population, X, predictors={"spectrum": Ridge()}, cv=3, n_exponents=4, n_bootstrap=20, random_state=0
    )
    assert display.names == ["spectrum"] and display.low[0] <= display.scores[0] <= display.high[0]
    model = make_pipeline(LyapunovSpectrumTransformer(X), SpectrumAutoencoder(2, max_epochs=2, random_state=0))
    model.fit(population.networks(1), population.best_losses)
    display = LatentDisplay.from_population(population, model, epoch=1)
    assert display.components.shape == (12, 2)
    np.testing.assert_array_equal(display.losses, population.best_losses)


def test_exponents_through_training_are_told_apart():
    ax = TrainingDisplay([0, 1], [[0.1, -0.2], [0.2, -0.3]], standard_error=[[0.1, np.inf], [0.1, 0.1]]).plot().ax_
    assert [line.get_marker() for line in ax.lines[:2]] == ["o", "s"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [r"$\lambda_{1}$", r"$\lambda_{2}$"]
