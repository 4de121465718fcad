"""Tables and figures of loss prediction, for docs/prediction.md: see :mod:`benchmarks.loss_prediction`."""

import os
import platform
from datetime import date
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import KFold, cross_val_predict

from benchmarks.__main__ import markdown
from sklyap import LyapunovSpectrumTransformer, compare_loss_predictors
from sklyap.comparison import default_loss_predictors, score_predictions

EPOCHS = (1, 3)
SIZES = (30, 50, 100, 200, 300)
OURS = "spectrum"
MEMBERS = ("AeLLE", "spectrum, ridge", "spectrum, extra-trees")
CURVES = (OURS, *MEMBERS)
RIVALS = (*MEMBERS, "best statistic", "statistics, linear")
ADDED = ("loss so far", "hyperparameters", "hyperparameters + loss so far")
PARTS = ("table", "families", "curves")
FAMILIES = {"cell": "architecture", "hidden_size": "size"}


def shorten(estimator):
    """Set everything that takes time in a predictor to as little as runs; return it."""
    least = {"max_epochs": 3, "n_estimators": 5, "cv": 2}
    names = [name for name in estimator.get_params() if name.rpartition("__")[2] in least and "ridgecv__" not in name]
    return estimator.set_params(**{name: least[name.rpartition("__")[2]] for name in names})


