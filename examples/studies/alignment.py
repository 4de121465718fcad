"""Do Lyapunov directions turn towards the gradient as a network learns? In the setting in which it was claimed.

Elman networks of 128 units on sequential MNIST, row by row, analysed before training and after each of five epochs.
For every prefix of t = 2 … 28 rows (after one row no recurrent weight has acted), the columns of Q after step t are
compared with the left singular vectors of the gradient ∂L_t/∂V of the recurrent weights: the first and the last five
of both. All epochs start from the same state and the same basis. Which directions are compared is fixed beforehand.
Alignment is |cos| with what a change of V along a singular pair does to the state, in multiples of the mean for a
random direction.

    python examples/studies/alignment.py --size paper --data mnist/
    python examples/studies/alignment.py --size laptop --data mnist/     # fewer seeds
    python examples/studies/alignment.py --size smoke                    # scikit-learn's digits, 8 rows, offline
"""

from __future__ import annotations

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from analysis import parse
from fragility import interval

from sklyap import GradientAlignmentAnalyzer, RNNClassifier, train_population
from sklyap.datasets import fetch_sequential_mnist, load_sequential_digits
from sklyap.exceptions import SklyapWarning

SETTINGS = {
    "smoke": {"hidden": 16, "seeds": 2, "n_images": 400, "epochs": 1},
    "laptop": {"hidden": 128, "seeds": 5, "n_images": 10_000, "epochs": 5},
    "paper": {"hidden": 128, "seeds": 10, "n_images": 60_000, "epochs": 5},
}
N_IMAGES = 25
N_ENDS = 5


def main(arguments=None):
    options = parse(__doc__, "alignment", arguments)
    warnings.simplefilter("ignore", SklyapWarning)
    settings = SETTINGS[options.size]
    X, y = images(options, settings["n_images"] + N_IMAGES)
    population = train_population(
        RNNClassifier("rnn", settings["hidden"], lr=1e-3, max_epochs=settings["epochs"]),
        {},
        X[N_IMAGES:],
        y[N_IMAGES:],
        n_networks=options.networks or settings["seeds"],
        snapshot_epochs=range(settings["epochs"] + 1),
        directory=options.output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )
    accuracy = [history["valid_accuracy"].iloc[-1] for history in population.histories]
    print(f"{len(population)} networks, validation accuracy {min(accuracy):.3f} to {max(accuracy):.3f}")
    start = time.perf_counter()
    analyzer = GradientAlignmentAnalyzer(
        X[:N_IMAGES], y[:N_IMAGES], n_directions=settings["hidden"], n_singular=settings["hidden"], n_baseline=0,
        prefixes=range(2, X.shape[1] + 1), n_jobs=options.jobs,
    )  # fmt: skip
    rows = []
    for epoch in range(settings["epochs"] + 1):
        for seed, result in enumerate(analyzer.analyze_training(population, [epoch])[epoch]):
            rows += [row | {"epoch": epoch, "seed": seed} for row in measured(result)]
    print(f"analysed in {time.perf_counter() - start:.0f} s")
    by_prefix = pd.DataFrame(rows)
    by_prefix.to_csv(options.output / "by_prefix.csv", index=False)
    table = summary(by_prefix)
    table.to_csv(options.output / "alignment.csv")
    draw(by_prefix, options.output / "alignment.png")
    with pd.option_context("display.width", 200, "display.max_rows", 100):
        print("""
Alignment by epoch, mean over prefixes and seeds, in multiples of chance; the factor from the first to the last epoch
with its 95 % interval over seeds""")
        print(table.round(2).to_string())
    return table


def images(options, n):
    if options.data is None and options.size == "smoke":
        X, y = load_sequential_digits(return_X_y=True)
        return X[:n], y[:n]
    return fetch_sequential_mnist(folder=options.data, n_samples=min(n, 60_000), return_X_y=True)


def measured(result):
    """Yield the mean alignment of the ends of Q with the ends of U, for every prefix, in multiples of chance."""
    ends = {"first": slice(N_ENDS), "last": slice(-N_ENDS, None)}
    for i, t in enumerate(result.prefixes):
        found = result.alignment_by_prefix[i] / result.baseline
        rank = int((result.singular_values_by_prefix[i] > 1e-12 * result.singular_values_by_prefix[i][0]).sum())
        for direction, of_q in ends.items():
            yield {
                "prefix": int(t), "directions": direction, "rank": rank,
                # The last vectors of a gradient of low rank are those of its smallest values that are not zero.
                "first": found[of_q, :N_ENDS].mean(), "last": found[of_q, max(rank - N_ENDS, 0) : rank].mean(),
            }  # fmt: skip


def summary(by_prefix):
    """Return each measure by epoch, mean over prefixes and seeds, and the factor by which it grew."""
    long = by_prefix.melt(["epoch", "seed", "prefix", "directions", "rank"], ["first", "last"], "singular vectors")
    means = long.groupby(["directions", "singular vectors", "seed", "epoch"])["value"].mean().unstack("epoch")
    growth = np.log(means[means.columns[-1]] / means[means.columns[0]])
    table = means.groupby(["directions", "singular vectors"]).mean()
    table.columns = [f"epoch {epoch}" for epoch in table]
    groups = growth.groupby(["directions", "singular vectors"])
    bounds = {key: np.exp(interval(values.to_numpy())) for key, values in groups}
    return table.assign(
        times=np.exp(groups.mean()),
        low=pd.Series({key: low for key, (low, _) in bounds.items()}),
        high=pd.Series({key: high for key, (_, high) in bounds.items()}),
    )


def draw(by_prefix, path):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for ax, directions in zip(axes, ("first", "last"), strict=True):
        shown = by_prefix[by_prefix["directions"] == directions]
        for epoch, rows in shown.groupby("epoch"):
            if epoch in (shown["epoch"].min(), shown["epoch"].max()):
                for vectors, style in (("first", "-"), ("last", "--")):
                    means = rows.groupby("prefix")[vectors].mean()
                    ax.plot(means.index, means, style, label=f"{vectors} {N_ENDS} u, epoch {epoch}", color=f"C{epoch}")
        ax.axhline(1, color="0.7", zorder=0)
        ax.set_title(f"{directions} {N_ENDS} columns of Q")
        ax.set_xlabel("rows seen")
    axes[0].set_ylabel("alignment, multiples of chance")
    axes[0].legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
