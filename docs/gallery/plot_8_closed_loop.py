"""
A network that feeds itself
===========================

An echo state network learns Lorenz' equations from data. Fed with its own predictions it is an autonomous system,
whose exponents are to be those of Lorenz.
"""

# %%
# Random recurrent weights, a ridge regression on the states, and its prediction fed back.
import numpy as np
import torch
from sklearn.linear_model import Ridge

from sklyap import closed_loop, lyapunov_spectrum
from sklyap.cells import LeakyCell
from sklyap.datasets import make_chaotic_series

dt, spin_up = 0.05, 100
X, y = make_chaotic_series("lorenz", 16, 500, dt=dt, random_state=0)
rng = np.random.default_rng(0)
W = rng.normal(size=(150, 150)) * (rng.random((150, 150)) < 0.1)
W *= 0.6 / np.abs(np.linalg.eigvals(W)).max()
cell = LeakyCell.from_weights(W, 0.3 * rng.uniform(-1, 1, (150, 3)), leak=0.9, bias=0.5 * rng.uniform(-1, 1, 150))


def states(x):
    x = torch.as_tensor(np.asarray(x), dtype=torch.float64)
    with torch.no_grad():
        return cell.trajectory(cell.initial_state(len(x)).to(x), x)[1:].numpy()


reservoir, targets = states(X), np.swapaxes(np.asarray(y), 0, 1)
ridge = Ridge(1e-7).fit(reservoir[spin_up:].reshape(-1, 150), targets[spin_up:].reshape(-1, 3))
W_out, offset = (torch.as_tensor(v, dtype=torch.float64) for v in (ridge.coef_, ridge.intercept_))

# %%
# The spectrum of the loop, per unit of time, beside that of the system (Sprott 2003).
loop = closed_loop(cell, torch.as_tensor(X[:8, :spin_up], dtype=torch.float64), feedback=lambda h: h @ W_out.T + offset)
result = lyapunov_spectrum(loop, 2000, n_exponents=3, warmup=200, random_state=0).per_time(dt)
for i, known in enumerate([0.9056, 0.0, -14.5723]):
    print(f"λ{i + 1} = {result.exponents[i]:8.3f} ± {result.standard_error[i]:.3f}, of Lorenz {known:.3f}")

# %%
# The third exponent is the contraction onto the attractor, which a model need not get right to stay on it. A
# forecast follows the series until the error, which grows by e in every Lyapunov time, is as large as the attractor.
import matplotlib.pyplot as plt

forecast = ridge.predict(np.asarray(loop.forecast(400))[0])  # the loop gives states
figure, ax = plt.subplots(figsize=(8, 3.5), layout="constrained")
time = np.arange(1, 401) * dt * 0.9056
ax.plot(time, y[0, spin_up - 1 : spin_up + 399, 0], label="Lorenz", color="0.4")
ax.plot(time, forecast[:, 0], "--", label="network", color="tab:red")
ax.set(xlabel="Lyapunov times", ylabel="first variable")
_ = ax.legend()
