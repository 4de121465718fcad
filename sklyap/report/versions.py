"""What is installed here: what a bug report and a page of results need to say."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["__version__", "show_versions", "versions"]

PACKAGES = (
    "sklyap", "numpy", "scipy", "scikit-learn", "torch", "skorch", "joblib", "pandas", "tqdm", "safetensors",
    "filelock", "matplotlib", "jinja2", "dask", "distributed", "optuna", "torchdiffeq",
)  # fmt: skip


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


__version__ = _version("sklyap")
"""The installed version of sklyap."""


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform, sklyap and what it uses, and of torch's devices and threads.

    Nothing is imported for it.

    Returns
    -------
    dict of str to str
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": sys.version.replace("\n", " "),
        "platform": platform.platform(),
        **{package: _version(package) for package in PACKAGES},
        "threads of torch": str(torch.get_num_threads()),
        "CUDA devices": ", ".join(gpus) or "none",
    }


def show_versions() -> None:
    """Print the versions of sklyap, of what it uses, and of the machine: add them to a bug report.

    Examples
    --------
    >>> import sklyap
    >>> sklyap.show_versions()
    python            : 3...
    ...
    """
    rows = versions()
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}} : {value}")  # noqa: T201
