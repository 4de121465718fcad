"""Studies of loss prediction on the populations of :mod:`benchmarks.prediction_populations`.

    python -m benchmarks.prediction_studies architectures seeds budget --directory populations

Each writes a table into docs, ``prediction_<study>_table.md``. Spectra are cached beside the populations, so that a run
that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import BayesianRidge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import prediction_populations
from benchmarks.__main__ import markdown
from benchmarks.prediction_tables import machine, shorten
from sklyap import LyapunovSpectrumTransformer, compare_loss_predictors
from sklyap.comparison import default_loss_predictors
from sklyap.comparison.stacking import SpectrumViews
from sklyap.exceptions import SklyapWarning
from sklyap.population import NetworkPopulation

SHOTS = (5, 10, 20)
WAYS = ("given", "calibrated", "alone")


def _transformer(X: np.ndarray, directory: Path, **params: Any) -> LyapunovSpectrumTransformer:
    settings = {"n_exponents": 64, "align": "interpolate", "memory": str(directory / "spectra"), "on_error": "warn"}
    return LyapunovSpectrumTransformer(X, **{**settings, **params})


# Across architectures


def representations(spectra: np.ndarray, n_steps: int) -> dict[str, np.ndarray]:
    """Return what may be the same in all architectures, by name, from spectra at equally spaced relative indices."""
    kept = np.exp(np.clip(spectra * n_steps, -700, 5))  # what is left of a perturbation at the end of the task
    directions = np.column_stack([(kept > share).mean(axis=1) for share in (0.5, 0.1, 0.01, 1e-4)])
    memory = np.column_stack([directions, kept.mean(axis=1), spectra[:, 0], spectra[:, :4].mean(axis=1)])
    return {
        "spectrum": np.arcsinh(spectra),
        "leading exponents": np.arcsinh(spectra[:, :8]),
        "growth factors": np.exp(np.minimum(spectra, 1)),
        "time scales of the task": np.log1p(np.clip(1 / np.maximum(np.abs(spectra) * n_steps, 1e-3), 0, 1e3)),
        "memory": memory,
    }


def within_families(features: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Return every column as ranks inside its own family, which needs no losses."""
    ranks = np.empty_like(features, dtype=np.float64)
    for family in np.unique(families):
        rows = families == family
        ranks[rows] = rankdata(features[rows], axis=0) / rows.sum()
    return ranks


def architectures(directory: Path, tasks: list[str], n: int, small: bool, epoch: int = 1) -> list[pd.DataFrame]:
    """Leave one architecture out, and then give 5, 10 or 20 finished networks of it."""
    tables = []
    for task in tasks:
        X, _ = prediction_populations.load(task)
        parts = {
            cell: _load(directory / "architectures" / task / cell, n) for cell in prediction_populations.ARCHITECTURES
        }
        everything = NetworkPopulation.concatenate(parts.values())
        spectra = _transformer(X[:16], directory).fit_transform(everything.networks(epoch))
        y, cells = np.log(everything.best_losses), everything.groups("cell").astype(str)
        known = np.isfinite(spectra).all(axis=1) & np.isfinite(y)
        features = representations(spectra, X.shape[1])
        features |= {f"{name}, ranks inside": within_families(features[name], cells) for name in ("spectrum", "memory")}
        size, scale, lr = (everything.params[p].astype(float).to_numpy() for p in ("hidden_size", "init_scale", "lr"))
        features["hyperparameters"] = np.column_stack([size, np.log(scale), np.log(lr)])
        features["loss so far"] = np.log(everything.losses(epoch))[:, None]
        few, known_anyway = features["spectrum"][:, ::8], [features["hyperparameters"], features["loss so far"]]
        features["hyperparameters + loss so far"] = np.hstack(known_anyway)
        features["spectrum + loss so far"] = np.hstack([few, features["loss so far"]])
        features["spectrum + hyperparameters"] = np.hstack([few, features["hyperparameters"]])
        features["all three"] = np.hstack([few, *known_anyway])
        rows = [
            {"task": task, "features": name, **_left_out(values[known], y[known], cells[known], small)}
            for name, values in features.items()
        ]
        tables.append(pd.DataFrame(rows))
    return tables


