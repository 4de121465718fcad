"""Is the stack level with its best member, and do its intervals hold what they say? On populations of searches.

    python -m benchmarks.prediction_levels recall-30 recall-100 digits --directory results/search/populations

`examples/search_evidence.py` trains the populations. Every population and epoch is kept in a file beside them, so that
a run that was stopped goes on; the table is docs/prediction_levels_table.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from benchmarks.__main__ import markdown
from benchmarks.prediction_tables import gains, machine, shorten
from sklyap import LyapunovSpectrumTransformer, loss_predictor
from sklyap.comparison import score_predictions
from sklyap.exceptions import SklyapWarning
from sklyap.population import NetworkPopulation

N_PROBES = 16
ALPHA = 0.1
STACK = "stack"
EXAMPLE = Path(__file__).parent.parent / "examples" / "search_evidence.py"


def probes(task: str) -> np.ndarray:
    """Return the sequences that drive the networks of a task."""
    spec = importlib.util.spec_from_file_location("search_evidence", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sequences: np.ndarray = module.DATA[task][0]()[0][:N_PROBES]
    return sequences


def out_of_fold(spectra: np.ndarray, losses: np.ndarray, *, n_folds: int = 5, small: bool = False) -> pd.DataFrame:
    """Return ln losses, as they are and as predicted out of fold by the stack and each member, and intervals.

    One fit a fold gives all of it: the members of a fitted stack have been fitted on all networks of the fold.
    """
    columns: dict[str, np.ndarray] = {"target": np.log(losses)}
    for train, test in KFold(n_folds, shuffle=True, random_state=0).split(spectra):
        model = loss_predictor(random_state=0)
        if small:
            shorten(model)
        model.fit(spectra[train], losses[train])
        lower, upper = model.predict_interval(spectra[test], alpha=ALPHA)
        said = {STACK: model.predict(spectra[test]), "lower": lower, "upper": upper}
        said |= model.predict_members(spectra[test])
        for name, values in said.items():
            columns.setdefault(name, np.empty(len(losses)))[test] = np.log(values)
    return pd.DataFrame(columns)


def levels(task: str, epoch: int, directory: Path, small: bool) -> dict[str, Any]:
    """Return a row of the table."""
    population = NetworkPopulation.load(directory / task)
    done = directory.parent / f"levels-{task}-{epoch}-{len(population)}.csv"
    if done.exists():
        predictions = pd.read_csv(done)
    else:
        transformer = LyapunovSpectrumTransformer(
            probes(task), n_exponents=16 if small else 64, align="interpolate", on_error="warn",
            memory=str(directory.parent / "spectra"),
        )  # fmt: skip
        spectra = transformer.fit_transform(population.networks(epoch))
        known = np.isfinite(spectra).all(axis=1)
        predictions = out_of_fold(spectra[known], population.best_losses[known], small=small)
        predictions.to_csv(done, index=False)
    return _row(task, epoch, predictions, 20 if small else 1000)


def _row(task: str, epoch: int, predictions: pd.DataFrame, n_draws: int) -> dict[str, Any]:
    covered = (predictions["lower"] <= predictions["target"]) & (predictions["target"] <= predictions["upper"])
    scored = predictions.drop(columns=["lower", "upper"])
    table = score_predictions(scored, n_bootstrap=n_draws, random_state=0)
    row: dict[str, Any] = {"networks": f"{task} ({len(scored)})", "epoch": epoch}
    for label, m in (("R²", "r2"), ("ρ", "spearman")):
        best = table.drop(index=STACK)[m].idxmax()
        ahead = gains(scored, STACK, best, n_draws)[label][0]
        behind = -ahead / table.loc[best, f"{m}_se"]
        row |= {
            f"stack, {label}": f"{table.loc[STACK, m]:.2f} ± {table.loc[STACK, f'{m}_se']:.2f}",
            f"best member, {label}": f"{table.loc[best, m]:.2f} ({best})",
            f"behind by, {label}": f"{max(behind, 0):.2f} s.e.",
        }
    error = np.sqrt(covered.mean() * (1 - covered.mean()) / len(covered))
    return row | {"90 % intervals hold": f"{100 * covered.mean():.0f} ± {100 * error:.0f} %"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="names of populations")
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 3])
    parser.add_argument("--directory", type=Path, default=Path("results/search/populations"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs")
    parser.add_argument("--small", action="store_true", help="a table that only shows that everything runs")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", SklyapWarning)
    rows = []
    for task in options.tasks:
        for epoch in options.epochs:
            rows.append(levels(task, epoch, options.directory, options.small))
            print(rows[-1], flush=True)
    text = f"{machine()}.\n\n{markdown(pd.DataFrame(rows))}"
    (options.output / "prediction_levels_table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
