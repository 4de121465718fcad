"""Batches as people have them: packed, padded, listed, single series, tables and dictionaries."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_sequence

from sklyap import RNNClassifier, covariant_lyapunov_vectors, lyapunov_spectrum
from tests.cells.networks import WIDTH, H, Wrapper, draw

LENGTHS = [12, 20, 7, 20]


@pytest.fixture
def rows():
    x = draw(len(LENGTHS), max(LENGTHS), WIDTH)
    return [row[:n] for row, n in zip(x, LENGTHS, strict=True)]


NETWORKS = {
    "layer": lambda: nn.GRU(WIDTH, H).double(),
    "encoder": lambda: nn.Sequential(nn.Linear(WIDTH, 4), nn.GRU(4, H, batch_first=True)).double(),
    "encoder, time first": lambda: nn.Sequential(nn.Linear(WIDTH, 4), nn.GRU(4, H)).double(),
}


def spectra(network, sequences, **options):
    return lyapunov_spectrum(network, sequences, warmup=0, **options).per_sequence


@pytest.mark.parametrize("name", NETWORKS)
def test_unequal_lengths_in_every_form(name, rows):
    network = NETWORKS[name]()
    expected = np.concatenate([spectra(network, row[None]).sum(1) for row in rows])
    padded = pad_sequence(rows, batch_first=True, padding_value=9.0)
    for form, options in (
        (rows, {}),
        ([row.numpy() for row in rows], {}),
        (pack_sequence(rows, enforce_sorted=False), {}),
        (padded, {"lengths": LENGTHS}),
        (padded.numpy(), {"lengths": np.array(LENGTHS)}),
        (list(padded), {"lengths": torch.tensor(LENGTHS)}),
    ):
        np.testing.assert_allclose(spectra(network, form, **options).sum(1), expected, rtol=0, atol=1e-12)


def test_lists_of_one_input_per_step():
    layer = nn.Sequential(nn.GRU(1, H)).double()
    rows = [draw(20), draw(14)]
    expected = np.concatenate([spectra(layer, row.reshape(1, -1, 1)).sum(1) for row in rows])
    np.testing.assert_allclose(spectra(layer, rows).sum(1), expected, rtol=0, atol=1e-12)


def test_lengths_that_do_not_fit(rows):
    layer, padded = nn.GRU(WIDTH, H).double(), pad_sequence(rows, batch_first=True)
    with pytest.raises(ValueError, match="'lengths' parameter must hold a number of steps for each of the 4"):
        spectra(layer, padded, lengths=[3, 4])
    with pytest.raises(ValueError, match=r"'lengths' parameter must be an int in the range \[1, 20\]. Got 21"):
        spectra(layer, padded, lengths=[3, 4, 21, 5])
    with pytest.raises(ValueError, match="'lengths' parameter must be None for a PackedSequence"):
        spectra(layer, pack_sequence(rows, enforce_sorted=False), lengths=LENGTHS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_single_series(name):
    network, x = NETWORKS[name](), draw(50, WIDTH)
    np.testing.assert_array_equal(spectra(network, x), spectra(network, x[None]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_single_series_of_one_input_could_be_many_sequences(wrapped):
    layer = nn.GRU(1, H).double()
    network = nn.Sequential(layer) if wrapped else layer
    with pytest.raises(ValueError, match=r"of shape \(200, 1\), can be read as 200 sequences of one step or as one se"):
        lyapunov_spectrum(network, draw(200, 1))
    np.testing.assert_array_equal(spectra(network, draw(4, 30)), spectra(network, draw(4, 30, 1)))
    assert spectra(network, draw(1, 200)).shape == (1, H)


def test_networks_of_two_dimensions_take_them_as_ever():
    net = Wrapper(nn.GRU(1, H, batch_first=True), lambda net, x: net.layer(x.unsqueeze(-1))[0]).double()
    np.testing.assert_array_equal(spectra(net, draw(4, 30)), spectra(net.layer, draw(4, 30, 1)))


def test_tables_and_dictionaries_are_refused_with_a_way_out(rows):
    layer = nn.GRU(WIDTH, H).double()
    frame = pd.DataFrame(draw(30, WIDTH).numpy())
    with pytest.raises(
        TypeError, match=r"Got a DataFrame, whose rows can be sequences or steps: .*to_numpy\(\)\[None\]"
    ):
        lyapunov_spectrum(layer, frame)
    with pytest.raises(TypeError, match="Got a DataFrame"):
        lyapunov_spectrum(layer, [frame, frame])
    with pytest.raises(TypeError, match=r"Got a dict with keys 'input_ids', 'mask': .* as forward_kwargs"):
        lyapunov_spectrum(layer, {"input_ids": rows, "mask": None})
    with pytest.raises(TypeError, match=r"must hold real numbers. Got dtype torch.complex128"):
        lyapunov_spectrum(nn.Sequential(layer), torch.complex(draw(2, 20, WIDTH), draw(2, 20, WIDTH)))
    with pytest.raises(TypeError, match=r"must hold real numbers. Got dtype"):
        lyapunov_spectrum(layer, np.array([["a", "b"]]))
    with pytest.raises(ValueError, match=r"a rectangular array .* or a list of"):
        lyapunov_spectrum(layer, [[[1.0, 2.0], [3.0]], [[1.0, 2.0]]])


def test_arguments_of_forward():
    class Started(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.LSTM(WIDTH, H, batch_first=True)

        def forward(self, x, hidden):
            return self.layer(x, hidden)[0]

    net, x = Started().double(), draw(3, 20, WIDTH)
    start = draw(1, 3, H).float().double()  # of numbers that float32 has
    hidden = (start, 2 * start)
    cell = Wrapper(net.layer, lambda net, x: net.layer(x, hidden)[0])
    for forward_kwargs in ({"hidden": hidden}, {"hidden": tuple(h.float().numpy() for h in hidden)}):
        found = spectra(net, x, forward_kwargs=forward_kwargs)
        np.testing.assert_allclose(found, spectra(cell, x), rtol=0, atol=1e-12)
    vectors = covariant_lyapunov_vectors(net, x, n_exponents=2, forward_kwargs={"hidden": hidden})
    assert vectors.exponents.shape == (2,)
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'hidden'"):
        lyapunov_spectrum(net, x)
    with pytest.raises(ValueError, match="'forward_kwargs' parameter is for a network with a forward of its own"):
        lyapunov_spectrum(net.layer, x, forward_kwargs={"hidden": hidden})
    with pytest.raises(ValueError, match="'forward_kwargs' parameter needs sequences of one length"):
        lyapunov_spectrum(net, [draw(20, WIDTH), draw(10, WIDTH)], forward_kwargs={"hidden": hidden})


def test_estimators_take_them_too(rows):
    x = draw(20, 15, WIDTH).numpy()
    network = RNNClassifier("gru", H, max_epochs=1, random_state=0).fit(x, np.arange(20) % 2)
    rows = [row.float() for row in rows]
    expected = np.concatenate([spectra(network, row[None]).sum(1) for row in rows])
    found = spectra(network, pack_sequence(rows, enforce_sorted=False))
    np.testing.assert_allclose(found.sum(1), expected, rtol=0, atol=1e-12)
