"""Good and bad networks in the latent code of their Lyapunov spectra, and what single statistics say.

Trains a population on scikit-learn's handwritten digits (or takes one from a directory), computes the spectra
after the first epoch, and shows the figure of Vogt, Zheng and Shlizerman (2024): the latent code in its two leading
principal components, networks coloured by whether their loss will be below the median. It shows it for networks
that the autoencoder has learnt from, for networks that it has not seen, and for an architecture that it has not
seen. Then it compares how statistics of the spectrum and the prediction from the code, out of fold, rank the losses.

    python examples/latent_space.py [--networks 120] [--epochs 8] [--output results/latent_space]
    python examples/latent_space.py --population populations/mnist --probes rows.npy

Everything finished is kept: interrupt with Ctrl-C and run again to go on.
"""

import argparse
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import loguniform
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, LeaveOneGroupOut, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklyap import (
    LyapunovSpectrumTransformer,
    NetworkPopulation,
    RNNClassifier,
    SpectrumAutoencoder,
    SpectrumStatistics,
    spectrum_loss_correlation,
    train_population,
)
from sklyap.comparison import score_predictions
from sklyap.datasets import load_sequential_digits
from sklyap.displays import LatentDisplay
from sklyap.exceptions import SklyapWarning

SEARCHED = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": [16, 24, 32, 48],
    "init_scale": loguniform(0.05, 3.0),
    "lr": loguniform(1e-3, 2e-2),
}


def main(arguments=None):
    options = parse(arguments)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", SklyapWarning)  # annihilated directions, statistics that are constant
    population, probes = load(options, output)
    print(f"{len(population)} networks; best losses {population.best_losses.min():.3f} to "
          f"{population.best_losses.max():.3f}")  # fmt: skip
    spectrum = LyapunovSpectrumTransformer(
        probes, n_exponents=64, align="interpolate", memory=str(output / "cache"), n_jobs=options.jobs
    )
    spectra = spectrum.fit_transform(population.networks(options.epoch))
    cells, losses = population.groups("cell").astype(str), population.best_losses

    separated = draw_latent(spectra, losses, cells, output / "latent.png")
    print("\nHow well the first component tells networks below the median loss from those above")
    print("(area under the ROC curve: 0.5 is chance, 1 is perfect; its sign is learnt from the training networks)")
    print(separated.to_string(float_format="{:.2f}".format))

    scores = compare(spectra, losses, cells, output / "statistics.png")
    print("\nRank correlation with the loss: statistics as they are, predictions out of fold")
    print(scores.to_string(float_format="{:.2f}".format))
    separated.to_csv(output / "latent.csv")
    scores.to_csv(output / "statistics.csv")
    print(f"\nFigures and tables are in {output}")
    return separated, scores


def load(options, output):
    """Return the population and what drives its networks."""
    X, y = load_sequential_digits(return_X_y=True)
    probes = X[:16] if options.probes is None else np.load(options.probes)
    if options.population is not None:
        return NetworkPopulation.load(options.population), probes
    population = train_population(
        RNNClassifier(init="uniform", max_epochs=options.epochs, batch_size=32),
        SEARCHED,
        X,
        y,
        n_networks=options.networks,
        snapshot_epochs=(options.epoch,),
        directory=output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )
    return population, probes


def draw_latent(spectra, losses, cells, path):
    """Draw codes of networks seen and not seen; return how well the first component separates good and bad."""
    numbers = np.arange(len(losses))
    train, test = train_test_split(numbers, test_size=0.4, random_state=0, stratify=losses > np.median(losses))
    cases = {"learnt from": (train, train), "held out": (train, test)}
    for cell in np.unique(cells):
        cases[f"{cell}, learnt from the others"] = (numbers[cells != cell], numbers[cells == cell])
    figure, axes = plt.subplots(1, len(cases), figsize=(3.6 * len(cases), 3.8), layout="constrained")
    rows = {}
    for (name, (train, shown)), ax in zip(cases.items(), axes, strict=True):
        model = SpectrumAutoencoder(random_state=0).fit(spectra[train], losses[train])
        known, code = model.transform(spectra[train])[:, 0], model.transform(spectra[shown])
        LatentDisplay(code[:, :2], losses[shown]).plot(ax)
        ax.set_title(name)
        if ax is not axes[0]:
            ax.get_legend().remove()
        bad = losses[shown] > np.median(losses[shown])
        sign = np.sign(roc_auc_score(losses[train] > np.median(losses[train]), known) - 0.5)
        predicted = model.predict(spectra[shown])
        rows[name] = {
            "networks": len(shown),
            "first component": roc_auc_score(bad, sign * code[:, 0]),
            "prediction": roc_auc_score(bad, predicted),
        }
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return pd.DataFrame(rows).T.astype({"networks": int})


def compare(spectra, losses, cells, path):
    """Return abs(ρ) with the loss for every statistic, and for predictions from statistics and code out of fold."""
    single = spectrum_loss_correlation(spectra, losses, random_state=0).dropna()
    flipped = single["r"] < 0
    rows = pd.DataFrame({"rho": single["r"].abs()})
    rows["low"] = np.where(flipped, -single["high"], single["low"])
    rows["high"] = np.where(flipped, -single["low"], single["high"])

    models = {
        "all statistics, ridge": make_pipeline(SpectrumStatistics(), StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))),
        "autoencoder": SpectrumAutoencoder(random_state=0),
    }
    y = np.log(losses)
    folds = {
        "out of fold": list(KFold(5, shuffle=True, random_state=0).split(spectra)),
        "architecture left out": list(LeaveOneGroupOut().split(spectra, groups=cells)),
    }
    for how, splits in folds.items():
        predictions = pd.DataFrame({"target": y})
        for name, model in models.items():
            predictions[f"{name}, {how}"] = cross_val_predict(model, spectra, y, cv=splits)
        table = score_predictions(predictions, groups=cells, random_state=0)
        if how == "out of fold":
            found = table[["spearman", "spearman_low", "spearman_high"]].set_axis(["rho", "low", "high"], axis=1)
        else:
            # Across architectures the order inside each is what counts; it has no interval here.
            found = pd.DataFrame({"rho": table["spearman_within"], "low": np.nan, "high": np.nan})
        rows = pd.concat([rows, found])

    figure, ax = plt.subplots(figsize=(7, 0.27 * len(rows) + 1), layout="constrained")
    at = np.arange(len(rows))[::-1]
    colors = np.where(rows.index.str.contains(","), "tab:red", "tab:blue")
    ax.axvline(0, color="0.7", linewidth=1)
    ax.hlines(at, rows["low"], rows["high"], colors=colors, alpha=0.4, linewidth=3)
    ax.scatter(rows["rho"], at, color=colors, s=20)
    ax.set_yticks(at, rows.index)
    ax.set(xlabel="rank correlation with the loss (absolute for single statistics)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return rows


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=120)
    parser.add_argument("--epochs", type=int, default=8, help="of training")
    parser.add_argument("--epoch", type=int, default=1, help="whose spectra are taken")
    parser.add_argument("--population", help="directory of a population to take instead of training one")
    parser.add_argument("--probes", help=".npy file of sequences that drive it; digits by default")
    parser.add_argument("--output", default="results/latent_space")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
