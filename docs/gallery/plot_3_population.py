"""
A population and its table
==========================

Many networks that differ in hyperparameters and seed, their spectra after one epoch, and what these say of the loss
that they end with.
"""

# %%
# Train 40 networks in one call. With ``directory=`` it could be killed and called again.
import warnings

from scipy.stats import loguniform

from sklyap import LyapunovSpectrumTransformer, RNNClassifier, train_population
from sklyap.datasets import make_recall
from sklyap.exceptions import SklyapWarning

warnings.simplefilter("ignore", SklyapWarning)  # of saturated networks with annihilated directions
X, y = make_recall(600, n_steps=20, random_state=0)
choices = {
    "cell": ["lstm", "gru", "rnn"],
    "hidden_size": [8, 12, 16],
    "init_scale": loguniform(0.1, 2),
    "lr": loguniform(2e-3, 2e-2),
}
network = RNNClassifier(init="uniform", max_epochs=10, batch_size=32)
population = train_population(network, choices, X, y, n_networks=40, random_state=0, verbose=0)
population

# %%
population.to_frame().head()

# %%
# Their spectra after one epoch, coloured by the lowest loss that each gets to.
from sklyap.displays import LossPredictorsDisplay, SpectrumDisplay

spectrum = LyapunovSpectrumTransformer(X[:8], n_exponents=32, align="interpolate")
display = SpectrumDisplay.from_population(population, spectrum, epoch=1)
_ = display.ax_.set_ylim(-8, 0.5)

# %%
# Which statistics go with the loss: rank correlations with bootstrap intervals, and p corrected for the number of
# statistics that were tried.
from sklyap import spectrum_loss_correlation

spectra = spectrum.fit_transform(population.networks(epoch=1))
spectrum_loss_correlation(spectra, population.best_losses, random_state=0).head(5).round(3)

# %%
# The honest table puts the spectrum beside what one knows without it, out of fold, on the same networks. With 40
# networks the intervals are wide.
from sklearn.ensemble import ExtraTreesRegressor

from sklyap import compare_loss_predictors

trees = ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0)
rows = {
    "loss so far": ("loss_so_far", trees),
    "spectrum": ("spectrum", trees),
    "spectrum + loss so far": (("spectrum", "loss_so_far"), trees),
}
table = compare_loss_predictors(population, X[:8], epoch=1, predictors=rows, cv=5, random_state=0)
table[["r2", "r2_se", "spearman", "spearman_se"]].round(2)

# %%
display = LossPredictorsDisplay.from_table(table, measure="spearman")
