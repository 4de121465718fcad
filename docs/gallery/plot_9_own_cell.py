"""
Your own cell
=============

A step of your own gets a spectrum as it is, and becomes a network that can be trained when it is a class.
"""

# %%
# A function of state and input, written for rows, is enough for a spectrum. This is Ikeda's map, whose largest
# exponent is known to be 0.5075.
import torch

from sklyap import FunctionCell, lyapunov_spectrum


def ikeda(s, x):
    a, b = s[:, 0], s[:, 1]
    angle = 0.4 - 6 / (1 + a**2 + b**2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([1 + 0.9 * (a * cos - b * sin), 0.9 * (a * sin + b * cos)], -1)


start = 0.1 * torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
print(lyapunov_spectrum(FunctionCell(ikeda, 2, initial_state=start), 2000, random_state=0))

# %%
# A class with a ``step`` can be trained. The contract looks at derivatives, shapes, dtypes, copies and stacks.
from torch import nn

from sklyap import RecurrentCell, RNNClassifier
from sklyap.datasets import make_recall
from sklyap.displays import SpectrumDisplay
from sklyap.testing import check_cell


class SlowFastCell(RecurrentCell):
    """Half of the units forget slowly: h' = (1 - a) h + a tanh(U h + W x)."""

    def __init__(self, n_inputs, hidden_size, *, slow=0.05):
        super().__init__()
        self.n_inputs = n_inputs
        self.state_size = self.output_size = hidden_size
        self.weight_ih = nn.Linear(n_inputs, hidden_size)
        self.weight_hh = nn.Linear(hidden_size, hidden_size, bias=False)
        self.register_buffer("rate", torch.where(torch.arange(hidden_size) % 2 == 0, slow, 1.0))

    def step(self, s, x):
        return (1 - self.rate) * s + self.rate * torch.tanh(self.weight_ih(x) + self.weight_hh(s))


check_cell(SlowFastCell(3, 8))

# %%
# Trained, and its spectrum beside that of an Elman network of the same size: half of the exponents stay near zero.
X, y = make_recall(400, n_steps=15, random_state=0)
driving, _ = make_recall(8, n_steps=200, random_state=1)
results = []
for cell in (SlowFastCell, "rnn"):
    network = RNNClassifier(cell, 16, max_epochs=20, lr=5e-3, random_state=0).fit(X, y)
    results.append(lyapunov_spectrum(network, driving, random_state=0))
display = SpectrumDisplay.from_results(results, labels=["slow and fast units", "Elman"])
