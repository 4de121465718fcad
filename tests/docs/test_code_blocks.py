"""Code blocks of pages run, top to bottom, each page in names of its own."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ["CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    names: dict = {"__name__": "page"}
    for i, code in enumerate(blocks):
        exec(compile(code, f"{page}, block {i + 1}", "exec"), names)
