"""Predict how well recurrent networks will do from their dynamics after one epoch, on two tasks.

Trains small LSTM, GRU and Elman networks to recall a symbol after 30 steps, where the loss stays on a plateau for long,
and on scikit-learn's handwritten digits, where it falls at once. Computes their Lyapunov spectra after the first epoch,
and predicts the best validation loss, out of fold, from the spectrum, from the loss so far, from hyperparameters, and
from several of them. Everything finished is kept: interrupt with Ctrl-C and run again to go on.

    python examples/predict_loss.py [--networks 60] [--output results/predict_loss]
"""

import argparse
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import loguniform
from sklearn.metrics import PredictionErrorDisplay

from sklyap import LyapunovSpectrumTransformer, RNNClassifier, compare_loss_predictors, train_population
from sklyap.comparison import default_loss_predictors
from sklyap.datasets import load_sequential_digits, make_recall
from sklyap.displays import SpectrumDisplay
from sklyap.exceptions import DegenerateSpectrumWarning

SEARCHED = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": [16, 24, 32],
    "init_scale": loguniform(0.05, 2.0),
    "lr": loguniform(1e-3, 2e-2),
}
ROWS = (
    "constant",
    "hyperparameters",
    "loss so far",
    "hyperparameters + loss so far",
    "statistics, ridge",
    "spectrum",
    "spectrum + loss so far",
    "all three",
)


def main(arguments=None):
    options = parse(arguments)
    # Annihilated directions are common after wide initial weights; their exponents are floored.
    warnings.simplefilter("ignore", DegenerateSpectrumWarning)
    return {name: study(name, options) for name in options.tasks}


def load(name):
    """Return sequences, classes and the number of epochs to train for."""
    if name == "recall":
        return *make_recall(1200, n_steps=30, random_state=0), 12
    return *load_sequential_digits(return_X_y=True), 12


def study(name, options):
    """Train a population, compute spectra, compare predictors, draw; return the table."""
    X, y, epochs = load(name)
    output = Path(options.output) / name
    print(f"{name}: {options.networks} networks on {len(X)} sequences of {X.shape[1]} steps, {X.shape[2]} inputs each")
    start = time.perf_counter()
    population = train_population(
        RNNClassifier(init="uniform", max_epochs=options.epochs or epochs),
        SEARCHED,
        X,
        y,
        n_networks=options.networks,
        snapshot_epochs=(1, "last"),
        directory=output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )
    best = population.best_losses
    print(f"  best validation loss {best.min():.3f} … {np.median(best):.3f} … {best.max():.3f} "
          f"({time.perf_counter() - start:.0f} s)")  # fmt: skip
    start = time.perf_counter()
    spectrum = LyapunovSpectrumTransformer(
        X[:8], n_exponents=32, align="interpolate", memory=str(output / "cache"), n_jobs=options.jobs
    )
    rows = default_loss_predictors(random_state=0)
    if options.small:
        for _, estimator in rows.values():
            names = [n for n in estimator.get_params() if n.endswith(("max_epochs", "n_estimators", "regressor__cv"))]
            estimator.set_params(**dict.fromkeys(names, 3))
    table, predictions = compare_loss_predictors(
        population,
        None,
        epoch=1,
        predictors={row: rows[row] for row in ROWS},
        cv=3 if options.small else 5,
        transformer=spectrum,
        n_jobs=options.jobs,
        return_predictions=True,
        random_state=0,
    )
    print(f"  the best loss from what is known after epoch 1, out of fold ({time.perf_counter() - start:.0f} s):")
    print(shown(table).to_string())
    table.to_csv(output / "table.csv")
    print("  figures:", " and ".join(map(str, draw(population, spectrum, predictions, output))))
    print(f"  Networks and spectra are in {output}: run again to go on, with other options into another --output.")
    return table


def shown(table):
    """Return what to print: scores, and what the spectrum adds to the row that sees the same without it."""
    frame = table[["r2", "spearman", "auc"]].round(2)
    added = [
        "" if np.isnan(low) else f"{low:+.2f} to {high:+.2f}"
        for low, high in table[["r2_added_low", "r2_added_high"]].to_numpy()
    ]
    below = f"AUC, loss below {table.attrs['threshold']:.2g}"
    return frame.set_axis(["R²", "Spearman", below], axis=1).assign(**{"R² added by the spectrum, 95 %": added})


def draw(population, spectrum, predictions, output):
    """Save the spectra coloured by loss, and the predictions against the truth."""
    spectra = spectrum.fit_transform(population.networks(epoch=1))
    display = SpectrumDisplay(spectra, color=np.log(population.best_losses), color_label="ln best validation loss")
    axes = display.plot().ax_
    # A few networks contract so much in some directions that they would squeeze all the others.
    axes.set(title=f"{len(population)} networks after epoch 1", ylim=(np.quantile(spectra, 0.01), None))
    first, second = output / "spectra.png", output / "predictions.png"
    display.figure_.savefig(first, dpi=150, bbox_inches="tight")
    names = ["loss so far", "spectrum", "all three"]
    figure, row = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    for name, axes in zip(names, row, strict=True):
        shown = PredictionErrorDisplay(y_true=predictions["target"], y_pred=predictions[name])
        shown.plot(axes, kind="actual_vs_predicted", scatter_kwargs={"alpha": 0.7})
        axes.set(title=name, xlabel="predicted ln loss", ylabel="ln best validation loss")
    figure.savefig(second, dpi=150, bbox_inches="tight")
    plt.close("all")
    return first, second


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--epochs", type=int, help="of training, 12 by default")
    parser.add_argument("--tasks", nargs="+", choices=["recall", "digits"], default=["recall", "digits"])
    parser.add_argument("--small", action="store_true", help="predictors that only show that everything runs")
    parser.add_argument("--output", default="results/predict_loss")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
