"""
Search with the spectrum
========================

A hyperparameter search that promotes candidates by the loss that their dynamics predict, on a task of memory.
"""

# %%
# The prior is a population that was trained to the end on a shorter version of the task.
import warnings

from scipy.stats import loguniform

from sklyap import LyapunovHalvingSearch, RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.exceptions import SklyapWarning

warnings.simplefilter("ignore", SklyapWarning)  # of saturated networks with annihilated directions
short, long = make_recall(400, n_steps=10, random_state=1), make_recall(400, n_steps=25, random_state=0)
choices = {"cell": ["gru", "rnn"], "init_scale": loguniform(0.1, 2), "lr": loguniform(2e-3, 3e-2)}
network = RNNClassifier(hidden_size=12, init="uniform", max_epochs=9, batch_size=32)
prior = train_population(
    network, choices, *short, n_networks=30, snapshot_epochs=(0, 1, 3, "last"), random_state=1, verbose=0
)

# %%
# The search looks at the spectra of the untrained candidates, and again at every rung.
search = LyapunovHalvingSearch(
    network, choices, long[0][:4], prior=(prior, short[0][:4]), n_candidates=18, random_state=0, verbose=0
)
search.fit(*long)
print(f"lowest loss {search.best_loss_:.3f} after {search.epochs_spent_} epochs in all, with {search.best_params_}")

# %%
# Most candidates are stopped after an epoch or three.
from sklyap.displays import SearchDisplay

display = SearchDisplay.from_search(search)

# %%
# What was predicted of each candidate when it was last looked at, with an interval, against the lowest loss that it
# was seen to get to. Candidates that were stopped lie to the right of where they would have ended.
display = SearchDisplay.from_search(search, kind="predictions")

# %%
# Every decision is on record.
search.decisions_.head(8).round(3)
