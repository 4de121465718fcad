"""What displays are made from: results, transformers, populations and estimators give the same picture."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sklyap import (
    GradientAlignmentAnalyzer,
    LyapunovSpectrumTransformer,
    RNNClassifier,
    displays,
    input_sensitivity,
    lyapunov_spectrum,
    replay_search,
    train_population,
)
from sklyap.datasets import make_recall

plt = pytest.importorskip("matplotlib.pyplot")
X, y = make_recall(40, n_steps=6, random_state=0)


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def population():
    network = RNNClassifier("gru", 4, max_epochs=3)
    lr = {"lr": [0.001, 0.01, 0.1]}
    return train_population(network, lr, X, y, snapshot_epochs=(0, 1, 2, 3), random_state=0, verbose=0)


@pytest.fixture(scope="module")
def analyzer():
    return GradientAlignmentAnalyzer(X[:8], y[:8], n_directions=2, n_singular=1, n_baseline=0)


@pytest.fixture
def transformer():
    return LyapunovSpectrumTransformer(X[:8], n_exponents=3, warmup=1, random_state=0)


def test_a_transformer_analyses_one_network_as_it_transforms_many(transformer, population):
    networks = population.networks()
    rows = clone(transformer).fit_transform(networks)
    result = transformer.analyze(networks[1], return_local=True)
    np.testing.assert_allclose(result.exponents, rows[1], rtol=1e-12)  # growth that is kept is summed in another order
    expected = lyapunov_spectrum(networks[1], X[:8], n_exponents=3, warmup=1, random_state=0, return_local=True)
    np.testing.assert_array_equal(result.local, expected.local)
    assert not hasattr(transformer, "n_exponents_") and transformer.analyze(networks[1]).local is None
    assert len(transformer.set_params(n_exponents=99).analyze(networks[1]).exponents) == 4
    assert len(transformer.set_params(n_exponents=2, align="interpolate").analyze(networks[1]).exponents) == 4
    with pytest.raises(ValueError, match="'sequences' parameter of LyapunovSpectrumTransformer must be given"):
        LyapunovSpectrumTransformer().analyze(networks[1])


def test_spectra_of_networks(transformer, population):
    display = displays.SpectrumDisplay.from_transformer(transformer, population.networks(), labels=["a", "b", "c"])
    np.testing.assert_array_equal(display.spectra, clone(transformer).fit_transform(population.networks()))
    assert not hasattr(transformer, "results_") and display.labels == ["a", "b", "c"]
    with pytest.raises(TypeError, match="'transformer' parameter must have results_"):
        displays.SpectrumDisplay.from_transformer(transformer)


@pytest.mark.parametrize("kind", [displays.ConvergenceDisplay, displays.LocalExponentDisplay])
def test_growth_of_one_network(kind, transformer, population):
    network = population.networks(1)[2]
    result = lyapunov_spectrum(network, X[:8], n_exponents=3, warmup=1, random_state=0, return_local=True)
    drawn = [
        kind.from_result(result),
        kind.from_transformer(transformer, network),
        kind.from_population(population, transformer, index=2, epoch=1),
    ]
    values = [vars(display)["running" if kind is displays.ConvergenceDisplay else "local"] for display in drawn]
    for other in values[1:]:
        np.testing.assert_array_equal(other, values[0])
    with pytest.raises(ValueError, match=r"'index' parameter must be an int in the range \[0, 2\]"):
        kind.from_population(population, transformer, index=3)
    with pytest.raises(TypeError, match="'transformer' parameter must be an instance of LyapunovSpectrumTransformer"):
        kind.from_transformer(network, network)


def test_exponents_through_training(transformer, population):
    display = displays.TrainingDisplay.from_population(population, transformer, epochs=(0, 1, 3), index=1)
    results = {epoch: transformer.analyze(population.networks(epoch)[1]) for epoch in (0, 1, 3)}
    np.testing.assert_array_equal(display.epochs, [0, 1, 3])
    np.testing.assert_array_equal(display.exponents, [result.exponents for result in results.values()])
    same = displays.TrainingDisplay.from_results(results)
    np.testing.assert_array_equal(same.standard_error, display.standard_error)
    with pytest.raises(ValueError, match=r"in nats per step\. Got 3 in bits per step, 3 in nats per step"):
        displays.TrainingDisplay.from_results({0: results[0], 1: results[1].to("bits")})
    with pytest.raises(TypeError, match="'epochs' parameter must be a list of epochs"):
        displays.TrainingDisplay.from_population(population, transformer, epochs="last")


def test_gradients_of_networks(analyzer, population):
    network = population.networks()[0]
    result = analyzer.analyze(network)
    by_prefix = displays.AlignmentDisplay.from_transformer(analyzer, network)
    np.testing.assert_array_equal(by_prefix.alignment, displays.AlignmentDisplay.from_result(result).alignment)
    energy = displays.GradientEnergyDisplay.from_transformer(analyzer, [network], labels=["first"])
    np.testing.assert_array_equal(energy.energies[0], result.energy)
    through = displays.GradientEnergyDisplay.from_population(population, analyzer, epochs=[0, "last"])
    assert through.labels == ["epoch 0", "epoch last"]
    np.testing.assert_array_equal(through.energies[1], result.energy)
    with pytest.raises(ValueError, match="'labels' parameter of GradientEnergyDisplay must have 1 entries"):
        displays.GradientEnergyDisplay.from_transformer(analyzer, [network], labels=["a", "b"])


def test_sensitivity_of_an_estimator(population):
    network, options = population.networks()[0], {"n_random": 3, "random_state": 0}
    result = input_sensitivity(network, X[:6], y[:6], every_step=True, **options)
    display = displays.SensitivityDisplay.from_estimator(network, X[:6], y[:6], index=4, **options)
    np.testing.assert_array_equal(display.effect, result.loss.by_step[4])
    sweep = displays.SensitivitySweepDisplay.from_estimator(network, X[:6], y[:6], effect="output", **options)
    np.testing.assert_array_equal(sweep.result.output.largest, result.output.largest)


def test_regret_of_a_population(population):
    options = {"budgets": [0.5], "n_repeats": 4, "random_state": 0}
    display = displays.RegretDisplay.from_population(population, ["random", "halving"], against="cost", **options)
    expected = replay_search(population, ["random", "halving"], **options).curve()
    assert display.table.equals(expected) and display.against == "cost"


def test_the_table_of_the_documentation_is_complete():
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    written = {}
    for line in page[page.index("| display |") :].partition("\n\n")[0].splitlines()[2:]:
        name, *cells, population = (cell.strip(" `") for cell in line.strip("|").split("|"))
        written[name] = set(re.findall(r"from_\w+", " ".join(cells))) | (
            {"from_population"} if population != "–" else set()
        )
    for name in displays.__all__:
        methods = {key for key, _ in inspect.getmembers(getattr(displays, name), inspect.ismethod)}
        assert written[name] == {key for key in methods if key.startswith("from_")}, name
