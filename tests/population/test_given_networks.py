"""NetworkPopulation.from_networks: networks trained elsewhere are a population like any other."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from sklyap import HistoryFeatures, HyperparameterFeatures, LyapunovSpectrumTransformer, NetworkPopulation
from sklyap.exceptions import FailedNetworkWarning, UntrustedFileError
from tests.population.helpers import X, estimator, y

SIZES = [3, 4, 5, 6]
LOSSES = [0.4, 0.3, 0.2, 0.1]
PROBES = torch.randn(3, 20, 2, generator=torch.Generator().manual_seed(0))


class Net(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.rnn = torch.nn.GRU(2, size, batch_first=True)
        self.head = torch.nn.Linear(size, 1)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


def build(params):
    return Net(params["size"])


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return [Net(size) for size in SIZES]


@pytest.fixture(scope="module")
def expected(networks):
    return spectra(networks)


def spectra(networks):
    return LyapunovSpectrumTransformer(PROBES, n_exponents=3).fit_transform(networks)


def test_modules_state_dicts_and_files_are_the_same_networks(networks, expected, tmp_path):
    params = {"size": SIZES}
    states = [network.state_dict() for network in networks]
    files = []
    for i, state in enumerate(states):
        files.append(tmp_path / f"{i}.{('safetensors', 'pt', 'ckpt', 'pth')[i]}")
        if i == 0:
            save_file(state, files[i])
        else:
            wrapped = {1: state, 2: {"state_dict": state, "epoch": 3}, 3: {"model": state, "optimizer": {}}}
            torch.save(wrapped[i], files[i])
    for given in (networks, states, files, [*map(str, files)], np.array(files, dtype=object)):
        population = NetworkPopulation.from_networks(given, LOSSES, params=params, build=build)
        np.testing.assert_array_equal(spectra(population.networks()), expected)
        np.testing.assert_array_equal(population.best_losses, LOSSES)
        np.testing.assert_array_equal(population.losses(), LOSSES)
        assert population.params["size"].tolist() == SIZES and len(population) == 4
    frame = population.to_frame()
    assert frame["best_loss"].tolist() == LOSSES and frame["population"].unique().tolist() == ["given"]
    assert "size: 3 to 6" in repr(population)


def test_they_have_features_and_are_cut_as_any_population(networks):
    histories = [[0.9, 0.6, 0.4], [0.8, 0.3], [0.7, 0.5, 0.2], [0.9, 0.1, np.nan]]
    population = NetworkPopulation.from_networks(
        {2: networks, "last": [copy.deepcopy(n) for n in networks]}, LOSSES,
        params={"size": SIZES, "kind": list("abab")}, histories=histories, name="mine",
    )  # fmt: skip
    early = population.networks(epoch=2)
    np.testing.assert_array_equal(HistoryFeatures().fit_transform(early)[:, 0], [0.6, 0.3, 0.5, 0.1])
    # A network of epoch 2 does not know the third.
    assert [len(network.history_) for network in early] == [2, 2, 2, 2]
    np.testing.assert_array_equal(HistoryFeatures(epoch=1).fit_transform(early)[:, 0], [0.9, 0.8, 0.7, 0.9])
    with pytest.raises(ValueError, match="has trained for 2 epochs"):
        HistoryFeatures(epoch=3).fit_transform(early)
    np.testing.assert_array_equal(population.losses(1), [0.9, 0.8, 0.7, 0.9])
    np.testing.assert_array_equal(population.losses(), [0.4, 0.3, 0.2, 0.1])
    assert HyperparameterFeatures().fit(early).get_feature_names_out().tolist() == ["size", "kind_a", "kind_b"]
    assert population.filter(kind="a").params["size"].tolist() == [3, 5]
    assert population[1:].groups("population").tolist() == ["mine"] * 3
    assert [table["valid_loss"].tolist() for table in population.histories][1] == [0.8, 0.3]


@pytest.mark.filterwarnings("ignore::sklyap.exceptions.DegenerateSpectrumWarning")  # a dead network
def test_estimators_and_trained_populations_join(population):
    fitted = [estimator(random_state=seed).fit(X, y) for seed in (0, 1)]
    given = NetworkPopulation.from_networks(fitted, [0.5, 0.6], params=[{"lr": 0.1}, {"lr": 0.2}])
    both = population + given
    assert len(both) == len(population) + 2
    rows = LyapunovSpectrumTransformer(X[:3], n_exponents=2).fit_transform(both.networks())
    assert np.isfinite(rows).all()
    assert both.groups("population")[-1] == "given" and both.params["lr"].tolist()[-2:] == [0.1, 0.2]
    assert len({repr(record.identity) for record in (both + given).records}) == len(both)


def test_a_loss_that_is_not_known_is_asked_for(networks):
    population = NetworkPopulation.from_networks({4: networks}, LOSSES)
    np.testing.assert_array_equal(population.best_losses, LOSSES)
    with pytest.raises(ValueError, match=r"The loss of network 0 at epoch 4 is not known. Give .* 'histories'"):
        population.losses(4)
    with pytest.raises(ValueError, match="one that was kept: 4"):
        population.networks()


def test_what_has_no_finite_loss_is_a_failure(networks):
    with pytest.warns(FailedNetworkWarning, match=r"positions \[1\]"):
        population = NetworkPopulation.from_networks(networks, [0.4, np.nan, 0.2, 0.1])
    assert len(population) == 3 and population.failures[0].reason == "its loss is nan"


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"losses": [0.1]}, ValueError, "'losses' .* each of the 4 networks"),
        ({"losses": ["a"] * 4}, ValueError, "losses|convert"),
        ({"params": {"size": [1, 2]}}, ValueError, "'params' .* each of the 4 networks"),
        ({"histories": [[0.1]]}, ValueError, "'histories' .* 4 entries"),
        ({"histories": [{"accuracy": [0.1]}] * 4}, ValueError, "'histories' .* 'valid_loss'"),
        ({"networks": {}}, ValueError, "'networks'"),
        ({"networks": {-1: []}}, ValueError, "'networks' .* -1"),
        ({"networks": ["nowhere.pt", *"abc"]}, FileNotFoundError, "nowhere.pt"),
        ({"build": None, "networks": [{"w": torch.zeros(1)} for _ in range(4)]}, TypeError, "'build'"),
    ],
)
def test_what_does_not_fit_is_named(networks, change, error, match):
    call = {"networks": networks, "losses": LOSSES, "build": build, **change}
    with pytest.raises(error, match=match):
        NetworkPopulation.from_networks(**call)


def test_one_module_with_weights_after_weights_is_refused(networks):
    module = Net(3)
    with pytest.raises(ValueError, match="same one at position 0 and position 1"):
        NetworkPopulation.from_networks([module, module], [0.1, 0.2])
    same = NetworkPopulation.from_networks([networks[0], networks[1]], [0.1, 0.2])
    assert same[0].module_ is networks[0]


def test_weights_that_do_not_fit_are_said_to(networks, tmp_path):
    states = [network.state_dict() for network in networks]
    wrong = NetworkPopulation.from_networks(states, LOSSES, params={"size": [9] * 4}, build=build)
    with pytest.raises(ValueError, match=r"does not take the weights: .*size mismatch"):
        wrong.networks()[0]
    torch.save({"weights": states[0]}, tmp_path / "a.pt")
    other = NetworkPopulation.from_networks([tmp_path / "a.pt"], [0.1], params={"size": [3]}, build=build)
    with pytest.raises(ValueError, match=r"state dict.*a\.pt.*'weights'"):
        other.networks()[0]


def test_a_file_that_would_run_code_is_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    population = NetworkPopulation.from_networks([tmp_path / "evil.pt"], [0.1], params={"size": [3]}, build=build)
    with pytest.raises(UntrustedFileError, match=r"evil.pt is damaged, or holds other objects than tensors"):
        population.networks()[0]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([print], protocol=2), bytes(64)])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "damaged.pt").write_bytes(content)
    population = NetworkPopulation.from_networks([tmp_path / "damaged.pt"], [0.1], params={"size": [3]}, build=build)
    with pytest.raises(UntrustedFileError, match=r"damaged.pt is damaged"):
        population.networks()[0]


def test_one_network_at_two_epochs_is_refused(networks):
    """A module that was trained on has its last weights in every list; so do state dicts that were not copied."""
    later = [Net(size) for size in SIZES]
    NetworkPopulation.from_networks({1: networks, "last": later}, LOSSES)
    with pytest.raises(ValueError, match="same one at position 0 of epoch 1 and position 0 of epoch last"):
        NetworkPopulation.from_networks({1: networks, "last": networks}, LOSSES)
    states = [[network.state_dict() for network in networks] for _ in range(2)]
    with pytest.raises(ValueError, match="same one at position 0 of epoch 1"):
        NetworkPopulation.from_networks({1: states[0], "last": states[1]}, LOSSES, params={"size": SIZES}, build=build)
    copied = copy.deepcopy(states[0])
    NetworkPopulation.from_networks({1: copied, "last": states[1]}, LOSSES, params={"size": SIZES}, build=build)


def test_what_is_no_number_is_named(networks):
    with pytest.raises(ValueError, match=r"'losses' parameter of NetworkPopulation\.from_networks must hold a number"):
        NetworkPopulation.from_networks(networks, ["low", 0.3, 0.2, 0.1])
    with pytest.raises(TypeError, match=r"'histories' parameter .* Got .* in the column 'valid_loss' at position 0"):
        NetworkPopulation.from_networks(networks, LOSSES, histories=[{"valid_loss": ["a", "b"]}] * 4)
    twice = pd.DataFrame([[1, 2]] * 4, columns=["size", "size"])
    with pytest.raises(ValueError, match="must have a name for each hyperparameter"):
        NetworkPopulation.from_networks(networks, LOSSES, params=twice)
