"""The RNN estimators: scikit-learn's contract, training, determinism, tokens and steps."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_blobs, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale
from sklearn.utils import shuffle
from sklearn.utils.estimator_checks import check_estimator
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklyap import RNNClassifier, RNNRegressor, as_recurrent_cell
from sklyap.cells import CELLS, RecurrentCell
from tests.networks.helpers import Leaky, small


@pytest.mark.parametrize(
    "estimator,n_checks",
    [
        (RNNClassifier("gru", 8, max_epochs=20, lr=0.05, batch_size=32), 60),
        (RNNRegressor("rnn", 4, max_epochs=2), 58),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scikit_learns_checks(estimator, n_checks):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    # Equal but for the order in which float32 adds: 1.3e-7, and 1e-7 is asked. tests/networks/test_weights.py has more.
    failed.pop("check_sample_weight_equivalence_on_dense_data", None)
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert failed == {}
    assert skipped <= {"check_array_api_input"}  # needs SCIPY_ARRAY_API in the environment
    assert sum(r["status"] == "passed" for r in results) >= n_checks


def test_the_classifier_reaches_scikit_learns_yardsticks():
    # poor_score is about its default parameters, as for the regressor.
    X, y = make_blobs(n_samples=300, random_state=0)
    X, y = shuffle(scale(X), y, random_state=7)
    network = RNNClassifier("gru", 16, max_epochs=20, lr=0.02, random_state=0)
    assert network.fit(X, y).score(X, y) > 0.83
    X, y = make_blobs(centers=3, random_state=0, cluster_std=20)
    heavy = clone(network).set_params(class_weight={0: 1000, 1: 0.0001, 2: 0.0001}).fit(X[:50], y[:50])
    assert (heavy.predict(X[50:]) == 0).mean() > 0.87


def test_the_regressor_reaches_scikit_learns_yardstick():
    # poor_score is about its default parameters; it is not for want of learning.
    X, y = make_regression(n_samples=200, n_features=10, n_informative=1, bias=5.0, noise=20, random_state=42)
    X, y = scale(X), scale(y)
    assert RNNRegressor("gru", 16, max_epochs=40, lr=0.02, random_state=0).fit(X, y).score(X, y) > 0.5


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_n_features_in_is_honest(digits):
    X, y = digits
    assert small().fit(X, y).n_features_in_ == 8
    assert small().fit(X[:, :5], y).n_features_in_ == 8
    table = pd.DataFrame(X[:, 0], columns=[f"pixel {i}" for i in range(8)])
    network = small().fit(table, y)
    assert network.n_features_in_ == 8
    assert network.n_inputs_ == 1
    assert list(network.feature_names_in_) == list(table.columns)
    with pytest.raises(ValueError, match="X has 5 features, but RNNClassifier is expecting 8"):
        network.predict(X[:, 0, :5])
    # A refit on sequences forgets the table; any number of steps goes then.
    network.fit(X, y)
    assert not hasattr(network, "feature_names_in_")
    assert network.predict(X[:, :3]).shape == y.shape
    tokens = small(input_type="tokens").fit(X.argmax(2), y)
    assert not hasattr(tokens, "n_features_in_")
    # One input per step has two spellings.
    flat = small().fit(X[:, 0], y)
    deep = small().fit(X[:, 0, :, None], y)
    np.testing.assert_array_equal(flat.predict_proba(X[:, 0]), deep.predict_proba(X[:, 0, :, None]))
    np.testing.assert_array_equal(flat.predict_proba(X[:, 0]), deep.predict_proba(X[:, 0]))


def test_clone_pickle_grid_search(digits):
    X, y = digits
    network = small(gradient_clip=1.0, validation_fraction=0.2, callbacks=[EarlyStopping(patience=3)]).fit(X, y)
    again = pickle.loads(pickle.dumps(network))
    np.testing.assert_array_equal(again.predict_proba(X), network.predict_proba(X))
    assert again.history_ == network.history_
    assert not hasattr(clone(network), "net_")
    search = GridSearchCV(small(), {"hidden_size": [2, 16], "cell": ["rnn", "lstm"]}, cv=2).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # The data stay outside: a pickle holds weights and their moments, not 400 sequences.
    assert len(pickle.dumps(small(validation_fraction=0.2).fit(X, y))) < 60_000 < X.nbytes


def test_not_fitted_comes_first():
    for method in ("predict", "predict_proba", "bits_per_token", "score", "export_state"):
        arguments = {"predict": 1, "predict_proba": 1, "bits_per_token": 2, "score": 2, "export_state": 0}[method]
        with pytest.raises(NotFittedError):
            getattr(RNNClassifier(), method)(*[None] * arguments)
    with pytest.raises(NotFittedError):
        RNNRegressor().predict(None)
    assert not hasattr(RNNClassifier(), "history_")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_architecture_learns(cell, num_layers, digits):
    X, y = digits
    # coRNN's own step is for hundreds of steps, here are eight.
    options = {"cell_params": {"dt": 0.5, "epsilon": 1.0} if cell == "cornn" else None, "batch_size": 32, "lr": 0.02}
    # An LTC filters its input, and learns slowly at first.
    n_epochs = 12 if cell == "ltc" else 3
    network = small(cell=cell, hidden_size=16, num_layers=num_layers, max_epochs=n_epochs, **options).fit(X, y)
    losses = network.history_[:, "train_loss"]
    assert losses[-1] < 0.95 * losses[0]
    recurrent = network.net_.module_.recurrent
    fused = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
    assert isinstance(recurrent, fused.get(cell, RecurrentCell))
    # What is analysed is what was trained.
    x = torch.tensor(X[:5], dtype=torch.float32)
    with torch.no_grad():
        outputs = as_recurrent_cell(network)(x)[0]
        torch.testing.assert_close(outputs, recurrent(x)[0])
        logits = network.net_.module_.readout(outputs[:, -1])
    np.testing.assert_allclose(logits.softmax(-1), network.predict_proba(X[:5]), atol=1e-5)


def test_a_users_own_cell(digits):
    X, y = digits
    network = small(cell=Leaky, cell_params={"leak": 0.7}, num_layers=2, max_epochs=4, lr=0.02).fit(X, y)
    assert network.net_.module_.recurrent.cells[1].leak == 0.7
    assert network.history_[-1, "train_loss"] < network.history_[0, "train_loss"]
    assert as_recurrent_cell(network).state_size == 16


def test_results_depend_on_random_state_alone(digits):
    X, y = digits
    params = {"dropout": 0.3, "num_layers": 2, "validation_fraction": 0.2}
    first = small(**params).fit(X, y)
    torch.manual_seed(1234)
    np.random.seed(5)
    small(random_state=1).fit(X, y)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    second = small(**params).fit(X, y)
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.history_[:, "valid_loss"] == second.history_[:, "valid_loss"]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    other = small(**params, random_state=2).fit(X, y)
    assert not np.array_equal(first.predict_proba(X), other.predict_proba(X))
    # Without a random_state every fit is another one.
    a, b = (small(random_state=None).fit(X, y).predict_proba(X) for _ in range(2))
    assert not np.array_equal(a, b)


def test_epochs_may_be_cut_anywhere(digits):
    X, y = digits
    params = {"dropout": 0.2, "validation_fraction": 0.25}
    whole = small(max_epochs=3, **params).fit(X, y)
    step = small(**params)
    for _ in range(3):
        step.partial_fit(X, y)
    warm = small(max_epochs=1, warm_start=True, **params).fit(X, y)
    warm.set_params(max_epochs=2).fit(X, y)
    for network in (step, warm):
        np.testing.assert_array_equal(network.predict_proba(X), whole.predict_proba(X))
        assert network.history_[:, "train_loss"] == whole.history_[:, "train_loss"]
        assert network.history_[:, "epoch"] == [1, 2, 3]
    assert len(small(max_epochs=1).fit(X, y).fit(X, y).history_) == 1


def test_partial_fit_with_classes_to_come(digits):
    X, y = digits
    network = small()
    network.partial_fit(X[y < 5], y[y < 5], classes=np.arange(10))
    network.partial_fit(X[y >= 5], y[y >= 5])
    assert network.predict_proba(X).shape == (400, 10)
    with pytest.raises(ValueError, match=r"'y' parameter of RNNClassifier must hold known classes.*unseen"):
        small().partial_fit(X[y < 5], y[y < 5]).partial_fit(X, y)


def test_zero_epochs_give_the_initial_network(digits):
    X, y = digits
    network = small(max_epochs=0, init="uniform", init_scale=0.2).fit(X, y)
    assert len(network.history_) == 0
    assert max(p.abs().max() for p in network.net_.module_.recurrent.parameters()) <= 0.2
    assert network.predict(X).shape == y.shape


def test_critical_initialisation_uses_the_training_data(digits):
    X, y = digits
    unscaled = small(max_epochs=0, init="critical").fit(X, y)
    scaled = small(max_epochs=0, init="critical").fit(10 * X, y)
    weights = [n.net_.module_.recurrent.weight_hh_l0.detach() for n in (unscaled, scaled)]
    assert not torch.allclose(*weights)
    np.testing.assert_allclose((weights[0] / weights[1]).std(), 0, atol=1e-5)


@pytest.mark.parametrize("n_rows", [1, 7, 64, 100])
def test_predictions_do_not_depend_on_their_company(n_rows, digits):
    X, y = digits
    network = small(cell="lstm", hidden_size=33).fit(X, y)
    whole = network.predict_proba(X)
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-15)
    parts = np.concatenate([network.predict_proba(X[i : i + n_rows]) for i in range(0, 200, n_rows)])[:200]
    np.testing.assert_allclose(parts, whole[:200], rtol=1e-12)
    assert all(p.dtype == torch.float32 for p in network.net_.module_.parameters())


@pytest.mark.parametrize("embedding_dim", [None, 3])
def test_next_token_prediction(tokens, embedding_dim):
    X, y = tokens[:, :-1], tokens[:, 1:]
    network = RNNClassifier(
        "gru",
        12,
        input_type="tokens",
        readout="all",
        embedding_dim=embedding_dim,
        lr=0.03,
        max_epochs=25,
        random_state=0,
    ).fit(X, y, X[:10], y[:10])
    np.testing.assert_array_equal(network.predict(X), y)
    assert network.score(X, y) == 1.0 == network.history_[-1, "valid_accuracy"]
    probabilities = network.predict_proba(X)
    assert probabilities.shape == (60, 12, 5)
    bits = network.bits_per_token(X, y)
    assert bits == pytest.approx(log_loss(y.ravel(), probabilities.reshape(-1, 5)) / np.log(2))
    assert bits < 0.3 < small(**network.get_params() | {"max_epochs": 0}).fit(X, y).bits_per_token(X, y)
    # Other lengths go, and each prediction knows only its past.
    np.testing.assert_allclose(network.predict_proba(X[:, :4]), probabilities[:, :4], rtol=1e-12)
    assert network.net_.module_.recurrent.input_size == (embedding_dim or 5)


def test_the_vocabulary(tokens):
    X, y = tokens[:, :-1], tokens[:, -1]
    assert small(input_type="tokens").fit(X, y).n_inputs_ == 5
    assert small(input_type="tokens", n_tokens=9).fit(X, y).n_inputs_ == 9
    assert small(input_type="tokens").fit(X, y, X + 2, y).n_inputs_ == 7
    network = small(input_type="tokens").fit(X, y)
    with pytest.raises(ValueError, match=r"'X' .* vocabulary of 5, 0 to 4. Got 6"):
        network.predict(X + 2)
    with pytest.raises(ValueError, match=r"'X' .* vocabulary of 3, 0 to 2. Got 4"):
        small(input_type="tokens", n_tokens=3).fit(X, y)
    with pytest.raises(ValueError, match=r"not negative\. Got -1"):
        network.predict(X - 1)
    with pytest.raises(ValueError, match=r"must hold integers .* Got dtype float64"):
        network.predict(X * 1.0)
    with pytest.raises(ValueError, match=r"must have shape \(n_sequences, n_steps\) .* Got shape \(60, 12, 1\)"):
        network.predict(X[:, :, None])


def test_classes_of_any_kind(tokens, digits):
    letters = np.array(list("edcba"))
    network = small(input_type="tokens", readout="all").fit(tokens[:, :-1], letters[tokens[:, 1:]])
    assert list(network.classes_) == list("abcde")
    assert network.predict(tokens).dtype == letters.dtype
    # A class that only validation data have is one all the same.
    X, y = digits
    network = small().fit(X[y < 9], y[y < 9], X[y == 9], y[y == 9])
    assert list(network.classes_) == list(range(10))


@pytest.mark.parametrize("trailing", [(), (1,), (3,)])
@pytest.mark.parametrize("readout", ["last", "all"])
def test_regression_targets_keep_their_shape(digits, readout, trailing):
    X, _ = digits
    sums = X.cumsum(1)[:, :, 2:5] / 4
    y = (sums if trailing == (3,) else sums[:, :, :1]).reshape(400, 8, -1)
    y = y if readout == "all" else y[:, -1]
    y = y.reshape(*y.shape[:-1], *trailing)
    network = RNNRegressor("gru", 16, readout=readout, max_epochs=8, lr=0.02, random_state=0).fit(X, y)
    predicted = network.predict(X)
    assert predicted.shape == y.shape
    assert predicted.dtype == np.float64
    assert network.score(X, y) > 0.5
    assert network.score(X, y, sample_weight=np.ones(400)) == pytest.approx(network.score(X, y))
    error = network.history_[-1, "train_loss"]
    assert ((predicted - y) ** 2).mean() == pytest.approx(error, rel=0.5)


def test_history_agrees_with_predictions(digits):
    X, y = digits
    network = small(max_epochs=3).fit(X[:300], y[:300], X[300:], y[300:])
    history = network.history_
    assert all(len(history[:, name]) == 3 for name in ("train_loss", "valid_loss", "valid_accuracy", "dur"))
    assert history[-1, "valid_accuracy"] == pytest.approx(network.score(X[300:], y[300:]))
    expected = log_loss(y[300:], network.predict_proba(X[300:]), labels=range(10))
    assert history[-1, "valid_loss"] == pytest.approx(expected, rel=1e-5)
    assert "valid_loss" not in small().fit(X, y).history_[-1]


def test_validation_fraction_is_stratified(digits):
    X, y = digits
    X, y = np.concatenate([X[y == 0][:30], X[y == 1][:10]]), np.repeat([0, 1], [30, 10])
    seen = []

    class Look(Callback):
        def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
            seen.append((dataset_train.y.numpy(), dataset_valid.y.numpy()))

    small(validation_fraction=0.2, callbacks=[Look()]).fit(X, y)
    train, valid = seen[0]
    assert (len(train), len(valid)) == (32, 8)
    assert valid.sum() == 2
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    # A class with one sequence can't be on both sides; the split is then a plain one.
    y[-1] = 2
    assert len(small(validation_fraction=0.2).fit(X, y).history_[:, "valid_loss"]) == 2