class Study:
    """One population at one epoch: the honest table, families left out, and learning curves.

    Parameters
    ----------
    name : str
    population : NetworkPopulation
    probes : array
        What drives the networks.
    epoch : number
    memory : path-like
        Cache of spectra.
    n_jobs : int
    small : bool
        Whether to do as little as shows that everything runs.
    n_folds : int
    parts : sequence of {"table", "families", "curves"}
    """

    def __init__(self, name, population, probes, epoch, memory, n_jobs=None, small=False, n_folds=10, parts=("table",)):
        self.name, self.population, self.epoch, self.n_jobs, self.small = name, population, epoch, n_jobs, small
        self.n_folds, self.parts = 3 if small else n_folds, parts
        self.done = Path(memory).parent / f"table-{name}-{epoch}-{len(population)}-{self.n_folds}.csv"
        self.transformer = LyapunovSpectrumTransformer(
            probes, n_exponents=16 if small else 128, align="interpolate", memory=str(memory), n_jobs=n_jobs,
            on_error="warn",
        )  # fmt: skip
        self.rows = default_loss_predictors(random_state=0)
        if small:
            for _, estimator in self.rows.values():
                shorten(estimator)

    def run(self):
        """Compute everything, or read what an earlier run has computed; return self."""
        known = pd.read_csv(self.done, index_col=0) if self.done.exists() else pd.DataFrame()
        missing = {name: row for name, row in self.rows.items() if name not in known}
        if missing:
            _, new = self._compare(missing)
            known = new if known.empty else known.join(new.drop(columns="target"))
            known.to_csv(self.done)
        self.predictions = known[["target", *self.rows]]
        pairs = {f"{OURS} + {rest}": rest for rest in ADDED[:2]} | {"all three": ADDED[2]}
        self.table = score_predictions(
            self.predictions, reference="loss so far", added_to=pairs, n_bootstrap=self.n_draws, random_state=0
        )
        self.families = {f: self._compare(self.rows, f) for f in FAMILIES} if "families" in self.parts else {}
        self.curve = self._learning_curve() if "curves" in self.parts else None
        return self

    def differences(self):
        """Return one row: how far the stack is ahead of each rival, and what the spectrum adds."""
        row = {"networks": len(self.predictions)}
        pairs = [(OURS, rival) for rival in RIVALS]
        for ours, theirs in [*pairs, *((f"{OURS} + {rest}", rest) for rest in ADDED[:2]), ("all three", ADDED[2])]:
            name = f"{ours} − {theirs}"
            row |= {f"{name}, {m}": g for m, g in gains(self.predictions, ours, theirs, self.n_draws).items()}
        return row

    @property
    def n_draws(self):
        return 20 if self.small else 1000

    def _compare(self, predictors, groups=None):
        return compare_loss_predictors(
            self.population, None, epoch=self.epoch, predictors=predictors, cv=self.n_folds, groups=groups,
            transformer=self.transformer, n_bootstrap=self.n_draws, return_predictions=True, random_state=0,
            n_jobs=self.n_jobs,
        )  # fmt: skip

    def _learning_curve(self):
        """Return scores by training size: folds as in the table, each learnt from a random part of the others."""
        kept = self.predictions.index.to_numpy()
        spectra = self.transformer.fit_transform(self.population.networks(self.epoch))[kept]
        y = self.predictions["target"].to_numpy()
        n_folds = self.n_folds
        largest = len(y) - -(-len(y) // n_folds)
        sizes = [n for n in (SIZES[:1] if self.small else SIZES) if n <= largest]
        rows = []
        for n in [*sizes, largest] if largest not in sizes else sizes:
            # Ten small training sets differ more from one another than ten large ones.
            for repeat in range(2 if n <= 50 and not self.small else 1):
                rng = np.random.default_rng([n, repeat])
                folds = KFold(n_folds, shuffle=True, random_state=repeat).split(y)
                splits = [(rng.choice(train, n, replace=False), test) for train, test in folds]
                predictions = pd.DataFrame({"target": y})
                for name in CURVES:
                    model = clone(self.rows[name][1])
                    predictions[name] = cross_val_predict(model, spectra, y, cv=splits, n_jobs=self.n_jobs)
                table = score_predictions(predictions, n_bootstrap=self.n_draws, random_state=0)
                row = {"n": n, "repeat": repeat} | {f"r2 {name}": table.loc[name, "r2"] for name in CURVES}
                row |= {f"spearman {name}": table.loc[name, "spearman"] for name in CURVES}
                for rival in CURVES[1:]:
                    gain = gains(predictions, OURS, rival, self.n_draws)
                    row |= {f"{m} over {rival}": value for m, (value, _) in gain.items()}
                    row |= {f"{m} over {rival} se": se for m, (_, se) in gain.items()}
                rows.append(row)
        return pd.DataFrame(rows).groupby("n", as_index=False).mean().drop(columns="repeat")


def gains(predictions, ours, theirs, n_draws):
    """Return {"R²": (difference, its standard error), "ρ": …} over the same resamples of networks."""
    two = predictions[["target", ours, theirs]]
    row = score_predictions(two, reference=theirs, n_bootstrap=n_draws, random_state=0).loc[ours]
    return {label: (row[f"{m}_gain"], row[f"{m}_gain_se"]) for label, m in (("R²", "r2"), ("ρ", "spearman"))}


def write(studies, output):
    """Write ``prediction_table.md`` and the figures."""
    (output / "images").mkdir(parents=True, exist_ok=True)
    parts = [f"{machine()}.\n"]
    for epoch in dict.fromkeys(study.epoch for study in studies):
        chosen = [study for study in studies if study.epoch == epoch]
        parts += [f"**After epoch {epoch}**, out of fold ({studies[0].n_folds} folds)\n", markdown(_scores(chosen))]
    parts += ["**Differences**\n", markdown(_differences(studies))]
    for family, word in FAMILIES.items():
        if all(study.families for study in studies):
            parts += [f"**Leave one {word} out**\n", markdown(_families(studies, family))]
    curves = [study for study in studies if study.curve is not None]
    if curves:
        parts += ["**Learning curves**\n", markdown(_curves(curves))]
        draw_curves(curves, output / "images" / "prediction_curves.png")
    (output / "prediction_table.md").write_text("\n".join(parts))
    draw_scores(studies, output / "images" / "prediction_scores.png")
    return output / "prediction_table.md"


def _scores(studies):
    table = pd.DataFrame({"predictor": studies[0].table.index})
    for study in studies:
        for label, m in (("R²", "r2"), ("ρ", "spearman"), ("AUC", "auc")):
            column = [_pm(*pair) for pair in study.table[[m, f"{m}_se"]].to_numpy()]
            table[f"{study.name} ({len(study.predictions)}) {label}"] = column
    return table


def _differences(studies):
    rows = []
    for study in studies:
        differences = study.differences()
        cells = {key: _pm(*pair, signed=True) for key, pair in differences.items() if key != "networks"}
        rows.append({"population": f"{study.name}, epoch {study.epoch}", **cells})
    table = pd.DataFrame(rows).set_index("population").T
    return table.rename_axis("difference").reset_index()


def _families(studies, family):
    table = pd.DataFrame({"predictor": list(studies[0].rows)})
    for study in studies:
        scores, _ = study.families[family]
        cells = [f"{r2:.2f} ({rho:.2f})" for r2, rho in scores[["r2", "spearman_within"]].to_numpy()]
        table[f"{study.name}, epoch {study.epoch}: R² (ρ within)"] = cells
    return table


def _curves(studies):
    rows = []
    for study in studies:
        for _, row in study.curve.iterrows():
            cells = {name: f"{row[f'r2 {name}']:.2f}" for name in CURVES}
            ahead = {
                f"{OURS} − {rival.split(', ')[-1]}": _pm(
                    row[f"R² over {rival}"], row[f"R² over {rival} se"], signed=True
                )
                for rival in CURVES[1:]
            }
            where = f"{study.name}, epoch {study.epoch}"
            rows.append({"population": where, "training networks": f"{row['n']:.0f}", **cells, **ahead})
    return pd.DataFrame(rows)


def _pm(value, error, signed=False):
    return f"{value:{'+' if signed else ''}.2f} ± {error:.2f}"


def draw_scores(studies, path):
    """Save the honest table as a figure."""
    from sklyap.displays import LossPredictorsDisplay

    figure, axes = _grid(studies)
    for study, ax in zip(studies, axes, strict=True):
        LossPredictorsDisplay.from_table(study.table, ax=ax)
        ax.set(title=f"{study.name}, epoch {study.epoch}", xlim=(-0.15, 1))
        if not ax.get_subplotspec().is_first_col() and list(study.table.index) == list(studies[0].table.index):
            ax.tick_params(labelleft=False)  # the names are those of the first column
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(studies, path):
    """Save the learning curves."""
    figure, axes = _grid(studies)
    for study, ax in zip(studies, axes, strict=True):
        for name, style in zip(CURVES, ("-o", "-s", "-^", ":d"), strict=True):
            ax.plot(study.curve["n"], study.curve[f"r2 {name}"], style, markersize=4, label=name)
        low = min(study.curve[[f"r2 {name}" for name in CURVES]].min().min(), 0)
        ax.set(title=f"{study.name}, epoch {study.epoch}", xlabel="training networks", ylabel="out-of-fold R²")
        ax.set(xscale="log", ylim=(max(low, -0.3), None))
        sizes = study.curve["n"].to_numpy()
        shown = sizes[np.append(np.diff(np.log(sizes)) > 0.25, True)]
        ax.set_xticks(shown, [f"{n:.0f}" for n in shown])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _grid(studies):
    """Return a figure with a row of axes for each epoch."""
    n_rows = len({study.epoch for study in studies})
    n_columns = len(studies) // n_rows
    size = (4.6 * n_columns, 3.6 * n_rows)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False)
    return figure, axes.ravel()


def machine():
    """Return a line about date, processor and versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{date.today()}, {processor}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, scikit-learn {sklearn.__version__}"
    )
