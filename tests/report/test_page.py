"""write_report: what is on the page, that it is escaped and stands by itself, and the command line."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from skorch.callbacks import Callback

from sklyap import GradientAlignmentAnalyzer, LyapunovHalvingSearch, RNNClassifier, train_population
from sklyap.__main__ import main
from sklyap.comparison import compare_loss_predictors
from sklyap.datasets import make_recall
from sklyap.exceptions import FailedNetworkWarning
from sklyap.population import NetworkPopulation
from sklyap.report import write_report
from sklyap.report.directory import population_in

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

X, y = make_recall(80, n_steps=6, random_state=0)


class Fails(Callback):
    """Fails with a message that would be a script, were it not escaped."""

    def on_epoch_end(self, net, **kwargs):
        if net.lr > 0.5:
            raise ValueError("<script>alert('$x$')</script>")


class Page(HTMLParser):
    """What a page is made of; complains about tags that are not closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report") / "population"
    grid = {"lr": [0.001, 0.01, 0.03, 0.1, 0.9], "cell": ["gru", "rnn"]}
    estimator = RNNClassifier(hidden_size=4, max_epochs=2, callbacks=[Fails()], device="cpu")
    with pytest.warns(FailedNetworkWarning, match="2 of 10 networks failed"):
        train_population(
            estimator, grid, X, y, directory=directory, snapshot_epochs=(0, 1, "last"), random_state=0, verbose=0
        )
    return directory


@pytest.fixture(scope="module")
def population(directory):
    return NetworkPopulation.load(directory)


def test_a_page_has_every_part(population, tmp_path):
    predictors = {"none": DummyRegressor(), "loss so far": ("loss_so_far", Ridge())}
    comparison = compare_loss_predictors(
        population, X[:4], predictors=predictors, cv=4, n_exponents=4, random_state=0, n_bootstrap=20
    )
    alignment = GradientAlignmentAnalyzer(X[:4], y[:4], n_directions=2, n_singular=1, n_baseline=0)
    results = alignment.analyze_training(population[:2], (0, 1))
    path = write_report(
        population, tmp_path / "page.html", sequences=X[:4], comparison=comparison, alignment=results, title="A <b> & c"
    )
    assert path == tmp_path / "page.html"
    text = path.read_text()
    page = Page(text)
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    parts = ["The sweep", "Spectra", "Loss predictors", "Gradient alignment", "Failures", "How to reproduce it"]
    assert titles == [*parts, "Versions"]
    assert page.tags.count("img") == 5 and page.tags.count("script") == 1
    assert "<title>A &lt;b&gt; &amp; c</title>" in text
    for record in population.records:
        assert re.search(rf'<td class="number">{record.seed}</td>', text)
    assert "8 networks, 2 failures" in text


def test_nothing_is_fetched_and_nothing_is_taken_for_markup(population, tmp_path):
    text = write_report(population, tmp_path / "page.html").read_text()
    page = Page(text)
    assert all(link.startswith(("data:image/png;base64,", "#section-")) for link in page.links)
    assert "http://" not in text and "https://" not in text
    assert "&lt;script&gt;alert(" in text and "<script>alert" not in text
    assert "Spectra" not in re.findall(r"<h2>(.*?)</h2>", text)  # no sequences, no spectra


def test_a_search_has_its_decisions(tmp_path):
    search = LyapunovHalvingSearch(
        RNNClassifier("gru", 4), {"lr": loguniform(1e-3, 1e-1)}, X[:4], n_candidates=4, factor=2, max_epochs=4,
        promote_by="loss", directory=tmp_path / "search", random_state=0, verbose=0,
    ).fit(X, y)  # fmt: skip
    text = write_report(search, tmp_path / "page.html", sequences=X[:4]).read_text()
    Page(text)
    assert re.findall(r"<h2>(.*?)</h2>", text)[:3] == ["The search", "The sweep", "Spectra"]
    assert "&#39;lr&#39;: loguniform(0.001, 0.1)" in text and "array of shape (4, 6, 4)" in text
    assert " object at 0x" not in text
    candidates = population_in(tmp_path / "search")
    assert [len(record.losses) for record in candidates.records] == [
        len(record.losses) for record in search.population_.records
    ]
    assert {"1", "2"} <= set(max(candidates.records, key=lambda record: len(record.losses)).snapshots)
    assert main(["report", str(tmp_path / "search"), "--output", str(tmp_path / "candidates.html")]) == 0
    assert "4 networks, 0 failures" in (tmp_path / "candidates.html").read_text()
    assert f"{search.best_loss_:.4g}" in text and "Every decision" in text
    assert f"{search.epochs_spent_} epochs were trained" in text


def test_what_is_no_population_is_refused(population, tmp_path):
    with pytest.raises(TypeError, match=r"must be a NetworkPopulation or a fitted search\. Got list"):
        write_report([1, 2], tmp_path / "page.html")
    with pytest.raises(ValueError, match="holds no network"):
        write_report(NetworkPopulation([]), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_the_command_line_writes_the_page(directory, tmp_path, capsys):
    np.save(tmp_path / "sequences.npy", X[:4])
    page = tmp_path / "page.html"
    assert main(["report", str(directory), "--output", str(page), "--sequences", str(tmp_path / "sequences.npy")]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    assert "Spectra" in re.findall(r"<h2>(.*?)</h2>", page.read_text())
    assert main(["report", str(tmp_path / "nowhere"), "--output", str(page)]) == 1
    assert "nowhere" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["unknown"])


def test_another_directory_gets_a_sentence(directory, tmp_path, capsys):
    assert main(["report", str(directory.parent)]) == 1
    said = capsys.readouterr().err
    assert f"There is no population and no search in {directory.parent}. There is one in {directory}." in said


def test_numbers_are_written_as_they_were_given(tmp_path):
    grid = {"hidden_size": [3, 4], "lr": [0.01]}
    population = train_population(RNNClassifier("gru", max_epochs=1), grid, X, y, random_state=0, verbose=0)
    text = write_report(population, tmp_path / "page.html", sequences=X[:4]).read_text()
    assert re.search(r"The best is network \d: hidden_size = [34], lr = 0.01", text)
    assert "spectra of the networks at epoch 1, in nats" in text
