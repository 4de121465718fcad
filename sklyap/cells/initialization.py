"""The path that initial weights had before they moved to ``sklyap.networks.initialization``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__: list[str] = []


def __getattr__(name: str) -> Any:
    # Looked up when asked for: cells are below networks and do not import them.
    return getattr(import_module("sklyap.networks.initialization"), name)
