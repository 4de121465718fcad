"""
Gradient flossing
=================

Training that pushes the leading Lyapunov exponents towards zero, so that gradients neither vanish nor explode
(Engelken 2023).
"""

# %%
# An Elman network learns to repeat a stream of bits ten steps later: with flossing before training, and without.
from sklyap import RNNClassifier
from sklyap.datasets import make_delayed_copy
from sklyap.displays import TrainingDisplay
from sklyap.training import GradientFlossing, LyapunovMonitor

X, y = make_delayed_copy(640, delay=10, n_steps=40, random_state=0)


def train(*callbacks):
    monitor = LyapunovMonitor(X[:4], n_exponents=6)
    network = RNNClassifier(
        "rnn", 32, readout="all", max_epochs=15, batch_size=32, lr=2e-3, optimizer="adamw",
        callbacks=[*callbacks, monitor], random_state=0,
    )  # fmt: skip
    return network.fit(X, y), monitor


plain, plain_monitor = train()
flossed, flossed_monitor = train(GradientFlossing(pretrain_epochs=3, every=None, weight=3))

# %%
# The spectrum while it is learnt. Plain training starts with exponents far below zero: what entered ten steps ago is
# gone. Flossing starts with a network that keeps it.
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True, layout="constrained")
for ax, monitor, title in zip(axes, (plain_monitor, flossed_monitor), ("plain", "flossing before"), strict=True):
    TrainingDisplay.from_monitor(monitor, ax=ax)
    ax.set_title(title)

# %%
# The losses. This is one seed; how often flossing helps, and what it costs in time, is measured on the page on
# training.
figure, ax = plt.subplots(layout="constrained")
for network, label, style in ((plain, "plain", "o-"), (flossed, "flossing before", "s-")):
    ax.plot(network.history_[:, "epoch"], network.history_[:, "train_loss"], style, label=label)
ax.set(xlabel="epoch", ylabel="training loss", yscale="log")
_ = ax.legend()
