"""Populations: files that are damaged, made up or changed are named and not trusted."""

from __future__ import annotations

import json
import pickle
import sys
import warnings

import numpy as np
import pytest
import torch

from sklyap.cells import RecurrentCell
from sklyap.exceptions import FailedNetworkWarning, UntrustedFileError
from sklyap.population import NetworkPopulation
from sklyap.storage import read_json, write_json, write_tensors
from tests.population.helpers import Trouble, X, assert_same, estimator, train


class Bomb:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def poison(path, tmp_path):
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))


def truncate(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-5])


def lead_out(path, tmp_path):
    path.replace(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")


def empty(path, tmp_path):
    path.write_bytes(b"")


def other_weights(path, tmp_path):
    write_tensors(path, {"readout.bias": torch.zeros(3)}, {"history": []})


@pytest.mark.parametrize("damage", [poison, truncate, lead_out, empty, other_weights])
@pytest.mark.parametrize("name", ["00002.json", "00002-epoch-1.safetensors"])
def test_damaged_file_is_named_and_its_network_trained_again(directory, stored, tmp_path, damage, name):
    damage(directory / "networks" / name, tmp_path)
    loaded = None
    if name.endswith(".json"):
        with pytest.warns(FailedNetworkWarning, match=rf"Network 2 is left out: .*{name}"):
            loaded = NetworkPopulation.load(directory)
        assert len(loaded) == 5 and len(loaded.failures) == 1
    else:
        with pytest.raises(UntrustedFileError, match=name):
            list(NetworkPopulation.load(directory).networks(1))
    with pytest.warns(FailedNetworkWarning, match=rf"Network 2 is trained again: .*{name}"):
        assert_same(train(directory), stored[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(train(directory), stored[1])
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("params", [1]),
        ("seed", "0"),
        ("index", 3),
        ("call", "another"),
        ("history", {"valid_loss": "low"}),
        ("history", {"valid_loss": [1.0], "train_loss": [1.0, 2.0]}),
        ("history", {"valid_loss": [10**400]}),
        ("snapshots", {}),
        ("snapshots", {"1": {"epoch": 1}}),
        ("reason", 5),
    ],
)
def test_record_of_wrong_types_is_not_trusted(directory, stored, key, value):
    path = directory / "networks" / "00002.json"
    write_json(path, {**read_json(path), key: value})
    with pytest.warns(FailedNetworkWarning, match=r"00002\.json"):
        assert_same(train(directory), stored[1])


def test_changed_digit_is_noticed(directory, stored):
    path = directory / "networks" / "00002.json"
    content = path.read_text()
    loss = repr(float(stored[1].records[2].losses[0]))
    path.write_text(content.replace(loss, "0" + loss[1:]))
    assert loss in content and loss not in path.read_text()
    with pytest.warns(FailedNetworkWarning, match=r"00002\.json was changed"):
        assert_same(train(directory), stored[1])


def test_networks_outlive_the_manifest(directory, stored):
    networks = {path: path.stat().st_mtime_ns for path in (directory / "networks").iterdir()}
    (directory / "population.json").unlink()
    assert_same(train(directory), stored[1])
    assert networks == {path: path.stat().st_mtime_ns for path in (directory / "networks").iterdir()}


def test_record_cannot_name_a_file_elsewhere(directory, tmp_path):
    path = directory / "networks" / "00002.json"
    record = read_json(path)
    elsewhere = ("../../outside.safetensors", "/etc/passwd", str(tmp_path / "outside.safetensors"))
    for name in (*elsewhere, "00003-epoch-1.safetensors", "..", "a\0b", "a" * 5000):
        record["snapshots"]["1"]["file"] = name
        write_json(path, record)
        with pytest.warns(FailedNetworkWarning, match=r"00002\.json names a file outside its directory"):
            NetworkPopulation.load(directory)


def test_record_of_another_network_is_not_taken(directory, stored):
    networks = directory / "networks"
    (networks / "00002.json").write_bytes((networks / "00003.json").read_bytes())
    with pytest.warns(FailedNetworkWarning, match=r"00002\.json is the record of another network"):
        assert_same(train(directory), stored[1])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"format": 99, "name": "a", "call": {}}', b"\x80\x04."])
def test_manifest_that_is_not_ours_is_named(directory, content):
    (directory / "population.json").write_bytes(content)
    for action in (lambda: NetworkPopulation.load(directory), lambda: train(directory)):
        with pytest.raises(UntrustedFileError, match=r"population\.json"):
            action()


@pytest.mark.parametrize(
    ("key", "value"),
    [("networks", [1, 2]), ("networks", {}), ("random_state", None), ("estimator", {"class": "a", "params": {}})],
)
def test_manifest_of_wrong_types_is_named(directory, key, value):
    path = directory / "population.json"
    manifest = read_json(path)
    manifest["call"][key] = value
    write_json(path, manifest)
    for action in (lambda: NetworkPopulation.load(directory), lambda: train(directory)):
        with pytest.raises(UntrustedFileError, match=r"population\.json"):
            action()


def test_nested_values_do_not_exhaust_the_stack(directory):
    path = directory / "population.json"
    manifest = read_json(path)
    manifest["call"]["networks"][0]["cell"] = json.loads("[" * 900 + "]" * 900)
    write_json(path, manifest)
    with pytest.warns(FailedNetworkWarning, match="another network or population"):
        assert len(NetworkPopulation.load(directory)) == 0
    with pytest.raises(ValueError, match="begun by another"):
        train(directory)


def test_no_population_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"population\.json"):
        NetworkPopulation.load(tmp_path)


def test_no_module_is_imported_on_the_word_of_a_file(directory, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nclass Cell: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    manifest = read_json(directory / "population.json")
    original = json.dumps(manifest)
    manifest["call"]["estimator"]["class"] = {"__class__": "evil.Cell"}
    write_json(directory / "population.json", manifest)
    with pytest.raises(ValueError, match=r"evil\.Cell, which is not loaded"):
        NetworkPopulation.load(directory)
    manifest = json.loads(original)
    manifest["call"]["estimator"]["params"]["cell"] = {"__class__": "evil.Cell"}
    write_json(directory / "population.json", manifest)
    with pytest.raises(ValueError, match=r"cell=evil\.Cell, a class that is not loaded"):
        NetworkPopulation.load(directory)
    assert not (tmp_path / "executed").exists() and "evil" not in sys.modules


class Leaky(RecurrentCell):
    """A cell of the user's own."""

    def __init__(self, n_inputs, hidden_size):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = n_inputs, hidden_size, hidden_size
        self.hidden_size = hidden_size
        self.linear = torch.nn.Linear(n_inputs + hidden_size, hidden_size)

    def step(self, s, x):
        return 0.5 * s + 0.5 * torch.tanh(self.linear(torch.cat([s, x], -1)))


def test_own_cell_and_optimizer_survive_storage(tmp_path):
    base = estimator(optimizer=torch.optim.SGD, callbacks=[Trouble(ValueError, [99])])
    population = train(tmp_path, base=base, grid={"cell": [Leaky, "gru"]}, n_networks=2)
    loaded = NetworkPopulation.load(tmp_path)
    assert loaded[0].cell is Leaky and loaded[0].optimizer is torch.optim.SGD
    assert loaded[0].callbacks is None, "an object is not built from a file"
    np.testing.assert_array_equal(loaded[0].predict_proba(X), population[0].predict_proba(X))
    with_own = NetworkPopulation.load(tmp_path, estimator=base)
    assert with_own[0].callbacks is not None
