"""Sine targets by backpropagation through time: chaotic rate networks that generate four superposed sines.

The counterpart of sine_targets.py. A rate network of gain g, drawn from [1, 2], predicts the next value of the target
from the present one, with noise on its inputs, and all its weights are trained by backpropagation through time. Fed
with its own output, it is an autonomous system; its leading exponents are read at several epochs. The loss is the mean
squared error of a free run over one period after training, in units of the target's variance.

    python examples/studies/sine_targets_bptt.py --size laptop
    python examples/studies/sine_targets_bptt.py --size smoke
    python examples/studies/sine_targets_bptt.py --size paper       # 776 networks of 512 units: for a cluster

Every network is written when it has been trained; an interrupted run goes on.
"""

from __future__ import annotations

import time

import numpy as np
from analysis import analyse, parse, spectra_of
from scipy.stats import uniform
from sine_targets import DT, prediction

from sklyap import RNNRegressor, closed_loop, train_population
from sklyap.datasets import make_sine_targets

SETTINGS = {
    "smoke": {
        "n_networks": 10, "n_units": 12, "n_windows": 8, "window": 60, "max_epochs": 2, "epochs": (0,),
        "n_steps": 200, "n_exponents": 4,
    },
    "laptop": {
        "n_networks": 60, "n_units": 64, "n_windows": 64, "window": 240, "max_epochs": 30, "epochs": (0, 1, 5),
        "n_steps": 2_000, "n_exponents": 16,
    },
    "paper": {
        "n_networks": 776, "n_units": 512, "n_windows": 512, "window": 600, "max_epochs": 100, "epochs": (0, 1, 2, 5),
        "n_steps": 12_000, "n_exponents": 64,
    },
}  # fmt: skip
NOISE = 0.1
SPIN_UP = 300  # steps
LARGEST = 2.0  # the target stays below 1.5


def main(arguments=None):
    options = parse(__doc__, "sine_targets_bptt", arguments)
    settings = SETTINGS[options.size]
    X, y = make_sine_targets(settings["n_windows"], settings["window"], dt=DT, noise=NOISE, random_state=0)
    start = time.perf_counter()
    population = train_population(
        RNNRegressor(
            "rate", settings["n_units"], cell_params={"dt": DT}, init="normal", readout="all", lr=3e-3, batch_size=8,
            gradient_clip=1.0, max_epochs=settings["max_epochs"],
        ),
        {"init_scale": uniform(1.0, 1.0)},
        X,
        y,
        n_networks=options.networks or settings["n_networks"],
        snapshot_epochs=(*settings["epochs"], "last"),
        directory=options.output / "population",
        n_jobs=options.jobs,
        random_state=0,
    )  # fmt: skip
    print(f"sine_targets_bptt ({options.size}): {len(population)} networks trained in "
          f"{time.perf_counter() - start:.0f} s, {len(population.failures)} failed")  # fmt: skip
    networks = {
        epoch: [generator(network) for network in population.networks(epoch)] for epoch in (*settings["epochs"], "last")
    }
    losses = np.array([free_run(loop) for loop in networks["last"]])
    gains = population.params["init_scale"].to_numpy(float)
    transformer = spectra_of(settings["n_steps"], options, n_exponents=settings["n_exponents"])
    early = {epoch: networks[epoch] for epoch in settings["epochs"]}
    return analyse(networks, losses, transformer, lambda: prediction(early, losses, gains, transformer), options)


def generator(network):
    """Return a network that runs on its own output, from the state that the beginning of the target leaves.

    What is fed back is cut where no target is: the readout is linear in a state without bounds.
    """
    spin_up = make_sine_targets(1, SPIN_UP, dt=DT)[0]
    return closed_loop(network, spin_up, feedback=lambda output: output.clamp(-LARGEST, LARGEST))


def free_run(loop):
    """Return the error of one period from the end of the spin-up, in units of the target's variance."""
    series = make_sine_targets(1, SPIN_UP + 1_200, dt=DT)[0][0, :, 0]
    made = np.asarray(loop.forecast(1_200))[0, :, 0].clip(-LARGEST, LARGEST)
    return float(np.square(made - series[SPIN_UP:]).mean() / series[SPIN_UP:].var())


if __name__ == "__main__":
    main()
