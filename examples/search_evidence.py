"""Does a search that looks at the spectrum find good networks earlier than one that looks at the loss?

Trains populations of small LSTM, GRU and Elman networks on tasks where the loss stays on a plateau before it falls
(recall, adding, permuted MNIST) and on one where it falls at once (digits), with a shorter or smaller version of each
as the prior; replays searches on them; and runs searches live beside Optuna's. Everything finished is kept: interrupt
with Ctrl-C and run again to go on.

    python examples/search_evidence.py [--networks 240] [--repeats 200] [--live] [--output results/search]
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
from scipy.stats import loguniform, randint
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict

from sklyap import (
    LyapunovHalvingSearch,
    LyapunovSpectrumTransformer,
    NetworkPopulation,
    RNNClassifier,
    RNNRegressor,
    replay_search,
    train_population,
)
from sklyap.datasets import fetch_sequential_mnist, load_sequential_digits, make_adding, make_recall
from sklyap.displays import RegretDisplay
from sklyap.exceptions import FailedNetworkWarning

SEARCHED = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": randint(16, 49),
    "init_scale": loguniform(0.05, 2.0),
    "lr": loguniform(1e-3, 10**-1.7),
}
EPOCHS = 15
SNAPSHOTS = (0, 1, 3, 9, "last")
N_SEQUENCES = 1500
PROBES = 4
SPECTRA = {"n_exponents": 32, "align": "interpolate", "dtype": "float32", "on_error": "warn"}
SETTINGS = [  # (exponents, align, sequences, dtype)
    (32, "interpolate", 16, "float64"),
    (32, "interpolate", 4, "float64"),
    (32, "interpolate", 4, "float32"),
    (32, "interpolate", 1, "float32"),
    (8, "truncate", 4, "float32"),
    (4, "truncate", 4, "float32"),
]
SETTINGS_NETWORKS = 120
BUDGETS = (0.03, 0.05, 0.1, 0.2)
SECONDS = (0.05, 0.1, 0.2)
POLICIES = [
    "random",
    "halving",
    "extrapolation",
    "hyperband",
    "predictor",
    "predictor without finalists",
    "predictor without spectrum",
    "predictor without hyperparameters",
    "predictor, spectrum alone",
    "predictor without prior",
]
LOOKING = [policy for policy in POLICIES if policy.startswith("predictor") and policy != "predictor without spectrum"]
DRAWN = ["random", "halving", "hyperband", "predictor", "predictor without spectrum", "predictor, spectrum alone"]
COUNTED = {
    "epochs": "epochs of training all, spectra not counted",
    "cost": "epochs of training all, spectra counted",
    "seconds": "recorded seconds of training all, spectra counted",
}


def permuted_mnist(side, n_samples=2000):
    """Return MNIST at `side` x `side` pixels, the means of blocks, read one pixel a step in one shuffled order."""
    X, y = fetch_sequential_mnist(n_samples=n_samples, return_X_y=True)
    block = 28 // side
    pixels = X.reshape(-1, side, block, side, block).mean(axis=(2, 4)).reshape(-1, side**2, 1)
    return pixels[:, np.random.RandomState(0).permutation(side**2)], y


DATA = {  # name: (data, estimator, random_state of the population)
    "recall-30": (lambda: make_recall(N_SEQUENCES, n_steps=30, random_state=0), RNNClassifier, 1),
    "recall-100": (lambda: make_recall(N_SEQUENCES, n_steps=100, random_state=0), RNNClassifier, 0),
    "prior-adding-15": (lambda: make_adding(N_SEQUENCES, n_steps=15, random_state=1), RNNRegressor, 1),
    "adding-40": (lambda: make_adding(N_SEQUENCES, n_steps=40, random_state=0), RNNRegressor, 0),
    "prior-mnist-16": (lambda: permuted_mnist(4), RNNClassifier, 1),
    "mnist-49": (lambda: permuted_mnist(7), RNNClassifier, 0),
    "prior-digits-5": (lambda: load_sequential_digits(n_class=5, return_X_y=True), RNNClassifier, 1),
    "digits": (lambda: load_sequential_digits(return_X_y=True), RNNClassifier, 0),
}
STUDIES = {  # name: (searched population, prior)
    "recall-100": ("recall-100", "recall-30"),
    "adding-40": ("adding-40", "prior-adding-15"),
    "mnist-49": ("mnist-49", "prior-mnist-16"),
    "digits": ("digits", "prior-digits-5"),
    "recall-100, a prior of another kind": ("recall-100", "prior-digits-5"),
    "digits, a prior of another kind": ("digits", "recall-30"),
}


def main(arguments=None):
    options = parse(arguments)
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", FailedNetworkWarning)
    tables = [study(name, options) for name in options.studies]
    if tables:
        pd.concat(tables, ignore_index=True).to_csv(output / "replays.csv", index=False)
    if options.settings:
        settings(options).to_csv(output / "settings.csv", index=False)
    if options.live:
        live(options).to_csv(output / "live.csv", index=False)
    return tables


def study(name, options):
    """Replay searches on one task and return the regret of each policy at each budget."""
    tasks = STUDIES[name]
    searched, prior = (populate(task, options) for task in tasks)
    # One seed draws the same hyperparameters and initial weights on every task: none of the candidates is in the prior.
    seeds = {record.seed for record in searched.records}
    prior = prior.filter(lambda record: record.seed not in seeds)
    losses = searched.best_losses
    price = spectrum_cost(searched, tasks[0])
    curves = {}
    for unit in ("epochs", "cost"):
        start = time.perf_counter()
        policies = [p for p in options.policies if unit == "epochs" or p in LOOKING]
        if not policies:  # who looks at no spectra does the same again
            curves[unit] = curves["epochs"].assign(budget_in=unit)
            continue
        result = replay_search(
            searched,
            policies,
            probes(tasks[0]),
            prior=(prior, probes(tasks[1])),
            budgets=BUDGETS,
            count_spectra=unit == "cost",
            spectrum_epochs=price,
            n_repeats=options.repeats,
            transformer=LyapunovSpectrumTransformer(**SPECTRA, memory=str(Path(options.output) / "cache")),
            random_state=0,
        )
        curve = result.curve()
        if unit == "cost":
            others = curves["epochs"].drop(columns=["study", "budget_in"])
            curve = pd.concat([others[~others["policy"].isin(policies)], curve], ignore_index=True)
        curves[unit] = curve.assign(study=name, budget_in=unit)
        print(f"\n{name}: {len(searched)} networks ({result.n_candidates} in each search), losses {losses.min():.4g} … "
              f"{np.median(losses):.4g} … {losses.max():.4g}; prior of {len(prior)}; a spectrum costs {price:.2f} "
              f"epochs; {options.repeats} repetitions, {time.perf_counter() - start:.0f} s")  # fmt: skip
        show(curves[unit], COUNTED[unit], options.policies)
    all_seconds = result.n_candidates * np.mean([np.sum(record.history["dur"]) for record in searched.records])
    curves["seconds"] = at_equal_seconds(curves["cost"], all_seconds).assign(study=name, budget_in="seconds")
    print(f"\n{name}: training all candidates took {all_seconds:.0f} s on average")
    show(curves["seconds"], COUNTED["seconds"], options.policies)
    draw(curves, name, options)
    return pd.concat(curves.values(), ignore_index=True)


def at_equal_seconds(curve, all_seconds):
    """Return what each policy finds for equal shares of the recorded seconds, those of its spectra included.

    A search that spends one of two budgets by chance spends a mean of their seconds and has the same mean of their
    regrets: between two budgets, the curve is a straight line.
    """
    rows = []
    for policy, group in curve.groupby("policy", sort=False):
        group = group.sort_values("seconds")
        spent = group["seconds"].to_numpy() / all_seconds
        for share in SECONDS:
            within = spent[0] <= share <= spent[-1]
            row = {name: np.interp(share, spent, group[name]) if within else np.nan
                   for name in ("epochs", "cost", "seconds", "spectra", "regret", "low", "high", "solved")}  # fmt: skip
            rows.append({"policy": policy, "budget": share, **row})
    return pd.DataFrame(rows)


def show(curve, unit, policies):
    """Print a table: mean regret, half its 95 % interval, share solved; by policy and budget."""
    cells = curve.assign(
        cell=["–" if np.isnan(r) else f"{r:.2f} ± {(h - low) / 2:.2f} ({100 * s:.0f} %)"
              for r, low, h, s in curve[["regret", "low", "high", "solved"]].to_numpy()]
    )  # fmt: skip
    print(f"budgets are shares of the {unit}")
    table = cells.pivot(index="policy", columns="budget", values="cell").loc[policies]
    print("| policy | " + " | ".join(f"{100 * budget:g} %" for budget in table.columns) + " |")
    print("|---" * (len(table.columns) + 1) + "|")
    for policy, row in table.iterrows():
        print(f"| {policy} | " + " | ".join(row) + " |")


def draw(curves, name, options):
    """Save regret against epochs of training, against the same with the spectra counted, and against seconds."""
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained", sharey=True)
    panels = [("epochs", curves["epochs"]), ("cost", curves["cost"]), ("seconds", curves["cost"])]
    for ax, (against, curve) in zip(axes, panels, strict=True):
        shown = curve.set_index("policy").loc[[p for p in DRAWN if p in set(curve["policy"])]].reset_index()
        RegretDisplay(shown, against=against).plot(ax)
    axes[0].set_title(name)
    figure.savefig(Path(options.output) / f"regret_{name.replace(', ', '_').replace(' ', '_')}.png", dpi=80)
    plt.close(figure)


def spectrum_cost(population, task, n=8):
    """Return the processor time of a spectrum over that of an epoch of training, for the first networks."""
    make, _, _ = DATA[task]
    X, y = make()
    X, y = X[: int(0.8 * len(X))], y[: int(0.8 * len(X))]
    networks = list(population.networks(1))[:n]
    transformer = LyapunovSpectrumTransformer(probes(task), **SPECTRA)
    start = time.process_time()
    transformer.fit_transform(networks)
    spectra = time.process_time() - start
    start = time.process_time()
    for record in population.records[:n]:
        record.estimator().set_params(**record.params, random_state=0, max_epochs=1).fit(X, y)
    return spectra / (time.process_time() - start)


def probes(task):
    """Return the sequences that drive the networks of a task for their spectra."""
    return DATA[task][0]()[0][:PROBES]


def populate(task, options):
    """Return the population of a task, after training what is missing of it."""
    make, estimator, seed = DATA[task]
    if options.as_it_is:
        return NetworkPopulation.load(Path(options.output) / "populations" / task)
    X, y = make()
    return train_population(
        estimator(init="uniform", max_epochs=EPOCHS),
        SEARCHED,
        X,
        y,
        n_networks=options.networks,
        snapshot_epochs=SNAPSHOTS,
        directory=Path(options.output) / "populations" / task,
        n_jobs=options.jobs,
        random_state=seed,
    )


def settings(options):
    """Return, for several ways to compute spectra, what they cost and how well they predict the best loss."""
    population = populate("recall-30", options)[:SETTINGS_NETWORKS]
    networks = list(population.networks(1))
    X = DATA["recall-30"][0]()[0]
    target = np.log(population.best_losses)
    epoch = np.median([np.median(record.history["dur"]) for record in population.records])
    rows = []
    for exponents, align, n_sequences, dtype in SETTINGS:
        transformer = LyapunovSpectrumTransformer(
            X[:n_sequences], n_exponents=exponents, align=align, dtype=dtype, on_error="warn"
        )
        start = time.process_time()
        spectra = transformer.fit_transform(networks)
        seconds = (time.process_time() - start) / len(networks)
        trees = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0)
        scores = []
        for seed in range(3):
            folds = KFold(10, shuffle=True, random_state=seed)
            scores.append(r2_score(target, cross_val_predict(trees, spectra, target, cv=folds)))
        rows.append({"exponents": exponents, "align": align, "sequences": n_sequences, "dtype": dtype,
                     "R2": np.mean(scores), "ms": 1e3 * seconds, "epochs": seconds / epoch})  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.round(3).to_string())
    return table


def live(options):
    """Run searches for a network that recalls over 100 steps, live, with the same number of epochs each."""
    X, y = DATA["recall-100"][0]()
    X_val, y_val = make_recall(300, n_steps=100, random_state=2)
    prior = populate("recall-30", options)
    network = RNNClassifier(init="uniform", max_epochs=EPOCHS)
    rows = []
    for promote_by in ("loss", "predictor"):
        search = LyapunovHalvingSearch(
            network,
            SEARCHED,
            X[:PROBES],
            n_candidates=options.candidates,
            max_epochs=EPOCHS,
            promote_by=promote_by,
            prior=(prior, probes("recall-30")),
            n_screened=None if promote_by == "predictor" else options.candidates,
            validation=(X_val, y_val),
            directory=Path(options.output) / f"live_{promote_by}",
            refit=False,
            n_jobs=options.jobs,
            random_state=5,
        ).fit(X, y)
        seconds = search.seconds_spent_
        rows.append({"search": f"LyapunovHalvingSearch, {promote_by}", "epochs": search.epochs_spent_,
                     "loss": search.best_loss_, "seconds": seconds["training"] + seconds["spectra"]})  # fmt: skip
        print(rows[-1], flush=True)
    budget = rows[0]["epochs"]
    for pruner in ("median", "hyperband", "lyapunov"):
        rows.append(optuna_search(pruner, network, (X, y, X_val, y_val), budget, prior))
        print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def optuna_search(pruner, network, data, budget, prior):
    """Run Optuna's TPE until a number of epochs has been trained."""
    import optuna

    from sklyap.search import LyapunovPruner, OptunaCallback

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3),
        "lyapunov": LyapunovPruner((prior, probes("recall-30")), max_epochs=EPOCHS),
    }
    looked_at = probes("recall-100") if pruner == "lyapunov" else None
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0), pruner=pruners[pruner])
    X, y, X_val, y_val = data

    def objective(trial):
        model = type(network)(
            trial.suggest_categorical("cell", SEARCHED["cell"]),
            trial.suggest_int("hidden_size", 16, 48),
            init="uniform",
            init_scale=trial.suggest_float("init_scale", 0.05, 2.0, log=True),
            lr=trial.suggest_float("lr", 1e-3, 10**-1.7, log=True),
            max_epochs=EPOCHS,
            callbacks=[OptunaCallback(trial, looked_at)],
            random_state=trial.number,
        )
        return min(model.fit(X, y, X_val, y_val).history_[:, "valid_loss"])

    def spent():
        return sum(trial.last_step or 0 for trial in study.trials)

    start = time.perf_counter()
    while spent() < budget:
        study.optimize(objective, n_trials=1)
    best = min(min(trial.intermediate_values.values()) for trial in study.trials if trial.intermediate_values)
    seconds = time.perf_counter() - start
    return {"search": f"Optuna TPE, {pruner} pruner", "epochs": spent(), "loss": best, "seconds": seconds}


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=240, help="networks of each population")
    parser.add_argument("--as-it-is", action="store_true", help="train no network, take those that there are")
    parser.add_argument("--repeats", type=int, default=200, help="repetitions of each search")
    parser.add_argument("--studies", nargs="*", default=list(STUDIES), choices=list(STUDIES))
    parser.add_argument("--policies", nargs="+", default=POLICIES, choices=POLICIES)
    parser.add_argument("--live", action="store_true", help="also search live, beside Optuna")
    parser.add_argument("--settings", action="store_true", help="also compare settings of the spectra")
    parser.add_argument("--candidates", type=int, default=32, help="candidates of the live searches")
    parser.add_argument("--output", default="results/search")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (-1: one for each core)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
