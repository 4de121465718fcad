"""What sklyap brings along: nothing until a name is used, then torch; scikit-learn and skorch where they are needed.

scikit-learn itself imports pandas and scipy.stats (`sklearn.utils.fixes`), so that whatever imports scikit-learn would
save no time by importing them later.
"""

import ast
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import sklyap

SCRIPT = """
import json, sys, time
import torch, sklearn.base, sklearn.model_selection, skorch.callbacks, joblib
known, start = set(sys.modules), time.process_time()
from sklyap import *
seconds = time.process_time() - start
new = {name.partition(".")[0] for name in set(sys.modules) - known} - sys.stdlib_module_names
print(json.dumps([sorted(new), sorted({name.partition(".")[0] for name in sys.modules}), seconds]))
"""


@pytest.fixture(scope="module")
def imported():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    new, everything, seconds = json.loads(done.stdout)
    return set(new), set(everything), seconds


def test_what_is_optional_stays_outside(imported):
    optional = {
        "matplotlib",
        "dask",
        "distributed",
        "optuna",
        "jinja2",
        "torchdiffeq",
        "pytest",
        "hypothesis",
        "IPython",
    }
    assert not imported[1] & optional


def test_nothing_comes_along_that_is_not_a_dependency(imported):
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [Requirement(line).name for line in tomllib.loads(text)["project"]["dependencies"]]
    known = {name.replace("scikit-learn", "sklearn") for name in wanted} | {"sklyap"}
    known |= {"sympy", "mpmath"}  # torch 2.6 imports them with torch.func
    # An editable installation has a finder of its own, and compiled modules of scikit-learn 1.6 have names like _loss.
    assert {name for name in imported[0] if not name.startswith("_")} <= known


CORE = """
import sys
import sklyap
assert "torch" not in sys.modules, "import sklyap"
from sklyap import FunctionCell, finite_time_exponents, gradient_from_qr, loss_gradient, lyapunov_spectrum
import torch
lyapunov_spectrum(torch.nn.GRU(2, 3, batch_first=True), torch.randn(2, 20, 2))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_core_needs_torch_alone():
    done = subprocess.run([sys.executable, "-c", CORE], check=True, capture_output=True, text=True)
    shell = {"sklearn", "skorch", "pandas", "scipy", "joblib", "safetensors", "matplotlib", "dask", "optuna"}
    assert not set(done.stdout.split()) & shell


def test_names_are_where_editors_are_told():
    tree = ast.parse(Path(sklyap.__file__).read_text(encoding="utf-8"))
    told = {node.module: [name.name for name in node.names] for node in ast.walk(tree) if _is_of_sklyap(node)}
    assert told == {f"sklyap.{room}": names for room, names in sklyap._NAMES.items()}
    assert sorted(name for names in told.values() for name in names) == sorted(sklyap.__all__)


def _is_of_sklyap(node):
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklyap")


def test_names_and_rooms_are_attributes():
    assert {"lyapunov_spectrum", "datasets", "displays", "__version__"} <= set(dir(sklyap))
    for name in dir(sklyap):
        assert getattr(sklyap, name) is not None
    with pytest.raises(AttributeError, match="module 'sklyap' has no attribute 'lyapunov_spectra'"):
        sklyap.lyapunov_spectra  # noqa: B018
