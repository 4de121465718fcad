"""Names of public objects in code font are links to their pages, in tables and elsewhere."""

import importlib
import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

__all__ = ["setup"]


def public_names(page):
    """Return the full name for each name on the page of the API, that of most packages ahead of others."""
    names, module = {}, ""
    for line in page.read_text().splitlines():
        if found := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"   (\w+)$", line):
            names.setdefault(found[1], f"{module}.{found[1]}")
    short = {
        name: full
        for name, full in names.items()
        if callable(getattr(importlib.import_module(full.rpartition(".")[0]), name))
    }
    return short | {full: full for full in short.values()}


class LinkNames(SphinxTransform):
    """Turn literals that are names of public objects into references."""

    default_priority = 700

    def apply(self, **kwargs):
        """Replace them in this document."""
        names = self.app.env.public_names
        if self.env.docname.startswith("generated/"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            full = names.get(literal.astext().removesuffix("()"))
            parent = literal.parent
            if full is None or isinstance(parent, pending_xref | nodes.reference | nodes.title):
                continue
            reference = pending_xref(
                "", literal.deepcopy(), refdomain="py", reftype="obj", reftarget=full, refexplicit=True
            )
            reference["refdoc"] = self.env.docname
            parent.replace(literal, reference)


def begin(app):
    """Read the names once."""
    app.env.public_names = public_names(Path(app.srcdir) / "api.md")


def setup(app):
    """Register the transform."""
    app.connect("builder-inited", begin)
    app.add_transform(LinkNames)
    return {"parallel_read_safe": True}
