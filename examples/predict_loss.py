"""Predict how well recurrent networks will do from their dynamics after one epoch.

Trains a population of small LSTM, GRU and Elman networks on scikit-learn's handwritten digits, read as
sequences of 8 rows; computes their Lyapunov spectra after the first epoch; and predicts the validation loss
at the end of training, out of fold, beside honest baselines. Everything finished is kept: interrupt with
Ctrl-C and run again to go on.

    python examples/predict_loss.py [--networks 60] [--epochs 12] [--output results/predict_loss]
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
from scipy.stats import loguniform, spearmanr
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.metrics import PredictionErrorDisplay, r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklyap import (
    HistoryFeatures,
    LyapunovSpectrumTransformer,
    RNNClassifier,
    SpectrumAutoencoder,
    SpectrumStatistics,
    train_population,
)
from sklyap.datasets import load_sequential_digits
from sklyap.displays import SpectrumDisplay
from sklyap.exceptions import DegenerateSpectrumWarning

SEARCHED = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": [16, 24, 32, 48, 64],
    "init_scale": loguniform(0.05, 2.0),
    "lr": loguniform(1e-3, 2e-2),
}
RIDGE = RidgeCV(np.logspace(-3, 4, 15))


def main(arguments=None):
    options = parse(arguments)
    output = Path(options.output)
    X, y = load_sequential_digits(return_X_y=True)

    print(f"1. {options.networks} networks on {len(X)} digits, {X.shape[1]} rows of {X.shape[2]} pixels each")
    start = time.perf_counter()
    population = train_population(
        RNNClassifier(init="uniform", max_epochs=options.epochs),
        SEARCHED,
        X,
        y,
        n_networks=options.networks,
        snapshot_epochs=(1, "last"),
        directory=output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )
    final = population.losses("last")
    print(f"   final validation loss {final.min():.3f} … {np.median(final):.3f} … {final.max():.3f} "
          f"({time.perf_counter() - start:.0f} s)")  # fmt: skip

    print("2. Lyapunov spectra after the first epoch (of the LSTMs with their whole state, h and c)")
    start = time.perf_counter()
    early = population.networks(epoch=1)
    spectrum = LyapunovSpectrumTransformer(
        X[:16], n_exponents=32, align="interpolate", memory=str(output / "cache"), n_jobs=options.jobs, verbose=1
    )
    spectra = spectrum.fit_transform(early)
    print(f"   {spectra.shape[0]} spectra; largest exponent {spectra[:, 0].min():.2f} … {spectra[:, 0].max():.2f} "
          f"nats per step ({time.perf_counter() - start:.1f} s)")  # fmt: skip
    spectrum.set_params(n_jobs=None, verbose=0)  # cached from here on; the searches use the cores
    warnings.simplefilter("ignore", DegenerateSpectrumWarning)  # said once, above

    print("3. Out-of-fold predictions of the logarithm of the final loss")
    start = time.perf_counter()
    table, predictions = compare(population, early, spectrum, np.log(final), options)
    print(table.to_string(float_format="{:.2f}".format))
    print(f"   ({time.perf_counter() - start:.0f} s)")
    table.to_csv(output / "table.csv")

    figures = draw(population, spectra, np.log(final), predictions, output)
    print("4. Look at", " and ".join(str(f) for f in figures))
    print(f"   Networks, spectra and the table are in {output}; run again to go on from there, with other options "
          "(--networks, --epochs) into another --output.")  # fmt: skip
    return table


def compare(population, early, spectrum, target, options):
    """Return the table of out-of-fold scores and the predictions behind it."""
    folds = KFold(5, shuffle=True, random_state=0)
    inner = KFold(3, shuffle=True, random_state=1)
    so_far = HistoryFeatures(("valid_loss",), epoch=1)
    trees = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0)
    autoencoder = GridSearchCV(
        make_pipeline(spectrum, SpectrumAutoencoder(random_state=0)),
        {"spectrumautoencoder__latent_dim": [4, 8]},
        cv=inner,
    )
    knobs = make_column_transformer((OneHotEncoder(), ["cell"]), remainder=StandardScaler())
    knobs_of = population.params.assign(lr=np.log(population.params["lr"].astype(float)),
                                        init_scale=np.log(population.params["init_scale"].astype(float)))  # fmt: skip
    models = {
        "constant": (DummyRegressor(), early),
        "hyperparameters": (make_pipeline(knobs, trees), knobs_of[list(SEARCHED)]),
        "loss after epoch 1": (make_pipeline(so_far, StandardScaler(), RIDGE), early),
        "spectrum: statistics + ridge": (
            make_pipeline(spectrum, SpectrumStatistics(), StandardScaler(), RIDGE),
            early,
        ),
        "spectrum: autoencoder": (autoencoder, early),
        "spectrum + loss after epoch 1": (
            make_pipeline(FeatureUnion([("spectrum", spectrum), ("loss", so_far)]), StandardScaler(), trees),
            early,
        ),
    }
    predictions = {
        name: cross_val_predict(model, X, target, cv=folds, n_jobs=options.jobs) for name, (model, X) in models.items()
    }
    rows = {
        name: {"R²": r2_score(target, p), "Spearman": spearmanr(target, p)[0] if np.ptp(p) > 1e-6 else np.nan}
        for name, p in predictions.items()
    }
    rows["constant"]["Spearman"] = np.nan  # fold means carry no ranking
    return pd.DataFrame(rows).T.rename_axis("predictor"), predictions


def draw(population, spectra, target, predictions, output):
    """Save the spectra coloured by loss and the predictions against the truth."""
    display = SpectrumDisplay(spectra, color=target, color_label="ln final validation loss")
    axes = display.plot().ax_
    # A few networks contract so much in some directions that they would squeeze all the others.
    axes.set(title=f"{len(population)} networks after epoch 1", ylim=(np.quantile(spectra, 0.01), None))
    first = output / "spectra.png"
    display.figure_.savefig(first, dpi=150, bbox_inches="tight")

    names = ["loss after epoch 1", "spectrum: autoencoder", "spectrum + loss after epoch 1"]
    figure, row = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    for name, axes in zip(names, row, strict=True):
        shown = PredictionErrorDisplay(y_true=target, y_pred=predictions[name])
        shown.plot(axes, kind="actual_vs_predicted", scatter_kwargs={"alpha": 0.7})
        axes.set(title=name, xlabel="predicted ln loss", ylabel="ln final validation loss")
    second = output / "predictions.png"
    figure.savefig(second, dpi=150, bbox_inches="tight")
    plt.close("all")
    return first, second


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--output", default="results/predict_loss")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
