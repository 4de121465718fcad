"""A search that is interrupted, killed or finds damaged files ends where it would have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pandas as pd
import pytest
import torch

from sklyap import RNNClassifier
from sklyap.datasets import make_recall
from sklyap.exceptions import FailedNetworkWarning, SklyapWarning
from sklyap.search import LyapunovHalvingSearch, live

X, y = make_recall(80, n_steps=4, random_state=0)
GRID = {"lr": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1], "cell": ["rnn", "gru"]}


def search_for(directory=None, **options):
    given = {"n_candidates": 9, "max_epochs": 9, "promote_by": "loss", "random_state": 0, "verbose": 0, "refit": False}
    return LyapunovHalvingSearch(RNNClassifier(hidden_size=3), GRID, X[:2], directory=directory, **(given | options))


@pytest.fixture(scope="module")
def whole():
    return search_for().fit(X, y)


def check_same(search, whole):
    ours, theirs = (s.best_estimator_.net_.network.state_dict() for s in (search, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    pd.testing.assert_frame_equal(search.decisions_, whole.decisions_)
    assert search.epochs_spent_ == whole.epochs_spent_


class Interruption:
    """Runs segments until some number of them are done."""

    def __init__(self, after):
        self.left = after

    def __call__(self, segment, *data):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return live_run(segment, *data)


live_run = live.run_segment


@pytest.mark.parametrize("after", [0, 4, 10, 12])
def test_ctrl_c_loses_nothing_that_was_finished(after, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(live, "run_segment", Interruption(after))
    with pytest.raises(KeyboardInterrupt):
        search_for(tmp_path).fit(X, y)
    again = Interruption(13 - after)  # as many as there are in all
    monkeypatch.setattr(live, "run_segment", again)
    check_same(search_for(tmp_path).fit(X, y), whole)
    assert again.left == 0


def test_without_a_directory_ctrl_c_keeps_the_best_so_far(monkeypatch):
    monkeypatch.setattr(live, "run_segment", Interruption(11))
    with pytest.warns(SklyapWarning, match="interrupted after 13 epochs"):
        search = search_for().fit(X, y)
    assert search.predict(X).shape == (80,)


def test_a_finished_search_trains_nothing_again_and_needs_no_seed(whole, tmp_path, monkeypatch):
    search_for(tmp_path).fit(X, y)
    monkeypatch.setattr(live, "run_segment", Interruption(0))
    check_same(search_for(tmp_path, random_state=None).fit(X, y), whole)


@pytest.mark.parametrize(
    "pattern", ["epoch-0001/optimizers/*", "epoch-0003/networks/*.safetensors", "epoch-0001/networks/*.json"]
)
def test_damaged_files_are_made_again(pattern, whole, tmp_path):
    search_for(tmp_path).fit(X, y)
    for path in tmp_path.glob(pattern):
        path.write_bytes(path.read_bytes()[:40])
    # Without the last rungs, so that training has to go on from the damaged ones.
    for path in tmp_path.glob("epoch-0009/networks/*"):
        path.unlink()
    with pytest.warns(FailedNetworkWarning, match=r"epoch-000\d/(optimizers|networks)"):
        search = search_for(tmp_path).fit(X, y)
    assert np.array_equal(search.decisions_, whole.decisions_) or search.decisions_.equals(whole.decisions_)
    assert search.best_loss_ == whole.best_loss_


def test_another_search_does_not_fit_the_directory(tmp_path, whole):
    search_for(tmp_path, n_candidates=2, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="was begun by another: n_networks was 2 and is 9"):
        search_for(tmp_path).fit(X, y)
    check_same(search_for(tmp_path, resume=False).fit(X, y), whole)


@pytest.mark.slow
def test_kill_minus_nine(tmp_path, whole):
    program = textwrap.dedent(
        f"""
        import sys; sys.path[:0] = {[os.path.dirname(__file__), *sys.path]!r}
        from test_durability import search_for, X, y
        search_for({str(tmp_path)!r}).fit(X, y)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while len(list(tmp_path.glob("epoch-0003/networks/*.json"))) < 1 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    check_same(search_for(tmp_path).fit(X, y), whole)
