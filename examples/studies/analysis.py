"""What the studies share: from a population and its snapshots to tables and figures.

Every study asks the same of its networks, epoch by epoch: which statistics of the spectrum go with the loss that the
network ends with, when in training that can first be seen, how well predictors do out of fold as a regression and as a
classification, and how good and bad networks lie in the latent plane.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.metrics import roc_auc_score

from sklyap import (
    LyapunovSpectrumTransformer,
    NetworkPopulation,
    SpectrumAutoencoder,
    SpectrumStatistics,
    compare_loss_predictors,
    spectrum_loss_correlation,
    train_population,
)
from sklyap.displays import LatentDisplay
from sklyap.exceptions import SklyapWarning
from sklyap.statistics.ranks import column_correlations

SIZES = ("smoke", "laptop", "paper")
SIGNIFICANT = 0.05
SMALLEST_FAMILY = 5
"""Networks of an architecture, below which its correlation is left out."""
N_DRAWS = 2000


@dataclass(frozen=True)
class Task:
    """What is trained on what: an estimator, what varies, data, and the sequences that drive the spectra."""

    estimator: Any
    distributions: dict[str, Any]
    train: tuple[np.ndarray, np.ndarray]
    valid: tuple[np.ndarray, np.ndarray]
    probes: np.ndarray
    n_networks: int
    epochs: tuple[int, ...]  # snapshots at which spectra are read, beside the last


def run(doc: str, name: str, load: Callable[[argparse.Namespace], Task], arguments: Sequence[str] | None = None):
    """Train the population of a study and analyse it; the tables are returned, printed and written."""
    options = parse(doc, name, arguments)
    task = load(options)
    start = time.perf_counter()
    population = train_population(
        task.estimator,
        task.distributions,
        *task.train,
        n_networks=options.networks or task.n_networks,
        validation=task.valid,
        snapshot_epochs=(*task.epochs, "last"),
        directory=options.output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )
    print(f"{name} ({options.size}): {len(population)} networks trained in {time.perf_counter() - start:.0f} s, "
          f"{len(population.failures)} failed")  # fmt: skip
    transformer = spectra_of(task.probes, options, n_exponents=64, align="interpolate")
    networks = {epoch: population.networks(epoch) for epoch in (*task.epochs, "last")}
    n_folds = 3 if options.size == "smoke" else 10
    predicted = partial(prediction, population, transformer, task.epochs, n_folds, options.jobs)
    families = population.groups("cell") if "cell" in task.distributions else None
    return analyse(networks, population.best_losses, transformer, predicted, options, families)


def spectra_of(probes: Any, options: argparse.Namespace, **settings: Any) -> LyapunovSpectrumTransformer:
    """Return what computes the spectra of a study; networks that cannot be analysed are left out with a warning."""
    return LyapunovSpectrumTransformer(
        probes, memory=str(options.output / "spectra"), n_jobs=options.jobs, on_error="warn", **settings
    )


def parse(
    doc: str,
    name: str,
    arguments: Sequence[str] | None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> argparse.Namespace:
    """Return the options that every study has, and those that `add_options` adds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="laptop", help="seconds, minutes on two cores, or the thesis'")
    parser.add_argument("--data", type=Path, help="the file or folder with the data, see the module's text")
    parser.add_argument("--networks", type=int, help="how many, in place of the size's own number")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, help=f"results/{name}/SIZE by default")
    if add_options is not None:
        add_options(parser)
    options = parser.parse_args(arguments)
    options.output = options.output or Path("results") / name / options.size
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def analyse(
    networks: dict[Any, Sequence[Any]],
    losses: np.ndarray,
    transformer: LyapunovSpectrumTransformer,
    predicted: Callable[[], pd.DataFrame],
    options: argparse.Namespace,
    families: np.ndarray | None = None,
) -> dict[str, pd.DataFrame]:
    """Return, print and write the tables of networks at several epochs; draw the figures.

    `families` are the architectures of the networks: a spectrum says which of them a network has, so that a correlation
    over all networks may be that of the architecture alone.
    """
    warnings.simplefilter("ignore", SklyapWarning)  # annihilated directions, statistics that are the same for all
    print(f"best losses {np.nanmin(losses):.4g} to {np.nanmax(losses):.4g}")
    start = time.perf_counter()
    spectra = {epoch: transformer.fit_transform(some) for epoch, some in networks.items()}
    print(f"spectra at {len(networks)} epochs in {time.perf_counter() - start:.0f} s")
    table = correlations(spectra, losses)
    tables = {"correlations": table, "emergence": emergence(table)}
    if families is not None:
        tables["inside"] = inside(spectra, losses, np.asarray(families))
    keep(tables, options)
    report_correlations(tables)
    draw_correlations(table, options.output / "correlations.png")
    draw_latent(spectra, losses, options.output / "latent.png")
    tables["prediction"] = predicted()  # takes longest
    keep(tables, options)
    report_prediction(tables["prediction"])
    print(f"\nTables and figures are in {options.output}; run again to go on from there.")
    return tables


