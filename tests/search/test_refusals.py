"""What a search cannot look at is refused before it trains: priors without spectra, references that are no networks."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sklyap import LyapunovHalvingSearch, RNNClassifier, replay_search, train_population
from sklyap.datasets import make_recall
from sklyap.search import Belief, LyapunovPruner, Policy, PredictorPolicy, Request

X, y = make_recall(60, n_steps=4, random_state=0)
WIDTH = X.shape[2]


@pytest.fixture(scope="module")
def prior():
    return train_population(
        RNNClassifier(hidden_size=3, max_epochs=3), {"lr": [1e-3, 1e-2]}, X, y, n_networks=10,
        snapshot_epochs=(0, 1, "last"), random_state=0, verbose=0,
    )  # fmt: skip


@pytest.fixture
def untrained(monkeypatch):
    """Fail if a candidate is trained."""
    monkeypatch.setattr("sklyap.search.live.LiveBoard.train", lambda *_: pytest.fail("a candidate was trained"))


def search(**options):
    given = {"n_candidates": 4, "random_state": 0, "verbose": 0, "refit": False}
    estimator = RNNClassifier(hidden_size=3, max_epochs=3)
    return LyapunovHalvingSearch(estimator, {"lr": [1e-3, 1e-2]}, X[:2], **(given | options)).fit(X, y)


OTHER = {
    "another width": (np.zeros((2, 4, WIDTH + 1)), f"{WIDTH} inputs per step, as its networks have"),
    "gaps": (np.full((2, 4, WIDTH), np.nan), "finite"),
    "words": ("sequences", "real numbers"),
    "one sequence of another width": (np.zeros((6, WIDTH + 1)), "None of the 10 networks"),
}


@pytest.mark.parametrize("sequences,words", OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("caller", ["search", "replay", "pruner"])
def test_sequences_that_do_not_fit_their_prior(sequences, words, caller, prior, untrained):
    callers = {
        "search": lambda: search(prior=(prior, sequences)),
        "replay": lambda: replay_search(prior, "predictor", X[:2], prior=(prior, sequences), n_repeats=1),
        "pruner": lambda: LyapunovPruner((prior, sequences)),
    }
    with pytest.raises((ValueError, TypeError), match=words):
        callers[caller]()


REFERENCES = {"a number": 3, "an unfitted network": RNNClassifier(), "a word": "network"}


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES)
def test_references_without_a_spectrum(reference, untrained):
    with pytest.raises((ValueError, TypeError), match=r"'reference' parameter of LyapunovHalvingSearch .*spectrum"):
        search(promote_by="distance", reference=reference)


def test_a_reference_of_another_width(untrained):
    Z = np.zeros((60, 4, WIDTH + 1), dtype=np.float32)
    other = RNNClassifier(hidden_size=3, max_epochs=1, random_state=0).fit(Z, y)
    with pytest.raises(ValueError, match=r"'reference' parameter of LyapunovHalvingSearch .* could not be run"):
        search(promote_by="distance", reference=other)


def test_a_classifier_predicts_no_loss(prior, untrained):
    with pytest.raises(TypeError, match=r"'predictor' .* must be a regressor.*LogisticRegression"):
        search(prior=prior, predictor=LogisticRegression())


class Asking(Policy):
    """Asks for what it was given."""

    name = "asking"

    def __init__(self, request):
        super().__init__()
        self.request = request

    def requests(self, board, rng):
        yield self.request
        board.look(np.array([0]), 0)


ASKED = {
    "beyond the last": Request(np.array([8]), 1),
    "before the first": Request(np.array([-1]), 1),
    "one twice": Request(np.array([0, 0]), 1),
    "shares": Request(np.array([0.5]), 1),
    "after the end": Request(np.array([0]), 4),
    "a number": 3,
}


@pytest.mark.parametrize("request_", ASKED.values(), ids=ASKED)
def test_policies_that_ask_for_what_there_is_not(request_, prior):
    with pytest.raises(ValueError, match="policy Asking must yield a Request for distinct candidates from 0 to 7"):
        replay_search(prior, Asking(request_), n_repeats=1)


def test_a_policy_that_looks_needs_sequences_and_one_that_does_not_needs_none(prior):
    with pytest.raises(ValueError, match="'sequences' parameter of replay_search must be given"):
        replay_search(prior, Asking(Request(np.array([0]), 1)), budgets=[1.0], n_repeats=1)
    assert len(replay_search(prior, "random", budgets=[1.0], n_repeats=1).table) == 1


def test_replays_of_nothing(prior):
    with pytest.raises(ValueError, match="'budgets' parameter of replay_search must hold at least one"):
        replay_search(prior, "halving", budgets=[])
    with pytest.raises(ValueError, match="'policy' parameter of replay_search must name at least one"):
        replay_search(prior, [])
    with pytest.raises(ValueError, match="'solved_within' parameter of ReplayResult"):
        replay_search(prior, "random", n_repeats=1).curve(solved_within=-1)


def test_a_population_that_was_kept_at_its_end_alone(prior):
    ended = train_population(
        RNNClassifier(hidden_size=3, max_epochs=3), {"lr": [1e-3, 1e-2]}, X, y, n_networks=10,
        snapshot_epochs=("last",), random_state=0, verbose=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="'population' parameter of replay_search must hold networks that were kept"):
        replay_search(ended, "predictor", X[:2], prior=prior, n_repeats=1)


@pytest.mark.parametrize("name", ["finalist_share", "loss_share", "spectrum_epochs", "n_screened", "n_labelled"])
def test_numbers_of_the_policy(name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of PredictorPolicy"):
        PredictorPolicy(Belief([], kinds=("loss",)), **{name: -1})
