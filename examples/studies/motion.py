"""Motion capture: what spectra of networks that predict the next frame say about their loss.

The task of the thesis: LSTM, GRU and Elman networks that predict the next frame of recordings of the CMU motion capture
database. Dropout between two layers and the learning rate are drawn at random; nothing else varies beside the
architecture. Without a file the networks predict chaotic series (Lorenz) instead, and say so.

    python examples/studies/motion.py --size laptop --data recordings/      # AMC files with an ASF file, or BVH files
    python examples/studies/motion.py --size smoke                          # a chaotic series, offline
"""

from __future__ import annotations

from types import SimpleNamespace

from analysis import Task, run
from scipy.stats import loguniform, uniform

from sklyap import RNNRegressor
from sklyap.datasets import load_motion, make_chaotic_series

SETTINGS = {
    "smoke": {"n_networks": 8, "hidden": 8, "n_steps": 20, "n_series": 12, "max_epochs": 2, "epochs": (1,)},
    "laptop": {"n_networks": 60, "hidden": 32, "n_steps": 50, "n_series": 200, "max_epochs": 12, "epochs": (0, 1, 3)},
    "paper": {
        "n_networks": 300, "hidden": 256, "n_steps": 100, "n_series": 2_000, "max_epochs": 30, "epochs": (0, 1, 5),
    },
}  # fmt: skip
N_PROBES = 8


def load(options):
    settings = SETTINGS[options.size]
    if options.data is None:
        print("no --data: chaotic series of the Lorenz system take the place of motion capture")
        data = chaotic(settings)
    else:
        data = load_motion(options.data, n_steps=settings["n_steps"])
    return Task(
        RNNRegressor(
            hidden_size=settings["hidden"], num_layers=2, readout="all", batch_size=16, gradient_clip=1.0,
            max_epochs=settings["max_epochs"],
        ),
        {"cell": ["lstm", "gru", "rnn"], "dropout": uniform(0.0, 0.4), "lr": loguniform(3e-4, 3e-2)},
        (data.X_train, data.y_train),
        (data.X_valid, data.y_valid),
        data.X_valid[:N_PROBES],
        settings["n_networks"],
        settings["epochs"],
    )  # fmt: skip


def chaotic(settings):
    """Return series of the Lorenz system in the parts that motion capture has."""
    X, y = make_chaotic_series("lorenz", settings["n_series"], settings["n_steps"], random_state=0)
    n = len(X) * 4 // 5
    return SimpleNamespace(X_train=X[:n], y_train=y[:n], X_valid=X[n:], y_valid=y[n:])


def main(arguments=None):
    return run(__doc__, "motion", load, arguments)


if __name__ == "__main__":
    main()
