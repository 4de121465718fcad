"""Does a search that looks at the spectrum find good networks earlier than one that looks at the loss?

Trains populations of small LSTM, GRU and Elman networks on tasks where the loss stays on a plateau before it falls
(recall, adding, permuted pixels) and on one where it falls at once (digits). Everything finished is kept: interrupt
with Ctrl-C and run again to go on.

    python examples/search_evidence.py [--networks 240] [--tasks recall-100 digits] [--output results/search]
"""

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.stats import loguniform, randint

from sklyap import RNNClassifier, RNNRegressor, train_population
from sklyap.datasets import fetch_sequential_mnist, load_sequential_digits, make_adding, make_recall

SEARCHED = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": randint(16, 49),
    "init_scale": loguniform(0.05, 2.0),
    "lr": loguniform(1e-3, 10**-1.7),
}
EPOCHS = 15
SNAPSHOTS = (0, 1, 3, 9, "last")
N_SEQUENCES = 1500


def pooled_mnist(options):
    """Return the first images of MNIST at 14 x 14 pixels, read pixel by pixel in one random order."""
    X, y = fetch_sequential_mnist(folder=options.mnist, n_samples=3000, return_X_y=True)
    X = X.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(-1, 196, 1)
    return X[:, np.random.default_rng(0).permutation(196)], y


TASKS = {  # name: (data, estimator)
    "recall-30": (lambda _: make_recall(N_SEQUENCES, n_steps=30, random_state=0), RNNClassifier),
    "recall-100": (lambda _: make_recall(N_SEQUENCES, n_steps=100, random_state=0), RNNClassifier),
    "adding-40": (lambda _: make_adding(N_SEQUENCES, n_steps=40, random_state=0), RNNRegressor),
    "adding-100": (lambda _: make_adding(N_SEQUENCES, n_steps=100, random_state=0), RNNRegressor),
    "digits": (lambda _: load_sequential_digits(return_X_y=True), RNNClassifier),
    "permuted-digits": (
        lambda _: load_sequential_digits(order="pixels", permuted=True, return_X_y=True),
        RNNClassifier,
    ),
    "permuted-mnist": (pooled_mnist, RNNClassifier),
}


def main(arguments=None):
    options = parse(arguments)
    for name in options.tasks:
        population = populate(name, options)
        print(f"{name}: {population!r}")


def populate(name, options):
    """Train the population of a task, or the rest of it."""
    make, estimator = TASKS[name]
    X, y = make(options)
    start = time.perf_counter()
    population = train_population(
        estimator(init="uniform", max_epochs=options.epochs),
        SEARCHED,
        X,
        y,
        n_networks=options.networks,
        snapshot_epochs=[epoch for epoch in SNAPSHOTS if epoch == "last" or epoch < options.epochs],
        directory=Path(options.output) / name,
        n_jobs=options.jobs,
        random_state=0,
    )
    print(f"{name}: {len(population)} networks in {time.perf_counter() - start:.0f} s")
    return population


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=240, help="networks for each task")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--mnist", default=None, help="folder with the IDX files of MNIST; downloaded by default")
    parser.add_argument("--output", default="results/search")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
