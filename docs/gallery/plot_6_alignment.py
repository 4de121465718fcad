"""
Alignment through training
==========================

How the leading Lyapunov directions lie to the gradient of the loss while a network is trained.
"""

# %%
# Three Elman networks on rows of handwritten digits, kept after every epoch.
from sklyap import GradientAlignmentAnalyzer, RNNClassifier, train_population
from sklyap.datasets import load_sequential_digits
from sklyap.displays import AlignmentDisplay, GradientEnergyDisplay

X, y = load_sequential_digits(return_X_y=True)
network = RNNClassifier("rnn", 32, max_epochs=8)
population = train_population(
    network, {"lr": [3e-3]}, X, y, n_networks=3, snapshot_epochs=range(9), random_state=0, verbose=0
)

# %%
# Each direction of the tangent basis is compared with the perturbation that a change of the recurrent weights along
# the leading singular vector of their gradient gives to the state. White is what chance gives.
analyzer = GradientAlignmentAnalyzer(X[:25], y[:25], n_directions=8, n_singular=1, n_baseline=0)
through = analyzer.analyze_training(population, epochs=range(9))
display = AlignmentDisplay.from_training(through)

# %%
# How much of the gradient the first directions hold, before and after training.
ends = [through[0][0], through[8][0]]
display = GradientEnergyDisplay.from_results(ends, labels=["before training", "after 8 epochs"])

# %%
# One network, with sequences that end after each step. The first step starts from a state of zeros, where no
# recurrent weight acts.
display = AlignmentDisplay.from_result(through[8][0])
