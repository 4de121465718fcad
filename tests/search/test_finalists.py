"""Candidates that the prior ranks first are finished, whatever their losses on the way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklyap.search import Belief, Knowledge, PredictorPolicy
from sklyap.search.recorded import RecordedBoard, Source

N_EPOCHS = 9


def tasks(n, seed, *, loss_tells=False):
    """The exponent says how networks end; the loss before the end says it too, or the opposite."""
    rng = np.random.default_rng(seed)
    talent = rng.normal(size=n)
    losses = np.exp((-talent if loss_tells else talent)[:, None] * np.linspace(0.5, 0.3, N_EPOCHS)) + 3
    losses[:, -1] = np.exp(-talent)
    spectra = {epoch: (talent + 0.3 * rng.normal(size=n))[:, None] for epoch in (0, 1, 3)}
    return Knowledge(pd.DataFrame({"lr": rng.uniform(size=n)}), losses, spectra, kept=[0, 1, 3])


def searched(prior, truth, **options):
    model = make_pipeline(StandardScaler(), RidgeCV())
    policy = PredictorPolicy(Belief([prior], kinds=("spectrum", "loss"), model=model), **options)
    source = Source(truth, np.ones(truth.losses.shape), 0.0)
    board = RecordedBoard(source, np.arange(len(truth)))
    for request in policy.requests(board, np.random.RandomState(0)):
        assert board.train(request.candidates, request.epoch, policy.budget or np.inf)
    return board, pd.DataFrame(board.decisions)


@pytest.mark.parametrize("budget,n", [(26, 0), (60, 2), (120, 4)])
def test_a_third_of_the_epochs_finishes_those_that_the_prior_ranks_first(budget, n):
    truth = tasks(60, 1)
    board, decisions = searched(tasks(80, 0), truth, budget=budget)
    finalists = decisions.query("reason == 'finalist'")["candidate"].unique()
    assert len(finalists) == n and board.epochs_spent <= budget
    assert (board.reached[finalists] == N_EPOCHS).all()
    ranked = np.argsort(-truth.spectra[0][:, 0])
    assert set(finalists) == set(ranked[:n].tolist())


def test_without_a_budget_they_are_taken_from_the_epochs_of_so_many_candidates():
    plain, _ = searched(tasks(80, 0), tasks(60, 1), n_candidates=27, finalist_share=0.0)
    ours, decisions = searched(tasks(80, 0), tasks(60, 1), n_candidates=27)
    assert plain.epochs_spent == 27 + 9 * 2 + 3 * 6 and (decisions["reason"] == "finalist").any()
    assert ours.epochs_spent <= plain.epochs_spent


def test_there_are_none_where_the_loss_after_a_rung_says_more():
    _, decisions = searched(tasks(80, 0, loss_tells=True), tasks(60, 1, loss_tells=True), budget=120)
    assert not (decisions["reason"] == "finalist").any()


def test_they_lose_their_seats_to_a_loss_that_has_been_the_better_judge(monkeypatch):
    monkeypatch.setattr(PredictorPolicy, "_leader", lambda self, board: "loss" if board.reached.max() > 0 else None)
    _, decisions = searched(tasks(80, 0), tasks(60, 1), budget=120)
    reasons = decisions.query("promoted").groupby("epoch")["reason"].agg(set)
    assert "finalist" in reasons[0] and reasons[1] == reasons[3] == {"loss"}
