"""Do the directions in which a recurrent network expands turn towards its loss gradient as it learns?

Trains Elman, GRU and LSTM networks with several seeds, on images read row by row and on text read character by
character; after every epoch compares Lyapunov directions with the gradient of the recurrent weights; and perturbs
inputs where the trained networks expand most. Everything is put beside what chance gives, with intervals.

    python examples/gradient_alignment.py                                  # scikit-learn's digits and texts, offline
    python examples/gradient_alignment.py --data mnist/ --text novel.txt --hidden 128 --seeds 5
"""

import argparse
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn import datasets as sklearn_datasets

from sklyap import RNNClassifier, train_population
from sklyap.alignment import GradientAlignmentAnalyzer
from sklyap.datasets import fetch_sequential_mnist, load_sequential_digits, load_text
from sklyap.displays import AlignmentDisplay, GradientEnergyDisplay, SensitivityDisplay, SensitivitySweepDisplay
from sklyap.exceptions import SklyapWarning
from sklyap.sensitivity import input_sensitivity

CELLS = {"rnn": "Elman", "gru": "GRU", "lstm": "LSTM"}
SCORES = ("leading", "sum", "future", "gradient", "late")
N_LEADING = 3


def main(arguments=None):
    options = parse(arguments)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", SklyapWarning)
    alignment, sensitivity = [], []
    for name, task in tasks(options, output).items():
        start = time.perf_counter()
        population = train_population(
            RNNClassifier(hidden_size=options.hidden, max_epochs=options.epochs, lr=3e-3, **task["estimator"]),
            {"cell": list(CELLS)},
            *task["train"],
            n_networks=len(CELLS) * options.seeds,
            snapshot_epochs=(*range(options.epochs + 1), "last"),
            directory=output / name.replace(" ", "_"),
            n_jobs=options.jobs,
            random_state=0,
        )
        losses = pd.Series(population.losses("last")).groupby(population.params["cell"]).mean()
        print(f"{name}: {len(population)} networks, final validation loss "
              f"{', '.join(f'{CELLS[cell]} {loss:.3f}' for cell, loss in losses.items())} "
              f"({time.perf_counter() - start:.0f} s)")  # fmt: skip
        for cell in CELLS:
            networks = population.filter(cell=cell)
            start = time.perf_counter()
            results = aligned(networks, task, options)
            alignment.append(growth_table(results).assign(task=name, cell=CELLS[cell]))
            found = sensitive(networks, task, options)
            sensitivity.append(sensitivity_table(found).assign(task=name, cell=CELLS[cell]))
            draw(results, found, task, output / f"{name.replace(' ', '_')}_{cell}.png")
            print(f"  {CELLS[cell]} analysed ({time.perf_counter() - start:.0f} s)")
    alignment, sensitivity = pd.concat(alignment), pd.concat(sensitivity)
    report(alignment, sensitivity, options)
    alignment.to_csv(output / "alignment.csv", index=False)
    sensitivity.to_csv(output / "sensitivity.csv", index=False)
    print(f"\nTables, figures and networks are in {output}/; run again to go on from there.")
    return alignment, sensitivity


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the IDX files of MNIST; scikit-learn's digits by default")
    parser.add_argument("--text", help="a text file; the descriptions of scikit-learn's data sets by default")
    parser.add_argument("--examples", type=int, default=4000, help="training sequences of each task, at most")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=4, help="networks of each architecture")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--sequences", type=int, default=25, help="validation sequences that are analysed")
    parser.add_argument("--directions", type=int, default=1, help="leading directions whose growth ranks the steps")
    parser.add_argument("--random", type=int, default=20, help="random sets of steps for each sequence")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", default="results/gradient_alignment")
    return parser.parse_args(arguments)


def tasks(options, output):
    """Return training data, held-out sequences and estimator parameters of each task."""
    n = options.examples + options.sequences
    if options.data:
        X, y = fetch_sequential_mnist(folder=options.data, n_samples=n, return_X_y=True)
    else:
        X, y = load_sequential_digits(return_X_y=True)
    images = {
        "train": (X[options.sequences : n], y[options.sequences : n]),
        "probe": (X[: options.sequences], y[: options.sequences]),
        "estimator": {},
        # Noise is of one size at every step; what flipping changes depends on what is there.
        "perturbations": ("gaussian", "flip"),
    }
    path = Path(options.text or bundled_text(output / "text.txt"))
    n_characters = min(len(path.read_text()), 50 * options.examples)
    text = load_text(path, n_steps=40, n_characters=n_characters)
    X, y = text.X_train[: options.examples], text.y_train[: options.examples]
    known = np.isin(text.y_valid, y).all(1)  # no character that was never seen
    characters = {
        "train": (X, y),
        "probe": (text.X_valid[known][: options.sequences], text.y_valid[known][: options.sequences]),
        "estimator": {
            "input_type": "tokens", "n_tokens": text.n_tokens, "readout": "all",
            "batch_size": 64 if len(X) > 1000 else 8,
        },
        "perturbations": ("flip",),
    }  # fmt: skip
    return {"image rows": images, "characters": characters}


def bundled_text(path):
    """Write the descriptions of scikit-learn's bundled data sets, 20,000 characters of English, to a file."""
    loaders = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
    text = "\n".join(getattr(sklearn_datasets, f"load_{name}")().DESCR for name in loaders)
    path.write_text(text)
    return path


