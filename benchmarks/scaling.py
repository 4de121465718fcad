"""Cost against size, number of exponents, steps and sequences, as a figure."""

import torch

from benchmarks.spectra import network, seconds_per_step


def measure(small=False):
    """Return {axis: [(value, ms per step)]} around an LSTM-64 with 8 sequences, full state, float64."""
    base = {"size": 16 if small else 64, "n": 2 if small else 8, "steps": 16 if small else 60, "k": None}
    axes = {
        "hidden units": ("size", [8, 16] if small else [16, 32, 64, 128, 256]),
        "exponents": ("k", [2, 8] if small else [2, 8, 32, 64, 128]),
        "steps": ("steps", [8, 16] if small else [20, 60, 200, 600]),
        "sequences": ("n", [1, 2] if small else [1, 2, 4, 8, 16, 32]),
    }
    measured = {}
    for label, (name, values) in axes.items():
        measured[label] = []
        for value in values:
            s = base | {name: value}
            seconds, _ = seconds_per_step(network("lstm", s["size"]), s["n"], s["steps"], n_exponents=s["k"])
            measured[label].append((value, 1e3 * seconds))
    return measured


def draw(measured, path):
    """Save the figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, row = plt.subplots(1, len(measured), figsize=(13, 3.2), layout="constrained", sharey=True)
    for axes, (label, points) in zip(row, measured.items(), strict=True):
        axes.loglog(*zip(*points, strict=True), marker="o")
        values = [value for value, _ in points]
        axes.set_xticks(values, map(str, values))
        axes.minorticks_off()
        axes.set_xlabel(label)
    row[0].set_ylabel("ms per step")
    figure.suptitle(f"LSTM-64, 8 sequences, full state, float64, {torch.get_num_threads()} threads", fontsize=10)
    figure.savefig(path, dpi=120)
