"""Minimum versions are the same wherever they stand, and a torch that is there is used."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def minimums(*extras):
    wanted = [*PROJECT["dependencies"], *(r for extra in extras for r in PROJECT["optional-dependencies"][extra])]
    requirements = [Requirement(text) for text in wanted if not text.startswith("sklyap")]
    return {r.name.lower(): next(iter(r.specifier)).version for r in requirements}


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))


def test_the_oldest_versions_are_those_that_are_tested():
    oldest = minimums("test", "plot", "dask", "report", "optuna", "ode")
    pinned = pins("constraints-oldest.txt")
    assert pinned.keys() == oldest.keys()
    for name, version in oldest.items():
        assert re.fullmatch(rf"{re.escape(version)}(\.0)*", pinned[name]), (name, version)


def test_every_requirement_has_a_version_that_was_tested_with():
    names = {re.sub(r"[-_.]+", "-", name) for name in pins("constraints.txt")}
    wanted = minimums("test", "dev", "plot", "dask", "report", "optuna", "ode", "docs")
    assert {re.sub(r"[-_.]+", "-", name) for name in wanted} <= names


def test_the_readme_says_the_same():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {PROJECT['requires-python'].removeprefix('>=')} or newer" in readme
    for name in minimums().keys() - {"tqdm", "filelock"}:
        assert f"{name} {minimums()[name]}" in readme.replace("\n", " ")


def test_the_version_is_that_of_the_changelog():
    heading = re.search(r"^## ([\d.]+)( \(unreleased\))?", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert PROJECT["version"] == heading[1] + (".dev0" if heading[2] else "")


def dist():
    found = importlib.util.spec_from_file_location("dist", ROOT / ".ci" / "dist.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


IS_DISTRIBUTION = "Repository" in PROJECT["urls"]
"""Whether these tests come from a source distribution, in which addresses are absolute."""
HOST = PROJECT["urls"].get("Repository", "https://host/owner/name")


def test_on_an_index_every_link_of_the_readme_leads_somewhere():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = readme if IS_DISTRIBUTION else dist().absolute(readme, HOST)
    links = re.findall(r"(!?)\[[^\]]*\]\(([^)]+)\)", readme)
    assert links and all(address.startswith("https://") for _, address in links)
    for image, address in links:
        before = f"{HOST}/{'raw' if image else 'blob'}/main/"
        if address.startswith(HOST):
            assert (ROOT / address.removeprefix(before)).exists()
    assert any(image for image, _ in links)


def test_the_address_of_the_repository_is_one_of_the_projects():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    urls = tomllib.loads(text if IS_DISTRIBUTION else dist().with_addresses(text, HOST))["project"]["urls"]
    assert urls["Repository"] == HOST and urls["Changelog"] == f"{HOST}/blob/main/CHANGELOG.md"
    assert len(urls) == 3 + len(PROJECT["urls"].keys() - {"Repository", "Changelog", "Issues"})


HAS_TORCH = ROOT / ".ci" / "has_torch.py"


def has_torch(python, *options):
    return subprocess.run([python, HAS_TORCH, *options], check=False, env={**os.environ, "PYTHONPATH": ""}).returncode


@pytest.mark.processes
def test_an_environment_without_torch_gets_the_one_that_is_there(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "new"], check=True)
    new = tmp_path / "new" / "bin" / "python"
    if not new.exists():
        pytest.skip("environments have no bin folder here")
    assert has_torch(sys.executable) == 0 and has_torch(new) == 1
    assert has_torch(sys.executable, "--exactly", "torch==1.0.0") == 1
    assert has_torch(new, "--share-with", sys.executable) == 1
    assert has_torch(sys.executable, "--share-with", new) == 0
    assert has_torch(new) == 0
    assert subprocess.run([new, "-c", "import torch"], check=False).returncode == 0
