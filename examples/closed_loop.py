"""Models of chaotic systems: the spectrum of a network that is fed with its own output, beside that of the system.

GRU and LSTM networks and an echo state network learn to predict the next value of Lorenz' equations and of the
Mackey-Glass equation. Fed with their own predictions they are autonomous systems. A model that has learnt the dynamics
has the largest exponent of the system, and a Kaplan-Yorke dimension and a forecast horizon to match; the last of each
kind is trained too little, or too small, and looks like a model that has not.

    python examples/closed_loop.py                # minutes on one core; goes on where it stopped
    python examples/closed_loop.py --quick        # seconds, and models that are worth nothing
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sklyap import ESNRegressor, FunctionCell, RNNRegressor, closed_loop, lyapunov_spectrum
from sklyap.datasets import make_chaotic_series

SPIN_UP = 100
N_EXPONENTS = 6
RUNS = {"n_steps": 600, "reservoir": 200, "n_starts": 16, "n_run": 3000}
FULL = {
    "lorenz": RUNS | {"n_series": 20, "epochs": 90, "units": 32, "window": 50, "batch_size": 8},
    "mackey_glass": RUNS | {"n_series": 40, "epochs": 150, "units": 64, "window": 100, "batch_size": 16},
}
QUICK = {
    "n_series": 6, "n_steps": 150, "epochs": 2, "units": 8, "window": 50, "batch_size": 8, "reservoir": 40,
    "n_starts": 4, "n_run": 120,
}  # fmt: skip
# So long that the value changes by much more from step to step than a model errs, and short beside what it remembers.
DT = {"lorenz": 0.05, "mackey_glass": 4.0}
RESERVOIR = {
    "lorenz": {"leak": 0.6, "spectral_radius": 0.6},
    "mackey_glass": {"leak": 0.8, "spectral_radius": 0.9},
}


@dataclass
class Series:
    """Training and test series of one system."""

    name: str
    X: np.ndarray
    y: np.ndarray
    test: np.ndarray

    @property
    def dt(self) -> float:
        return DT[self.name]


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Train, analyse, print and write; return the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--systems", nargs="+", choices=sorted(DT), default=list(DT))
    parser.add_argument("--output", type=Path, default=Path("closed_loop"))
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in options.systems:
        settings: dict[str, Any] = QUICK if options.quick else FULL[name]
        series = load(name, settings)
        rows.append(kept(options.output, name, "the system itself", partial(itself, series, settings)))
        leading = rows[-1]["λ1"]
        for label, build in models(series, settings).items():
            job = partial(analysed, series, label, build, leading, settings["n_run"])
            rows.append(kept(options.output, name, label, job))
    table = pd.DataFrame(rows)
    (options.output / "table.md").write_text(as_markdown(table))
    print(as_markdown(table))
    return table


def kept(folder: Path, system: str, label: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a row of the table, from its file if it was computed before."""
    path = folder / f"{system}, {label}.json"
    if not path.exists():
        start = time.perf_counter()
        path.write_text(json.dumps({"system": system, "model": label} | compute()))
        print(f"{system}, {label}: {time.perf_counter() - start:.0f} s", flush=True)
    return json.loads(path.read_text())


