"""write_report: what is known of a population or a search, on one page."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone

from sklyap.displays import AlignmentDisplay, LossPredictorsDisplay, SearchDisplay, SpectrumDisplay
from sklyap.exceptions import SklyapWarning
from sklyap.population import NetworkPopulation
from sklyap.report.versions import versions
from sklyap.spectrum import LyapunovSpectrumTransformer
from sklyap.statistics import spectrum_loss_correlation
from sklyap.storage import write_bytes

__all__ = ["Section", "sections_of", "write_report"]

_DIGITS = 4
"""Significant digits of the numbers in tables."""
_DPI = 120
_MOST_CURVES = 500
"""Maximum number of networks whose losses are drawn one by one; of more, equally spaced ranks of the best loss are."""


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


def _picture(draw: Callable[[Any], Any], size: tuple[float, float] = (7.0, 4.2)) -> str:
    """Return what `draw` draws into a figure as a ``data:`` address."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    draw(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def _plain(name: Any) -> str:
    """Return a name as matplotlib shows it: a dollar sign begins no formula."""
    return str(name).replace("$", r"\$")


def _cell(value: Any) -> Any:
    """Return a value as a table shows it."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, float | np.floating):
        return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else str(float(value))
    if isinstance(value, int | np.integer):
        return int(value)
    return getattr(value, "__name__", str(value))


def _table(caption: str, frame: pd.DataFrame) -> tuple[str, list[str], list[list[Any]]]:
    frame = frame.reset_index() if frame.index.name else frame
    return caption, [str(name) for name in frame.columns], [[_cell(v) for v in row] for row in frame.to_numpy(object)]


def _sweep(population: NetworkPopulation) -> Section:
    losses, params = population.best_losses, population.params
    best = int(np.nanargmin(losses)) if np.isfinite(losses).any() else 0
    quartiles = ", ".join(f"{q:.{_DIGITS}g}" for q in np.nanquantile(losses, [0, 0.25, 0.5, 0.75, 1]))
    chosen = ", ".join(f"{name} = {_cell(value)}" for name, value in params.iloc[best].items()) or "all alike"
    text = (
        f"{len(population)} networks, {len(population.failures)} failures. Lowest validation loss of each network: "
        f"{quartiles} (smallest, quartiles, largest). The best is network {population.records[best].index}: {chosen}."
    )
    figures = [("Validation loss of each network at every epoch", _picture(lambda f: _draw_losses(f, population)))]
    varied = [name for name in params if params[name].astype(str).nunique() > 1]
    if varied:
        rows = -(-len(varied) // 3)
        size = (3.2 * min(3, len(varied)), 2.8 * rows)
        picture = _picture(lambda f: _draw_sweep(f, params[varied], losses), size)
        figures.append(("Lowest loss against each hyperparameter that varies", picture))
    return Section("The sweep", text, figures, [_table("One row for each network", population.to_frame())])


def _draw_losses(figure: Any, population: NetworkPopulation) -> None:
    ax = figure.add_subplot()
    order = np.argsort(population.best_losses)
    if len(order) > _MOST_CURVES:
        order = order[np.linspace(0, len(order) - 1, _MOST_CURVES).astype(int)]
    for rank, i in enumerate(order[::-1]):
        curve = np.asarray(population.records[i].losses, dtype=float)
        is_best = rank == len(order) - 1
        ax.plot(np.arange(1, len(curve) + 1), curve, color="tab:red" if is_best else "0.6", linewidth=1, marker=".")
    _log_scale_if_wide(ax, population.best_losses)
    ax.set(xlabel="epoch", ylabel="loss (the best network in red)")


def _draw_sweep(figure: Any, params: pd.DataFrame, losses: np.ndarray) -> None:
    n = len(params.columns)
    axes = figure.subplots(-(-n // 3), min(3, n), squeeze=False).ravel()
    for ax, name in zip(axes, params.columns, strict=False):
        column = params[name]
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            ax.plot(column, losses, ".", alpha=0.7)
            if (column > 0).all() and column.max() > 20 * column.min():
                ax.set_xscale("log")
        else:
            names = list(dict.fromkeys(str(_cell(value)) for value in column))
            groups = [losses[[str(_cell(v)) == label for v in column]] for label in names]
            ax.boxplot(groups, tick_labels=[_plain(label) for label in names])
        _log_scale_if_wide(ax, losses)
        ax.set(xlabel=_plain(name), ylabel="lowest loss")
    for ax in axes[n:]:
        ax.remove()


def _log_scale_if_wide(ax: Any, losses: np.ndarray) -> None:
    if np.nanmin(losses) > 0 and np.nanmax(losses) > 5 * np.nanmin(losses):
        ax.set_yscale("log")


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
        epoch = next((float(key) for key in kept if key != "last" and float(key) > 0), "last")
    spectra = np.asarray(transformer.fit_transform(population.networks(epoch)))
    losses = population.best_losses
    usable = np.isfinite(spectra).all(axis=1) & np.isfinite(losses)
    results = [result for result in transformer.results_ if result is not None]
    undecided = sum(not result.converged for result in results)
    picture = _picture(
        lambda f: SpectrumDisplay(spectra[usable], color=losses[usable], color_label="lowest loss").plot(
            f.add_subplot()
        )
    )
    text = (
        f"Lyapunov spectra of the networks at epoch {_cell(epoch)}, in nats per step. Of {len(results)} spectra, "
        f"{undecided} are not converged: the sign of their largest exponent cannot be told from these sequences."
    )
    tables = []
    if usable.sum() > 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SklyapWarning)  # statistics that do not vary are left out
            table = spectrum_loss_correlation(spectra[usable], losses[usable], random_state=0).dropna(subset="r")
        caption = "Spearman correlation of each statistic with the lowest loss, with 95 % intervals"
        tables.append(_table(caption, table))
    return [Section("Spectra", text, [("Spectra, coloured by the lowest loss", picture)], tables)]


def _comparison(table: pd.DataFrame) -> Section:
    picture = _picture(lambda f: LossPredictorsDisplay.from_table(table, ax=f.add_subplot()))
    text = "Predictions of the networks' lowest loss, out of fold, from what is known early."
    return Section("Loss predictors", text, [("Scores with intervals", picture)], [_table("Scores", table)])


def _alignment(results: Any) -> Section:
    picture = _picture(lambda f: AlignmentDisplay.from_training(results, ax=f.add_subplot()))
    text = "How Lyapunov directions align with the leading singular vector of the loss gradient, mean over networks."
    return Section("Gradient alignment", text, [("Alignment at each epoch", picture)], [])


def _search(search: Any) -> Section:
    spent = ", ".join(f"{value:.{_DIGITS}g} s in {name}" for name, value in search.seconds_spent_.items())
    chosen = ", ".join(f"{name} = {_cell(value)}" for name, value in search.best_params_.items())
    text = (
        f"The best candidate is {search.best_candidate_}, with a lowest loss of {search.best_loss_:.{_DIGITS}g}: "
        f"{chosen}. {search.epochs_spent_} epochs were trained; {spent}."
    )
    figures = [("Losses of all candidates", _picture(lambda f: SearchDisplay.from_search(search, ax=f.add_subplot())))]
    if search.decisions_["predicted"].notna().any():
        picture = _picture(lambda f: SearchDisplay.from_search(search, kind="predictions", ax=f.add_subplot()))
        figures.append(("Predicted and final losses", picture))
    return Section("The search", text, figures, [_table("Every decision", search.decisions_)])


def _failures(population: NetworkPopulation) -> Section:
    rows = [{"index": r.index, "reason": r.reason, **r.params} for r in population.failures]
    text = "Networks that could not be trained. They are in no figure and no other table."
    return Section("Failures", text, [], [_table("One row for each failure", pd.DataFrame(rows))])


def _reproduction(population: NetworkPopulation, search: Any) -> Section:
    records = [*population.records, *population.failures]
    origins = {r.origin.name: r.origin.estimator for r in records if r.origin is not None}
    rows = [{"population": name, "estimator": repr(estimator)} for name, estimator in origins.items()]
    if search is not None:
        rows.append({"population": "search", "estimator": repr(search)})
    text = (
        "Each network is the estimator below with the hyperparameters and the seed of its row: "
        "estimator.set_params(**hyperparameters, random_state=seed).fit(X, y). The versions it was made with follow."
    )
    return Section("How to reproduce it", text, [], [_table("Estimators", pd.DataFrame(rows))] if rows else [])
