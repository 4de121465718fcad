"""LyapunovSpectrumTransformer: networks in, spectra out, as scikit-learn users put it to work."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import FeatureUnion, make_pipeline

from sklyap import LyapunovSpectrumTransformer, RNNClassifier, lyapunov_spectrum
from sklyap.cells import FunctionCell
from sklyap.exceptions import DegenerateSpectrumWarning, FailedNetworkWarning, PrecisionWarning, SklyapWarning


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kinds = (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN)
        return [kind(3, size) for size in (4, 6, 9) for kind in kinds]


@pytest.fixture(scope="module")
def sequences():
    return np.random.default_rng(0).normal(size=(5, 20, 3))


def test_rows_are_the_leading_exponents_of_each_network(networks, sequences):
    spectra = LyapunovSpectrumTransformer(sequences).fit_transform(networks)
    assert spectra.shape == (9, 4)  # the smallest network decides
    for row, network in zip(spectra, networks, strict=True):
        np.testing.assert_allclose(row, lyapunov_spectrum(network, sequences, n_exponents=4).exponents, rtol=1e-12)


def test_interpolation_is_linear_in_relative_index_and_keeps_both_ends(networks, sequences):
    transformer = LyapunovSpectrumTransformer(sequences, n_exponents=7, align="interpolate")
    spectra = transformer.fit_transform(networks)
    for row, result in zip(spectra, transformer.results_, strict=True):
        full = result.exponents
        assert row[0] == full[0] and row[-1] == full[-1]
        position = 3 / 6 * (len(full) - 1)
        low = int(np.floor(position))
        expected = full[low] + (position - low) * (full[min(low + 1, len(full) - 1)] - full[low])
        assert row[3] == pytest.approx(expected, rel=1e-12)


def test_a_spectrum_of_one_exponent_is_constant(sequences):
    single = torch.nn.GRU(3, 1)
    row = LyapunovSpectrumTransformer(sequences, n_exponents=5, align="interpolate").fit_transform([single])
    assert np.ptp(row) == 0


def test_base_and_state(networks, sequences):
    nats = LyapunovSpectrumTransformer(sequences, state="hidden").fit_transform(networks)
    bits = LyapunovSpectrumTransformer(sequences, state="hidden", base=2).fit_transform(networks)
    np.testing.assert_allclose(bits, nats / np.log(2), rtol=1e-13)
    hidden = lyapunov_spectrum(networks[0], sequences, state="hidden").exponents
    np.testing.assert_allclose(nats[0], hidden, rtol=1e-10)


def test_annihilated_directions_are_finite_and_warned_about_once(networks, sequences):
    dead = torch.nn.LSTM(3, 5)
    with torch.no_grad():
        dead.weight_hh_l0.zero_()
    transformer = LyapunovSpectrumTransformer(sequences, n_exponents=12, align="interpolate")
    with pytest.warns(DegenerateSpectrumWarning, match="1 of 10 networks") as caught:
        spectra = transformer.fit_transform([*networks, dead])
    assert len(caught) == 1
    assert np.isfinite(spectra).all()
    assert spectra[-1, -1] == np.log(np.finfo(float).eps)
    assert np.isneginf(transformer.results_[-1].exponents[5:]).all()


@pytest.mark.processes
def test_same_bits_for_every_n_jobs_and_verbosity(networks, sequences, capsys):
    reference = LyapunovSpectrumTransformer(sequences).fit_transform(networks)
    for options in ({"n_jobs": 2}, {"n_jobs": 2, "verbose": 1}, {"verbose": 1}):
        np.testing.assert_array_equal(
            LyapunovSpectrumTransformer(sequences, **options).fit_transform(networks), reference
        )


def test_a_single_network_shows_its_steps(networks, sequences, capsys):
    reference = LyapunovSpectrumTransformer(sequences).fit_transform(networks[:1])
    transformer = LyapunovSpectrumTransformer(sequences, verbose=1)
    np.testing.assert_array_equal(transformer.fit_transform(networks[:1]), reference)
    steps = len(sequences) * len(sequences[0])
    assert f"{steps}/{steps}" in capsys.readouterr().err


class TestMemory:
    def count(self, location):
        return len(list(location.rglob("*.npz")))

    @pytest.mark.processes
    def test_hits_across_deep_copies_clones_jobs_and_settings_that_do_not_matter(self, networks, sequences, tmp_path):
        transformer = LyapunovSpectrumTransformer(sequences, memory=str(tmp_path))
        first = transformer.fit_transform(networks)
        assert self.count(tmp_path) == len(networks)
        again = clone(transformer).set_params(n_jobs=2, verbose=1, device="cpu", batch_size=3)
        second = again.fit_transform(copy.deepcopy(networks))
        assert self.count(tmp_path) == len(networks)
        np.testing.assert_array_equal(first, second)

    @pytest.mark.processes
    def test_the_second_cache_of_a_process_serves_others_too(self, networks, sequences, tmp_path):
        for name in ("first", "second"):
            LyapunovSpectrumTransformer(sequences, memory=str(tmp_path / name)).fit_transform(networks)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
        again = LyapunovSpectrumTransformer(sequences, memory=str(tmp_path / "second"), n_jobs=2)
        again.fit_transform(networks)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")} == written

    def test_a_bar_over_steps_is_no_other_spectrum(self, networks, sequences, tmp_path):
        for verbose in (0, 1):
            LyapunovSpectrumTransformer(sequences, memory=str(tmp_path), verbose=verbose).fit_transform(networks[:1])
            assert self.count(tmp_path) == 1

    def test_misses_where_weights_sequences_settings_or_kind_differ(self, networks, sequences, tmp_path):
        network = networks[2]
        fit = lambda seq=sequences, net=network, **kw: LyapunovSpectrumTransformer(  # noqa: E731
            seq, memory=str(tmp_path), **kw
        ).fit_transform([net])
        changed = copy.deepcopy(network)
        with torch.no_grad():
            changed.weight_hh_l0[0, 0] += 1e-6
        relu = torch.nn.RNN(3, 4, nonlinearity="relu")
        relu.load_state_dict(network.state_dict())
        fit()
        fit(sequences + 1e-9)
        fit(net=changed)
        fit(random_state=1)
        fit(warmup=5)
        fit(dtype="float32")
        with pytest.warns(DegenerateSpectrumWarning):
            fit(net=relu)
        assert self.count(tmp_path) == 7
        fit()
        assert self.count(tmp_path) == 7

    def test_step_functions_count_with_what_they_refer_to(self, tmp_path):
        def cell(rate):
            return FunctionCell(lambda s, x: rate * s, 2)

        transformer = LyapunovSpectrumTransformer(50, memory=str(tmp_path))
        for rates in ([0.5, 0.25], [0.5, 0.125], [0.5, 0.25]):
            rows = transformer.fit_transform([cell(rate) for rate in rates])
            np.testing.assert_allclose(rows[:, 0], np.log(rates), rtol=1e-12)
        assert self.count(tmp_path) == 3

    def test_what_has_no_hash_is_computed_again(self, tmp_path):
        cells = [FunctionCell(lambda s, x, stream=(c for c in "ab"): 0.5 * s, 2)]
        with pytest.warns(SklyapWarning, match=r"not kept in the cache, .* the FunctionCell .* a generator"):
            rows = LyapunovSpectrumTransformer(50, memory=str(tmp_path)).fit_transform(cells)
        np.testing.assert_allclose(rows, np.log([[0.5, 0.5]]), rtol=1e-12)
        assert self.count(tmp_path) == 0

    @pytest.mark.processes
    def test_no_spectrum_is_computed_twice_in_a_search(self, networks, sequences, tmp_path):
        pipeline = make_pipeline(LyapunovSpectrumTransformer(sequences, memory=str(tmp_path)), Ridge())
        search = GridSearchCV(pipeline, {"ridge__alpha": [0.1, 1, 10]}, cv=3, n_jobs=2)
        # all folds must agree on the columns, so the smallest network may not decide
        search.estimator.set_params(lyapunovspectrumtransformer__n_exponents=4)
        search.fit(networks, np.arange(9.0))
        search.predict(networks)
        assert self.count(tmp_path) == len(networks)


class TestFailingNetworks:
    @pytest.fixture
    def broken(self):
        network = torch.nn.GRU(3, 4)
        with torch.no_grad():
            network.weight_hh_l0[0, 0] = float("nan")
        return network

    def test_raise_by_default_naming_the_network(self, networks, broken, sequences):
        transformer = LyapunovSpectrumTransformer(sequences, n_exponents=4)
        with pytest.raises(ValueError, match="NaN or infinite values in weight_hh") as caught:
            transformer.fit_transform([*networks, broken])
        assert "network 9" in " ".join(caught.value.__notes__)

    def test_become_rows_of_nan_on_demand(self, networks, broken, sequences):
        transformer = LyapunovSpectrumTransformer(sequences, on_error="warn")
        with pytest.warns(FailedNetworkWarning, match="Network 1 of 4 failed"):
            spectra = transformer.fit_transform([networks[0], broken, *networks[1:3]])
        assert np.isnan(spectra[1]).all() and np.isfinite(spectra[[0, 2, 3]]).all()
        assert list(transformer.failures_) == [1] and transformer.results_[1] is None


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda n, s: LyapunovSpectrumTransformer(s).fit([]), ValueError, "Got an empty one"),
        (lambda n, s: LyapunovSpectrumTransformer(s).fit(n[0]), TypeError, "Put a single network in a list"),
        (lambda n, s: LyapunovSpectrumTransformer(s).fit(np.zeros((3, 2))), ValueError, "list of trained networks"),
        (lambda n, s: LyapunovSpectrumTransformer().fit(n), ValueError, "'sequences' parameter"),
        (lambda n, s: LyapunovSpectrumTransformer(s, align="pad").fit(n), ValueError, "'align' parameter"),
        (lambda n, s: LyapunovSpectrumTransformer(s, base=1).fit(n), ValueError, "'base' parameter"),
        (lambda n, s: LyapunovSpectrumTransformer(s, n_exponents=0).fit(n), ValueError, "'n_exponents' parameter"),
        (
            lambda n, s: LyapunovSpectrumTransformer(s, n_exponents=5).fit_transform(n[1:2]),
            ValueError,
            r"range \[1, 4\]",
        ),
        (lambda n, s: LyapunovSpectrumTransformer(s[..., :2]).fit_transform(n), ValueError, "3 inputs per step"),
        (lambda n, s: LyapunovSpectrumTransformer(s[0, 0]).fit_transform(n), ValueError, "must have shape"),
        (lambda n, s: LyapunovSpectrumTransformer(np.full_like(s, np.nan)).fit_transform(n), ValueError, "finite"),
        (lambda n, s: LyapunovSpectrumTransformer(s).fit([torch.nn.Linear(3, 3)]), ValueError, "recurrent layer"),
        (lambda n, s: LyapunovSpectrumTransformer(s).fit([RNNClassifier()]), NotFittedError, "not fitted"),
        (lambda n, s: LyapunovSpectrumTransformer(s).transform(n), NotFittedError, "not fitted"),
    ],
)
def test_bad_input_is_named(networks, sequences, make, error, message):
    with pytest.raises(error, match=message):
        make(networks, sequences)


def test_an_interval_too_long_is_warned_about_once(networks, sequences):
    # LSTMs separate by several nats per step: over 19 steps float32 cannot hold that
    with pytest.warns(PrecisionWarning, match="qr_interval=19 loses digits in 3 of 3") as caught:
        LyapunovSpectrumTransformer(
            sequences, n_exponents=12, align="interpolate", qr_interval=19, warmup=0, dtype="float32"
        ).fit_transform(networks[::3])
    assert len(caught) == 1


def test_autonomous_systems():
    rates = torch.tensor([0.5, 0.25], dtype=torch.float64)
    cell = FunctionCell(lambda s, x: s * rates.to(s), 2)
    spectra = LyapunovSpectrumTransformer(500).fit_transform([cell, cell])
    np.testing.assert_allclose(spectra, np.log([[0.5, 0.25]] * 2), atol=1e-12)


def test_works_as_scikit_learn_users_put_it_to_work(networks, sequences):
    transformer = LyapunovSpectrumTransformer(sequences, n_exponents=4)
    frame = clone(transformer).set_output(transform="pandas").fit_transform(networks)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == [f"lyapunov_{i}" for i in range(4)]
    loaded = pickle.loads(pickle.dumps(transformer.fit(networks)))
    np.testing.assert_array_equal(loaded.transform(networks), frame.to_numpy())
    union = FeatureUnion([("leading", transformer), ("full", clone(transformer).set_params(align="interpolate"))])
    assert make_pipeline(union, Ridge()).fit(networks, np.arange(9.0)).predict(networks[:2]).shape == (2,)
    out_of_fold = cross_val_predict(make_pipeline(transformer, DummyRegressor()), networks, np.arange(9.0), cv=3)
    assert out_of_fold.shape == (9,)


def test_clones_share_the_sequences_and_keep_the_rest(sequences):
    transformer = LyapunovSpectrumTransformer(sequences, n_exponents=3, base=2).set_output(transform="pandas")
    twin = clone(transformer)
    assert twin.sequences is sequences and transformer.sequences is sequences
    assert twin.get_params() | {"sequences": None} == transformer.get_params() | {"sequences": None}
    assert not hasattr(twin, "n_exponents_")
    assert "LyapunovSpectrumTransformer" in twin._repr_html_()