def _load(path: Path, n: int) -> NetworkPopulation:
    return NetworkPopulation.load(path)[:n]


def _left_out(features: np.ndarray, y: np.ndarray, cells: np.ndarray, small: bool) -> dict[str, str]:
    """Return scores inside the family that was left out: the mean over families and its standard error.

    Of its finished networks, some are learnt from together with the other families ("given"), or set the straight line
    from what the others predict to the loss ("calibrated"), or are all that is learnt from ("alone").
    """
    n_draws = 1 if small else 3
    zero: list[float] = []
    scores: dict[tuple[str, int], list[float]] = {(way, k): [] for way in WAYS for k in SHOTS}
    for cell in np.unique(cells):
        new, old = np.flatnonzero(cells == cell), np.flatnonzero(cells != cell)
        if np.ptp(y[new]) == 0:
            continue
        others = _trees(small).fit(features[old], y[old])
        zero.append(_rho(others.predict(features[new]), y[new]))
        for k in SHOTS:
            drawn: dict[str, list[float]] = {way: [] for way in WAYS}
            for draw in range(n_draws):
                order = np.random.default_rng(draw).permutation(new)
                for way, guess in _few_shot(features, y, old, order[:k], order[k:], others, small).items():
                    drawn[way].append(r2_score(y[order[k:]], guess))
            for way, values in drawn.items():
                scores[way, k].append(float(np.mean(values)))
    row = {"ρ, none given": _mean_and_error(zero)}
    return row | {f"R², {k} {way}": _mean_and_error(scores[way, k]) for way in WAYS for k in SHOTS}


def _few_shot(
    features: np.ndarray,
    y: np.ndarray,
    old: np.ndarray,
    shots: np.ndarray,
    rest: np.ndarray,
    others: ExtraTreesRegressor,
    small: bool,
) -> dict[str, np.ndarray]:
    """Return predictions for `rest`, for every way to use the `shots` beside the `old` families."""
    # The finished networks of the new family count as much as all the others together.
    weights = np.r_[np.ones(len(old)), np.full(len(shots), len(old) / len(shots))]
    both = np.r_[old, shots]
    line = BayesianRidge().fit(others.predict(features[shots])[:, None], y[shots])
    return {
        "given": _trees(small).fit(features[both], y[both], sample_weight=weights).predict(features[rest]),
        "calibrated": line.predict(others.predict(features[rest])[:, None]),
        "alone": _trees(small).fit(features[shots], y[shots]).predict(features[rest]),
    }


def _trees(small: bool) -> ExtraTreesRegressor:
    return ExtraTreesRegressor(5 if small else 60, min_samples_leaf=2, random_state=0)


def _rho(predicted: np.ndarray, y: np.ndarray) -> float:
    return 0.0 if np.ptp(predicted) == 0 else float(spearmanr(predicted, y)[0])


def _mean_and_error(scores: list[float]) -> str:
    return f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1) / np.sqrt(len(scores)):.2f}"


# Where hyperparameters say little


def seeds(directory: Path, tasks: list[str], n: int, small: bool) -> list[pd.DataFrame]:
    """Return what is known of networks that differ in seed and initial scale only, at three epochs."""
    chosen = ("hyperparameters", "loss so far", "hyperparameters + loss so far", "spectrum", "all three")
    tables = []
    for task in tasks:
        X, _ = prediction_populations.load(task)
        population = _load(directory / "seeds" / task, n)
        columns: dict[str, list[str]] = {}
        for epoch in (0, 1, 3):
            rows = {name: default_loss_predictors(random_state=0)[name] for name in chosen}
            if small:
                for _, estimator in rows.values():
                    shorten(estimator)
            table = compare_loss_predictors(
                population, None, epoch=epoch, predictors=rows, cv=3 if small else 5,
                transformer=_transformer(X[:16], directory), n_bootstrap=20 if small else 1000, random_state=0,
            )  # fmt: skip
            for m, label in (("r2", "R²"), ("spearman", "ρ")):
                columns[f"epoch {epoch}, {label}"] = [
                    f"{score:.2f} ± {error:.2f}" for score, error in table[[m, f"{m}_se"]].to_numpy()
                ]
        tables.append(pd.DataFrame({"task": task, "predictor": list(chosen), **columns}))
    return tables


