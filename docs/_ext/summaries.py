"""Summaries in tables of names leave out citations: their labels mean nothing outside the page that they are of."""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.ext.autosummary import autosummary_table

__all__ = ["setup"]


def leave_out_citations(app, doctree):
    """Remove citations from tables of names, and the space before them."""
    for table in doctree.findall(autosummary_table):
        for reference in list(table.findall(pending_xref)):
            if reference.get("refdomain") == "citation":
                place = reference.parent.index(reference)
                before = reference.parent[place - 1] if place else None
                if isinstance(before, nodes.Text):
                    reference.parent.replace(before, nodes.Text(before.astext().rstrip()))
                reference.parent.remove(reference)


def setup(app):
    """Register what is done with every page."""
    app.connect("doctree-read", leave_out_citations)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
