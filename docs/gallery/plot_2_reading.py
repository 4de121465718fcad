"""
Reading a spectrum
==================

What the largest exponent, the tail and the dimension say about a network.
"""

# %%
# Three networks of 120 tanh units with random recurrent weights of growing variance, g²/120, driven by weak noise.
# Below g = 1 such a network forgets where it started; far above it, it is chaotic (Sompolinsky, Crisanti and Sommers
# 1988).
import warnings

import torch

from sklyap import lyapunov_spectrum
from sklyap.cells import ElmanCell
from sklyap.exceptions import ConvergenceWarning

warnings.simplefilter("ignore", ConvergenceWarning)  # one of them is undecided; its status says so

torch.manual_seed(0)
weights = torch.randn(120, 120) / 120**0.5
noise = 0.05 * torch.randn(6, 400, 120)


def network(g):
    cell = ElmanCell(120, 120, bias=False)
    with torch.no_grad():
        cell.weight_hh.copy_(g * weights)
        cell.weight_ih.copy_(torch.eye(120))
    return cell


gains = [0.6, 1.2, 2.5]
results = [lyapunov_spectrum(network(g), noise, return_local=True, random_state=0) for g in gains]

# %%
# **The largest exponent** is the rate at which nearby states part or meet. Below zero the network forgets, within
# about 1/\|λ₁\| steps, and its state is a function of its recent inputs. Above zero its state depends on the distant
# past in a way that no input explains. Near zero it remembers longest.
for g, result in zip(gains, results, strict=True):
    print(f"g = {g}: λ₁ = {result.exponents[0]:+.3f} ± {result.standard_error[0]:.3f} per step. {result.status}")

# %%
# **The tail** says what is forgotten at once. A steep end means directions that one step wipes out; a flat spectrum
# means that all directions live for about as long.
from sklyap.displays import LocalExponentDisplay, SpectrumDisplay

display = SpectrumDisplay.from_results(results, labels=[f"g = {g}" for g in gains])

# %%
# **The dimension** of Kaplan and Yorke says how many directions the activity fills: the number of leading exponents
# whose sum is not negative, interpolated. **The entropy** is the sum of the positive exponents. A network that
# forgets has neither.
import pandas as pd

from sklyap import SpectrumStatistics

statistics = SpectrumStatistics(["max", "kaplan_yorke_dimension", "kolmogorov_sinai_entropy", "n_positive"])
table = pd.DataFrame(statistics.fit_transform([result.exponents for result in results]), index=gains)
table.columns = statistics.get_feature_names_out()
table.round(2)

# %%
# **Along a sequence** growth is not even. Red is expansion in a step, blue is contraction.
display = LocalExponentDisplay.from_result(results[2], sequence=0)
