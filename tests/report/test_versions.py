"""The version, and what show_versions prints."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import sklyap


def test_the_version_is_that_of_the_installed_package():
    assert sklyap.__version__ == version("sklyap")


def test_show_versions_names_what_a_bug_report_needs(capsys):
    sklyap.show_versions()
    lines = dict(line.split(" : ", 1) for line in capsys.readouterr().out.splitlines())
    found = {name.strip(): value for name, value in lines.items()}
    assert found["sklyap"] == sklyap.__version__
    for package in ("numpy", "torch", "scikit-learn", "skorch", "joblib", "pandas"):
        assert found[package] == version(package)
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert {"platform", "CUDA devices", "threads of torch"} <= found.keys()


@pytest.mark.processes
def test_importing_sklyap_leaves_out_what_is_not_needed():
    unwanted = ("matplotlib", "dask", "distributed", "optuna", "jinja2")
    code = f"import sys, sklyap; print([name for name in {unwanted} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
