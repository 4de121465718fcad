"""The benchmark of flossing runs, and its textbook loop computes what it is compared with."""

import torch
from torch import nn

from benchmarks import monitor_overhead
from benchmarks.flossing import measure, textbook_exponents
from sklyap import finite_time_exponents


def test_the_textbook_loop_gives_the_same_exponents_and_gradient():
    torch.manual_seed(0)
    layer, x = nn.RNN(2, 9, batch_first=True).double(), torch.randn(3, 20, 2, dtype=torch.float64)
    ours, theirs = finite_time_exponents(layer, x, n_exponents=6), textbook_exponents(layer, x, 6)
    order = theirs.detach().mean(0).argsort(descending=True)
    torch.testing.assert_close(ours, theirs[:, order], rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(e.square().mean(), list(layer.parameters())) for e in (ours, theirs)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_it_runs():
    times = measure(units=6, k=4, n_steps=5, n=2, repeats=1)
    assert len(times) == 5 and all(milliseconds > 0 for milliseconds in times.values())


def test_the_overhead_of_the_monitor_is_measured():
    training, look, every = monitor_overhead.measure("rnn", 4, "digits, 8 steps", max_epochs=1)
    assert training > 0 and look > 0 and every == 6
