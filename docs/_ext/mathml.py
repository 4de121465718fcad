"""Formulae as MathML, by docutils: nothing is fetched when a page is read."""

import html
import re

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml, pick_math_environment
from sphinx.util import logging

__all__ = ["setup"]

LOGGER = logging.getLogger(__name__)


def convert(source, as_block):
    """Return a formula as MathML, with what docutils does not know put in its own words."""
    source = re.sub(r"\\[bB]igg?[lr]?(?=[(\[{|])", r"\\left", source)
    source = re.sub(r"\\[bB]igg?[lr]?(?=[)\]}|])", r"\\right", source).replace(r"\dots", r"\ldots")
    if as_block:
        environment = pick_math_environment(source)
        if environment != "equation*":
            source = rf"\begin{{{environment}}}{source}\end{{{environment}}}"
    return latex2mathml.tex2mathml(source, as_block=as_block)


def written(node, as_block):
    """Return a formula as MathML; one that cannot be is a warning, and its source."""
    try:
        return convert(node.astext(), as_block)
    except MathError as error:
        LOGGER.warning("formula %r: %s", node.astext(), error, location=node)
        return html.escape(node.astext())


def visit_math(self, node):
    """Write a formula in a line of text."""
    self.body.append(written(node, as_block=False))
    raise nodes.SkipNode


def visit_displaymath(self, node):
    """Write a formula on a line of its own."""
    self.body.append(f'<div class="formula">{written(node, as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
