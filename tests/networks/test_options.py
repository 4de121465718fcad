"""The RNN estimators: options of training, divergence, and the rest."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping
from torch.utils.data import DataLoader

from sklyap import RNNRegressor
from sklyap.cells.elman import ElmanCell
from sklyap.exceptions import DivergedError
from tests.networks.helpers import small


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
    from benchmarks.training_overhead import Task, measure

    for characters in (True, False):
        seconds = measure(Task("small", 4, 20, 5, 6, 6, characters=characters, batch_size=10), n_epochs=2)
        assert all(value > 0 for value in seconds.values())
