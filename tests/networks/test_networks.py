"""The RNN estimators: scikit-learn's contract, training, determinism, options, state, and what they refuse."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load, save
from sklearn.base import clone
from sklearn.datasets import load_digits, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import scale
from sklearn.utils.estimator_checks import check_estimator
from skorch.callbacks import Callback, EarlyStopping
from torch import nn
from torch.utils.data import DataLoader

from sklyap import RNNClassifier, RNNRegressor, as_recurrent_cell
from sklyap.cells import CELLS, RecurrentCell
from sklyap.cells.elman import ElmanCell
from sklyap.exceptions import DivergedError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400].reshape(-1, 8, 8) / 16, y[:400]


@pytest.fixture(scope="module")
def tokens():
    """Text in which every token is followed by the next one of five, from any start."""
    start = np.arange(60) % 5
    return (start[:, None] + np.arange(13)) % 5


def small(**params):
    return RNNClassifier(**{"cell": "gru", "hidden_size": 8, "max_epochs": 2, "lr": 0.01, "random_state": 0} | params)


# scikit-learn's contract


@pytest.mark.parametrize(
    "estimator,n_checks",
    [
        (RNNClassifier("gru", 8, max_epochs=20, lr=0.05, batch_size=32), 54),
        (RNNRegressor("rnn", 4, max_epochs=2), 52),
    ],
    ids=lambda value: type(value).__name__,
)
def test_scikit_learns_checks(estimator, n_checks):
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert failed == {}
    assert skipped <= {"check_array_api_input"}  # needs SCIPY_ARRAY_API in the environment
    assert sum(r["status"] == "passed" for r in results) >= n_checks


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


# Training


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_architecture_learns(cell, num_layers, digits):
    X, y = digits
    # coRNN's own step is for hundreds of steps, here are eight.
    options = {"cell_params": {"dt": 0.5, "epsilon": 1.0} if cell == "cornn" else None, "batch_size": 32, "lr": 0.02}
    network = small(cell=cell, hidden_size=16, num_layers=num_layers, max_epochs=3, **options).fit(X, y)
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


class Leaky(RecurrentCell):
    """A user's own cell, without options for biases."""

    def __init__(self, n_inputs, hidden_size, leak=0.5):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size, self.leak = n_inputs, hidden_size, hidden_size, leak
        self.linear = nn.Linear(n_inputs + hidden_size, hidden_size)

    def step(self, s, x):
        return (1 - self.leak) * s + self.leak * torch.tanh(self.linear(torch.cat([x, s], -1)))


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


# Tokens, steps, outputs


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


# Validation data


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


# Options


def test_optimizers(digits):
    X, y = digits
    for optimizer, kind in {
        "adam": torch.optim.Adam,
        "sgd": torch.optim.SGD,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        torch.optim.Adagrad: torch.optim.Adagrad,
    }.items():
        network = small(optimizer=optimizer, net_params={"optimizer__weight_decay": 0.125}).fit(X, y)
        assert type(network.net_.optimizer_) is kind
        assert network.net_.optimizer_.param_groups[0]["weight_decay"] == 0.125
        assert network.net_.optimizer_.param_groups[0]["lr"] == 0.01


def test_gradient_clip_bounds_the_norm(digits):
    X, y = digits
    norms = []

    class Norm(Callback):
        def on_grad_computed(self, net, named_parameters, **kwargs):
            norms.append(torch.stack([p.grad.norm() for _, p in named_parameters]).norm().item())

    small(gradient_clip=0.01, callbacks=[Norm()], max_epochs=1).fit(X, y)
    assert max(norms) == pytest.approx(0.01, rel=1e-3)
    norms.clear()
    small(callbacks=[("norm", Norm)], max_epochs=1).fit(X, y)
    assert max(norms) > 0.05


