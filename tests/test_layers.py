"""The flow of design: who may import whom, read from the imports themselves."""

import ast
from pathlib import Path

import pytest

import sklyap

ROOT = Path(sklyap.__file__).parent

# module -> layer of the design, with a decimal for the order within it; a module imports lower ones only, or its
# own where listed in SAME_LAYER.
LAYERS = {
    "exceptions": 0,
    "validation": 0,
    "cells": 1,
    "orthonormalize": 1,
    "storage": 1,
    "threads": 1,
    "blocks": 1.5,
    "tangent": 2,
    "drive": 2,
    "datasets": 2,
    "subspaces": 2,
    "objective": 2.5,
    "accumulate": 3,
    "adjoint": 3,
    "covariant": 3,
    "lyapunov": 3.3,
    "gradients": 3.3,
    "ensemble": 3.6,
    "matching": 3.6,
    "fingerprint": 4,
    "networks": 4,
    "spectrum_worker": 4.5,
    "spectrum": 5,
    "statistics": 5,
    "autoencoder": 5,
    "alignment": 5,
    "sensitivity": 5,
    "callbacks": 5,
    "population": 6,
    "comparison": 6,
    "displays": 7,
    "testing": 7,
}
SAME_LAYER = {
    ("callbacks", "statistics"),
    ("comparison", "population"),
}
NOT_THESE = {("lyapunov", "datasets"), ("covariant", "datasets"), ("gradients", "datasets")}
CORE = {"numpy", "torch"}
SHELL = CORE | {"sklearn", "skorch", "joblib", "tqdm", "scipy"}
THIRD_PARTY = {
    0: CORE,
    1: CORE,
    2: CORE,
    3: CORE,
    4: CORE | {"sklearn", "skorch"},
    5: SHELL,
    6: SHELL | {"pandas"},
    7: SHELL | {"pandas", "matplotlib", "pytest"},
}
EXTRA = {
    "storage": {"safetensors"},
    "datasets": {"scipy", "sklearn"},
    "fingerprint": {"joblib"},
    "spectrum_worker": {"joblib"},
    "statistics": {"pandas"},
    "population": {"distributed"},
}
ONLY_IN_FUNCTIONS = {"matplotlib", "pytest", "distributed"}
STANDARD_LIBRARY = set(__import__("sys").stdlib_module_names)


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).with_suffix("").parts[0]
        if name != "__init__":
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
    assert name in LAYERS, f"say in which layer {name!r} is"
    layer = LAYERS[name]
    for imported, in_function in imports(path):
        top, _, rest = imported.partition(".")
        if top == "sklyap":
            target = rest.partition(".")[0]
            assert target, f"{path} imports the whole package"
            allowed = target == name or LAYERS[target] < layer or (name, target) in SAME_LAYER
            assert allowed and (name, target) not in NOT_THESE, f"{path} (layer {layer}) imports sklyap.{target}"
        elif top not in STANDARD_LIBRARY:
            assert top in THIRD_PARTY[int(layer)] | EXTRA.get(name, set()), f"{path} imports {top}"
            assert in_function or top not in ONLY_IN_FUNCTIONS, f"{path} imports {top} at its top"


def test_every_public_module_names_what_it_exports():
    for _, path in modules():
        body = ast.parse(path.read_text()).body
        names = [ast.unparse(target) for n in body if isinstance(n, ast.Assign) for target in n.targets]
        assert "__all__" in names, f"{path} has no __all__"


def test_the_top_level_exports_what_it_says():
    for name in sklyap.__all__:
        assert hasattr(sklyap, name)