def aligned(networks, task, options):
    """Analyse every network at every epoch, on the same sequences, from the same initial state and basis."""
    probe, _ = task["probe"]
    steps = np.unique(np.linspace(2, probe.shape[1], 8).round().astype(int))
    analyzer = GradientAlignmentAnalyzer(
        *task["probe"], n_directions=min(8, options.hidden), n_singular=N_LEADING, prefixes=steps, covariant=True,
        n_baseline=40, n_jobs=options.jobs,
    )  # fmt: skip
    return analyzer.analyze_training(networks, range(options.epochs + 1))


def measures(result):
    """Return what is compared with chance, each as a multiple of it."""
    leading = (slice(N_LEADING), slice(N_LEADING))
    share = len(result.energy) // 10 or 1
    cosines = {
        "Q1 with u1, all steps": result.alignment[0, 0],
        f"Q1-{N_LEADING} with u1-{N_LEADING}, all steps": result.alignment[leading].mean(),
        "Q1 with u1 of prefixes, last step": result.alignment_by_prefix[:, 0, 0].mean(),
        f"covariant 1-{N_LEADING} with u1-{N_LEADING}": result.covariant_alignment[leading].mean(),
        "Q1 with v1, all steps": result.right_alignment[0, 0],
    }
    energy = {"gradient energy in a tenth of the directions": result.energy[share - 1] / (share / result.tangent_size)}
    return {name: value / result.baseline for name, value in cosines.items()} | energy


def growth_table(results):
    """Return, for each measure, its multiple of chance before and after training and the change over networks."""
    first, last = min(results), max(results)
    rows = []
    for name in measures(results[first][0]):
        values = np.array([[measures(r)[name] for r in results[epoch]] for epoch in sorted(results)])
        change = values[-1] / values[0]
        low, high = bootstrap(np.log(change))
        rows.append({
            "measure": name, f"epoch {first}": values[0].mean(), f"epoch {last}": values[-1].mean(),
            "times": np.exp(np.log(change).mean()), "low": np.exp(low), "high": np.exp(high),
            "grew in": f"{(change > 1).sum()} of {len(change)}",
        })  # fmt: skip
    return pd.DataFrame(rows)


def bootstrap(values, n_resamples=4000):
    """Return the 95 % interval of the mean over networks."""
    picks = np.random.default_rng(0).integers(len(values), size=(n_resamples, len(values)))
    return np.quantile(values[picks].mean(1), [0.025, 0.975])


def sensitive(networks, task, options):
    """Perturb the inputs of trained networks in each way, at steps ranked by each score."""
    X, y = task["probe"]
    late = np.tile(np.arange(float(X.shape[1])), (len(X), 1))  # needs no network: what being late in a sequence does
    return {
        (perturbation, score): Parallel(options.jobs)(
            delayed(input_sensitivity)(
                network, X, y, perturbation=perturbation, by=late if score == "late" else score,
                n_directions=options.directions, n_random=options.random, every_step=i == 0,
            )
            for i, network in enumerate(networks.networks("last"))
        )
        for perturbation in task["perturbations"]
        for score in SCORES
    }  # fmt: skip


def sensitivity_table(found):
    """Return effects on outputs as multiples of those of random steps, on the loss (of either sign) as differences."""
    rows = []
    for (perturbation, score), results in found.items():
        for effect, quantity in (("output", "ratio"), ("loss", "difference")):
            against = [getattr(result, effect).largest_against_random for result in results]
            for i, k in enumerate(results[0].n_steps):
                values = np.array([getattr(comparison, quantity)[i] for comparison in against])
                low, high = bootstrap(values)
                significant = [np.sign(c.difference[i]) for c in against if c.p_adjusted[i] < 0.05]
                rows.append({
                    "effect": effect, "perturbation": perturbation, "ranked by": score, "k": k,
                    "value": values.mean(), "low": low, "high": high, "networks": len(values),
                    "more": significant.count(1.0), "less": significant.count(-1.0),
                })  # fmt: skip
    return pd.DataFrame(rows)


def draw(results, found, task, path):
    first, last = min(results), max(results)
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    AlignmentDisplay.from_training(results, ax=axes[0, 0])
    GradientEnergyDisplay.from_results(
        [results[first][0], results[last][0]], labels=[f"epoch {first}", f"epoch {last}"], ax=axes[0, 1]
    )
    shown = found[task["perturbations"][0], "leading"][0]
    SensitivitySweepDisplay.from_result(shown, effect="output", ax=axes[1, 0])
    SensitivityDisplay.from_result(shown, task["probe"][0], effect="output", ax=axes[1, 1])
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(alignment, sensitivity, options):
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.max_rows", 500):
        print(f"\nDoes alignment grow with training? Multiples of chance, {options.seeds} networks each; "
              "times [95 % interval over networks]")  # fmt: skip
        print(alignment.set_index(["task", "cell", "measure"]).round(2).to_string())
        print("\nDoes perturbing at the largest score hurt most? On outputs: times the effect of random steps; on the "
              "loss: nats more than\nthose; [95 % interval over networks], significantly more (+) or less (-) in how "
              "many networks")  # fmt: skip
        for effect, digits in (("output", 2), ("loss", 3)):
            rows = sensitivity[sensitivity["effect"] == effect]
            rows = rows.set_index(["task", "perturbation", "cell", "ranked by", "k"])
            shown = [
                f"{row.value:.{digits}f} [{row.low:.{digits}f}, {row.high:.{digits}f}] +{row.more} -{row.less}"
                for row in rows.itertuples()
            ]
            print(f"\n{effect}\n{pd.Series(shown, rows.index).unstack('k').fillna('').to_string()}")


if __name__ == "__main__":
    main()