# How much spectrum is enough


def budget(directory: Path, tasks: list[str], n: int, small: bool, epoch: int = 1) -> list[pd.DataFrame]:
    """Return R² against the seconds that spectra take, for settings that differ from a reference in one thing each."""
    tables = []
    for task in tasks:
        X, _ = prediction_populations.load(task)
        parts = [_load(directory / "architectures" / task / cell, n) for cell in ("lstm", "gru", "rnn")]
        population = NetworkPopulation.concatenate(parts)
        y, T = np.log(population.best_losses), X.shape[1]
        networks = list(population.networks(epoch))
        rows = []
        for name, params in _settings(X, T).items():
            start = time.process_time()
            transformer = LyapunovSpectrumTransformer(on_error="warn", **params)
            spectra = transformer.fit_transform(networks)
            seconds = (time.process_time() - start) / len(networks)
            rows.append(
                {"task": task, "spectra": name, "ms per network": f"{1e3 * seconds:.0f}", **_skill(spectra, y, small)}
            )
        tables.append(pd.DataFrame(rows))
    return tables


def _settings(X: np.ndarray, T: int) -> dict[str, dict[str, Any]]:
    whole = {"sequences": X[:16], "n_exponents": 64, "align": "interpolate"}
    leading = {"sequences": X[:16], "align": "truncate"}
    return {
        "whole spectrum, 16 sequences": whole,
        "8 sequences": {**whole, "sequences": X[:8]},
        "4 sequences": {**whole, "sequences": X[:4]},
        "1 sequence": {**whole, "sequences": X[:1]},
        "half the steps": {**whole, "sequences": X[:16, : T // 2]},
        "float32": {**whole, "dtype": "float32"},
        "no warm-up": {**whole, "warmup": 0},
        "16 leading exponents": {**leading, "n_exponents": 16},
        "8 leading exponents": {**leading, "n_exponents": 8},
        "4 leading exponents": {**leading, "n_exponents": 4},
        "largest exponent": {**leading, "n_exponents": 1},
    }


def _skill(spectra: np.ndarray, y: np.ndarray, small: bool) -> dict[str, str]:
    """Return out-of-fold R² of two quick predictors, with the standard error over five cuts into folds."""
    known = np.isfinite(spectra).all(axis=1) & np.isfinite(y)
    ridge = make_pipeline(SpectrumViews(), StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    skill = {}
    for name, model in {"trees, R²": _trees(small), "ridge, R²": ridge}.items():
        scores = [
            r2_score(
                y[known],
                cross_val_predict(clone(model), spectra[known], y[known], cv=KFold(5, shuffle=True, random_state=i)),
            )
            for i in range(2 if small else 5)
        ]
        skill[name] = f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}"
    return skill


STUDIES = {"architectures": architectures, "seeds": seeds, "budget": budget}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="+", choices=list(STUDIES))
    parser.add_argument("--directory", type=Path, default=Path("populations"))
    parser.add_argument("--tasks", nargs="+", choices=list(prediction_populations.EPOCHS), default=["recall", "digits"])
    parser.add_argument("--networks", type=int, default=1000, help="of each population at most")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs")
    parser.add_argument("--small", action="store_true", help="tables that only show that everything runs")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore", SklyapWarning)
    for study in options.studies:
        tables = STUDIES[study](options.directory, options.tasks, options.networks, options.small)
        text = f"{machine()}.\n\n{markdown(pd.concat(tables))}"
        (options.output / f"prediction_{study}_table.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
