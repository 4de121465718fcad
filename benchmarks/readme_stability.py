"""How stable the README's first example is: the same code with other seeds for data, networks and predictor.

Run as

    python -m benchmarks.readme_stability [n_seeds]
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

import pandas as pd

README = Path(__file__).parents[1] / "README.md"


def example(text: str | None = None) -> str:
    """Return the code of the README's first example."""
    found = re.search(r"```python\n(.*?)```", README.read_text() if text is None else text, re.DOTALL)
    assert found is not None
    return found[1]


def with_seed(code: str, seed: int) -> str:
    """Return the code with another seed, without its progress bar, on one core."""
    code = code.replace("random_state=0", f"random_state={seed}").replace("n_jobs=2", "n_jobs=1, verbose=0")
    return code.replace(', memory="cache"', "")


def rows(code: str, seeds: range) -> pd.DataFrame:
    """Run the code once for each seed; return what it printed of every predictor."""
    table = {}
    for seed in seeds:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(with_seed(code, seed), "README.md", "exec"), {"__name__": "readme"})
        found = re.findall(r"^(\w+) after epoch 1: ρ = (-?\d\.\d\d)", printed.getvalue(), re.MULTILINE)
        table[seed] = {name: float(value) for name, value in found}
        print(seed, table[seed], flush=True)
    return pd.DataFrame(table).T


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    code, n_seeds = example(), int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        table = rows(code, range(n_seeds))
    print(table.agg(["mean", "std", "min", "max"]).round(2).to_string())
    print(f"spectrum ahead with {int((table['spectrum'] > table['loss']).sum())} of {len(table)} seeds")
