"""Build the source distribution and the wheel from the last commit, with a README that reads on a package index.

There, relative links lead nowhere: they are made absolute under the address of the repository, which becomes one of the
project's addresses too. Called as ``python .ci/dist.py https://HOST/OWNER/NAME``; `make dist REPOSITORY=...` does.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)")


def absolute(text: str, repository: str) -> str:
    """Return Markdown whose relative images and links lead to the main branch of `repository`."""

    def replaced(match: re.Match[str]) -> str:
        image, label, path = match.groups()
        return f"{image}[{label}]({repository}/{'raw' if image else 'blob'}/main/{path})"

    return _LINK.sub(replaced, text)


def with_addresses(pyproject: str, repository: str) -> str:
    """Return pyproject.toml with the addresses of the repository, its changelog and its issues."""
    lines = [
        f'Repository = "{repository}"',
        f'Changelog = "{repository}/blob/main/CHANGELOG.md"',
        f'Issues = "{repository}/issues"',
    ]
    return pyproject.replace("[project.urls]\n", "\n".join(["[project.urls]", *lines, ""]), 1)


def main(repository: str) -> None:
    """Build into dist/."""
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "source.tar")
        subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
        source = Path(folder, "source")
        with tarfile.open(archive) as tar:
            tar.extractall(source, filter="data")
        for name, change in (("README.md", absolute), ("pyproject.toml", with_addresses)):
            path = source / name
            path.write_text(change(path.read_text(encoding="utf-8"), repository), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "build", "--outdir", ROOT / "dist", source], check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("https://"):
        sys.exit("Say where the repository is: make dist REPOSITORY=https://HOST/OWNER/NAME")
    main(sys.argv[1].rstrip("/"))
