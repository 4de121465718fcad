"""Networks in one batch: the same spectra as one by one, whatever is among them."""

import numpy as np
import pytest
import torch

import sklyap.spectrum.transformer
import sklyap.spectrum.worker
from sklyap import LyapunovSpectrumTransformer, as_recurrent_cell, lyapunov_spectrum
from sklyap.cells import CELLS, FunctionCell, RecurrentCell
from sklyap.cells.drive import Drive
from sklyap.exceptions import DivergedError, FailedNetworkWarning
from sklyap.lyapunov.ensemble import EnsembleCell, ensemble_spectra

SETTINGS = {
    "n_exponents": None,
    "warmup": "auto",
    "qr_interval": "auto",
    "orthonormalizer": "auto",
    "state": "full",
    "dtype": "float64",
    "device": "cpu",
    "random_state": 0,
}
LAYERS = {
    "two layers": lambda: torch.nn.LSTM(3, 4, num_layers=2),
    "many units": lambda: torch.nn.GRU(3, 30),
    "no bias": lambda: torch.nn.RNN(3, 6, bias=False, nonlinearity="relu"),
} | {name: lambda cell=cell: cell(3, 6) for name, cell in CELLS.items()}


class Sine(RecurrentCell):
    """Differentiated by torch."""

    def __init__(self, rate):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size = 1, 2, 2
        self.rate = torch.nn.Parameter(torch.tensor(rate))

    def step(self, s, x):
        return self.rate * torch.sin(s.flip(-1)) + x


class Affine(Sine):
    def step(self, s, x):
        return self.rate * s + x


class Branching(Sine):
    """Cannot be run by vmap, for an assertion."""

    trust = ("branches",)

    def step(self, s, x):
        assert float(s.detach().abs().sum()) >= 0
        return self.rate * s


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def sequences():
    return torch.rand(4, 25, 3)


