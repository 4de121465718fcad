"""Sequences of unequal length in fit and predict: as each by itself, whatever shares a batch with it."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from sklyap import RNNClassifier, RNNRegressor, lyapunov_spectrum

LENGTHS = [5, 9, 3, 9, 7, 4, 8, 6, 3, 5, 9, 6]
WIDTH = 2


@pytest.fixture
def rows():
    draw = np.random.default_rng(0)
    return [draw.normal(size=(n, WIDTH)).astype(np.float32) for n in LENGTHS]


def by_itself(network, row):
    return network.predict(row[None])[0]


@pytest.mark.parametrize("cell", ["gru", "lstm", "cornn"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_last_step(cell, num_layers, rows):
    y = np.array([row[-1, 0] for row in rows])
    network = RNNRegressor(cell, 6, num_layers, max_epochs=2, batch_size=5, random_state=0).fit(rows, y)
    expected = [by_itself(network, row) for row in rows]
    np.testing.assert_allclose(network.predict(rows), expected, rtol=0, atol=1e-12)
    packed = pack_sequence([torch.from_numpy(row) for row in rows], enforce_sorted=False)
    np.testing.assert_allclose(network.predict(packed), expected, rtol=0, atol=1e-12)
    assert np.isfinite(network.score(rows, y)) and network.n_features_in_ == WIDTH


def test_every_step(rows):
    y = [row.cumsum(0)[:, 0] for row in rows]
    network = RNNRegressor("gru", 6, readout="all", max_epochs=2, batch_size=5, random_state=0).fit(rows, y)
    predicted = network.predict(rows)
    assert [len(p) for p in predicted] == LENGTHS
    for row, found in zip(rows, predicted, strict=True):
        np.testing.assert_allclose(found, by_itself(network, row), rtol=0, atol=1e-12)
    residual = np.concatenate(predicted) - np.concatenate(y)
    expected = 1 - (residual**2).sum() / ((np.concatenate(y) - np.concatenate(y).mean()) ** 2).sum()
    assert network.score(rows, y) == pytest.approx(expected, rel=1e-6)
    weights = np.arange(1, len(rows) + 1)
    assert np.isfinite(network.score(rows, y, sample_weight=weights))
    two = [np.stack([row.sum(1), row[:, 0]], 1) for row in rows]
    network = RNNRegressor("gru", 6, readout="all", max_epochs=1, random_state=0).fit(rows, two)
    assert network.predict(rows)[2].shape == (LENGTHS[2], 2)


def test_the_loss_counts_steps_that_are_there(rows):
    """One batch, no update: the training loss is the mean over real steps."""
    y = [row.cumsum(0)[:, 0] for row in rows]
    options = {"readout": "all", "batch_size": 100, "random_state": 0, "max_epochs": 1, "lr": 0.0}
    network = RNNRegressor("gru", 6, **options).fit(rows, y)
    squares = np.concatenate([(p - t) ** 2 for p, t in zip(network.predict(rows), y, strict=True)])
    assert network.history_[-1]["train_loss"] == pytest.approx(squares.mean(), rel=1e-5)
    labels = [(row[:, 0] > 0).astype(int) for row in rows]
    network = RNNClassifier("gru", 6, **options).fit(rows, labels, rows, labels)
    p = np.concatenate(network.predict_proba(rows))
    nats = -np.log(p[np.arange(len(p)), np.concatenate(labels)])
    assert network.history_[-1]["train_loss"] == pytest.approx(nats.mean(), rel=1e-5)
    assert network.history_[-1]["valid_loss"] == pytest.approx(nats.mean(), rel=1e-5)
    assert network.bits_per_token(rows, labels) == pytest.approx(nats.mean() / np.log(2), rel=1e-6)
    right = np.concatenate(network.predict(rows)) == np.concatenate(labels)
    assert network.score(rows, labels) == pytest.approx(right.mean())
    assert network.history_[-1]["valid_accuracy"] == pytest.approx(right.mean())


def test_equal_lengths_in_a_list_are_an_array(rows):
    equal = [row[:3] for row in rows]
    y = np.arange(len(rows)) % 2
    first = RNNClassifier("lstm", 6, max_epochs=2, random_state=0).fit(equal, y)
    second = RNNClassifier("lstm", 6, max_epochs=2, random_state=0).fit(np.stack(equal), y)
    np.testing.assert_array_equal(first.predict_proba(equal), second.predict_proba(np.stack(equal)))


@pytest.mark.parametrize("embedding_dim", [None, 3])
@pytest.mark.parametrize("readout", ["last", "all"])
def test_tokens_and_labels_of_strings(embedding_dim, readout):
    draw = np.random.default_rng(0)
    tokens = [draw.integers(0, 5, size=n) for n in LENGTHS]
    names = np.array(["a", "b", "c", "d", "e"])
    y = [names[t] for t in tokens] if readout == "all" else names[[t[-1] for t in tokens]]
    network = RNNClassifier(
        "gru", 8, input_type="tokens", embedding_dim=embedding_dim, readout=readout, max_epochs=30, lr=0.05,
        validation_fraction=0.25, random_state=0,
    ).fit(tokens, y)  # fmt: skip
    assert network.n_inputs_ == 5 and network.score(tokens, y) > 0.8
    for row, found in zip(tokens, network.predict(tokens), strict=True):
        np.testing.assert_array_equal(found, by_itself(network, row))
    result = lyapunov_spectrum(network, tokens, warmup=0, n_exponents=2)
    assert result.exponents.shape == (2,)


def test_one_input_per_step_warm_starts_and_critical_weights(rows):
    series = [row[:, 0] for row in rows]
    y = np.arange(len(rows)) % 2
    network = RNNClassifier("gru", 4, init="critical", max_epochs=1, random_state=0, warm_start=True).fit(series, y)
    assert network.n_features_in_ == 1
    network.fit(series, y)
    network.partial_fit(series, y)
    assert len(network.history_) == 3 and network.predict(series).shape == (len(rows),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: ([*X[:-1], X[-1][:, :1]], y), "must be a list of sequences of one width. Got widths 1, 2"),
        (lambda X, y: ([*X[:-1], X[-1][:0]], y), r"of at least one step. Got one of shape \(0, 2\)"),
        (lambda X, y: ([*X[:-1], np.full_like(X[-1], np.nan)], y), "contains NaN"),
        (lambda X, y: (X, [*y[:-1], y[-1][:-1]]), "Sequence 11 has 6 steps and 5 targets"),
        (lambda X, y: (X, y[:-1]), "Sequence 11 has 6 steps and no targets"),
        (lambda X, y: (X, np.zeros((len(X), 9))), "Sequence 0 has 5 steps and 9 targets"),
    ],
)
def test_bad_lists(change, message, rows):
    y = [row.cumsum(0)[:, 0] for row in rows]
    X, y = change(rows, y)
    with pytest.raises(ValueError, match=message):
        RNNRegressor("gru", 4, readout="all", max_epochs=1).fit(X, y)
