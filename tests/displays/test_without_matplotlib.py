"""A display without matplotlib says what to install."""

import sys

import pytest
import torch

from sklyap import lyapunov_spectrum
from sklyap.displays import ConvergenceDisplay


def test_the_extra_is_named(monkeypatch):
    display = ConvergenceDisplay.from_result(
        lyapunov_spectrum(torch.nn.GRU(2, 3), torch.randn(3, 20, 2), return_local=True)
    )
    for name in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'A display needs matplotlib: pip install "sklyap\[plot\]"'):
        display.plot()
