"""
Input sensitivity
=================

Is a network most fragile where it expands? Inputs are perturbed at the steps of largest growth, of smallest growth,
and at random.
"""

# %%
from sklyap import RNNClassifier, input_sensitivity
from sklyap.datasets import load_sequential_digits
from sklyap.displays import SensitivityDisplay, SensitivitySweepDisplay

X, y = load_sequential_digits(return_X_y=True)
network = RNNClassifier("rnn", 32, max_epochs=8, lr=5e-3, random_state=0).fit(X[:1500], y[:1500])
test = X[1500:1580], y[1500:1580]

# %%
# Ranked by the growth of the leading direction in a step: intervals and p-values are against random steps, and the
# last number is corrected for the sweep over k.
leading = input_sensitivity(network, *test, perturbation="gaussian", by="leading", every_step=True, random_state=0)
print(leading)

# %%
display = SensitivitySweepDisplay.from_result(leading, effect="output")

# %%
# Growth in a step acts on what was there before it. The perturbation of an input enters after it, and meets the growth
# that is still to come. Ranked by that, the two lie on either side of random steps; in eight steps, and with bands as
# wide as here, there is not much to tell apart.
future = input_sensitivity(network, *test, perturbation="gaussian", by="future", random_state=0)
display = SensitivitySweepDisplay.from_result(future, effect="output")

# %%
# One digit, row by row: the growth of each step, and what perturbing this step alone does to the outputs.
display = SensitivityDisplay.from_result(leading, test[0], index=3, effect="output")
