"""Every public object has an example, and every parameter and attribute of it a description."""

import inspect
import re

import pytest

from tests.docs.test_api import listed, resolve

OBJECTS = {name: resolve(name) for name in listed()}
DOCUMENTED = {name: thing for name, thing in OBJECTS.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


def sections(text):
    """Return the lines under each heading of a docstring in numpydoc's form."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.splitlines() for part in parts[2::2]), strict=True))


def bare_entries(lines):
    """Return the entries that no indented line follows."""
    after = [*lines[1:], ""]
    return [
        line for line, below in zip(lines, after, strict=False) if line.strip() and line[0] != " " and below[:1] != " "
    ]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_it_has_an_example_and_descriptions(name):
    found = sections(DOCUMENTED[name].__doc__ or "")
    assert ">>>" in "".join(found.get("Examples", [])), f"{name} has no example"
    for part in ("Parameters", "Attributes"):
        bare = bare_entries(found.get(part, []))
        assert not bare, f"{name} says nothing of {', '.join(bare)}"


@pytest.mark.parametrize("name", [name for name, thing in DOCUMENTED.items() if inspect.isclass(thing)])
def test_its_methods_describe_their_parameters(name):
    own = {key: getattr(DOCUMENTED[name], key) for key in vars(DOCUMENTED[name]) if not key.startswith("_")}
    for key, method in own.items():
        bare = bare_entries(sections(method.__doc__ or "").get("Parameters", [])) if callable(method) else []
        assert not bare, f"{name}.{key} says nothing of {', '.join(bare)}"


def test_what_is_not_described_would_be_found():
    text = "Do.\n\nParameters\n----------\na : int\nb : int\n    Two.\n\nExamples\n--------\n>>> 1\n"
    assert bare_entries(sections(text)["Parameters"]) == ["a : int"] and ">>> 1" in sections(text)["Examples"]
