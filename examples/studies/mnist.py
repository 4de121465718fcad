"""Sequential MNIST: what spectra of networks that read digits say about their loss.

The sweep of the thesis: LSTM, GRU, Elman, antisymmetric and coRNN networks of 64 units, initial weights drawn from
U(-p, p), p in [0.1, 30], Adam at 0.01, batches of 128, 10 epochs; images read row by row, 28 steps of 28 pixels.

    python examples/studies/mnist.py --size laptop --data mnist/
    python examples/studies/mnist.py --size smoke               # scikit-learn's digits, offline

`--data` is a folder with the four IDX files of MNIST. Without it they are fetched (smoke: scikit-learn's 8 x 8 digits).
The paper's size is for a cluster: 1,000 networks, 60,000 images.
"""

from __future__ import annotations

from analysis import Task, run
from scipy.stats import loguniform

from sklyap import RNNClassifier
from sklyap.datasets import fetch_sequential_mnist, load_sequential_digits

SETTINGS = {
    "smoke": {"n_networks": 10, "hidden": 8, "n_images": 600, "max_epochs": 2, "epochs": (1,)},
    "laptop": {"n_networks": 60, "hidden": 32, "n_images": 4_000, "max_epochs": 6, "epochs": (0, 1, 3)},
    "paper": {"n_networks": 1_000, "hidden": 64, "n_images": 60_000, "max_epochs": 10, "epochs": (0, 1, 2, 3, 5)},
}
CELLS = ["lstm", "gru", "rnn", "antisymmetric", "cornn"]
N_PROBES = 16


def load(options):
    settings = SETTINGS[options.size]
    if options.data is None and options.size == "smoke":
        X, y = load_sequential_digits(return_X_y=True)
    else:
        X, y = fetch_sequential_mnist(folder=options.data, n_samples=settings["n_images"], return_X_y=True)
    n = min(settings["n_images"], len(X)) * 4 // 5
    return Task(
        RNNClassifier(
            hidden_size=settings["hidden"], init="uniform", lr=0.01, batch_size=128, max_epochs=settings["max_epochs"]
        ),
        {"cell": CELLS, "init_scale": loguniform(0.1, 30.0)},
        (X[:n], y[:n]),
        (X[n:], y[n:]),
        X[n : n + N_PROBES],
        settings["n_networks"],
        settings["epochs"],
    )


def main(arguments=None):
    return run(__doc__, "mnist", load, arguments)


if __name__ == "__main__":
    main()
