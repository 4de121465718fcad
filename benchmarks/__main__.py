"""Run the CPU set and write the table that docs/performance.md shows: ``python -m benchmarks``."""

import argparse
from pathlib import Path

import pandas as pd

from benchmarks import memory, population_spectra, scaling, spectra
from benchmarks.measure import machine

DOCS = Path(__file__).parent.parent / "docs"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--output", type=Path, default=DOCS)
    options = parser.parse_args()
    parts = [f"Measured {machine()}.\n"]
    for module in (spectra, population_spectra, memory):
        table = pd.DataFrame(module.table(options.small))
        print(table.to_string(float_format="{:.3g}".format, na_rep=""))
        parts.append(markdown(table))
    (options.output / "performance_table.md").write_text("\n".join(parts))
    (options.output / "images").mkdir(exist_ok=True)
    scaling.draw(scaling.measure(options.small), options.output / "images" / "scaling.png")


def markdown(table):
    """Return a table in Markdown."""
    cell = lambda v: "" if pd.isna(v) else v if isinstance(v, str) else f"{v:.3g}"  # noqa: E731
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * table.shape[1]]
    lines += ["| " + " | ".join(cell(v) for v in values) + " |" for values in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