def keep(tables: dict[str, pd.DataFrame], options: argparse.Namespace) -> None:
    """Write tables."""
    for title, table in tables.items():
        table.to_csv(options.output / f"{title}.csv")


def usable(spectra: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return which networks have a spectrum and a finite loss."""
    return np.isfinite(spectra).all(1) & np.isfinite(losses)


def correlations(spectra: dict[Any, np.ndarray], losses: np.ndarray) -> pd.DataFrame:
    """Return the rank correlation of every statistic with the best loss; p corrected over all rows of the study."""
    rows = []
    for epoch, values in spectra.items():
        kept = usable(values, losses)
        table = spectrum_loss_correlation(values[kept], losses[kept], random_state=0)
        rows.append(table.assign(epoch=epoch, n=int(kept.sum())).set_index("epoch", append=True))
    table = pd.concat(rows)
    known = table["p"].notna()
    table.loc[known, "p_corrected"] = false_discovery_control(table.loc[known, "p"])
    return table


def inside(spectra: dict[Any, np.ndarray], losses: np.ndarray, families: np.ndarray) -> pd.DataFrame:
    """Return the rank correlations of statistics with the best loss inside architectures, averaged by their size.

    Intervals are from networks resampled inside their architecture, p from losses shuffled inside them, corrected over
    all rows.
    """
    rows = []
    for epoch, values in spectra.items():
        kept = usable(values, losses)
        statistics = SpectrumStatistics().set_output(transform="pandas").fit_transform(values[kept])
        y, names = losses[kept], families[kept]
        members = [np.flatnonzero(names == name) for name in np.unique(names)]
        members = [rows_of for rows_of in members if len(rows_of) >= SMALLEST_FAMILY]
        if not members:
            continue
        statistics = statistics.loc[:, np.isfinite(_inside(statistics.to_numpy(), y, members, members))]
        table = statistics.to_numpy()
        r = _inside(table, y, members, members)
        rng = np.random.default_rng(0)
        resampled, shuffled = [], []
        for _ in range(N_DRAWS):
            drawn = [rng.choice(rows_of, len(rows_of)) for rows_of in members]
            resampled.append(_inside(table, y, drawn, drawn))
            shuffled.append(_inside(table, y, members, [rng.permutation(rows_of) for rows_of in members]))
        low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
        p = (1 + (np.abs(shuffled) >= np.abs(r) - 1e-12).sum(0)) / (1 + N_DRAWS)
        columns = {"r": r, "low": low, "high": high, "p": p}
        table = pd.DataFrame(columns, index=statistics.columns.rename("statistic"))
        rows.append(
            table.sort_values("r", key=np.abs, ascending=False, kind="stable").assign(
                epoch=epoch, n=sum(map(len, members))
            )
        )
    if not rows:
        return pd.DataFrame(columns=["r", "low", "high", "p", "n", "p_corrected"])
    found = pd.concat(rows).set_index("epoch", append=True)
    found["p_corrected"] = false_discovery_control(found["p"])
    return found


def _inside(
    table: np.ndarray, losses: np.ndarray, rows: Sequence[np.ndarray], rows_of_losses: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the mean over families of Spearman's ρ, by size; NaN for statistics that do not vary in a family."""
    pairs = zip(rows, rows_of_losses, strict=True)
    found = np.array([column_correlations(table[some], losses[others]) for some, others in pairs])
    with np.errstate(invalid="ignore"):
        return np.average(found, axis=0, weights=[len(some) for some in rows])


def emergence(table: pd.DataFrame) -> pd.DataFrame:
    """Return the first epoch from which on a statistic's corrected p stays below 0.05."""
    epochs = list(dict.fromkeys(table.index.get_level_values("epoch")))
    significant = (table["p_corrected"] < SIGNIFICANT).unstack("epoch")[epochs]
    stays = significant.iloc[:, ::-1].cummin(axis=1).iloc[:, ::-1]
    first = [next((epoch for epoch in epochs if row[epoch]), None) for _, row in stays.iterrows()]
    r = table["r"].unstack("epoch")[epochs]
    return pd.DataFrame({"from epoch": first, "r at the first": r[epochs[0]], "r at the last": r[epochs[-1]]})


def prediction(
    population: NetworkPopulation,
    transformer: LyapunovSpectrumTransformer,
    epochs: Sequence[Any],
    n_folds: int,
    n_jobs: int,
) -> pd.DataFrame:
    """Return, out of fold at each epoch, R² and Spearman's ρ of the log loss, and the AUC for "above the median"."""
    rows = []
    for epoch in epochs:
        table, guesses = compare_loss_predictors(
            population, None, transformer=transformer, epoch=epoch, cv=n_folds,
            return_predictions=True, random_state=0, n_jobs=n_jobs,
        )  # fmt: skip
        auc = auc_of_bad(guesses["target"], {name: guesses[name] for name in table.index})
        rows.append(table.assign(auc=auc, epoch=epoch).set_index("epoch", append=True))
    return pd.concat(rows)


def auc_of_bad(losses: Any, guesses: dict[str, Any]) -> pd.Series:
    """Return how well each prediction tells losses above the median from those below: the area under the ROC curve."""
    bad = np.asarray(losses) > np.median(losses)
    return pd.Series({name: roc_auc_score(bad, guess) for name, guess in guesses.items()})


def draw_correlations(table: pd.DataFrame, path: Path) -> None:
    """Draw the statistics' correlations with the loss through training."""
    epochs = list(dict.fromkeys(table.index.get_level_values("epoch")))
    r = table["r"].unstack("epoch")[epochs]
    r = r.loc[r.abs().max(axis=1).sort_values().index]
    figure, ax = plt.subplots(figsize=(5, 0.25 * len(r) + 1), layout="constrained")
    image = ax.imshow(r, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
    ax.set_xticks(range(len(epochs)), epochs)
    ax.set_yticks(range(len(r)), r.index)
    ax.set_xlabel("epoch at which the spectrum is read")
    figure.colorbar(image, label="Spearman's ρ with the best loss")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_latent(spectra: dict[Any, np.ndarray], losses: np.ndarray, path: Path) -> None:
    """Draw good and bad networks in the latent plane of networks that the autoencoder has not seen."""
    epochs = list(spectra)
    figure, axes = plt.subplots(1, len(epochs), figsize=(3.6 * len(epochs), 3.6), layout="constrained", squeeze=False)
    for ax, epoch in zip(axes[0], epochs, strict=True):
        kept = usable(spectra[epoch], losses)
        values, y = spectra[epoch][kept], losses[kept]
        train = np.arange(len(y)) % 5 < 3  # networks are in random order
        model = SpectrumAutoencoder(random_state=0).fit(values[train], y[train])
        LatentDisplay(model.transform(values[~train])[:, :2], y[~train]).plot(ax)
        ax.set_title(f"epoch {epoch}, held out")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report_correlations(tables: dict[str, pd.DataFrame]) -> None:
    """Print which statistics go with the loss, and from when on."""
    print("\nRank correlation of the strongest statistics with the best loss, [95 % interval], p corrected over "
          "all statistics and epochs")  # fmt: skip
    for epoch, table in tables["correlations"].groupby("epoch", sort=False):
        print(f"epoch {epoch}")
        for (name, _), row in table.head(5).iterrows():
            print(f"  {name:24s} {row.r:+.2f} [{row.low:+.2f}, {row.high:+.2f}]  p = {row.p_corrected:.2g}")
    if len(tables.get("inside", ())):
        print("\nThe same inside architectures, averaged over them")
        for epoch, table in tables["inside"].groupby("epoch", sort=False):
            print(f"epoch {epoch}")
            for (name, _), row in table.head(5).iterrows():
                print(f"  {name:24s} {row.r:+.2f} [{row.low:+.2f}, {row.high:+.2f}]  p = {row.p_corrected:.2g}")
    print("\nFrom which epoch on each statistic's correlation is significant")
    print(tables["emergence"].to_string(float_format="{:.3f}".format), flush=True)


def report_prediction(table: pd.DataFrame) -> None:
    """Print how well the loss is predicted."""
    print("\nOut of fold: R² and Spearman's ρ of the log of the best loss, AUC for a loss above the median")
    shown = table[["r2", "r2_low", "r2_high", "spearman", "auc"]].unstack("epoch").swaplevel(axis=1)
    shown = shown.sort_index(axis=1, level=0, sort_remaining=False)
    with pd.option_context("display.width", 200, "display.max_rows", 200):
        print(shown.to_string(float_format="{:.3f}".format))
