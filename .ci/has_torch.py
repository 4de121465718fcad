"""Tell whether this Python has a torch that sklyap runs with, and lend it to another environment.

Plain Python without third-party packages, as it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

OLDEST = (2, 6)


def main() -> int:
    """Return 0 if torch is there (or was lent), 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exactly", metavar="torch==VERSION", help="the one version that will do")
    parser.add_argument("--share-with", metavar="PYTHON", help="another environment's Python, of the same version")
    options = parser.parse_args()
    try:
        torch = distribution("torch")
    except PackageNotFoundError:
        return 1
    number = torch.version.partition("+")[0]
    if options.exactly:
        return int(number != options.exactly.removeprefix("torch=="))
    if tuple(int(part) for part in number.split(".")[:2]) < OLDEST:
        return 1
    return share(Path(str(torch.locate_file(""))), options.share_with) if options.share_with else 0


def share(packages: Path, other: str) -> int:
    """Put the folder of packages at the end of the other Python's path."""
    ask = "import sys, sysconfig; print(*sys.version_info[:2]); print(sysconfig.get_path('purelib'))"
    version, folder = subprocess.run([other, "-c", ask], check=True, capture_output=True, text=True).stdout.splitlines()
    if version != f"{sys.version_info[0]} {sys.version_info[1]}":
        return 1
    Path(folder, "torch_of_another_environment.pth").write_text(f"{packages.resolve()}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
