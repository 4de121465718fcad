"""Does gradient flossing let recurrent networks learn long delays, and what does it cost?

Trains Elman, GRU and LSTM networks on tasks of memory whose delay grows: recall of a symbol, delayed copy and
delayed XOR of bits. Every network is trained plainly, and with its Lyapunov exponents pushed to zero before training,
during it, or both; and from several initial weights. A run succeeds when it is right on 95 % of the validation data
(of the steps that can be known). It ends there.

Each run is one file, written when it is finished: interrupt with Ctrl-C, and run again to go on, or with other tasks,
cells, delays, seeds, ways of flossing or initial weights to add runs. Everything found in the directory is in the table
and the figure; runs with other settings of training or flossing need another `--output`.

    python examples/flossing.py [--tasks copy] [--cells rnn] [--delays 10 20 30 40] [--seeds 10]
                                [--flossing none before during both] [--inits default] [--output results/flossing]
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from sklyap import RNNClassifier, lyapunov_spectrum
from sklyap.datasets import make_delayed_copy, make_delayed_xor, make_recall
from sklyap.exceptions import SklyapWarning
from sklyap.training import GradientFlossing

N_VALID = 256
SUCCESS = 0.95
FIXED = ("train", "steps", "epochs", "lr", "batch", "exponents", "passes", "every", "weight", "sequences", "tolerance")
"""Options that are the same for all runs of a directory."""


class UntilSuccess(Callback):
    """End a run after the first epoch whose validation accuracy reaches a mark."""

    def __init__(self, mark):
        self.mark = mark

    def on_epoch_end(self, net, **kwargs):
        if net.history[-1]["valid_accuracy"] >= self.mark:
            raise KeyboardInterrupt  # skorch's way to stop early


class Recorder(Callback):
    """Keep the exponents and the norm of the loss gradient through training, on validation data, off the clock.

    Looks are before training (after flossing, if that comes first) and after epochs 1, 2, 4, 8, …
    """

    def __init__(self, X, y, n_sequences=32):
        self.X, self.y, self.n_sequences = X, y, n_sequences

    def initialize(self):
        self.looks_, self.seconds_ = [], 0.0
        return self

    def on_train_begin(self, net, **kwargs):
        self._look(net, 0)

    def on_epoch_end(self, net, **kwargs):
        epoch = len(net.history)
        if epoch & (epoch - 1) == 0:
            self._look(net, epoch)

    def _look(self, net, epoch):
        start = time.process_time()
        X, y = torch.as_tensor(self.X[: self.n_sequences]), torch.as_tensor(self.y[: self.n_sequences])
        weights = list(net.module_.recurrent.parameters())
        gradient = torch.autograd.grad(net.get_loss(net.infer(X), y), weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SklyapWarning)  # the sign of an exponent near zero is not settled
            spectrum = lyapunov_spectrum(net, X[:4], warmup=0).exponents
        norm = torch.cat([g.flatten() for g in gradient]).norm().item()
        self.looks_.append({"epoch": epoch, "gradient": norm, "exponents": spectrum.round(4).tolist()})
        self.seconds_ += time.process_time() - start


def data(task, delay, seed, n, n_steps=None):
    """Return sequences, targets, whether targets are at every step, and the accuracy that counts as success."""
    if task == "recall":
        return *make_recall(n, n_steps=delay + 1, random_state=seed), False, SUCCESS
    make = {"copy": make_delayed_copy, "xor": make_delayed_xor}[task]
    n_steps = n_steps or 2 * delay + 10
    X, y = make(n, n_steps=n_steps, delay=delay, random_state=seed)
    known = 1 - delay / n_steps  # the targets of the first steps are zero
    return X, y, True, 1 - known * (1 - SUCCESS)


def flossing(when, n_steps, options):
    """Return the callback, None for plain training."""
    if when == "none":
        return None
    return GradientFlossing(
        n_exponents=options.exponents,
        tolerance=1 / n_steps if options.tolerance is None else options.tolerance,
        pretrain_epochs=options.passes if when in ("before", "both") else 0,
        every=options.every if when in ("during", "both") else None,
        weight=options.weight,
        n_sequences=options.sequences,
    )


def run(task, cell, delay, when, init, clip, seed, options):
    """Train one network; return what came out."""
    X, y, every_step, mark = data(task, delay, seed, options.train, options.steps)
    X_val, y_val, *_ = data(task, delay, seed + 10_000, N_VALID, options.steps)
    recorder = Recorder(X_val, y_val)
    steer = flossing(when, X.shape[1], options)
    estimator = RNNClassifier(
        cell, options.hidden, init=init, readout="all" if every_step else "last", max_epochs=options.epochs,
        lr=options.lr, batch_size=options.batch, optimizer="adamw", gradient_clip=1.0 if clip else None,
        callbacks=[*([] if steer is None else [steer]), recorder, UntilSuccess(mark)], random_state=seed, device="cpu",
    )  # fmt: skip
    start = time.process_time()
    estimator.fit(X, y, X_val, y_val)
    seconds = time.process_time() - start - recorder.seconds_
    accuracy = np.array(estimator.history_[:, "valid_accuracy"])
    rounds = [] if steer is None else steer.rounds_
    return {
        "success": bool(accuracy[-1] >= mark),
        "epochs": len(accuracy),
        "accuracy": accuracy.round(4).tolist(),
        "loss": np.round(estimator.history_[:, "train_loss"], 5).tolist(),
        "seconds": seconds,
        "flossing seconds": 0.0 if steer is None else steer.seconds_,
        "looks": recorder.looks_,
        "before": rounds[0].before.round(4).tolist() if rounds else None,
        "after": rounds[-1].after.round(4).tolist() if rounds else None,
    }


def wanted(options):
    """Yield the settings of all runs, seeds outermost, so that an interrupted study has all settings."""
    for seed in range(options.seeds):
        for task in options.tasks:
            for cell in options.cells:
                for delay in options.delays:
                    for init in options.inits:
                        for when in options.flossing:
                            yield {"task": task, "cell": cell, "delay": delay, "init": init, "when": when,
                                   "clip": not options.no_clip, "seed": seed, "hidden": options.hidden}  # fmt: skip


def study(options):
    """Train what is missing."""
    folder = Path(options.output) / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    for setting in tqdm(list(wanted(options)), unit="run", disable=options.quiet):
        path = folder / ("-".join(str(value) for value in setting.values()) + ".json")
        if path.exists():
            check_same(path, options)
            continue
        if options.minutes is not None and time.monotonic() - started > 60 * options.minutes:
            break
        s = setting
        result = run(s["task"], s["cell"], s["delay"], s["when"], s["init"], s["clip"], s["seed"], options)
        kept = {name: getattr(options, name) for name in FIXED}
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(setting | {"options": kept} | result))
        unfinished.replace(path)
    return collect(folder)


def check_same(path, options):
    """Refuse a finished run that was made with other options, as the table would mix them."""
    kept = json.loads(path.read_text())["options"]
    for name in FIXED:
        if kept[name] != getattr(options, name):
            raise SystemExit(
                f"{path} was trained with --{name} {kept[name]}, and this call says {getattr(options, name)}: "
                "choose another --output."
            )


def collect(folder):
    """Return all runs of a directory as a table."""
    return pd.DataFrame([json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))])


def summary(runs):
    """Return success rates with Wilson intervals, the median epochs of those that succeed, and the cost."""
    keys = ["task", "cell", "hidden", "init", "clip", "delay", "when"]
    rows = []
    for values, group in runs.groupby(keys, sort=True):
        setting = dict(zip(keys, values, strict=True))
        n, k = len(group), int(group["success"].sum())
        low, high = wilson(k, n)
        reached = group.loc[group["success"], "epochs"]
        rows.append(setting | {"seeds": n, "success": k / n, "low": low, "high": high,
                               "epochs": reached.median() if k else np.nan,
                               "CPU s per run": group["seconds"].mean(),
                               "CPU s per epoch": (group["seconds"] / group["epochs"]).mean()})  # fmt: skip
    return pd.DataFrame(rows)


def through_training(runs, epochs=(0, 1, 4, 16)):
    """Return the norm of the loss gradient and the exponents at some epochs, medians over runs; 0 is the start."""
    keys = ["task", "cell", "hidden", "init", "clip", "delay", "when"]
    rows = []
    for run in runs.to_dict("records"):
        for look in run["looks"]:
            if look["epoch"] in epochs:
                exponents = np.array(look["exponents"])
                rows.append({key: run[key] for key in keys} | {
                    "epoch": look["epoch"], "gradient": look["gradient"], "largest": exponents[0],
                    "median": np.median(exponents), "smallest": exponents[-1],
                })  # fmt: skip
    return pd.DataFrame(rows).groupby([*keys, "epoch"]).median()


def wilson(k, n, z=1.96):
    """Return the 95 % interval of a rate k/n (Wilson 1927)."""
    centre, spread = (k + z**2 / 2) / (n + z**2), z * np.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    return max(0.0, centre - spread), min(1.0, centre + spread)


def draw(table, path):
    """Draw success rate and epochs to success against the delay, a column for each task and network."""
    groups = list(table.groupby(["task", "cell", "hidden", "clip"]))
    figure, axes = plt.subplots(2, len(groups), figsize=(4.2 * len(groups), 6), squeeze=False, layout="constrained")
    for column, ((task, cell, hidden, clip), part) in zip(axes.T, groups, strict=True):
        for (init, when), line in part.groupby(["init", "when"]):
            label = f"{init}, {'plain' if when == 'none' else 'flossing ' + when}"
            column[0].plot(line["delay"], line["success"], marker="o", label=label)
            column[0].fill_between(line["delay"], line["low"], line["high"], alpha=0.12)
            column[1].plot(line["delay"], line["epochs"], marker="o", label=label)
        column[0].set(
            title=f"{task}, {cell} {hidden}" + ("" if clip else ", not clipped"),
            ylabel="success rate",
            ylim=(-0.05, 1.05),
        )
        column[1].set(xlabel="delay (steps)", ylabel="epochs to success (median)", yscale="log")
        column[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(arguments=None):
    options = parse(arguments)
    torch.set_num_threads(1)
    runs = study(options)
    if runs.empty:
        print("No run is finished yet.")
        return runs
    table = summary(runs)
    print(table.to_string(index=False, float_format="{:.2f}".format))
    table.to_csv(Path(options.output) / "table.csv", index=False)
    course = through_training(runs)
    print("\nThrough training, medians over runs that are still on: the norm of the loss gradient with respect to the "
          "recurrent layer, and the largest, median and smallest exponent in nats per step")  # fmt: skip
    print(course.to_string(float_format="{:.3f}".format))
    course.to_csv(Path(options.output) / "through_training.csv")
    figure = Path(options.output) / "success.png"
    draw(table, figure)
    print(f"Tables and figure are in {options.output}.")
    return table


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["copy"], choices=["recall", "copy", "xor"])
    parser.add_argument("--cells", nargs="+", default=["rnn"], choices=["rnn", "gru", "lstm"])
    parser.add_argument("--delays", nargs="+", type=int, default=[10, 20, 30, 40])
    parser.add_argument("--flossing", nargs="+", default=["none", "before", "during", "both"])
    parser.add_argument("--inits", nargs="+", default=["default"])
    parser.add_argument("--no-clip", action="store_true", help="train without gradient clipping")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--train", type=int, default=640, help="sequences to train on")
    parser.add_argument("--steps", type=int, default=None, help="of copy and XOR (twice the delay and ten by default)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--exponents", type=int, default=None, help="k of flossing (all by default)")
    parser.add_argument("--passes", type=int, default=3, help="of flossing before training")
    parser.add_argument("--every", type=int, default=10, help="batches between rounds during training")
    parser.add_argument("--weight", type=float, default=3.0, help="learning rate of flossing over that of the task")
    parser.add_argument("--sequences", type=int, default=2, help="of a batch that flossing uses")
    parser.add_argument("--tolerance", type=float, default=None, help="of flossing (one over the steps by default)")
    parser.add_argument("--minutes", type=float, default=None, help="begin no run after so many minutes")
    parser.add_argument("--output", default="results/flossing")
    parser.add_argument("--quiet", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
