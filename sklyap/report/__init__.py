"""One HTML page of a population or a search, and the versions of what made it."""

from sklyap.report.page import write_report
from sklyap.report.versions import __version__, show_versions

__all__ = ["__version__", "show_versions", "write_report"]
