"""Sphinx configuration."""

import re
from importlib.metadata import version as installed

project = "sklyap"
author = "The sklyap developers"
copyright = "2026, The sklyap developers"
version = release = installed("sklyap")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
autosummary_generate = True
autodoc_typehints = "none"
# Methods that scikit-learn makes, whose texts refer to its own pages.
REQUESTS = [f"set_{method}_request" for method in ("fit", "partial_fit", "predict", "score", "transform")]
autodoc_default_options = {"exclude-members": ", ".join(REQUESTS)}
numpydoc_show_class_members = False
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
exclude_patterns = ["_build", "*_table.md"]  # tables are included by the page that explains them


def escape(app, what, name, obj, options, lines):
    """Shapes such as (*batch, N) and (n_networks, n_exponents_) are not markup."""
    for i, line in enumerate(lines):
        lines[i] = re.sub(
            r"(?<!`)\((?:[^()`]*)\)", lambda m: re.sub(r"(\*)(?=\w)|(?<=\w)(_)(?=\W)", r"\\\1\2", m[0]), line
        )


def setup(app):
    """Register what happens to docstrings."""
    app.connect("autodoc-process-docstring", escape, priority=400)  # before numpydoc
