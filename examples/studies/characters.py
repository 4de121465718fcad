"""Character prediction: what spectra of networks that read War and Peace say about their loss.

The task of Vogt, Puelma Touzel, Shlizerman and Lajoie (2022): LSTM, GRU and Elman networks, initial weights drawn from
U(-p, p), p in [0.04, 0.4], Adam at 0.002, the next character of sequences of 100, spectra early in training and at its
end.

    python examples/studies/characters.py --size laptop --data war_and_peace.txt
    python examples/studies/characters.py --size smoke          # a bundled text, offline

`--data` is a text file. Without it the novel is downloaded (smoke: the descriptions of scikit-learn's data sets are
read). The paper's size is for a cluster: 900 networks of 64 to 512 units, 3.2 million characters, 15 epochs.
"""

from __future__ import annotations

import numpy as np
from analysis import Task, run
from scipy.stats import uniform
from sklearn import datasets as sklearn_datasets

from sklyap import RNNClassifier
from sklyap.datasets import fetch_war_and_peace, load_text

SETTINGS = {
    "smoke": {
        "n_networks": 8, "hidden": [8, 12], "n_steps": 20, "n_characters": 8_000, "max_epochs": 2, "epochs": (1,),
    },
    "laptop": {
        "n_networks": 60, "hidden": [24, 32, 48], "n_steps": 50, "n_characters": 100_000, "max_epochs": 6,
        "epochs": (0, 1, 3),
    },
    "paper": {
        "n_networks": 900, "hidden": [64, 128, 256, 512], "n_steps": 100, "n_characters": None, "max_epochs": 15,
        "epochs": (0, 1, 2, 4, 5, 6, 10),
    },
}  # fmt: skip


def load(options):
    settings = SETTINGS[options.size]
    reading = {"n_steps": settings["n_steps"], "splits": (0.85, 0.15, 0.0), "n_characters": settings["n_characters"]}
    if options.data is not None:
        text = load_text(options.data, **reading)
    elif options.size == "smoke":
        text = load_text(bundled_text(options.output / "text.txt"), **reading)
    else:
        text = fetch_war_and_peace(**reading)
    known = np.isin(text.y_valid, text.y_train).all(1) & np.isin(text.X_valid, text.X_train).all(1)
    return Task(
        RNNClassifier(
            init="uniform", lr=2e-3, max_epochs=settings["max_epochs"], batch_size=32, input_type="tokens",
            readout="all", n_tokens=text.n_tokens,
        ),
        {"cell": ["lstm", "gru", "rnn"], "hidden_size": settings["hidden"], "init_scale": uniform(0.04, 0.36)},
        (text.X_train, text.y_train),
        (text.X_valid[known], text.y_valid[known]),
        text.X_valid[known][:8],
        settings["n_networks"],
        settings["epochs"],
    )  # fmt: skip


def bundled_text(path):
    """Write the descriptions of scikit-learn's bundled data sets, 20,000 characters of English, to a file."""
    loaders = ("breast_cancer", "diabetes", "digits", "iris", "linnerud", "wine")
    path.write_text("\n".join(getattr(sklearn_datasets, f"load_{name}")().DESCR for name in loaders))
    return path


def main(arguments=None):
    return run(__doc__, "characters", load, arguments)


if __name__ == "__main__":
    main()
