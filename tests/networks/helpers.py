"""What the tests of networks share."""

import torch
from torch import nn

from sklyap import RNNClassifier
from sklyap.cells import RecurrentCell


def small(**params):
    return RNNClassifier(**{"cell": "gru", "hidden_size": 8, "max_epochs": 2, "lr": 0.01, "random_state": 0} | params)


class Leaky(RecurrentCell):
    """A user's own cell, without options for biases."""

    def __init__(self, n_inputs, hidden_size, leak=0.5):
        super().__init__()
        self.n_inputs, self.state_size, self.output_size, self.leak = n_inputs, hidden_size, hidden_size, leak
        self.linear = nn.Linear(n_inputs + hidden_size, hidden_size)

    def step(self, s, x):
        return (1 - self.leak) * s + self.leak * torch.tanh(self.linear(torch.cat([x, s], -1)))
