"""How do Optuna's pruners and LyapunovPruner do on one recorded population?

The trials of a study are the networks of a population of `search_evidence.py`, in random order, with the losses and
spectra that were recorded; so many repetitions cost little, and the pruner is all that differs. Optuna's samplers
cannot be replayed so, since they suggest networks that were not recorded.

    python examples/search_pruners.py [--repeats 100] [--epochs 96] [--output results/search]
"""

import argparse
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from search_evidence import EPOCHS, SEARCHED, SPECTRA, STUDIES, probes

from sklyap import LyapunovSpectrumTransformer, NetworkPopulation
from sklyap.runtime import unwarned
from sklyap.search import LyapunovPruner
from sklyap.search.pruning import SPECTRUM
from sklyap.search.rungs import rung_epochs

DISTRIBUTIONS = {  # as wide as those of search_evidence.py
    "cell": optuna.distributions.CategoricalDistribution(SEARCHED["cell"]),
    "hidden_size": optuna.distributions.IntDistribution(16, 48),
    "init_scale": optuna.distributions.FloatDistribution(0.05, 2.0, log=True),
    "lr": optuna.distributions.FloatDistribution(1e-3, 10**-1.7, log=True),
}


def main(arguments=None):
    options = parse(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = Path(options.output) / "populations"
    searched, prior = (NetworkPopulation.load(folder / task) for task in STUDIES[options.study])
    seeds = {record.seed for record in searched.records}
    prior = prior.filter(lambda record: record.seed not in seeds)
    sequences = probes(STUDIES[options.study][0])
    spectra = recorded_spectra(searched, sequences, options)
    ours = LyapunovPruner((prior, probes(STUDIES[options.study][1])), max_epochs=EPOCHS)
    pruners = {
        "none": NopPruner(),
        "median": MedianPruner(n_startup_trials=3, n_warmup_steps=1),
        "successive halving": SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        "Hyperband": HyperbandPruner(min_resource=1, max_resource=EPOCHS, reduction_factor=3),
        "LyapunovPruner without prior": LyapunovPruner(max_epochs=EPOCHS),
        "LyapunovPruner": ours,
    }
    rows = []
    for name, pruner in pruners.items():
        runs = [repetition(pruner, searched, spectra, options.epochs, seed) for seed in range(options.repeats)]
        regret, trials, finished = np.array(runs).T
        half = 1.96 * regret.std(ddof=1) / np.sqrt(len(regret))
        rows.append({"pruner": name, "regret": regret.mean(), "half": half, "median": np.median(regret),
                     "solved": np.mean(regret <= 0.05), "trials": trials.mean(),
                     "finished": finished.mean()})  # fmt: skip
    table = pd.DataFrame(rows)
    print(table.round(2).to_string())
    table.to_csv(Path(options.output) / "pruners.csv", index=False)
    return table


def recorded_spectra(population, sequences, options):
    """Return the spectra of all networks at the rungs of the pruner."""
    transformer = LyapunovSpectrumTransformer(sequences, **SPECTRA, memory=str(Path(options.output) / "cache"))
    with unwarned():
        return {
            epoch: transformer.fit_transform(population.networks(epoch)) for epoch in rung_epochs(1, EPOCHS, 3)[:-1]
        }


def repetition(pruner, population, spectra, epochs, seed):
    """Return the regret of one study, its trials, and how many of them were finished."""
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=seed))
    spent, finished, lowest = 0, 0, np.inf
    for row in np.random.RandomState(seed).permutation(len(population)):
        if spent >= epochs:
            break
        record = population.records[row]
        study.enqueue_trial(
            {name: getattr(value, "item", lambda value=value: value)() for name, value in record.params.items()}
        )
        trial = study.ask(DISTRIBUTIONS)
        for epoch, loss in enumerate(record.losses, start=1):
            if epoch in spectra:
                trial.set_user_attr(f"{SPECTRUM}:{epoch}", spectra[epoch][row].tolist())
            trial.report(float(loss), epoch)
            spent, lowest = spent + 1, min(lowest, loss)
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            finished += 1
            study.tell(trial, float(np.min(record.losses)))
    return np.log(lowest / population.best_losses.min()), len(study.trials), finished


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="recall-100", choices=list(STUDIES))
    parser.add_argument("--epochs", type=int, default=96, help="epochs after which no trial is begun")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--output", default="results/search", help="where search_evidence.py has put its populations")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