def test_net_params_go(digits):
    X, y = digits

    class Count(Callback):
        def __init__(self):
            self.sizes = []

        def on_batch_end(self, net, batch, training, **kwargs):
            if training:
                self.sizes.append(len(batch[0]))

    count = Count()
    options = {
        "iterator_train__drop_last": True,
        "iterator_train__batch_size": 150,
        "criterion__label_smoothing": 0.25,
        "optimizer__betas": (0.5, 0.9),
        "callbacks__valid_accuracy": None,
        "iterator_valid__batch_size": 11,
    }
    network = small(net_params=options, callbacks=[count], validation_fraction=0.1).fit(X, y)
    assert count.sizes == [150, 150] * 2
    assert network.net_.criterion_.label_smoothing == 0.25
    assert network.net_.optimizer_.param_groups[0]["betas"] == (0.5, 0.9)
    assert "valid_accuracy" not in network.history_[-1]
    assert network.history_[-1, "valid_batch_count"] == 4
    # torch's own loader, row by row, draws the same batches.
    plain = small(net_params={"iterator_train": DataLoader}).fit(X, y)
    np.testing.assert_array_equal(plain.predict_proba(X), small().fit(X, y).predict_proba(X))
    workers = small(net_params={"iterator_train__num_workers": 1}, max_epochs=1).fit(X, y)
    assert len(workers.history_) == 1
    assert small(net_params={"lr": 0.5}).fit(X, y).net_.optimizer_.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    "key,message",
    [
        ("optimizer__weigth_decay", "Did you mean 'optimizer__weight_decay'"),
        ("iterator_train__shufle", "Did you mean 'iterator_train__shuffle'"),
        ("criterion__labels", "'criterion__labels'"),
        ("callbacks__gradient_clipping__x", "'callbacks__gradient_clipping__x'"),
        ("max_epoch", "Did you mean 'max_epochs'"),
        ("module__hidden_size", "can't set 'module__hidden_size'"),
        ("warm_start", "can't set 'warm_start'"),
    ],
)
def test_unknown_net_params_are_named(digits, key, message):
    X, y = digits
    with pytest.raises(ValueError, match=f"'net_params' parameter of RNNClassifier .*{message}"):
        small(net_params={key: 1}).fit(X, y)


class StopAfter(Callback):
    def __init__(self, where="on_epoch_end", n=2):
        self.where, self.n, self.calls = where, n, 0

    def _count(self, where):
        self.calls += where == self.where
        if self.calls == self.n:
            self.calls = 0
            raise KeyboardInterrupt

    def on_epoch_end(self, net, **kwargs):
        self._count("on_epoch_end")

    def on_batch_begin(self, net, **kwargs):
        self._count("on_batch_begin")


def test_callbacks_stop_early_and_ctrl_c_interrupts(digits):
    X, y = digits
    network = small(max_epochs=9, callbacks=[StopAfter()]).fit(X, y)
    assert len(network.history_) == 2
    assert network.predict(X).shape == y.shape
    early = small(max_epochs=50, lr=0.0, validation_fraction=0.2, callbacks=[EarlyStopping(patience=2, sink=print)])
    assert len(early.fit(X, y).history_) == 3
    with pytest.raises(KeyboardInterrupt):
        small(callbacks=[StopAfter("on_batch_begin")]).fit(X, y)


def test_warm_start_takes_what_may_change(digits):
    X, y = digits
    network = small(warm_start=True).fit(X, y)
    network.set_params(lr=0.5, batch_size=200, gradient_clip=0.1).fit(X, y)
    assert network.net_.optimizer_.param_groups[0]["lr"] == 0.5
    assert network.history_[:, "train_batch_count"] == [7, 7, 2, 2]
    assert dict(network.net_.callbacks_)["gradient_clip"].gradient_clip_value == 0.1
    for change in ({"hidden_size": 9}, {"optimizer": "sgd"}, {"cell": "lstm"}):
        with pytest.raises(ValueError, match=f"can't go on training with another {next(iter(change))}"):
            clone(network).set_params(**network.get_params()).fit(X, y).set_params(**change).fit(X, y)


# Divergence


def test_divergence_names_its_epoch(digits):
    X, y = digits
    network = RNNRegressor("rnn", 8, nonlinearity="relu", optimizer="sgd", lr=1e6, max_epochs=50, random_state=0)
    with pytest.raises(DivergedError, match=r"Training diverged: the \w+ .* in epoch \d+\. Lower lr"):
        network.fit(X, y * 1000.0)
    assert 1 <= len(network.history_) < 50
    with pytest.raises(DivergedError, match="outputs of the network are NaN or infinite"):
        network.predict(X)


def test_a_last_update_that_breaks_the_weights(digits):
    X, y = digits
    network = RNNRegressor("rnn", 8, optimizer="sgd", lr=3e38, max_epochs=1, batch_size=400, random_state=0)
    with pytest.raises(DivergedError, match="the weights became NaN or infinite in epoch 1"):
        network.fit(X, y * 100.0)


# Bad input


