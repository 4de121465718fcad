"""The command line: ``python -m sklyap report DIRECTORY``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from sklyap.report import write_report
from sklyap.report.directory import population_in

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m sklyap")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="write one HTML page about a population or a search in a directory")
    report.add_argument("directory", help="of train_population or LyapunovHalvingSearch")
    report.add_argument("--output", default="report.html", help="the page, report.html by default")
    report.add_argument("--sequences", help="a .npy file of sequences that drive the networks, for their spectra")
    report.add_argument("--epoch", type=_epoch, help="the snapshot whose spectra are shown, a number or 'last'")
    options = parser.parse_args(arguments)
    try:
        population = population_in(options.directory)
        sequences = None if options.sequences is None else np.load(options.sequences, allow_pickle=False)
        page = write_report(population, options.output, sequences=sequences, epoch=options.epoch)
    except (OSError, ValueError, TypeError, ImportError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(page)  # noqa: T201
    return 0


def _epoch(text: str) -> float | str:
    return text if text == "last" else float(text)


if __name__ == "__main__":
    sys.exit(main())
