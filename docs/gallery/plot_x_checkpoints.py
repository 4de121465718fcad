"""
Your own checkpoints
====================

A folder of weights and a table of losses, trained by any code, become a population from which a loss is predicted.
"""

# %%
# Thirty taggers in plain PyTorch stand for what you have: weights before training is over, and the loss that each
# ended with.
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

torch.manual_seed(0)
folder = Path(tempfile.mkdtemp())
x = torch.randn(256, 20, 3)
labels = (x[:, 5, 0] > 0).long()  # the sign of an entry that came fifteen steps ago


class Tagger(torch.nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.rnn = torch.nn.GRU(3, hidden_size, batch_first=True)
        self.readout = torch.nn.Linear(hidden_size, 2)

    def forward(self, x):
        return self.readout(self.rnn(x)[0][:, -1])


rng, rows = np.random.default_rng(0), []
for i in range(30):
    hidden_size, lr = int(rng.choice([4, 8, 12])), float(10 ** rng.uniform(-3, -1))
    network = Tagger(hidden_size)
    optimizer = torch.optim.Adam(network.parameters(), lr)
    for epoch in range(100):
        if epoch == 10:
            torch.save(network.state_dict(), folder / f"{i}.pt")
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), labels)
        loss.backward()
        optimizer.step()
    rows.append({"file": f"{i}.pt", "hidden_size": hidden_size, "lr": lr, "loss": loss.item()})
table = pd.DataFrame(rows)
table.head()

# %%
# From here on it is your folder and your table. Nothing in the files is executed.
from sklyap import LyapunovSpectrumTransformer, NetworkPopulation

population = NetworkPopulation.from_networks(
    {10: [folder / file for file in table["file"]]},
    table["loss"],
    params=table[["hidden_size", "lr"]],
    build=lambda params: Tagger(params["hidden_size"]),
)
population

# %%
# Spectra after ten steps of training, coloured by the loss after a hundred.
from sklyap.displays import SpectrumDisplay

spectrum = LyapunovSpectrumTransformer(x[:8], n_exponents=16, align="interpolate")
display = SpectrumDisplay.from_population(population, spectrum, epoch=10)

# %%
# Predicted out of fold, from spectrum and hyperparameters together.
import matplotlib.pyplot as plt
from scipy.stats import spearmanr
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline, make_union

from sklyap import HyperparameterFeatures

features = make_union(spectrum, HyperparameterFeatures())
model = make_pipeline(features, ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0))
predicted = cross_val_predict(model, population.networks(epoch=10), population.best_losses, cv=5)
figure, ax = plt.subplots(layout="constrained")
ax.plot(predicted, population.best_losses, "o")
ax.axline((0.5, 0.5), slope=1, color="0.6", linestyle=":")
rho = spearmanr(predicted, population.best_losses)[0]
_ = ax.set(xlabel="predicted loss", ylabel="loss after 100 steps", title=f"out of fold, Spearman's ρ = {rho:.2f}")