def itself(series: Series, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of the system: for Lorenz from the literature, for the delay equation computed."""
    if series.name == "lorenz":
        return described(np.array([0.9056, 0.0, -14.5723]), np.array([1e-4, 0.0, 1e-4]))  # Sprott (2003)
    return described(*mackey_glass_spectrum(n_starts=settings["n_starts"], n_run=16 * settings["n_run"]))


def analysed(series: Series, label: str, build: Callable[[], Any], leading: float, n_run: int) -> dict[str, Any]:
    """Train a model and return its row of the table."""
    loop, error = build()
    result = lyapunov_spectrum(loop, n_run, n_exponents=N_EXPONENTS, warmup=n_run // 10, random_state=0)
    horizon = forecast_horizon(series, loop) * leading
    row = described(result.exponents / series.dt, result.standard_error / series.dt)
    return row | {"error one step ahead": error, "horizon": horizon}


def load(name: str, settings: dict[str, Any]) -> Series:
    """Return series of a system, to train on and to forecast."""
    n_series, n_steps = settings["n_series"], settings["n_steps"]
    X, y = make_chaotic_series(name, n_series + settings["n_starts"], n_steps, dt=DT[name], random_state=0)
    return Series(name, X[:n_series], y[:n_series], X[n_series:])


def mackey_glass_spectrum(*, tau: float = 17.0, h: float = 0.25, n_starts: int, n_run: int) -> Any:
    """Return leading exponents of the delay equation itself, its history on a grid of step h, trapezoidal rule."""
    n = round(tau / h)
    decay = math.exp(-0.1 * h)

    def step(s, x):
        def production(value):
            return 0.2 * value / (1 + value**10)

        newest = decay * s[:, -1] + h / 2 * (decay * production(s[:, 0]) + production(s[:, 1]))
        return torch.cat([s[:, 1:], newest.unsqueeze(1)], 1)

    starts = 0.5 + np.random.default_rng(0).random((n_starts, 1)) * np.ones(n + 1)
    cell = FunctionCell(step, n + 1, initial_state=starts)
    result = lyapunov_spectrum(cell, n_run, n_exponents=4, warmup=n_run // 4, random_state=0)
    return result.exponents / h, result.standard_error / h


def models(series: Series, settings: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Return what trains each model, by its name; each returns the closed loop and the error one step ahead."""
    epochs, reservoir = settings["epochs"], settings["reservoir"]
    found: dict[str, Callable[[], Any]] = {}
    for cell, n in (("gru", epochs), ("lstm", epochs), ("gru", max(1, epochs // 30))):
        found[f"{cell.upper()}, {n} epochs"] = partial(recurrent, series, cell, n, settings)
    for size in (reservoir, max(15, reservoir // 10)):
        found[f"echo state, {size} units"] = partial(echo_state, series, size)
    return found


def recurrent(series: Series, cell: str, epochs: int, settings: dict[str, Any]) -> tuple[Any, float]:
    """Train a network to predict the next value."""
    network = RNNRegressor(
        cell, settings["units"], readout="all", max_epochs=epochs, lr=1e-2, batch_size=settings["batch_size"],
        gradient_clip=1.0,
        callbacks=[("decay", cosine(epochs))], random_state=0,
    ).fit(*windows(series, settings["window"]))  # fmt: skip
    return as_loop(network, series)


def as_loop(network: Any, series: Series) -> tuple[Any, float]:
    """Return the closed loop of a network from the test series, and its error one step ahead."""
    predicted = network.predict(series.test[:, :-1])
    error = rmse(predicted[:, SPIN_UP:], series.test[:, SPIN_UP + 1 :])
    return closed_loop(network, series.test[:, :SPIN_UP]), error


def windows(series: Series, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the series in pieces, which train faster."""
    n = series.X.shape[1] // length * length
    return tuple(a[:, :n].reshape(-1, length, a.shape[2]) for a in (series.X, series.y))  # type: ignore[return-value]


def cosine(epochs: int):
    """Return a callback that lowers the learning rate to zero along a cosine."""
    from skorch.callbacks import LRScheduler
    from torch.optim.lr_scheduler import CosineAnnealingLR

    return LRScheduler(CosineAnnealingLR, T_max=epochs)


def echo_state(series: Series, size: int) -> tuple[Any, float]:
    """Return the closed loop of an echo state network, and its error."""
    network = ESNRegressor(
        size, input_scale=0.4, bias_scale=0.5, alpha=1e-7, quadratic=True, spin_up=SPIN_UP, readout="all",
        random_state=0, **RESERVOIR[series.name],
    ).fit(series.X, series.y)  # fmt: skip
    return as_loop(network, series)


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def forecast_horizon(series: Series, loop: Any) -> float:
    """Return for how long the free run stays within 0.4 standard deviations, in the median over test series."""
    future = series.test[:, SPIN_UP:]
    free = loop.double().forecast(future.shape[1])
    distance = np.sqrt(((free.numpy() - future) ** 2).mean(2))
    lost = np.where((distance > 0.4).any(1), (distance > 0.4).argmax(1), distance.shape[1])
    return float(np.median(lost)) * series.dt


def described(exponents: np.ndarray, error: np.ndarray) -> dict[str, Any]:
    """Return three exponents per unit of time, their standard errors, and the Kaplan-Yorke dimension."""
    row = {f"λ{i + 1}": float(exponents[i]) for i in range(3)} | {f"± {i + 1}": float(error[i]) for i in range(3)}
    return row | {"dimension": kaplan_yorke(exponents), "error one step ahead": math.nan, "horizon": math.nan}


def kaplan_yorke(exponents: np.ndarray) -> float:
    """Return the Kaplan-Yorke dimension, NaN if more exponents than are known would be needed."""
    sums = np.cumsum(exponents)
    if exponents[0] < 0:
        return 0.0
    below = np.flatnonzero(sums < 0)
    return float(below[0] + sums[below[0] - 1] / -exponents[below[0]]) if len(below) else math.nan


def measured(value: float, error: float) -> str:
    """Return a value with its standard error, as far as two digits of that."""
    digits = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 0
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table with exponents and their standard errors in one column each."""
    lines = [
        "| system | model | error one step ahead | λ₁ | λ₂ | λ₃ | Kaplan-Yorke dimension | horizon (Lyapunov times) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for _, row in table.iterrows():
        exponents = [measured(row[f"λ{i}"], row[f"± {i}"]) for i in (1, 2, 3)]
        numbers = ["" if math.isnan(row[name]) else f"{row[name]:.2g}" for name in ("error one step ahead",)]
        ends = ["" if math.isnan(row[name]) else f"{row[name]:.2f}" for name in ("dimension", "horizon")]
        lines.append(f"| {' | '.join([row['system'], row['model'], *numbers, *exponents, *ends])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
