"""Digits, MNIST and text as tasks: values, splits, and files that are missing, truncated or wrong."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from sklyap.datasets import (
    decode,
    encode,
    fetch_sequential_mnist,
    fetch_war_and_peace,
    load_sequential_digits,
    load_text,
    sequences,
    text,
)

OPENING = 'CHAPTER I\n\n"Well, Prince, so Genoa and Lucca are now just family estates.\n'
CLOSING = "to recognize a\ndependence of which we are not\nconscious."
NOVEL = OPENING + "It was in July, 1805. " * 200 + CLOSING


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """A small data set in MNIST's layout: two plain files, two gzipped."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(sequences, "fetch_openml", refuse)
    monkeypatch.setattr(text, "fetch_file", refuse)


# -- digits ----------------------------------------------------------------------------------------


def test_digits_are_the_images_of_sklearn_scaled():
    digits = sklearn.datasets.load_digits()
    rows = load_sequential_digits()
    assert rows.data.dtype == np.float32 and rows.target.dtype == np.int64
    np.testing.assert_allclose(rows.data * 16, digits.images)
    np.testing.assert_array_equal(rows.target, digits.target)
    pixels = load_sequential_digits(order="pixels").data
    np.testing.assert_allclose(pixels[..., 0] * 16, digits.data)
    assert rows.data.min() == 0 and rows.data.max() == 1


@pytest.mark.parametrize("order", ["rows", "pixels"])
def test_permutation_is_one_for_all_images_and_is_returned(order):
    plain, mixed = load_sequential_digits(order=order), load_sequential_digits(order=order, permuted=True)
    assert sorted(mixed.permutation) == list(range(64))
    flat = plain.data.reshape(len(plain.data), -1)
    np.testing.assert_array_equal(mixed.data.reshape(len(flat), -1), flat[:, mixed.permutation])
    again = load_sequential_digits(order=order, permuted=True)
    np.testing.assert_array_equal(mixed.data, again.data)
    other = load_sequential_digits(order=order, permuted=True, random_state=1)
    assert not np.array_equal(mixed.data, other.data)


def test_digits_of_some_classes():
    X, y = load_sequential_digits(n_class=3, return_X_y=True)
    assert set(y) == {0, 1, 2} and len(X) == len(y)


@pytest.mark.parametrize(("kwargs", "match"), [({"order": "columns"}, "order"), ({"n_class": 0}, "n_class")])
def test_digits_bad_parameters(kwargs, match):
    with pytest.raises(ValueError, match=match):
        load_sequential_digits(**kwargs)


# -- MNIST -----------------------------------------------------------------------------------------


def test_mnist_reads_idx_files_plain_or_gzipped(folder):
    train = fetch_sequential_mnist(folder=folder, verify_checksum=False)
    assert train.data.shape == (20, 28, 28) and train.data.dtype == np.float32
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    np.testing.assert_allclose(train.data.ravel() * 255, np.frombuffer(raw, np.uint8), atol=1e-4)
    np.testing.assert_array_equal(train.target, np.arange(20) % 10)
    both, _ = fetch_sequential_mnist(folder=folder, subset="all", verify_checksum=False, return_X_y=True)
    test, _ = fetch_sequential_mnist(folder=folder, subset="test", verify_checksum=False, return_X_y=True)
    np.testing.assert_array_equal(both, np.concatenate([train.data, test]))


def test_mnist_train_and_test_share_the_permutation(folder):
    kwargs = {"folder": folder, "order": "pixels", "permuted": True, "verify_checksum": False}
    train, test = (fetch_sequential_mnist(subset=subset, **kwargs) for subset in ("train", "test"))
    assert train.data.shape == (20, 784, 1)
    np.testing.assert_array_equal(train.permutation, test.permutation)


def test_mnist_n_samples(folder):
    X, y = fetch_sequential_mnist(folder=folder, n_samples=5, verify_checksum=False, return_X_y=True)
    assert len(X) == len(y) == 5
    with pytest.raises(ValueError, match=r"n_samples.*\[1, 20\].*Got 21"):
        fetch_sequential_mnist(folder=folder, n_samples=21, verify_checksum=False)


def test_mnist_wrong_file_is_named(folder):
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz is not the file of this name in MNIST"):
        fetch_sequential_mnist(folder=folder)


