"""Sphinx configuration."""

import os
import re
import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ["MPLBACKEND"] = "agg"

project = "sklyap"
author = "The sklyap developers"
copyright = "2026, The sklyap developers"
version = release = installed("sklyap")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "names",
    "summaries",
]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
autosummary_generate = True
autodoc_typehints = "none"
# Each parameter on a line of its own, so that long signatures are not clipped.
maximum_signature_line_length = 90
# Methods that scikit-learn makes, whose texts refer to its own pages.
REQUESTS = [f"set_{method}_request" for method in ("fit", "partial_fit", "predict", "score", "transform")]
autodoc_default_options = {"exclude-members": ", ".join(REQUESTS)}
numpydoc_show_class_members = False
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_title = "sklyap"
html_css_files = ["site.css"]
html_theme_options = {"show_prev_next": False, "navbar_align": "left", "header_links_before_dropdown": 8}
html_sidebars = {"index": [], "installing": [], "glossary": [], "changelog": [], "contributing": []}
html_show_sourcelink = False
exclude_patterns = ["_build", "*_table.md", "gallery"]  # tables are included by the page that explains them

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "plot_gallery": os.environ.get("SKLYAP_GALLERY", "1") == "1",
    "abort_on_example_error": True,
    "capture_repr": ("_repr_html_", "__repr__"),
}

nitpick_ignore = [("py:obj", "history_")]  # a property of the base of both estimators
# Links go to this site alone: it is built and read without a network, and those of other projects would need theirs.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|sklearn|skorch|numpy|scipy|pandas|matplotlib|joblib|collections|pathlib)\..*")
]


def escape(app, what, name, obj, options, lines):
    """Shapes such as (*batch, N) and (n_networks, n_exponents_) are not markup, outside of code."""
    for i, line in enumerate(lines):
        parts = re.split(r"(``.*?``|`[^`]*`)", line)
        lines[i] = "".join(part if k % 2 else _escaped(part) for k, part in enumerate(parts))


def _escaped(text):
    return re.sub(r"\((?:[^()]*)\)", lambda m: re.sub(r"(\*)(?=\w)|(?<=\w)(_)(?=\W)", r"\\\1\2", m[0]), text)


def setup(app):
    """Register what happens to docstrings."""
    app.connect("autodoc-process-docstring", escape, priority=400)  # before numpydoc
