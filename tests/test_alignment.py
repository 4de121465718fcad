"""Lyapunov directions against the loss gradient: definitions recomputed by hand, chance, and use in scikit-learn."""

import pickle
import time
import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from torch import nn

from sklyap import LyapunovSpectrumTransformer, RNNClassifier, RNNRegressor, as_recurrent_cell, lyapunov_spectrum
from sklyap.alignment import GradientAlignmentAnalyzer
from sklyap.exceptions import FailedNetworkWarning, SklyapWarning
from sklyap.gradients.directions import cosines, expected_cosine, principal_angles, under_chance
from sklyap.testing import check_network_transformer

N_CLASSES, HIDDEN = 3, 6


@pytest.fixture(scope="module")
def task():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 9, 4)).astype(np.float32)
    return X, rng.integers(0, N_CLASSES, size=12)


@pytest.fixture(scope="module")
def networks(task):
    kinds = ("rnn", "gru", "lstm", "cornn", "rnn")
    return [RNNClassifier(kind, HIDDEN, max_epochs=2, random_state=i).fit(*task) for i, kind in enumerate(kinds)]


@pytest.fixture(scope="module")
def analyzer(task):
    return GradientAlignmentAnalyzer(*task, n_directions=4, n_singular=2, n_baseline=20)


@pytest.mark.parametrize("kind,gates", [("rnn", 1), ("gru", 3), ("lstm", 4)])
def test_the_gradient_is_torchs(kind, gates, task, analyzer):
    X, y = task
    network = RNNClassifier(kind, HIDDEN, 2, max_epochs=1, random_state=0).fit(X, y)
    module = network.net_.module_
    double = pickle.loads(pickle.dumps(module)).double()
    nn.functional.cross_entropy(double(torch.from_numpy(X).double()), torch.from_numpy(y)).backward()
    for layer in (0, 1):
        result = clone(analyzer).set_params(weight=f"weight_hh_l{layer}").analyze(network)
        expected = getattr(double.recurrent, f"weight_hh_l{layer}").grad.numpy()
        assert result.gradient.shape == (gates * HIDDEN, HIDDEN)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(result.gradient, expected, rtol=0, atol=1e-10 * scale)
        np.testing.assert_allclose(result.autograd_gradient, expected, rtol=0, atol=1e-10 * scale)
        assert result.relative_error < 1e-10
        np.testing.assert_allclose(result.singular_values, np.linalg.svd(expected, compute_uv=False), rtol=1e-8)
        assert result.weight == f"cells.{layer}.weight_hh"


def test_every_number_of_an_elman_network_by_hand(task, analyzer):
    """All definitions written out in numpy for ``h' = tanh(W x + U h + b)``, whose A_t is diagonal."""
    X, y = task
    network = RNNClassifier("rnn", HIDDEN, max_epochs=3, random_state=1).fit(X, y)
    result = analyzer.analyze(network)
    cell = as_recurrent_cell(network)
    spectrum = lyapunov_spectrum(cell, X, warmup=0, qr_interval=1, return_basis=True)
    Q, R = spectrum.basis[..., :4], spectrum.r_factors
    with torch.no_grad():
        h = cell.double().trajectory(torch.zeros(12, HIDDEN).double(), torch.from_numpy(X).double())
    h = h.transpose(0, 1).numpy()
    U, sizes, Vt = np.linalg.svd(result.autograd_gradient)
    perturbations = (1 - h[:, 1:] ** 2)[..., None] * U[:, :2] * (h[:, :-1] @ Vt[:2].T)[:, :, None]
    unit_kicks = perturbations[:, 1:] / np.linalg.norm(
        perturbations[:, 1:], axis=2, keepdims=True
    )  # h_0 = 0: no perturbation
    by_step = np.abs(np.swapaxes(Q[:, 2:], 2, 3) @ unit_kicks)
    np.testing.assert_allclose(result.alignment, by_step.mean((0, 1)), rtol=1e-8)
    np.testing.assert_allclose(result.alignment_by_step[1:], by_step.mean(0), rtol=1e-8)
    assert not result.alignment_by_step[0].any()
    reads = np.abs(np.swapaxes(Q[:, 1:-1], 2, 3) @ Vt[:2].T)
    np.testing.assert_allclose(result.right_alignment, reads.mean((0, 1)), rtol=1e-8)
    points = zip(Q[:, 2:].reshape(-1, HIDDEN, 4), unit_kicks.reshape(-1, HIDDEN, 2), strict=True)
    angles = [subspace_angles(q, kicks_here) for q, kicks_here in points]
    np.testing.assert_allclose(result.principal_angles, np.mean(angles, 0)[::-1], rtol=1e-6)
    np.testing.assert_allclose(result.r_values, np.diagonal(R, axis1=2, axis2=3), rtol=1e-10)
    g = gradients_by_autograd(network, X, y)
    c = np.einsum("ntik,nti->ntk", spectrum.basis[:, 1:], g)
    np.testing.assert_allclose(result.energy, np.cumsum((c**2).sum((0, 1))) / (g**2).sum(), rtol=1e-8)
    through = np.einsum("nti,ntai,ntaj->ij", c[..., :4], Q[:, 1:], perturbations) / sizes[:2]
    np.testing.assert_allclose(result.contribution, through, rtol=1e-7, atol=1e-12)