@pytest.fixture
def in_batches(monkeypatch):
    """Group networks as on a GPU, and note how many were run together."""
    sizes = []

    def spied(cells, drives, **settings):
        sizes.append(len(cells))
        return ensemble_spectra(cells, drives, **settings)

    monkeypatch.setattr(sklyap.spectrum.transformer, "resolve_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(sklyap.spectrum.worker, "ensemble_spectra", spied)
    return sizes


# torch 2.6 has no batching rule for matrix_exp, and says that it goes on one by one
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("state", ["full", "hidden"])
@pytest.mark.parametrize("k", [2, None])
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore::sklyap.exceptions.SklyapWarning")  # short sequences, dead units
def test_agrees_with_one_by_one(name, k, state, sequences):
    cells = [as_recurrent_cell(LAYERS[name]()) for _ in range(3)]
    settings = SETTINGS | {"n_exponents": k, "state": state}
    together = ensemble_spectra(cells, [Drive.of(cell, sequences) for cell in cells], **settings)
    assert len({result.exponents[0] for result in together}) == 3
    for cell, result in zip(cells, together, strict=True):
        alone = lyapunov_spectrum(cell, sequences, **settings)
        np.testing.assert_allclose(result.exponents, alone.exponents, rtol=1e-9)
        np.testing.assert_allclose(result.per_sequence, alone.per_sequence, rtol=1e-9)
        assert (result.log_abs_det is None) == (alone.log_abs_det is None)


def test_a_cell_differentiated_by_torch_and_an_autonomous_one():
    driven = [Sine(rate) for rate in (0.5, 1.5)]
    x = torch.rand(3, 40, 1)
    for cell, result in zip(
        driven, ensemble_spectra(driven, [Drive.of(c, x) for c in driven], **SETTINGS), strict=True
    ):
        np.testing.assert_allclose(result.exponents, lyapunov_spectrum(cell, x).exponents, rtol=1e-10)
    free = [FunctionCell(lambda s, x: 3.9 * s * (1 - s), 1, initial_state=[s0]) for s0 in (0.2, 0.7)]
    for cell, result in zip(free, ensemble_spectra(free, [Drive.of(c, 200) for c in free], **SETTINGS), strict=True):
        np.testing.assert_allclose(result.exponents, lyapunov_spectrum(cell, 200).exponents, rtol=1e-6)


def test_an_ensemble_steps_as_its_cells_do(sequences):
    cells = [as_recurrent_cell(torch.nn.LSTM(3, 5)).double() for _ in range(3)]
    ensemble = EnsembleCell(cells)
    s, x = torch.randn(6, 10).double(), torch.randn(6, 3).double()
    expected = torch.cat([cell.step(s[i : i + 2], x[i : i + 2]) for i, cell in zip((0, 2, 4), cells, strict=True)])
    torch.testing.assert_close(ensemble.step(s, x), expected)
    expected = torch.cat([cell.jacobian(s[i : i + 2], x[i : i + 2]) for i, cell in zip((0, 2, 4), cells, strict=True)])
    torch.testing.assert_close(ensemble.jacobian(s, x), expected)


class TestTransformer:
    def test_groups_by_structure(self, in_batches, sequences):
        kinds = [torch.nn.LSTM, torch.nn.GRU, torch.nn.LSTM, torch.nn.GRU, torch.nn.LSTM]
        networks = [kind(3, 5) for kind in kinds] + [torch.nn.LSTM(3, 6)]
        rows = LyapunovSpectrumTransformer(sequences).fit_transform(networks)
        assert sorted(in_batches) == [2, 3]
        for network, row in zip(networks, rows, strict=True):
            np.testing.assert_allclose(row, lyapunov_spectrum(network, sequences).exponents[:5], rtol=1e-9)

    def test_batch_size_and_memory_bound_a_group(self, in_batches, sequences, monkeypatch):
        networks = [torch.nn.GRU(3, 4) for _ in range(7)]
        LyapunovSpectrumTransformer(sequences, batch_size=12).fit_transform(networks)
        assert in_batches == [3, 3]
        in_batches.clear()
        monkeypatch.setattr(sklyap.spectrum.transformer, "_ENSEMBLE_BYTES", 4 * 4 * 4 * 8 * 5)
        LyapunovSpectrumTransformer(sequences).fit_transform(networks)
        assert in_batches == [5, 2]

    def test_sequences_of_several_lengths_go_one_by_one(self, in_batches):
        networks = [torch.nn.GRU(3, 4) for _ in range(2)]
        LyapunovSpectrumTransformer([torch.rand(20, 3), torch.rand(30, 3)]).fit_transform(networks)
        assert in_batches == []

    def test_one_that_diverges_leaves_the_others_in_batches(self, in_batches, sequences):
        networks = [Affine(rate) for rate in (0.1, 0.2, 0.3, 0.4, 0.5, 1e30, 0.7, 0.8)]
        x = torch.rand(2, 30, 1)
        transformer = LyapunovSpectrumTransformer(x, on_error="warn")
        with pytest.warns(FailedNetworkWarning, match="Network 5 of 8 failed.*DivergedError") as caught:
            rows = transformer.fit_transform(networks)
        assert in_batches == [8, 4, 4, 2, 2] and len(caught) == 1
        assert list(transformer.failures_) == [5] and np.isnan(rows[5]).all()
        np.testing.assert_allclose(np.delete(rows, 5, 0)[:, 0], np.log([0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8]), rtol=1e-6)
        with pytest.raises(DivergedError):
            LyapunovSpectrumTransformer(x).fit_transform(networks)

    def test_out_of_memory_halves_the_batch(self, sequences, monkeypatch, in_batches):
        sizes = []

        def little(cells, drives, **settings):
            sizes.append(len(cells))
            if len(cells) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return ensemble_spectra(cells, drives, **settings)

        monkeypatch.setattr(sklyap.spectrum.worker, "ensemble_spectra", little)
        rows = LyapunovSpectrumTransformer(sequences).fit_transform([torch.nn.GRU(3, 4) for _ in range(4)])
        assert sizes == [4, 2, 2] and np.isfinite(rows).all()

    def test_cells_that_vmap_cannot_run_go_one_by_one(self, in_batches):
        networks = [Branching(rate) for rate in (0.5, 0.25)]
        rows = LyapunovSpectrumTransformer(torch.rand(2, 30, 1)).fit_transform(networks)
        assert in_batches == [2]
        np.testing.assert_allclose(rows, np.log([[0.5, 0.5], [0.25, 0.25]]), rtol=1e-6)

    def test_what_a_cache_has_is_not_computed_again(self, in_batches, sequences, tmp_path):
        networks = [torch.nn.GRU(3, 4) for _ in range(5)]
        transformer = LyapunovSpectrumTransformer(sequences, memory=str(tmp_path), n_exponents=4)
        some = transformer.fit_transform(networks[:2])
        every = transformer.fit_transform(networks)
        assert in_batches == [2, 3]
        np.testing.assert_array_equal(every[:2], some)
        np.testing.assert_array_equal(transformer.fit_transform(networks), every)
        assert in_batches == [2, 3] and len(list(tmp_path.rglob("*.npz"))) == 5

    def test_jobs_and_a_bar_change_nothing(self, sequences, in_batches, capfd):
        networks = [torch.nn.GRU(3, size) for size in (4, 5, 4, 5, 4)]
        rows = LyapunovSpectrumTransformer(sequences).fit_transform(networks)
        again = LyapunovSpectrumTransformer(sequences, n_jobs=2, verbose=1).fit_transform(networks)
        np.testing.assert_array_equal(rows, again)
        assert "5/5" in capfd.readouterr().err
