"""Which packages count as installed, with a version for all of their code, and which as code of one's own."""

import pytest

from sklyap.spectrum import digest


class Distributed:
    """A distribution whose metadata lie in `home`."""

    def __init__(self, home, **texts):
        self.home, self.texts = home, texts

    def locate_file(self, path):
        return self.home / path

    def read_text(self, name):
        return self.texts.get(name.replace("-", "_"))


@pytest.mark.parametrize(
    "where,texts,known",
    [
        ("env/site-packages", {"RECORD": "torch/__init__.py,sha256=0,1"}, True),
        # Editable: the list of files names a finder, and the code lies elsewhere.
        ("env/site-packages", {"RECORD": "__editable___torch_finder.py,sha256=0,1"}, False),
        # A project folder with metadata of its own, as setuptools leaves it.
        ("project", {"PKG_INFO": "Version: 1"}, False),
        ("project", {"RECORD": "torch/__init__.py,sha256=0,1"}, False),
        # A package of the system has no list of files.
        ("system/dist-packages", {"PKG_INFO": "Version: 1"}, True),
        ("env/site-packages", {"PKG_INFO": "Version: 1"}, False),
    ],
)
def test_what_counts_as_installed(where, texts, known, tmp_path, monkeypatch):
    monkeypatch.setattr(digest.site, "getsitepackages", lambda: [str(tmp_path / "system" / "dist-packages")])
    home = tmp_path / where
    record = digest._record(Distributed(home, **texts), "torch", home / "torch" / "__init__.py")
    assert (record is not None) is known
    assert digest._record(Distributed(home, **texts), "torch", tmp_path / "source" / "torch" / "__init__.py") is None
