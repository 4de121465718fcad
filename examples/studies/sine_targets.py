"""Sine targets: what the spectrum of a chaotic rate network says about how well it generates a pattern.

Rate networks, dx/dt = -x + g J tanh(x) + w_f z with z = w·tanh(x), learn four superposed sines by FORCE (recursive
least squares on the readout w, which is fed back). After each pass over the target the network runs on its own. It is
an autonomous system then, with weights g J + w_f wᵀ, and its leading exponents are read. A network that generates a
periodic pattern is on a limit cycle: its largest exponent is zero. The gain g is drawn from [1, 2]; the loss is the
mean squared error of a free run over one period after the last pass, in units of the target's variance.

    python examples/studies/sine_targets.py --size laptop
    python examples/studies/sine_targets.py --size smoke
    python examples/studies/sine_targets.py --size paper       # 776 networks of 512 units: for a cluster

Every network is written when it has been trained; an interrupted run goes on.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pandas as pd
import torch
from analysis import analyse, auc_of_bad, parse, spectra_of
from joblib import Parallel, delayed
from scipy.linalg.blas import dsymv, dsyr
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklyap import FlowCell, SpectrumStatistics
from sklyap.comparison import score_predictions
from sklyap.datasets import make_sine_targets
from sklyap.datasets.systems.equations import rate_field

SETTINGS = {
    "smoke": {
        "n_networks": 10, "n_units": 24, "n_passes": 1, "passes": (0,), "n_steps": 200, "n_exponents": 4,
    },
    "laptop": {
        "n_networks": 100, "n_units": 256, "n_passes": 12, "passes": (0, 1, 4), "n_steps": 3_000, "n_exponents": 16,
    },
    "paper": {
        "n_networks": 776, "n_units": 512, "n_passes": 20, "passes": (0, 1, 2, 5), "n_steps": 12_000, "n_exponents": 64,
    },
}  # fmt: skip
DT = 0.1
DENSITY = 0.1
LEARN_EVERY = 2


def main(arguments=None):
    options = parse(__doc__, "sine_targets", arguments)
    settings = SETTINGS[options.size]
    start = time.perf_counter()
    trained = Parallel(options.jobs)(
        delayed(finished)(options.output / "networks" / f"{seed}.npz", seed, settings)
        for seed in range(options.networks or settings["n_networks"])
    )
    print(f"sine_targets ({options.size}): {len(trained)} networks trained in {time.perf_counter() - start:.0f} s")
    passes = [*settings["passes"], settings["n_passes"]]
    networks = {epoch: [generator(network, epoch) for network in trained] for epoch in passes}
    losses = np.array([float(network["loss"]) for network in trained])
    gains = np.array([float(network["gain"]) for network in trained])
    transformer = spectra_of(settings["n_steps"], options, n_exponents=settings["n_exponents"])
    early = {epoch: networks[epoch] for epoch in settings["passes"]}
    return analyse(networks, losses, transformer, lambda: prediction(early, losses, gains, transformer), options)


def finished(path, seed, settings):
    """Return a trained network, from its file if there is one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_file = path.with_suffix(".partial.npz")
        np.savez(partial_file, **train(seed, settings["n_units"], settings["n_passes"]))
        partial_file.replace(path)  # whole or not at all
    with np.load(path) as arrays:
        return dict(arrays)


def train(seed, n_units, n_passes):
    """Train one network by FORCE; return its weights, the readout after each pass, and the loss of a free run."""
    rng = np.random.default_rng(seed)
    gain = rng.uniform(1, 2)
    J = gain * rng.normal(size=(n_units, n_units)) * (rng.random((n_units, n_units)) < DENSITY)
    J /= np.sqrt(DENSITY * n_units)
    feedback = rng.uniform(-1, 1, n_units)
    x = 0.5 * rng.normal(size=n_units)
    target = make_sine_targets(dt=DT)[0][0, :, 0].astype(float)
    w, z, P = np.zeros(n_units), 0.0, np.eye(n_units, order="F")
    readouts, states = [w], [x]
    for _ in range(n_passes):
        for t, wanted in enumerate(target):
            x = x + DT * (-x + J @ np.tanh(x) + feedback * z)
            r = np.tanh(x)
            z = w @ r
            if t % LEARN_EVERY == 0:
                # P is symmetric: its upper triangle is kept up to date.
                k = dsymv(1.0, P, r)
                c = 1 / (1 + r @ k)
                P = dsyr(-c, k, a=P, overwrite_a=True)
                w = w - c * (z - wanted) * k
        readouts.append(w)
        states.append(x)
    weights = J + np.outer(feedback, w)
    error = 0.0
    for wanted in target:
        x = x + DT * (-x + weights @ np.tanh(x))
        error += (w @ np.tanh(x) - wanted) ** 2
    return {
        "gain": np.array(gain), "J": J, "feedback": feedback, "readouts": np.array(readouts),
        "states": np.array(states), "loss": np.array(error / len(target) / target.var()),
    }  # fmt: skip


def generator(network, epoch):
    """Return the network that runs on its own after a number of passes, from the state that training left."""
    weights = network["J"] + np.outer(network["feedback"], network["readouts"][epoch])
    state = torch.as_tensor(network["states"][epoch])
    field = partial(rate_field, torch.as_tensor(weights))
    return FlowCell(field, len(state), dt=DT, method="euler", initial_state=state[None])


def prediction(networks, losses, gains, transformer):
    """Return out-of-fold scores for the log of the loss, for each pass at which spectra are read."""
    folds = KFold(min(10, len(losses) // 2), shuffle=True, random_state=0)
    trees = ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0)
    linear = make_pipeline(SpectrumStatistics(), StandardScaler(), RidgeCV(np.logspace(-2, 4, 13)))
    y, rows = np.log(losses), []
    for epoch, some in networks.items():
        spectra = transformer.fit_transform(some)
        features = {
            "constant": (spectra, DummyRegressor()),
            "gain": (gains[:, None], trees),
            "statistics, ridge": (spectra, linear),
            "spectrum, extra-trees": (spectra, trees),
            "spectrum + gain": (np.column_stack([spectra, gains]), trees),
        }
        guesses = {name: cross_val_predict(model, X, y, cv=folds) for name, (X, model) in features.items()}
        table = score_predictions(pd.DataFrame({"target": y} | guesses), random_state=0)
        rows.append(table.assign(auc=auc_of_bad(y, guesses), epoch=epoch).set_index("epoch", append=True))
    return pd.concat(rows)


if __name__ == "__main__":
    main()
