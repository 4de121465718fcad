"""Code blocks of README and documentation run, top to bottom, each page in names and a directory of its own.

What a page shows below a block, indented, is compared with what the block printed.
"""

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
    if "```python" in path.read_text()
)
SMALLER = {
    "docs/checkpoints.md": {"n_iter=50": "n_iter=12", "range(60)": "range(3)", "cv=5": "cv=2"},
    "docs/populations.md": {
        "n_networks=60": "n_networks=10", "max_epochs=12": "max_epochs=2", "n_workers=8": "n_workers=1",
        '"hidden_size": [16, 32, 64]': '"hidden_size": [8, 12]', "n_jobs=2": "n_jobs=1",
    },
    "docs/prediction.md": {
        "make_recall(1200": "make_recall(100", "n_networks=120": "n_networks=30", "max_epochs=12": "max_epochs=2",
        "[16, 24, 32]": "[4, 6]", "n_jobs=-1": "n_jobs=1", "n_jobs=2": "n_jobs=1",
        "SpectrumAutoencoder(random_state=0)": "SpectrumAutoencoder(random_state=0, max_epochs=5)",
        "SpectrumAutoencoder()": "SpectrumAutoencoder(max_epochs=5)",
        "ExtraTreesRegressor(300,": "ExtraTreesRegressor(20,", "cv=5": "cv=2", "X[:4], epoch=1,":
        'X[:4], predictors={"loss so far": ("loss_so_far", RidgeCV()), "spectrum": RidgeCV()}, cv=3, epoch=1,',
    },
    "docs/searching.md": {
        "make_recall(1500": "make_recall(100", "n_networks=100": "n_networks=12", "n_candidates=32": "n_candidates=4",
        "[16, 32, 48]": "[4, 6]", "n_repeats=200": "n_repeats=5", "n_trials=20": "n_trials=2", "n_jobs=-1": "n_jobs=1",
        "n_steps=100": "n_steps=40", "max_epochs=15": "max_epochs=9",
    },
    "docs/training.md": {"n_networks=60": "n_networks=12", "max_epochs=20": "max_epochs=4"},
}  # fmt: skip
"""Sizes that take minutes, and what stands for them in the default run; with -m slow the pages run as printed."""
APPROXIMATE = {"README.md": 0.1}
"""Pages whose numbers come from training: another processor rounds otherwise, and training carries that on."""
NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def blocks_of(text):
    """Return for every block that runs its code and the output that is shown below it, or None."""
    found = []
    pattern = r"(<!-- not run:[^\n]*-->\n)?```python\n(.*?)```\n(\n(?:    [^\n]*\n|\n)+)?"
    for left_out, code, shown in re.findall(pattern, text, re.DOTALL):
        if not left_out:
            found.append((code, re.sub(r"^    ", "", shown, flags=re.MULTILINE).strip() or None))
    return found


def check_output(printed, shown, tolerance):
    """Words are the same; numbers are, to one unit of the last digit that is shown, or to `tolerance`."""
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    for got, expected in zip(NUMBER.findall(printed), NUMBER.findall(shown), strict=True):
        last = tolerance or unit_of_last_digit(expected)
        np.testing.assert_allclose(*(float(v.replace("−", "-")) for v in (got, expected)), rtol=0, atol=1.001 * last)


def unit_of_last_digit(number):
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def run(page, code_of, capsys):
    """Run the blocks of a page as the module that it would be if one typed it in."""
    text = (ROOT / page).read_text()
    module = ModuleType("page")
    sys.modules["page"] = module
    try:
        for i, (code, shown) in enumerate(blocks_of(text)):
            capsys.readouterr()
            code = code_of(code).replace('if __name__ == "__main__":', "if True:")
            exec(compile(code, f"{page}, block {i + 1}", "exec"), vars(module))
            if shown is not None:
                check_output(capsys.readouterr().out.strip(), shown, APPROXIMATE.get(page))
    finally:
        del sys.modules["page"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What pages write goes to a directory of their own, what they draw to no screen."""
    monkeypatch.chdir(tmp_path)
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page, capsys):
    smaller = SMALLER.get(page, {})
    whole = "".join(code for code, _ in blocks_of((ROOT / page).read_text()))
    assert not [size for size in smaller if size not in whole], "SMALLER names what the page does not have"

    def code_of(code):
        for size, small in smaller.items():
            code = code.replace(size, small)
        return code

    run(page, code_of, capsys)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", SMALLER)
def test_the_code_of_a_page_runs_as_printed(page, capsys):
    run(page, lambda code: code, capsys)


def test_every_page_with_code_is_run_and_output_is_compared():
    assert len(PAGES) > 10
    assert blocks_of("```python\nprint(1)\n```\n\n    1\n\ntext") == [("print(1)\n", "1")]
    assert blocks_of("<!-- not run: why -->\n```python\nx\n```\n```python\ny\n```\ntext") == [("y\n", None)]
    check_output("λ = -0.4378 ± 0.0022", "λ = -0.4379 ± 0.0022", None)
    for wrong in ("λ = -0.4358 ± 0.0022", "μ = -0.4378 ± 0.0022"):
        with pytest.raises(AssertionError):
            check_output(wrong, "λ = -0.4378 ± 0.0022", None)
