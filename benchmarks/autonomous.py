"""Autonomous systems beside a JAX package: ``python -m benchmarks.autonomous``.

The peer (lyapax, the extra "peers") is left out where it is not installed. CPU time is taken, so that other work on the
machine counts little. Both are measured by the difference of two lengths, which leaves out what a call costs once: the
peer compiles in every call.
"""

import argparse
import time
import warnings

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import machine
from sklyap import lyapunov_spectrum
from sklyap.datasets import systems


def cpu_seconds(function, repeats=3):
    """Return the shortest CPU time of `function`, after one call that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def per_step(run, n_steps):
    """Return µs per step of a function of the number of steps."""
    return 1e6 * (cpu_seconds(lambda: run(3 * n_steps)) - cpu_seconds(lambda: run(n_steps))) / (2 * n_steps)


def ours(cell, n_steps):
    """Return µs per step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return per_step(lambda n: lyapunov_spectrum(cell, n, warmup=0), n_steps)


def henon_of_jax(jnp):
    return lambda s: jnp.stack([1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]]), jnp.array([0.1, 0.1])


def lorenz_of_jax(jnp):
    def field(s):
        return jnp.stack([10 * (s[1] - s[0]), s[0] * (28 - s[2]) - s[1], s[0] * s[1] - 8 / 3 * s[2]])

    def step(s, dt=0.01):
        a = field(s)
        b = field(s + dt / 2 * a)
        c = field(s + dt / 2 * b)
        return s + dt / 6 * (a + 2 * (b + c) + field(s + dt * c))

    return step, jnp.array([1.0, 1.0, 20.0])


def tanh_of_jax(jnp, size):
    J = jnp.array(np.random.default_rng(0).normal(size=(size, size)) * 2 / np.sqrt(size))
    return lambda s: J @ jnp.tanh(s), jnp.array(0.1 * np.random.default_rng(1).normal(size=size))


def theirs(make, n_steps):
    """Return µs per step of the peer, None where it is not installed."""
    try:
        import jax
        import lyapax
    except ImportError:
        return None
    jax.config.update("jax_enable_x64", True)
    step, start = make(jax.numpy)

    def run(n_steps):
        result = lyapax.lyapunov_spectrum(step, start, 1.0, n_steps)
        jax.block_until_ready(result.exponents)

    return per_step(run, n_steps)


def table(small=False):
    """Return rows; `small` is for the tests."""
    scale = 100 if small else 1
    cases = [
        ("Hénon map", systems.henon, henon_of_jax, 10_000),
        ("Lorenz, RK4", systems.lorenz, lorenz_of_jax, 10_000),
    ]
    for size, n_steps in ((64, 4000),) if small else ((64, 3000), (128, 800), (512, 20)):
        cases.append(
            (
                f"tanh map, {size} units",
                lambda size=size, **options: systems.tanh_map(n_units=size, **options),
                lambda jnp, size=size: tanh_of_jax(jnp, size),
                n_steps,
            )
        )
    rows = []
    for name, make, peer, n_steps in cases:
        steps = max(20, n_steps // scale)
        starts = min(64, max(1, steps // 16))
        each = max(10, steps // starts)
        row = {"case": name, "µs per step": ours(make().cell, steps), "lyapax": theirs(peer, steps)}
        row[f"{starts} starts, per step of each"] = ours(make(n_starts=starts).cell, each) / starts
        rows.append(row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"Measured {machine()}.")
    for row in table(options.small):
        print(pd.Series(row).to_string(float_format="{:.3g}".format), end="\n\n")


if __name__ == "__main__":
    main()