@pytest.mark.parametrize(
    "params,message",
    [
        ({"cell": "lstmm"}, r"'cell' parameter of RNNClassifier .* Got 'lstmm' instead. Did you mean 'lstm'"),
        ({"cell": 3}, r"'cell' parameter .* Got 3"),
        ({"cell": nn.LSTM}, r"'cell' parameter .* or a RecurrentCell subclass"),
        ({"cell_params": {"leak": 1}}, r"'cell_params' parameter .* GRUCell, which has none. Got 'leak'"),
        ({"cell": "cornn", "cell_params": {"gama": 1}}, "Did you mean 'gamma'"),
        ({"cell": Leaky, "bias": False}, "'bias' parameter .* must be True with Leaky"),
        ({"nonlinearity": "relu"}, r"'nonlinearity' parameter .* cell='rnn' only"),
        ({"cell": "rnn", "nonlinearity": "sigmoid"}, r"'nonlinearity' .* 'tanh', 'relu'. Got 'sigmoid'"),
        ({"hidden_size": 0}, r"'hidden_size' .* range \[1"),
        ({"num_layers": 0}, "'num_layers'"),
        ({"max_epochs": -1}, "'max_epochs'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"lr": -0.1}, "'lr'"),
        ({"dropout": 1.5}, "'dropout'"),
        ({"init": "unifrom"}, "'init'"),
        ({"init_scale": -1.0}, "'init_scale'"),
        ({"gradient_clip": float("nan")}, "'gradient_clip'"),
        ({"validation_fraction": 1.0}, r"'validation_fraction' .* \(0, 1\)"),
        ({"optimizer": "adan"}, "'optimizer' .* Did you mean 'adam'"),
        ({"readout": "first"}, "'readout'"),
        ({"input_type": "token"}, "'input_type'"),
        ({"embedding_dim": 4}, "'embedding_dim' .* needs input_type='tokens'"),
        ({"n_tokens": 4}, "'n_tokens' .* needs input_type='tokens'"),
        ({"device": "gpu"}, "'device'"),
        ({"callbacks": EarlyStopping()}, "'callbacks' .* list of skorch callbacks"),
        ({"net_params": [1]}, "'net_params' .* dict"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_parameters(digits, params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(*digits)


def test_parameters_of_the_wrong_type(digits):
    for params in ({"hidden_size": 8.0}, {"lr": "fast"}, {"max_epochs": True}):
        with pytest.raises(TypeError, match=f"'{next(iter(params))}' parameter of RNNClassifier must be"):
            small(**params).fit(*digits)


def spoiled(X):
    X = X.copy()
    X[3, 2, 1] = np.nan
    return X


@pytest.mark.parametrize(
    "change,message",
    [
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (spoiled(X), y), "Input X contains NaN"),
        (lambda X, y: (X[:, :, :, None], y), r"must have shape .* Got shape \(400, 8, 8, 1\)"),
        (lambda X, y: (X[:, :0], y), "empty|0 feature|minimum"),
        (lambda X, y: (X[0, 0], y), "Reshape your data"),
        (lambda X, y: (X, y / 7), "continuous"),
        (lambda X, y: (X, None), "requires y to be passed"),
        (lambda X, y: (X, y, X, None), "'X_val' and 'y_val' parameters must be given together"),
        (lambda X, y: (X, y, X[:, :, :5], y), "X_val has 5 inputs per step, but X has 8"),
        (lambda X, y: (X, y, spoiled(X), y), "Input X_val contains NaN"),
        (lambda X, y: (X, y, X, y[:-1]), "inconsistent numbers of samples"),
    ],
)
def test_bad_data(digits, change, message):
    with pytest.raises(ValueError, match=message):
        small().fit(*change(*digits))


def test_bad_data_after_fit(digits):
    X, y = digits
    network = small().fit(X, y)
    with pytest.raises(ValueError, match="X has 5 inputs per step, but RNNClassifier was fitted with 8"):
        network.predict(X[:, :, :5])
    with pytest.raises(ValueError, match="known classes"):
        network.bits_per_token(X, y + 1)
    with pytest.raises(ValueError, match="inconsistent"):
        network.score(X, y[:-1])
    with pytest.raises(ValueError, match="'X_val' parameter and net_params"):
        small(net_params={"train_split": lambda *a: None}).fit(X, y, X, y)


def test_targets_at_every_step(digits):
    X, y = digits
    with pytest.raises(ValueError, match=r"Got shape \(400, 8\); readout='all' is for a class at every step"):
        small().fit(X, np.repeat(y[:, None], 8, 1))
    with pytest.raises(ValueError, match=r"'y' .* a target at every step, shape \(400, 8\).* Got shape \(400,\)"):
        small(readout="all").fit(X, y)
    steps = np.repeat(y[:, None], 8, 1)
    with pytest.raises(ValueError, match=r"Got shape \(400, 7\)"):
        small(readout="all").fit(X, steps[:, 1:])
    with pytest.raises(ValueError, match=r"'y' parameter of RNNRegressor must have shape \(n_sequences,\)"):
        RNNRegressor().fit(X, steps[:, :, None])
    with pytest.raises(ValueError, match=r"must have 2 outputs, as in fit\. Got 8"):
        RNNRegressor(max_epochs=1).partial_fit(X, steps[:, :2]).partial_fit(X, steps)


# State as plain data


def round_trip(network):
    tensors, attributes = network.export_state()
    return load(save(tensors)), json.loads(json.dumps(attributes))


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "network,columns",
    [
        (small(validation_fraction=0.2, num_layers=2), None),
        (small(cell=Leaky, cell_params={"leak": 0.3}), None),
        (small(cell="lipschitz", cell_params={"beta": (0.5, 0.75)}), None),
        (small(cell="lstm"), [f"c{i}" for i in range(8)]),
        (RNNRegressor("gru", 4, max_epochs=1, random_state=0), None),
    ],
)
def test_state_survives_json_and_safetensors(digits, network, columns):
    X, y = digits
    labels = np.array([f"digit {i}" for i in range(10)], dtype=object)[y]
    y = y if isinstance(network, RNNRegressor) else labels
    X = X if columns is None else pd.DataFrame(X[:, 3], columns=columns)
    network = clone(network).fit(X, y)
    restored = clone(network).restore_state(*round_trip(network))
    np.testing.assert_array_equal(restored.predict(X), network.predict(X))
    assert restored.history_[:, "train_loss"] == network.history_[:, "train_loss"]
    assert restored.n_features_in_ == network.n_features_in_
    assert restored.seed_ == network.seed_
    with pytest.raises(ValueError, match="X has"):
        restored.predict(np.zeros((2, 7, 3)) if columns is None else np.zeros((2, 7)))
    # It trains on, from the epoch where it stood.
    restored.partial_fit(X, y)
    assert restored.history_[:, "epoch"] == [*network.history_[:, "epoch"], len(network.history_) + 1]


def test_exported_tensors_do_not_alias(digits):
    X, y = digits
    network = small(warm_start=True).fit(X, y)
    tensors, attributes = network.export_state()
    before = {name: t.clone() for name, t in tensors.items()}
    network.fit(X, y)
    assert all(torch.equal(before[name], t) for name, t in tensors.items())
    assert len(attributes["history"]) == 2


@pytest.mark.parametrize(
    "spoil,message",
    [
        (lambda t, a: a.pop("history"), "'history'"),
        (lambda t, a: a.update(history=[1, 2]), "not a mapping"),
        (lambda t, a: a.update(estimator="RNNRegressor"), "it is that of a RNNRegressor"),
        (lambda t, a: a.update(architecture=None), "subscriptable"),
        (lambda t, a: a["architecture"].update(hidden_size=9), "hidden_size=9, and not 8"),
        (lambda t, a: a["architecture"].update(n_inputs=7), "size mismatch"),
        (lambda t, a: a["architecture"].update(n_inputs=10**15), "allocat|memory|overflow"),
        (lambda t, a: a.update(seed=-1), "'seed'"),
        (lambda t, a: a.update(n_columns="8"), "'n_columns'"),
        (lambda t, a: a["targets"].update(dtype="V8"), "dtype"),
        (lambda t, a: a["targets"].update(classes=[3, 2, 1]), "sorted"),
        (lambda t, a: t.popitem(), "Missing key"),
        (lambda t, a: t.update(extra=torch.zeros(1)), "Unexpected key"),
        (lambda t, a: t.update({"readout.bias": torch.zeros(3)}), "size mismatch"),
    ],
)
def test_malformed_states_are_refused(digits, spoil, message):
    network = small().fit(*digits)
    tensors, attributes = round_trip(network)
    spoil(tensors, attributes)
    fresh = clone(network)
    with pytest.raises(ValueError, match=rf"The state is not one that this RNNClassifier can take: .*{message}"):
        fresh.restore_state(tensors, attributes)
    with pytest.raises(NotFittedError):
        fresh.predict(digits[0])


# The rest


def test_elman_variants(digits):
    X, y = digits
    network = small(cell="rnn", nonlinearity="relu", bias=False).fit(X, y)
    assert network.net_.module_.recurrent.nonlinearity == "relu"
    assert not network.net_.module_.recurrent.bias
    cell = small(cell=ElmanCell, cell_params={"nonlinearity": "relu"}, bias=False).fit(X, y)
    assert cell.net_.module_.recurrent.bias_ih is None


def test_tensors_and_lists_are_arrays_too(digits):
    X, y = digits
    expected = small().fit(X, y).predict_proba(X)
    tensors = small().fit(torch.tensor(X), torch.tensor(y))
    np.testing.assert_array_equal(tensors.predict_proba(torch.tensor(X, requires_grad=True)), expected)
    np.testing.assert_array_equal(small().fit(X.tolist(), y.tolist()).predict_proba(X.tolist()), expected)


def test_verbose_prints_a_line_per_epoch(digits, capsys):
    small(verbose=1).fit(*digits)
    assert "train_loss" in capsys.readouterr().out
    small().fit(*digits)
    assert capsys.readouterr().out == ""


def test_the_overhead_benchmark_runs():
    from training_overhead import Task, measure

    for characters in (True, False):
        seconds = measure(Task("small", 4, 20, 5, 6, 6, characters=characters, batch_size=10), n_epochs=2)
        assert all(value > 0 for value in seconds.values())