def gradients_by_autograd(network, X, y):
    """Return ∂L/∂h_t, t = 1 … T, of a one-layer Elman estimator."""
    module = pickle.loads(pickle.dumps(network.net_.module_)).double().eval()
    layer, h, states = module.recurrent, torch.zeros(len(X), HIDDEN).double(), []
    for x in torch.from_numpy(X).double().unbind(1):
        h = torch.tanh(x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0)
        h.retain_grad()
        states.append(h)
    nn.functional.cross_entropy(module.readout(h), torch.from_numpy(y)).backward()
    return torch.stack([s.grad for s in states], 1).numpy()


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm", "antisymmetric", "cornn", "lem"])
def test_directions_share_out_each_singular_value(kind, task):
    network = RNNClassifier(kind, 4, max_epochs=1, random_state=0).fit(*task)
    N = as_recurrent_cell(network).state_size
    result = GradientAlignmentAnalyzer(*task, n_directions=N, n_singular=3, n_baseline=0, prefixes=None).analyze(
        network
    )
    np.testing.assert_allclose(result.contribution.sum(0), 1, rtol=1e-9)
    assert result.energy[-1] == pytest.approx(1, abs=1e-12)
    assert result.baseline_interval is None and result.energy_interval is None
    assert 0 <= result.alignment.min() and result.alignment.max() <= 1


