"""
One spectrum
============

The Lyapunov spectrum of a network, from data to exponents with error bars, before and after training.
"""

# %%
# A gated recurrent unit learns to recall a symbol that it saw ten steps ago.
from sklyap import RNNClassifier, lyapunov_spectrum
from sklyap.datasets import make_recall

X, y = make_recall(600, n_steps=10, random_state=0)
untrained = RNNClassifier("gru", 16, max_epochs=0, random_state=0).fit(X, y)
trained = RNNClassifier("gru", 16, max_epochs=60, lr=0.01, random_state=0).fit(X, y)
print(f"recalled: {untrained.score(X, y):.0%} before training, {trained.score(X, y):.0%} after it")

# %%
# The networks are driven along sequences; their Jacobians carry a tangent basis along. What comes out says in words
# what it is, and what to change if it did not converge.
driving, _ = make_recall(12, n_steps=300, random_state=1)
before = lyapunov_spectrum(untrained, driving, random_state=0)
after = lyapunov_spectrum(trained, driving, return_local=True, random_state=0)
print(after)

# %%
# Sixteen units have sixteen exponents, in nats per step; bands are two standard errors. Training has made some
# directions of the state decay more slowly, which is what holds a symbol, and others faster.
from sklyap.displays import ConvergenceDisplay, SpectrumDisplay

display = SpectrumDisplay.from_results([before, after], labels=["untrained", "trained"])

# %%
# How the averages settle along the sequences. The transient, in grey, is not averaged.
display = ConvergenceDisplay.from_result(after)
