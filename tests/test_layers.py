"""The flow of the design: who may import whom, read from the imports themselves."""

import ast
import sys
from pathlib import Path

import pytest

import sklyap

ROOT = Path(sklyap.__file__).parent

LAYERS = {
    0: {"exceptions", "validation", "runtime"},
    1: {"cells", "orthonormalize", "storage"},
    2: {"tangent", "datasets"},
    3: {"lyapunov", "covariant"},
    4: {"networks", "gradients"},
    5: {"spectrum", "alignment", "sensitivity", "statistics", "autoencoder", "training"},
    6: {"population", "comparison", "search"},
    7: {"report", "displays", "testing"},
}
LAYER_OF = {room: layer for layer, rooms in LAYERS.items() for room in rooms}
# A room imports lower layers; of its own layer only these.
SAME_LAYER = {
    ("comparison", "population"),
    ("report", "displays"),
    ("search", "comparison"),
    ("search", "population"),
    ("training", "statistics"),
}
# Known systems serve users and tests; the engine does not know them.
NOT_THESE = {("lyapunov", "datasets"), ("covariant", "datasets"), ("gradients", "datasets")}
CORE = {"numpy", "torch"}
SHELL = CORE | {"sklearn", "skorch", "joblib", "scipy"}
THIRD_PARTY = {
    0: CORE,
    1: CORE,
    2: CORE,
    3: CORE,
    4: CORE,
    5: SHELL,
    6: SHELL | {"tqdm", "pandas"},
    7: SHELL | {"tqdm", "pandas", "matplotlib", "jinja2", "pytest"},
}
EXTRA = {
    "cells": {"torchdiffeq"},
    "storage": {"safetensors"},
    "datasets": {"scipy", "sklearn"},
    "networks": {"skorch", "sklearn", "joblib", "tqdm", "scipy"},
    "spectrum": {"tqdm"},
    "alignment": {"tqdm"},
    "statistics": {"pandas"},
    "population": {"distributed", "filelock"},
    "search": {"optuna"},
}
ONLY_IN_FUNCTIONS = {"matplotlib", "jinja2", "pytest", "distributed", "optuna", "torchdiffeq"}
MOST_ENTRIES = 27


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").parts[0]
        if name not in ("__init__", "__main__"):
            yield name, path


def imports(path):
    """Yield (absolute module name, whether it is imported inside a function)."""
    tree = ast.parse(path.read_text())
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f) if n is not f}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inner
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for module in [f"sklyap.{a.name}" for a in node.names] if node.module == "sklyap" else [node.module]:
                yield module, id(node) in inner


@pytest.mark.parametrize("name,path", [pytest.param(n, p, id=str(p.relative_to(ROOT))) for n, p in modules()])
def test_imports_point_one_way(name, path):
    assert name in LAYER_OF, f"say in which layer {name!r} is"
    layer = LAYER_OF[name]
    for imported, in_function in imports(path):
        top, _, rest = imported.partition(".")
        if top == "sklyap":
            target = rest.partition(".")[0]
            assert target, f"{path} imports the whole package"
            allowed = target == name or LAYER_OF[target] < layer or (name, target) in SAME_LAYER
            assert allowed and (name, target) not in NOT_THESE, f"{path} (layer {layer}) imports sklyap.{target}"
        elif top not in sys.stdlib_module_names:
            assert top in THIRD_PARTY[layer] | EXTRA.get(name, set()), f"{path} imports {top}"
            assert in_function or top not in ONLY_IN_FUNCTIONS, f"{path} imports {top} at its top"


def test_every_entry_is_a_room_of_the_design():
    entries = {path.stem for path in ROOT.iterdir() if not path.name.startswith("__pycache__")}
    assert entries <= LAYER_OF.keys() | {"__init__", "__main__", "py"}
    assert len(entries) <= MOST_ENTRIES


def test_every_public_module_names_what_it_exports():
    for _, path in modules():
        body = ast.parse(path.read_text()).body
        targets = [t for n in body if isinstance(n, ast.Assign) for t in n.targets]
        targets += [n.target for n in body if isinstance(n, ast.AnnAssign)]
        assert "__all__" in map(ast.unparse, targets), f"{path} has no __all__"


def test_the_top_level_exports_what_it_says():
    for name in sklyap.__all__:
        assert hasattr(sklyap, name)