def test_mnist_labels_in_place_of_images_are_named(folder):
    (folder / "train-images-idx3-ubyte.gz").unlink()
    (folder / "train-images-idx3-ubyte").write_bytes((folder / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="train-images-idx3-ubyte must hold 3 dimensions"):
        fetch_sequential_mnist(folder=folder, verify_checksum=False)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("kept", [0, 3, 10, -1])
def test_mnist_truncated_file_is_named(folder, name, kept):
    path = folder / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=name):
        fetch_sequential_mnist(folder=folder, verify_checksum=False)


def test_mnist_missing_file_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="no t10k-labels-idx1-ubyte"):
        fetch_sequential_mnist(folder=folder, subset="test", verify_checksum=False)


def test_mnist_offline_says_which_files_to_put_where(tmp_path, offline):
    with pytest.raises(OSError, match="no network") as caught:
        fetch_sequential_mnist(data_home=tmp_path)
    for part in ("train-images", "t10k-labels", str(tmp_path / "mnist")):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError, match="download_if_missing"):
        fetch_sequential_mnist(data_home=tmp_path, download_if_missing=False)


def test_mnist_from_openml_is_cached_as_idx(tmp_path, monkeypatch):
    calls = []
    pixels = np.arange(70_000, dtype=np.int64)[:, None] % 256 * np.ones((1, 784), dtype=np.int64)
    labels = np.array([str(i % 10) for i in range(70_000)], dtype=object)

    def openml(*args, **kwargs):
        calls.append(kwargs["data_home"])
        return pixels, labels

    monkeypatch.setattr(sequences, "fetch_openml", openml)
    kwargs = {"data_home": tmp_path, "subset": "test", "verify_checksum": False, "return_X_y": True}
    X, y = fetch_sequential_mnist(**kwargs)
    np.testing.assert_allclose(X[:, 3, 4] * 255, np.arange(60_000, 70_000) % 256, atol=1e-4)
    np.testing.assert_array_equal(y, np.arange(10_000) % 10)
    fetch_sequential_mnist(**kwargs)
    assert calls == [tmp_path]


# -- text ------------------------------------------------------------------------------------------


def test_text_windows_and_targets(tmp_path):
    path = tmp_path / "text.txt"
    rng = np.random.default_rng(0)
    content = "".join(rng.choice(list("abcdefgh \n"), 1000))
    path.write_text(content)
    data = load_text(path, n_steps=7, splits=(0.6, 0.3, 0.1))
    assert data.vocabulary == "".join(sorted(set(content))) and data.n_tokens == 10
    start = 0
    for name, size in (("train", 600), ("valid", 300), ("test", 100)):
        X, y = data[f"X_{name}"], data[f"y_{name}"]
        n = (size - 1) // 7
        assert X.shape == y.shape == (n, 7) and X.dtype == y.dtype == np.int64
        assert data.decode(X) == content[start : start + 7 * n]
        assert data.decode(y) == content[start + 1 : start + 7 * n + 1]
        assert 7 * n + 1 <= size, "the last target would belong to the next part"
        start += size


def test_text_parts_share_no_character(tmp_path):
    """Characters that occur once each: no token may occur in two parts, as input or target."""
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(0x4E00 + i) for i in range(997)))
    data = load_text(path, n_steps=10)
    parts = [set(data[f"X_{n}"].ravel()) | set(data[f"y_{n}"].ravel()) for n in ("train", "valid", "test")]
    assert all(parts) and not (parts[0] & parts[1] or parts[1] & parts[2] or parts[0] & parts[2])


