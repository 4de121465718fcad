"""Devices that are not there, or that lack float64, get a sentence that says what to do."""

import pytest
import torch

from sklyap import RNNClassifier, lyapunov_spectrum
from sklyap.validation import resolve_device


@pytest.mark.parametrize("device", ["mps", "xpu", "xla", "hpu", "cuda:99"])
def test_a_device_that_is_absent(device):
    if device != "cuda:99" and getattr(torch, device, None) is not None and getattr(torch, device).is_available():
        pytest.skip(f"there is an {device} device")
    with pytest.raises(ValueError, match=rf"'device' parameter is '{device}', .*[uU]se device='cpu'\.$"):
        lyapunov_spectrum(torch.nn.GRU(2, 3), torch.randn(3, 20, 2), device=device)
    with pytest.raises(ValueError, match=rf"'device' parameter is '{device}'"):
        RNNClassifier("gru", 3, device=device).fit(torch.randn(4, 3, 2), [0, 1, 0, 1])


def test_mps_has_no_float64(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match=r"MPS has no float64, in which sklyap computes; use device='cpu'"):
        resolve_device("mps")
