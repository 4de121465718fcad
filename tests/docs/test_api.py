"""The API reference names every public object, and nothing else."""

import importlib
import re
from pathlib import Path

import pytest

import sklyap

ROOT = Path(sklyap.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "api.md"
INTERNAL = {"runtime", "storage", "validation"}
"""Rooms that serve the others only."""


def listed():
    """Return the full names on the page."""
    names, module = [], ""
    for line in PAGE.read_text().splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"   (\w+)$", line):
            names.append(f"{module}.{found[1]}")
    return names


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def public_rooms():
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    return sorted(room for room in rooms - INTERNAL if not room.startswith("_"))


@pytest.mark.parametrize("room", ["", *public_rooms(), "datasets.systems"])
def test_every_public_name_is_on_the_page(room):
    module = importlib.import_module(f"sklyap.{room}".rstrip("."))
    objects = [resolve(name) for name in listed()]
    missing = [name for name in module.__all__ if not any(getattr(module, name) is thing for thing in objects)]
    assert not missing, f"docs/api.md does not list {', '.join(missing)} of sklyap.{room}"


def test_every_name_on_the_page_is_there_once():
    names = listed()
    assert len(names) > 80 and len(set(names)) == len(names)
    for name in names:
        resolve(name)