def test_text_inputs_and_targets_do_not_share_memory(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcdef" * 50)
    data = load_text(path, n_steps=5)
    before = data.y_train.copy()
    data.X_train[:] = 0
    np.testing.assert_array_equal(data.y_train, before)


def test_text_vocabulary_given(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("cab" * 100)
    data = load_text(path, n_steps=3, vocabulary="abcd")
    np.testing.assert_array_equal(data.X_train[0], [2, 0, 1])
    with pytest.raises(ValueError, match="'c' at position 0 is not in the vocabulary"):
        load_text(path, n_steps=3, vocabulary="ab")
    with pytest.raises(ValueError, match="must not repeat"):
        load_text(path, n_steps=3, vocabulary="abca")


def test_text_line_ends_byte_order_mark_and_pickling(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"one\r\ntwo\r" * 50)
    data = pickle.loads(pickle.dumps(load_text(path, n_steps=4)))
    assert data.vocabulary == "\nenotw"
    assert data.decode(data.X_train[:2]) == "one\ntwo\n"


def test_text_shares_may_be_zero(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc" * 100)
    data = load_text(path, n_steps=10, splits=(1, 0, 0))
    assert data.X_train.shape == (29, 10) and data.X_valid.shape == data.y_test.shape == (0, 10)


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_steps": 0}, r"n_steps.*Got 0"),
        ({"n_steps": 100}, "valid part .* has 30 characters, too few"),
        ({"splits": (0.5, 0.5)}, "splits"),
        ({"splits": (0.5, 0.4, 0.2)}, "splits"),
        ({"splits": (1.5, -0.5, 0)}, "splits"),
        ({"n_characters": 301}, r"n_characters.*\[1, 300\]"),
    ],
)
def test_text_bad_parameters(tmp_path, kwargs, match):
    path = tmp_path / "text.txt"
    path.write_text("abc" * 100)
    with pytest.raises(ValueError, match=match):
        load_text(path, **kwargs)


def test_text_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"image\.png is not utf-8 text"):
        load_text(path)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_text(tmp_path / "absent.txt")


def test_encode_decode_round_trip():
    vocabulary = "xyzé\n☃"
    assert decode(encode("☃zé\nxy", vocabulary), vocabulary) == "☃zé\nxy"
    assert encode("", vocabulary).shape == (0,)


# -- War and Peace ---------------------------------------------------------------------------------


def test_novel_is_cut_out_of_its_wrapping(tmp_path):
    path = tmp_path / "pg2600.txt"
    contents = "Contents\nCHAPTER I\nCHAPTER II\n"
    path.write_text(f"*** START OF THE PROJECT ***\n{contents}{NOVEL}\n\n*** END OF THE PROJECT ***\n")
    data = fetch_war_and_peace(path=path, n_steps=20)
    assert data.n_characters == len(NOVEL)
    assert data.decode(data.X_train[0]) == NOVEL[:20]


@pytest.mark.parametrize(
    ("content", "match"),
    [(NOVEL[:-5], "truncated"), (NOVEL[30:], "not an English text"), ("", "not an English text")],
)
def test_truncated_or_wrong_novel_is_named(tmp_path, content, match):
    path = tmp_path / "novel.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"novel\.txt is {match}"):
        fetch_war_and_peace(path=path)


def test_novel_with_another_checksum_is_named(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_text(NOVEL)
    data = fetch_war_and_peace(path=path, n_steps=20)
    fetch_war_and_peace(path=path, n_steps=20, sha256=data.sha256)
    with pytest.raises(ValueError, match=r"novel\.txt must have the SHA-256 00"):
        fetch_war_and_peace(path=path, sha256="00")


def test_novel_is_downloaded_once_and_its_checksum_kept(tmp_path, monkeypatch):
    calls = []

    def fetch(url, folder, local_filename):
        calls.append(url)
        path = Path(folder) / local_filename
        path.write_text(NOVEL)
        return path

    monkeypatch.setattr(text, "fetch_file", fetch)
    fetch_war_and_peace(data_home=tmp_path, n_steps=20)
    fetch_war_and_peace(data_home=tmp_path, n_steps=20)
    assert len(calls) == 1 and "gutenberg.org" in calls[0]
    (tmp_path / "war_and_peace.txt").write_text(NOVEL.replace("1805", "1806"))
    with pytest.raises(ValueError, match=r"war_and_peace\.txt must have the SHA-256"):
        fetch_war_and_peace(data_home=tmp_path, n_steps=20)


def test_novel_offline_says_which_file_to_put_where(tmp_path, offline):
    with pytest.raises(OSError, match="no network") as caught:
        fetch_war_and_peace(data_home=tmp_path)
    assert str(tmp_path / "war_and_peace.txt") in str(caught.value)
    with pytest.raises(FileNotFoundError, match="download_if_missing"):
        fetch_war_and_peace(data_home=tmp_path, download_if_missing=False)
