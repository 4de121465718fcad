"""Files of a search that are not what it wrote: they change no number, and are named."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from sklyap import LyapunovHalvingSearch, RNNClassifier, storage
from sklyap.datasets import make_recall
from sklyap.exceptions import FailedNetworkWarning
from sklyap.population.directory import _seal

X, y = make_recall(80, n_steps=4, random_state=0)
GRID = {"lr": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], "cell": ["rnn", "gru"]}


def search(directory=None, **options):
    given = {"n_candidates": 6, "max_epochs": 4, "factor": 2, "n_labelled": 3, "random_state": 0, "verbose": 0}
    return LyapunovHalvingSearch(
        RNNClassifier(hidden_size=3), GRID, X[:2], directory=directory, refit=False, **(given | options)
    ).fit(X, y)


def numbers(fitted):
    networks = [[t.numpy().tobytes() for t in n.export_state()[0].values()] for n in fitted.population_.networks()]
    return networks, fitted.decisions_.drop(columns="seconds", errors="ignore").to_json(), fitted.best_loss_


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("search")
    return numbers(search(directory)), directory


@pytest.fixture
def begun(whole, tmp_path):
    """Return the directory of a search that has reached its first rung."""
    directory = shutil.copytree(whole[1], tmp_path / "search")
    for path in directory.glob("epoch-000[24]/networks/*"):
        path.unlink()
    return directory


def each(pattern, change):
    def damage(directory):
        paths = sorted(directory.glob(f"epoch-0001/{pattern}"))
        assert paths
        for path in paths:
            change(path)

    return damage


def optimizer(change):
    def rewrite(path):
        tensors, header = storage.read_state(path)
        storage.write_tensors(path, *change(tensors, header))

    return each("optimizers/*", rewrite)


def spectra(change):
    def rewrite(path):
        arrays = storage.read_arrays(path)
        storage.write_arrays(path, change(arrays))

    return each("spectra-*", rewrite)


def swap_optimizers(directory):
    paths = sorted(directory.glob("epoch-0001/optimizers/*"))
    for path, content in zip(paths, [path.read_bytes() for path in paths][::-1], strict=True):
        path.write_bytes(content)


def weights_of_nan(path):
    content = json.loads(path.read_text())
    for item in content["snapshots"].values():
        file = path.parent / item["file"]
        tensors, header = storage.read_state(file)
        item["sha256"] = storage.write_tensors(file, {k: t * float("nan") for k, t in tensors.items()}, header)
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": _seal(content)}))


def unsealed(path):
    content = json.loads(path.read_text())
    del content["sha256"]
    content["history"]["valid_loss"] = [0.001 for _ in content["history"]["valid_loss"]]
    path.write_text(json.dumps(content))


def sparse(path):
    os.truncate(path, 100 * 2**30)


DAMAGES = {
    "optimizer scaled": optimizer(lambda t, h: ({k: 3 * v for k, v in t.items()}, h)),
    "optimizer of NaN": optimizer(lambda t, h: ({k: v * float("nan") for k, v in t.items()}, h)),
    "optimizer of float16": optimizer(lambda t, h: ({k: v.half() for k, v in t.items()}, h)),
    "optimizer without its header": optimizer(lambda t, h: (t, None)),
    "optimizer with another rate": optimizer(
        lambda t, h: (t, json.loads(json.dumps(h).replace("0.01", "0.5").replace("0.03", "0.7")))
    ),
    "optimizers swapped": swap_optimizers,
    "optimizer sparse": each("optimizers/00000*", sparse),
    "spectra of others": spectra(lambda a: {**a, "spectra": a["spectra"][::-1]}),
    "spectra without a seal": spectra(lambda a: {k: v for k, v in a.items() if k != "sha256"}),
    "spectra of text": spectra(lambda a: {**a, "spectra": np.array(["x"])}),
    "spectra sparse": each("spectra-*", sparse),
    "record without a seal": each("networks/*.json", unsealed),
    "weights of NaN": each("networks/*.json", weights_of_nan),
    "weights sparse": each("networks/00000*.safetensors", sparse),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_was_changed_is_named_and_made_again(damage, begun, whole):
    damage(begun)
    with pytest.warns(FailedNetworkWarning, match=r"(is trained|are computed) .*: .*epoch-0001"):
        found = numbers(search(begun))
    assert found == whole[0]


@pytest.mark.parametrize(
    "name",
    [
        "search.json", "population.lock", "epoch-0001/call.json", "epoch-0001/population.json", "epoch-0001/write.lock",
        "epoch-0001/networks/00000.json", "epoch-0001/optimizers/00000.safetensors",
    ],
)  # fmt: skip
@pytest.mark.parametrize("resume", [True, False])
def test_a_directory_in_place_of_a_file_is_named_before_anything_is_trained(name, resume, begun):
    path = begun / name
    path.unlink(missing_ok=True)
    path.mkdir()
    before = {p for p in begun.rglob("*") if p.suffix != ".lock"}
    with pytest.raises(OSError, match=rf"{path} is a directory where a file belongs. Move it away"):
        search(begun, resume=resume)
    assert {p for p in begun.rglob("*") if p.suffix != ".lock"} == before


@pytest.mark.parametrize("name", ["epoch-0001", "epoch-0001/networks", "epoch-0001/optimizers"])
def test_a_file_in_place_of_a_folder_is_named(name, begun):
    shutil.rmtree(begun / name)
    (begun / name).write_text("a file")
    with pytest.raises(OSError, match=f"'directory' parameter of LyapunovHalvingSearch .*{name}"):
        search(begun)


def test_starting_anew_removes_nothing_that_a_search_did_not_write(begun, whole, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "networks").mkdir(parents=True)
    kept = [begun / "epoch-0001" / "mine.npz", begun / "epoch-0001/networks/notes.json", elsewhere / "mine.npz"]
    kept += [elsewhere / "networks" / "00000.json", begun / "epoch-0001" / "optimizers" / "notes.txt"]
    for path in kept:
        path.write_text("mine")
    (begun / "epoch-0777").symlink_to(elsewhere)
    assert numbers(search(begun, resume=False)) == whole[0]
    assert [path.read_text() for path in kept] == ["mine"] * len(kept)
