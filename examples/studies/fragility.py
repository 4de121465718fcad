"""Is a network most fragile where it expands most? Tested in the setting in which it was claimed.

Elman networks on permuted pixel-by-pixel MNIST, 784 steps of one pixel. At several stages of training the inputs of
15 held-out images are perturbed at the k steps of largest R (the mean of the leading log R of a step), and at 50 random
sets of k steps. Perturbations are flips of a pixel's brightness, as in the claim, and noise of equal size at every
step. All k are looked at, with p corrected for that. The growth that is still to come, and the position in the
sequence, rank the steps as well, for comparison.

    python examples/studies/fragility.py --size laptop --data mnist/     # 128 units
    python examples/studies/fragility.py --size paper --data mnist/      # 512 units, as claimed
    python examples/studies/fragility.py --size smoke                    # scikit-learn's digits, 64 pixels, offline
"""

from __future__ import annotations

import time
import warnings

import numpy as np
import pandas as pd
from analysis import parse
from joblib import Parallel, delayed

from sklyap import RNNClassifier, input_sensitivity, train_population
from sklyap.datasets import fetch_sequential_mnist, load_sequential_digits
from sklyap.exceptions import SklyapWarning

SETTINGS = {
    "smoke": {"hidden": 16, "seeds": 2, "n_images": 400, "epochs": 2, "stages": (0, "last"), "n_random": 10},
    "laptop": {"hidden": 128, "seeds": 5, "n_images": 5_000, "epochs": 8, "stages": (0, 2, "last"), "n_random": 50},
    "paper": {
        "hidden": 512,
        "seeds": 10,
        "n_images": 60_000,
        "epochs": 20,
        "stages": (0, 1, 5, "last"),
        "n_random": 50,
    },
}
N_IMAGES = 15
N_DIRECTIONS = 5
SCORES = ("leading", "future", "late")


def main(arguments=None):
    options = parse(__doc__, "fragility", arguments, add_options)
    warnings.simplefilter("ignore", SklyapWarning)
    settings = SETTINGS[options.size]
    X, y = images(options, settings["n_images"] + N_IMAGES)
    start = time.perf_counter()
    population = train_population(
        RNNClassifier(
            "rnn", settings["hidden"], init="orthogonal", lr=5e-4, batch_size=64, gradient_clip=1.0,
            max_epochs=settings["epochs"],
        ),
        {},
        X[N_IMAGES:],
        y[N_IMAGES:],
        n_networks=options.networks or settings["seeds"],
        snapshot_epochs=settings["stages"],
        directory=options.output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )  # fmt: skip
    accuracy = [history["valid_accuracy"].iloc[-1] for history in population.histories]
    print(f"{len(population)} networks trained in {time.perf_counter() - start:.0f} s, validation accuracy "
          f"{min(accuracy):.3f} to {max(accuracy):.3f}")  # fmt: skip
    rows = [
        row
        for stage in options.stages or settings["stages"]
        for perturbation in ("flip", "gaussian")
        for score in options.scores
        for row in compare(population.networks(stage), X[:N_IMAGES], y[:N_IMAGES], stage, perturbation, score,
                           settings["n_random"], options.jobs)
    ]  # fmt: skip
    table = pd.DataFrame(rows).set_index(["stage", "perturbation", "score", "effect", "k"])
    table.to_csv(options.output / "fragility.csv")
    report(table)
    return table


def add_options(parser):
    parser.add_argument("--stages", nargs="+", type=lambda stage: stage if stage == "last" else int(stage),
                        help="epochs at which networks are perturbed, of those at which they are kept")  # fmt: skip
    parser.add_argument("--scores", nargs="+", choices=SCORES, default=SCORES, help="what ranks the steps")


def images(options, n):
    if options.data is None and options.size == "smoke":
        X, y = load_sequential_digits(order="pixels", permuted=True, return_X_y=True)
        return X[:n], y[:n]
    n = min(n, 60_000)
    return fetch_sequential_mnist(folder=options.data, order="pixels", permuted=True, n_samples=n, return_X_y=True)


def compare(networks, X, y, stage, perturbation, score, n_random, n_jobs):
    """Yield, for each effect and k, what perturbing the chosen steps does against random ones, over networks."""
    late = np.tile(np.arange(float(X.shape[1])), (len(X), 1))
    found = Parallel(n_jobs)(
        delayed(input_sensitivity)(
            network, X, y, perturbation=perturbation, by=late if score == "late" else score,
            n_directions=N_DIRECTIONS, n_random=n_random, random_state=0,
        )
        for network in networks
    )  # fmt: skip
    for effect, quantity in (("output", "ratio"), ("loss", "difference")):
        against = [getattr(result, effect).largest_against_random for result in found]
        for i, k in enumerate(found[0].n_steps):
            values = np.array([getattr(comparison, quantity)[i] for comparison in against])
            low, high = interval(values)
            signs = [np.sign(c.difference[i]) for c in against if c.p_adjusted[i] < 0.05]
            yield {
                "stage": stage, "perturbation": perturbation, "score": score, "effect": effect, "k": k,
                "value": values.mean(), "low": low, "high": high, "networks": len(values),
                "more": signs.count(1.0), "less": signs.count(-1.0),
            }  # fmt: skip


def interval(values, n_resamples=4000):
    """Return the 95 % bootstrap interval of the mean over networks."""
    picks = np.random.default_rng(0).integers(len(values), size=(n_resamples, len(values)))
    return np.quantile(values[picks].mean(1), [0.025, 0.975])


def report(table):
    print("""
Perturbing the k steps of largest score against random sets: change of the outputs as a multiple, of the loss as a
difference in nats; [95 % interval over networks], in how many networks significantly more (+) or less (-), p corrected
over all k""")
    shown = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}] +{row.more} -{row.less}" for row in table.itertuples()]
    with pd.option_context("display.width", 220, "display.max_rows", 500, "display.max_colwidth", 60):
        print(pd.Series(shown, table.index).unstack("score").to_string())


if __name__ == "__main__":
    main()
