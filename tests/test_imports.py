"""What `import sklyap` brings along: torch, scikit-learn and skorch, and next to nothing else.

scikit-learn itself imports pandas and scipy.stats (`sklearn.utils.fixes`), so that importing them later in sklyap would
save no time.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SCRIPT = """
import json, sys, time
import torch, sklearn.base, sklearn.model_selection, skorch.callbacks, joblib
known, start = set(sys.modules), time.process_time()
import sklyap
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
    # An editable installation has a finder of its own, and compiled modules of scikit-learn 1.6 have names like _loss.
    assert {name for name in imported[0] if not name.startswith("_")} <= known
