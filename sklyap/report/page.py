"""write_report: what is known of a population or a search, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from sklyap.displays import AlignmentDisplay, LossPredictorsDisplay, SearchDisplay, SpectrumDisplay
from sklyap.displays.spectrum import loss_colors
from sklyap.population import NetworkPopulation
from sklyap.population.network_population import check_epoch
from sklyap.report.figures import draw_losses, draw_sweep, picture
from sklyap.report.text import DIGITS, changed_settings, shown, table
from sklyap.report.versions import versions
from sklyap.runtime import unwarned
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.statistics import spectrum_loss_correlation
from sklyap.storage import write_bytes
from sklyap.validation import check_instance, check_probe

__all__ = ["Section", "sections_of", "write_report"]


@dataclass
class Section:
    """A part of the page.

    Attributes
    ----------
    title, text : str
    figures : list of (str, str)
        A description of each figure, and its picture as a ``data:`` address.
    tables : list of (str, list of str, list of list)
        A caption, the head and the rows of each table.
    """

    title: str
    text: str
    figures: list[tuple[str, str]]
    tables: list[tuple[str, list[str], list[list[Any]]]]


def write_report(
    population_or_search: Any,
    path: Any,
    *,
    sequences: Any = None,
    epoch: Any = None,
    comparison: pd.DataFrame | None = None,
    alignment: Any = None,
    title: str | None = None,
    transformer: LyapunovSpectrumTransformer | None = None,
) -> Path:
    """Write one self-contained HTML page about a population or a search.

    Figures are embedded, tables sort by a click on their head, and nothing is fetched from elsewhere.

    Parameters
    ----------
    population_or_search : NetworkPopulation or fitted LyapunovHalvingSearch
        What the page is about.
    path : path-like
        Of the page; an existing file is replaced.
    sequences : array-like, optional
        What to drive the networks with for the spectra, and the correlations of their statistics with the loss;
        see :class:`~sklyap.LyapunovSpectrumTransformer`. Without it the page has no spectra.
    epoch : number or "last", optional
        The snapshot whose spectra are shown; the earliest that all networks have by default.
    comparison : DataFrame, optional
        What :func:`~sklyap.compare_loss_predictors` returned.
    alignment : mapping of epoch to list of AlignmentResult, optional
        What :meth:`~sklyap.GradientAlignmentAnalyzer.analyze_training` returned.
    title : str, optional
        Of the page.
    transformer : LyapunovSpectrumTransformer, optional
        Computes the spectra, in place of one of 64 interpolated columns over `sequences`: to set the width, a cache or
        the number of jobs.

    Returns
    -------
    pathlib.Path
        Where the page is.

    Raises
    ------
    TypeError
        If `population_or_search` is neither a population nor a search.
    ValueError
        If there is no network to report on.
    ImportError
        If jinja2 or matplotlib is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from sklyap import RNNClassifier, train_population
    >>> from sklyap.datasets import make_recall
    >>> from sklyap.report import write_report
    >>> X, y = make_recall(60, n_steps=5, random_state=0)
    >>> population = train_population(
    ...     RNNClassifier("gru", 4, max_epochs=2), {"lr": [0.01, 0.03, 0.1]}, X, y, random_state=0, verbose=0
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(population, f"{folder}/report.html", sequences=X[:4])
    ...     page.name, "<html" in page.read_text()
    ('report.html', True)
    """
    _check(path, epoch, comparison, title)
    environment = _environment()
    sections = sections_of(
        population_or_search, sequences=sequences, epoch=epoch, comparison=comparison, alignment=alignment,
        transformer=transformer,
    )  # fmt: skip
    kind = "search" if hasattr(population_or_search, "population_") else "population"
    page = environment.get_template("page.html").render(
        title=title or f"Report of a {kind} of recurrent networks", sections=sections, versions=versions()
    )
    path = Path(path)
    write_bytes(path, page.encode())
    return path


def _check(path: Any, epoch: Any, comparison: Any, title: Any) -> None:
    """Check what is needed when all has been computed."""
    caller = "write_report"
    if not Path(check_instance(path, "path", (str, PathLike), caller=caller)).parent.is_dir():
        raise FileNotFoundError(f"The 'path' parameter of {caller} must lie in a directory that is there. Got {path}.")
    if epoch is not None:
        check_epoch(epoch, caller)
    if comparison is not None:
        check_instance(comparison, "comparison", pd.DataFrame, caller=caller)
    if title is not None:
        check_instance(title, "title", str, caller=caller)


def sections_of(
    population_or_search: Any,
    *,
    sequences: Any = None,
    epoch: Any = None,
    comparison: pd.DataFrame | None = None,
    alignment: Any = None,
    transformer: LyapunovSpectrumTransformer | None = None,
) -> list[Section]:
    """Return the parts of the page; parameters as of :func:`write_report`."""
    search = population_or_search if hasattr(population_or_search, "population_") else None
    population = population_or_search if search is None else search.population_
    if not isinstance(population, NetworkPopulation):
        raise TypeError(
            "The 'population_or_search' parameter of write_report must be a NetworkPopulation or a fitted search. "
            f"Got {type(population_or_search).__name__} instead."
        )
    if not len(population) and not population.failures:
        raise ValueError("The 'population_or_search' parameter of write_report holds no network.")
    check_probe(sequences, caller="write_report")
    if transformer is not None:
        check_instance(transformer, "transformer", LyapunovSpectrumTransformer, caller="write_report")
    sections = [] if search is None else [_search(search)]
    if len(population):
        sections += [_sweep(population), *_dynamics(population, sequences, epoch, transformer)]
    if comparison is not None:
        sections.append(_comparison(comparison))
    if alignment is not None:
        sections.append(_alignment(alignment))
    if population.failures:
        sections.append(_failures(population))
    sections.append(_reproduction(population, search))
    return sections


def _environment() -> Any:
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'A report needs jinja2 and matplotlib: pip install "sklyap[report]". {error.name} is not installed.'
        ) from error
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )


def _sweep(population: NetworkPopulation) -> Section:
    losses, params = population.best_losses, population.params
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
    quartiles = ", ".join(f"{q:.{DIGITS}g}" for q in np.nanquantile(losses, [0, 0.25, 0.5, 0.75, 1]))
    # A row of the table would have made floats of integers.
    chosen = ", ".join(f"{name} = {shown(params[name].iloc[best])}" for name in params) or "all alike"
    text = (
        f"{len(population)} networks, {len(population.failures)} failures. Lowest validation loss of each network: "
        f"{quartiles} (smallest, quartiles, largest). The best is network {population.records[best].index}: {chosen}."
    )
    figures = [("Validation loss of each network at every epoch", picture(lambda f: draw_losses(f, population)))]
    varied = [name for name in params if params[name].astype(str).nunique() > 1]
    if varied:
        rows = -(-len(varied) // 3)
        size = (3.2 * min(3, len(varied)), 2.8 * rows)
        drawn = picture(lambda f: draw_sweep(f, params[varied], losses), size)
        figures.append(("Lowest loss against each hyperparameter that varies", drawn))
    return Section("The sweep", text, figures, [table("One row for each network", population.to_frame())])


def _dynamics(
    population: NetworkPopulation, sequences: Any, epoch: Any, transformer: LyapunovSpectrumTransformer | None
) -> list[Section]:
    if sequences is None and transformer is None:
        return []
    if transformer is None:
        transformer = LyapunovSpectrumTransformer(sequences, n_exponents=64, align="interpolate", on_error="warn")
    elif sequences is not None:
        transformer = clone(transformer).set_params(sequences=sequences)
    if epoch is None:
        kept = [key for key in population.records[0].snapshots if all(key in r.snapshots for r in population.records)]
        epoch = min((float(key) for key in kept if _is_number(key) and float(key) > 0), default="last")
    spectra = np.asarray(transformer.fit_transform(population.networks(epoch)))
    losses = population.best_losses
    usable = np.isfinite(spectra).all(axis=1) & np.isfinite(losses)
    results = [result for result in transformer.results_ if result is not None]
    undecided = sum(not result.converged for result in results)
    color, label = loss_colors(losses[usable])
    drawn = picture(lambda f: SpectrumDisplay(spectra[usable], color=color, color_label=label).plot(f.add_subplot()))
    at = f"{epoch:g}" if isinstance(epoch, float) else epoch
    text = (
        f"Lyapunov spectra of the networks at epoch {at}, in nats per step. Of {len(results)} spectra, "
        f"{undecided} are not converged: the sign of their largest exponent cannot be told from these sequences."
    )
    tables = []
    if usable.sum() > 2:
        with unwarned():  # statistics that do not vary are left out
            found = spectrum_loss_correlation(spectra[usable], losses[usable], random_state=0).dropna(subset="r")
        caption = "Spearman correlation of each statistic with the lowest loss, with 95 % intervals"
        tables.append(table(caption, found))
    return [Section("Spectra", text, [("Spectra, coloured by the lowest loss", drawn)], tables)]


def _is_number(key: str) -> bool:
    """Whether the key of a snapshot is an epoch, not "best" or "last"."""
    try:
        float(key)
    except ValueError:
        return False
    return True


def _comparison(scores: pd.DataFrame) -> Section:
    drawn = picture(lambda f: LossPredictorsDisplay.from_table(scores, ax=f.add_subplot()))
    text = "Predictions of the networks' lowest loss, out of fold, from what is known early."
    return Section("Loss predictors", text, [("Scores with intervals", drawn)], [table("Scores", scores)])


def _alignment(results: Any) -> Section:
    drawn = picture(lambda f: AlignmentDisplay.from_training(results, ax=f.add_subplot()))
    text = "How Lyapunov directions align with the leading singular vector of the loss gradient, mean over networks."
    return Section("Gradient alignment", text, [("Alignment at each epoch", drawn)], [])


def _search(search: Any) -> Section:
    spent = ", ".join(f"{value:.{DIGITS}g} s in {name}" for name, value in search.seconds_spent_.items())
    chosen = ", ".join(f"{name} = {shown(value)}" for name, value in search.best_params_.items())
    text = (
        f"The best candidate is {search.best_candidate_}, with a lowest loss of {search.best_loss_:.{DIGITS}g}: "
        f"{chosen}. {search.epochs_spent_} epochs were trained; {spent}."
    )
    figures = [("Losses of all candidates", picture(lambda f: SearchDisplay.from_search(search, ax=f.add_subplot())))]
    if search.decisions_["predicted"].notna().any():
        drawn = picture(lambda f: SearchDisplay.from_search(search, kind="predictions", ax=f.add_subplot()))
        figures.append(("Predicted and final losses", drawn))
    return Section("The search", text, figures, [table("Every decision", search.decisions_)])


def _failures(population: NetworkPopulation) -> Section:
    rows = [{"index": r.index, "reason": r.reason, **r.params} for r in population.failures]
    text = "Networks that could not be trained. They are in no figure and no other table."
    return Section("Failures", text, [], [table("One row for each failure", pd.DataFrame(rows))])


def _reproduction(population: NetworkPopulation, search: Any) -> Section:
    records = [*population.records, *population.failures]
    origins = {r.origin.name: r.origin.estimator for r in records if r.origin is not None}
    rows = [{"population": name, "estimator": changed_settings(estimator)} for name, estimator in origins.items()]
    if search is not None:
        rows.append({"population": "search", "estimator": changed_settings(search)})
    text = (
        "Each network is the estimator below with the hyperparameters and the seed of its row: "
        "estimator.set_params(**hyperparameters, random_state=seed).fit(X, y). The versions it was made with follow."
    )
    return Section("How to reproduce it", text, [], [table("Estimators", pd.DataFrame(rows))] if rows else [])
