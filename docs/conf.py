"""Sphinx configuration."""

from importlib.metadata import version as installed

project = "sklyap"
author = "The sklyap developers"
copyright = "2026, The sklyap developers"
version = release = installed("sklyap")

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
html_theme = "furo"
exclude_patterns = ["_build", "*_table.md"]  # tables are included by the page that explains them