@pytest.mark.parametrize("readout", ["last", "all"])
def test_prefixes_are_sequences_cut_off(readout, task, analyzer):
    X, y = task
    y = y if readout == "last" else np.random.default_rng(1).integers(0, N_CLASSES, size=X.shape[:2])
    network = RNNClassifier("lstm", HIDDEN, readout=readout, max_epochs=1, random_state=0).fit(X, y)
    result = clone(analyzer).set_params(targets=y).analyze(network)
    assert result.prefixes.tolist() == list(range(1, 10))
    for i, t in enumerate(result.prefixes):
        cut = clone(analyzer).set_params(
            sequences=X[:, :t], targets=y if readout == "last" else y[:, :t], prefixes=None
        )
        alone = cut.analyze(network)
        assert result.losses_by_prefix[i] == pytest.approx(alone.loss, rel=1e-12)
        np.testing.assert_allclose(result.singular_values_by_prefix[i], alone.singular_values, rtol=1e-6, atol=1e-15)
        np.testing.assert_allclose(result.energy_by_prefix[i], alone.energy, rtol=1e-9)
        np.testing.assert_allclose(result.alignment_by_prefix[i], alone.alignment_by_step[-1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result.singular_values_by_prefix[-1], result.singular_values, rtol=1e-6, atol=1e-15)
    some = clone(analyzer).set_params(targets=y, prefixes=[9, 3]).analyze(network)
    np.testing.assert_allclose(some.alignment_by_prefix, result.alignment_by_prefix[[2, 8]], rtol=1e-9)
    assert some.baseline_interval_by_prefix.shape == (2, 2, 4, 2)


def test_a_network_of_a_fixed_number_of_steps_has_no_prefixes(task, analyzer):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.readout = nn.GRU(4, HIDDEN, batch_first=True), nn.Linear(9 * HIDDEN, N_CLASSES)

        def forward(self, x):
            return self.readout(self.rnn(x)[0].flatten(1))

    with pytest.warns(SklyapWarning, match="cannot be run on sequences that end early"):
        result = analyzer.analyze(Flat())
    assert result.prefixes.shape == (0,) and result.alignment_by_prefix.shape == (0, 4, 2)
    assert result.baseline_interval_by_prefix.shape == (2, 0, 4, 2)
    assert result.relative_error < 1e-10


def test_covariant_vectors_and_reduced_rank(task, analyzer):
    network = RNNClassifier("gru", HIDDEN, max_epochs=1, random_state=0).fit(*task)
    full = clone(analyzer).set_params(covariant=True).analyze(network)
    assert full.covariant_alignment.shape == (4, 2)
    # The first covariant vector is the first column of Q.
    np.testing.assert_allclose(full.covariant_alignment[0], full.alignment[0], rtol=1e-9)
    assert np.abs(full.covariant_alignment[1:] - full.alignment[1:]).max() > 1e-3
    low = clone(analyzer).set_params(rank=4).analyze(network)
    assert low.relative_error > 1e-3  # truncated, and says so
    for name in ("alignment", "right_alignment", "contribution", "principal_angles", "singular_values"):
        np.testing.assert_allclose(getattr(low, name), getattr(full, name), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(low.energy, full.energy[:4], rtol=1e-9)
    np.testing.assert_allclose(low.energy_interval, full.energy_interval, rtol=1e-4)


def test_state_hidden(task, analyzer):
    network = RNNClassifier("lstm", HIDDEN, 2, max_epochs=1, random_state=0).fit(*task)
    for layer in (0, 1):
        hidden = clone(analyzer).set_params(state="hidden", weight=f"weight_hh_l{layer}").analyze(network)
        assert hidden.energy.shape == (2 * HIDDEN,) and hidden.energy[-1] == pytest.approx(1, abs=1e-12)
        assert 1e-3 < hidden.relative_error < 2


# Chance


def test_expected_cosine_is_that_of_random_directions():
    rng = np.random.default_rng(0)
    for N in (1, 2, 10, 128):
        directions = rng.normal(size=(40_000, N))
        mean = np.abs(directions[:, 0] / np.linalg.norm(directions, axis=1)).mean()
        assert expected_cosine(N) == pytest.approx(mean, rel=0.02)


def test_the_interval_of_chance_holds_what_chance_gives():
    """Unrelated directions that persist over points, as Q's do, lie inside in about 95 of 100 cases."""
    generator = torch.Generator().manual_seed(0)
    N, inside = 12, 0
    for _ in range(100):
        start = torch.randn(2, N, generator=generator)
        drift = 0.3 * torch.randn(20, 2, N, generator=generator)
        Q, K = (torch.nn.functional.normalize(start[i] + drift[:, i].cumsum(0), dim=1) for i in range(2))

        def statistic(rotation, Q=Q, K=K):
            return (Q * (K @ rotation)).sum(1).abs().mean()

        low, high = under_chance(statistic, N, 60, 0, like=K)
        inside += bool(low <= (Q * K).sum(1).abs().mean() <= high)
    assert 85 <= inside <= 100


def test_a_gradient_made_of_the_first_direction_stands_out(task):
    """Positive control: a loss whose δ is Q_1 itself; the recurrent weights then align with Q_1 far beyond chance."""
    torch.manual_seed(0)
    layer = nn.RNN(4, 30, batch_first=True).double()
    X = torch.from_numpy(task[0]).double()[:1]
    basis = lyapunov_spectrum(layer, X, warmup=0, qr_interval=1, return_basis=True).basis
    first = torch.from_numpy(basis[0, -1, :, 0])
    options = {"n_directions": 3, "n_singular": 1, "prefixes": [9]}
    result = GradientAlignmentAnalyzer(X, [0.0], loss=lambda o, y: (o[0][:, -1] @ first).mean(), **options).analyze(
        layer
    )
    assert result.alignment_by_prefix[0, 0, 0] > result.baseline_interval_by_prefix[1, 0, 0, 0]
    assert result.energy[0] > result.energy_interval[1, 0]


def test_principal_angles():
    rng = np.random.default_rng(0)
    Q, K = np.linalg.qr(rng.normal(size=(5, 9, 4)))[0], rng.normal(size=(5, 9, 2))
    expected = [subspace_angles(q, k)[::-1] for q, k in zip(Q, K, strict=True)]
    np.testing.assert_allclose(principal_angles(torch.from_numpy(Q), torch.from_numpy(K)), expected, atol=1e-7)
    twice = torch.from_numpy(np.repeat(Q[:, :, :1], 2, axis=2))  # spans one direction, which Q holds
    np.testing.assert_allclose(principal_angles(torch.from_numpy(Q), twice), [[0, np.pi / 2]] * 5, atol=1e-7)
    nothing = torch.zeros(5, 9, 2, dtype=torch.float64)
    np.testing.assert_allclose(principal_angles(torch.from_numpy(Q), nothing), np.pi / 2)
    assert not cosines(torch.from_numpy(Q), nothing).any()


# In scikit-learn


def test_contract_of_network_transformers(analyzer, networks):
    check_network_transformer(analyzer, networks[:4])


def test_features_are_those_of_the_analysis(analyzer, networks):
    rows = clone(analyzer).fit_transform(networks)
    names = clone(analyzer).fit(networks).get_feature_names_out().tolist()
    assert (
        rows.shape == (5, 4 + 8 + 2 + 2)
        and names[0] == "gradient_energy_0"
        and names[4:6] == ["alignment_0_0", "alignment_0_1"]
    )
    for row, network in zip(rows, networks, strict=True):
        result = analyzer.analyze(network)
        expected = [
            *result.energy[:4],
            *result.alignment.ravel(),
            *np.log(result.singular_values[:2]),
            *result.principal_angles,
        ]
        np.testing.assert_allclose(row, expected, rtol=1e-6, atol=1e-9)


def test_workers_give_the_same_bits(analyzer, networks):
    one, two = (
        clone(analyzer).set_params(n_jobs=n_jobs, verbose=n_jobs - 1).fit_transform(networks) for n_jobs in (1, 2)
    )
    np.testing.assert_array_equal(one, two)


def test_clones_share_the_sequences(analyzer):
    assert clone(analyzer).sequences is analyzer.sequences


def test_beside_the_spectrum_in_a_search(task, networks):
    union = FeatureUnion(
        [
            ("spectrum", LyapunovSpectrumTransformer(task[0], n_exponents=4)),
            ("alignment", GradientAlignmentAnalyzer(*task, n_directions=2)),
        ]
    )
    search = GridSearchCV(
        make_pipeline(union, Ridge()),
        {"featureunion__alignment__n_directions": [2, 4], "featureunion__alignment__n_singular": [1, 2]},
        cv=2, n_jobs=2, error_score="raise", scoring="neg_mean_squared_error",
    )  # fmt: skip
    search.fit(networks, np.arange(5.0))
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    frame = union.set_output(transform="pandas").fit_transform(networks)
    assert {"spectrum__lyapunov_0", "alignment__principal_angle_0"} <= set(frame.columns)


def test_a_dead_network_gives_numbers(task):
    network = RNNClassifier("rnn", HIDDEN, nonlinearity="relu", max_epochs=1, random_state=0).fit(*task)
    with torch.no_grad():
        network.net_.module_.recurrent.bias_ih_l0.fill_(-50.0)
    analyzer = GradientAlignmentAnalyzer(*task, n_directions=2, n_singular=2, n_baseline=5)
    row = analyzer.fit_transform([network])
    assert np.isfinite(row).all() and not row[0, 2:6].any()
    result = analyzer.analyze(network)
    for name, value in vars(result).items():
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all(), name


def test_a_gradient_of_low_rank_has_few_singular_vectors(task):
    """One sequence of two steps from a state of zeros: only the second step acts, and the gradient has rank one."""
    X, y = task[0][:1, :2], task[1][:1]
    network = RNNClassifier("gru", HIDDEN, max_epochs=1, random_state=0).fit(*task)
    result = GradientAlignmentAnalyzer(X, y, n_directions=3, n_baseline=5).analyze(network)
    assert result.singular_values[1] < 1e-14 * result.singular_values[0]
    assert not result.left_vectors[:, 1:].any() and not result.alignment[:, 1:].any()
    assert (result.alignment[:, 0] > 0).all() and (result.principal_angles[1:] == np.pi / 2).all()
    np.testing.assert_allclose(result.alignment[:, 0], result.alignment_by_prefix[1, :, 0])
    assert not result.singular_values_by_prefix[0].any() and not result.alignment_by_prefix[0].any()


def test_a_vanishing_gradient_has_intervals(task):
    X, y = task
    network = RNNClassifier("rnn", HIDDEN, max_epochs=1, random_state=0).fit(X, y)
    tiny = GradientAlignmentAnalyzer(
        X, y, n_directions=3, n_baseline=5, loss=lambda o, y: 1e-40 * nn.functional.cross_entropy(o, y)
    ).analyze(network)
    plain = GradientAlignmentAnalyzer(X, y, n_directions=3, n_baseline=5).analyze(network)
    np.testing.assert_allclose(tiny.energy_interval, plain.energy_interval, rtol=1e-4)
    np.testing.assert_allclose(tiny.baseline_interval, plain.baseline_interval, rtol=1e-4)
    np.testing.assert_allclose(tiny.alignment, plain.alignment, rtol=1e-6)


def test_failing_networks_are_named_and_kept_apart(task, analyzer, networks):
    broken = RNNClassifier("rnn", HIDDEN, max_epochs=1, random_state=0).fit(*task)
    with torch.no_grad():
        broken.net_.module_.readout.bias.fill_(np.nan)
    mixed = [networks[0], broken, nn.GRU(4, HIDDEN), networks[1]]
    with pytest.raises(Exception, match="not finite") as caught:
        clone(analyzer).fit(mixed).transform(mixed)
    assert "network 1 of the list" in "".join(caught.value.__notes__)
    lenient = clone(analyzer).set_params(on_error="warn").fit(mixed)
    with pytest.warns(FailedNetworkWarning) as caught:
        rows = lenient.transform(mixed)
    assert sorted(str(w.message).split(":")[0] for w in caught) == [
        "Network 1 of 4 failed, its row is NaN", "Network 2 of 4 failed, its row is NaN",
    ]  # fmt: skip
    assert np.isnan(rows[1:3]).all() and np.isfinite(rows[[0, 3]]).all()
    assert set(lenient.failures_) == {1, 2} and "must have a readout" in lenient.failures_[2]


def test_through_training(task, analyzer):
    class Population:
        def networks(self, epoch):
            return [RNNClassifier("rnn", HIDDEN, max_epochs=epoch, random_state=i).fit(*task) for i in range(2)]

    results = clone(analyzer).set_params(n_jobs=2).analyze_training(Population(), (0, 3))
    assert list(results) == [0, 3] and [len(r) for r in results.values()] == [2, 2]
    assert results[0][0].loss > results[3][0].loss
    expected = analyzer.analyze(Population().networks(3)[1])
    np.testing.assert_allclose(results[3][1].alignment, expected.alignment, rtol=1e-9)


def test_regression_at_every_step(task):
    X = task[0]
    y = np.cumsum(X[..., 0], axis=1)
    networks = [RNNRegressor("gru", HIDDEN, readout="all", max_epochs=1, random_state=i).fit(X, y) for i in range(2)]
    analyzer = GradientAlignmentAnalyzer(X, y, n_directions=3)
    pipeline = make_pipeline(analyzer, DummyRegressor()).fit(networks, [1.0, 2.0])
    assert pipeline.predict(networks).tolist() == [1.5, 1.5]
    assert analyzer.analyze(networks[0]).relative_error < 1e-10


def test_bad_parameters(task, networks):
    X, y = task

    def raises(message, error=ValueError, **options):
        options = {"sequences": X, "targets": y} | options
        with pytest.raises(error, match=message):
            GradientAlignmentAnalyzer(options.pop("sequences"), options.pop("targets"), **options).analyze(networks[0])

    raises("'sequences' parameter of GradientAlignmentAnalyzer must be given", sequences=None)
    raises("'targets' parameter of GradientAlignmentAnalyzer must be given", targets=None)
    raises("'targets' parameter must hold one target for each of the 12", targets=y[:5])
    raises(r"'n_directions' parameter must be an int in the range \[1, 6\]. Got 7", n_directions=7)
    raises(r"'n_singular' parameter must be an int in the range \[1, 6\]. Got 8", n_singular=8, n_directions=2)
    raises("'n_directions' parameter of GradientAlignmentAnalyzer must be an int", TypeError, n_directions=2.0)
    raises(r"'rank' parameter must be an int in the range \[4, 6\]. Got 3", n_directions=4, rank=3)
    raises(r"'prefixes' parameter must be an int in the range \[1, 9\]. Got 10", n_directions=4, prefixes=[10])
    raises("'prefixes' parameter must be one of 'auto'", n_directions=4, prefixes="all")
    raises("'weight' parameter must be the name of a matrix .* weight_ih, weight_hh. Got 'bias_hh'", weight="bias_hh")
    raises("Got 'weight_hh_l1' instead", n_directions=2, weight="weight_hh_l1")
    raises("'state' parameter .* must be one of 'full', 'hidden'", state="h")
    raises("'on_error' parameter .* must be one of 'raise', 'warn'", on_error="ignore")
    with pytest.raises(ValueError, match="'n_baseline' parameter"):
        GradientAlignmentAnalyzer(X, y, n_baseline=-1).fit(networks)
    # Everything is checked before the first network is looked at.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="'orthonormalizer' parameter"):
            GradientAlignmentAnalyzer(X, y, orthonormalizer="svd").fit([nn.Linear(1, 1)])


@pytest.mark.slow
def test_speed():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 28, 28)).astype("f4"), rng.integers(0, 10, 200)
    network = RNNClassifier("rnn", 128, max_epochs=1, random_state=0).fit(X, y)
    analyzer = GradientAlignmentAnalyzer(X[:25], y[:25])
    analyzer.analyze(network)
    start = time.perf_counter()
    analyzer.analyze(network)
    assert time.perf_counter() - start < 2
