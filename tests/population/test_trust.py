"""Files of a population that are well formed and not what was trained: nothing of them is taken."""

from __future__ import annotations

import json
import shutil
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sklyap.exceptions import FailedNetworkWarning, UntrustedFileError
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population
from sklyap.storage import read_json, read_state, sha256, write_json, write_tensors

rng = np.random.default_rng(0)
X, y = rng.standard_normal((24, 5, 2)).astype(np.float32), np.arange(24) % 3


def train(directory, **options):
    base = RNNClassifier("gru", hidden_size=4, max_epochs=1, device="cpu")
    grid = {"hidden_size": [3, 4], "lr": [0.01]}
    return train_population(
        base, grid, X, y, n_networks=3, random_state=0, directory=directory, **{"verbose": 0, **options}
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stored") / "small"
    return directory, train(directory)


@pytest.fixture
def directory(stored, tmp_path):
    return shutil.copytree(stored[0], tmp_path / "small")


def weights(population):
    return [n.export_state()[0] for n in population.networks()]


def assert_trained_again(directory, stored, match):
    with pytest.warns(FailedNetworkWarning, match=match):
        again = train(directory)
    for a, b in zip(weights(again), weights(stored[1]), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in b)
    np.testing.assert_array_equal(again.best_losses, stored[1].best_losses)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(directory)


def sealed(record):
    """What whoever knows the format would write."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    return {**content, "sha256": sha256(json.dumps(content, sort_keys=True).encode())}


@pytest.mark.parametrize("seal", ["removed", None, "", "0" * 64, 5])
def test_record_without_a_valid_seal_is_not_trusted(directory, stored, seal):
    path = directory / "networks" / "00001.json"
    record = read_json(path)
    record["history"]["valid_loss"] = [0.001]
    if seal == "removed":
        del record["sha256"]
    else:
        record["sha256"] = seal
    write_json(path, record)
    with pytest.warns(FailedNetworkWarning, match=r"00001\.json was changed"):
        loaded = NetworkPopulation.load(directory)
    assert len(loaded) == 2 and loaded.best_losses.min() > 0.001
    assert_trained_again(directory, stored, r"00001\.json was changed")


def replace_weights(directory, change, index=1, epoch="last"):
    """Write other weights, and a record that names them, with a seal."""
    path = directory / "networks" / f"{index:05d}-epoch-{epoch}.safetensors"
    record = read_json(directory / "networks" / f"{index:05d}.json")
    name = record["snapshots"][epoch]["file"]
    path = directory / "networks" / name
    tensors, attributes = read_state(path)
    change(tensors, attributes)
    checksum = write_tensors(path, tensors, attributes)
    for snapshot in record["snapshots"].values():
        if snapshot["file"] == name:
            snapshot["sha256"] = checksum
    write_json(directory / "networks" / f"{index:05d}.json", sealed(record))
    return path


def nan(tensors, attributes):
    tensors["recurrent.weight_hh_l0"][0, 0] = float("nan")


def inf(tensors, attributes):
    tensors["readout.bias"][0] = -float("inf")


def cast(dtype):
    def change(tensors, attributes):
        tensors["recurrent.weight_hh_l0"] = tensors["recurrent.weight_hh_l0"].to(dtype)

    change.__name__ = str(dtype)
    return change


def of_another_shape(tensors, attributes):
    tensors["recurrent.weight_hh_l0"] = tensors["recurrent.weight_hh_l0"][:, :-1].contiguous()


def one_less(tensors, attributes):
    del tensors["recurrent.bias_hh_l0"]


def one_more(tensors, attributes):
    tensors["recurrent.weight_hh_l1"] = torch.zeros(2, 2)


def of_another_size(tensors, attributes):
    attributes["architecture"]["hidden_size"] = 99


def wider_than_memory(tensors, attributes):
    attributes["architecture"]["n_inputs"] = 10**12


CHANGES = [
    nan, inf, *map(cast, (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool)), of_another_shape,
    one_less, one_more, of_another_size, wider_than_memory,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_weights_that_no_training_left_are_not_taken(directory, stored, change):
    path = replace_weights(directory, change)
    with pytest.raises(UntrustedFileError, match=path.name):
        NetworkPopulation.load(directory)[1]
    assert_trained_again(directory, stored, rf"Network 1 is trained again: .*{path.name}")


@pytest.mark.parametrize("change", [nan, cast(torch.float16), one_less], ids=lambda change: change.__name__)
def test_state_that_no_training_left_is_not_restored(stored, change):
    network = stored[1][1]
    tensors, attributes = network.export_state()
    change(tensors, attributes)
    with pytest.raises(ValueError, match="state is not one that this RNNClassifier can take"):
        network.restore_state(tensors, attributes)


def test_weights_of_another_seed_or_grid_are_not_taken(directory, stored):
    path = directory / "networks" / "00001.json"
    record = read_json(path)
    write_json(path, sealed({**record, "seed": 1}))
    assert_trained_again(directory, stored, r"00001\.json has another seed")
    write_json(path, sealed({**record, "params": {**record["params"], "lr": 0.5}}))
    with pytest.warns(FailedNetworkWarning, match="other hyperparameters"):
        NetworkPopulation.load(directory)
    assert_trained_again(directory, stored, r"00001\.json has another seed")


def test_missing_weights_are_named(directory, stored):
    path = directory / "networks" / "00001-epoch-1.safetensors"
    path.unlink()
    with pytest.raises(UntrustedFileError, match=rf"{path.name} is missing"):
        NetworkPopulation.load(directory)[1]
    assert_trained_again(directory, stored, rf"{path.name} is missing")


@pytest.mark.parametrize("name", ["00001.json", "00001-epoch-1.safetensors"])
def test_directory_in_place_of_a_file_is_named(directory, name):
    path = directory / "networks" / name
    path.unlink()
    path.mkdir()
    for resume in (True, False):
        with pytest.raises(OSError, match=f"{name} is a directory where a file belongs. Move it away"):
            train(directory, resume=resume)


def test_file_in_place_of_the_folder_is_named(directory):
    shutil.rmtree(directory / "networks")
    (directory / "networks").write_text("")
    with pytest.raises(UntrustedFileError, match="networks must be the folder"):
        NetworkPopulation.load(directory)
    with pytest.raises(OSError, match=r"directory that one can write to.*networks"):
        train(directory)


@pytest.mark.parametrize("size", [3 * 10**9, 10**11])
@pytest.mark.parametrize("name", ["population.json", "networks/00001.json", "networks/00001-epoch-1.safetensors"])
def test_sparse_files_cost_no_memory(directory, stored, name, size):
    with open(directory / name, "r+b") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        if name.startswith("population"):
            with pytest.raises(UntrustedFileError, match=rf"population\.json has {size:,} bytes"):
                NetworkPopulation.load(directory)
        else:
            assert_trained_again(directory, stored, rf"Network 1 is trained again: .*{name.split('/')[1]}")
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_header_that_asks_for_much_is_not_followed(directory, stored):
    """A file that is as large as its header says, and larger than the architecture allows."""
    path = directory / "networks" / "00001-epoch-1.safetensors"
    n = 10**9
    header = {"recurrent.weight_hh_l0": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}}
    head = json.dumps({**header, "__metadata__": {"json": json.dumps(read_state(path)[1])}}).encode()
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + 4 * n)
    tracemalloc.start()
    try:
        assert_trained_again(directory, stored, r"00001-epoch-1\.safetensors")
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_manifest_that_names_networks_which_are_not_there(directory):
    path = directory / "population.json"
    manifest = read_json(path)
    manifest["call"]["networks"] *= 10_000
    write_json(path, manifest)
    with pytest.warns(FailedNetworkWarning, match="another network or population"):
        assert len(NetworkPopulation.load(directory)) == 0


def test_finished_sweep_leaves_no_temporary_files(directory):
    (directory / "networks" / ".00001.json.abc.partial").write_text("half a file")
    (directory / "networks" / "00001.json").unlink()
    train(directory)
    assert not list(directory.rglob("*.partial"))


@pytest.mark.parametrize(("option", "error"), [({"name": 3}, TypeError), ({"resume": "no"}, TypeError)])
def test_options_are_checked_before_anything_is_written(tmp_path, option, error):
    with pytest.raises(error, match=next(iter(option))):
        train(tmp_path / "new", **option)
    assert not (tmp_path / "new").exists()


def test_empty_directory_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for action in (train, NetworkPopulation.load):
        with pytest.raises(ValueError, match="'directory' parameter must be a path"):
            action("")
    assert not list(tmp_path.iterdir())


def test_own_cells_that_need_the_values_of_their_weights_are_taken(tmp_path, stored):
    """Their layout is not known beforehand, and is checked when they are built."""
    from sklyap.cells import GRUCell

    class Centred(GRUCell):
        def reset_parameters(self):
            super().reset_parameters()
            with torch.no_grad():
                self.weight_hh -= float(self.weight_hh.mean())

    def call():
        return train_population(
            RNNClassifier(Centred, hidden_size=3, max_epochs=1, device="cpu"), {"lr": [0.01]}, X, y,
            random_state=0, directory=tmp_path / "own", verbose=0,
        )  # fmt: skip

    first = call()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = call()
    assert all(torch.equal(t, weights(again)[0][name]) for name, t in weights(first)[0].items())
    replace_weights(tmp_path / "own", lambda tensors, _: tensors["readout.bias"].fill_(float("nan")), index=0)
    with pytest.warns(FailedNetworkWarning, match=r"NaN or infinite values in readout\.bias"):
        call()
    assert load_file(tmp_path / "own" / "networks" / "00000-epoch-1.safetensors")
