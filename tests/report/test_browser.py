"""A report in a browser: no console errors, nothing fetched, tables sort, and there is something to see."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from sklyap import RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.report import write_report

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
image = pytest.importorskip("PIL.Image")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="needs chromium"), pytest.mark.processes]
CLICKS = """<script>
const head = [...document.querySelectorAll("th button")].find(button => button.textContent === "lr");
const rows = head.closest("table").tBodies[0].rows;
const column = () => [...rows].map(row => row.cells[head.parentElement.cellIndex].textContent);
for (const id of ["up", "down"]) {
  head.click();
  document.body.append(Object.assign(document.createElement("pre"), {id, textContent: column().join(" ")}));
}
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    X, y = make_recall(60, n_steps=5, random_state=0)
    grid = {"lr": [0.1, 0.001, 0.03, 0.01]}
    population = train_population(RNNClassifier("gru", 4, max_epochs=2), grid, X, y, random_state=0, verbose=0)
    return write_report(population, tmp_path_factory.mktemp("page") / "page.html", sequences=X[:4])


def browse(page, folder, *options):
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder}",
    ]
    out = subprocess.run([*command, *options, page.as_uri()], capture_output=True, text=True, check=True, timeout=120)
    # What the page's security policy keeps from being fetched would be said here, too.
    assert "CONSOLE" not in out.stderr
    return out.stdout


def test_it_opens_without_errors_and_shows_something(page, tmp_path):
    picture = tmp_path / "page.png"
    browse(page, tmp_path / "profile", "--window-size=1000,1600", f"--screenshot={picture}")
    pixels = np.asarray(image.open(picture).convert("L"))
    assert 0.01 < (pixels < 128).mean() < 0.5 and pixels.std() > 10


def test_a_click_sorts_and_another_turns_it_round(page, tmp_path):
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", CLICKS + "</body>"))
    text = browse(clicked, tmp_path / "profile", "--dump-dom")
    columns = [re.search(rf'<pre id="{id}">(.*?)</pre>', text)[1].split() for id in ("up", "down")]
    assert columns == [["0.001", "0.01", "0.03", "0.1"], ["0.1", "0.03", "0.01", "0.001"]]


def test_an_error_on_a_page_would_be_seen(page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</body>", '<img src="https://example.org/x.png"></body>'))
    with pytest.raises(AssertionError):
        browse(broken, tmp_path / "profile", "--dump-dom")
