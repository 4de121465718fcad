"""What the tests of spectra share: networks, inputs, and the textbook's loop."""

import warnings

import torch
from torch import nn
from torch.autograd.functional import jacobian

from sklyap import lyapunov_spectrum
from sklyap.exceptions import ConvergenceWarning

LAYERS = {
    "rnn": lambda n, H, L: nn.RNN(n, H, L),
    "relu": lambda n, H, L: nn.RNN(n, H, L, nonlinearity="relu"),
    "gru": lambda n, H, L: nn.GRU(n, H, L),
    "lstm": lambda n, H, L: nn.LSTM(n, H, L),
}


ONE_STEP = {"rnn": nn.RNNCell, "relu": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def network(kind, n_inputs=3, hidden=6, n_layers=1, *, gain=1.0, seed=0):
    """Return a torch layer in float64, its recurrent weights scaled by `gain`, its rectifiers mostly open."""
    torch.manual_seed(seed)
    layer = LAYERS[kind](n_inputs, hidden, n_layers).double()
    with torch.no_grad():
        for name, weights in layer.named_parameters():
            weights *= gain if "weight_hh" in name else 1.0
            weights += 2.0 if kind == "relu" and "bias_ih" in name else 0.0
    return layer


def inputs(n=4, n_steps=60, n_inputs=3, seed=1):
    return torch.randn(n, n_steps, n_inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def torch_step(layer, kind):
    """Return ``step(s, x)`` on batches, made of torch's own one-step layers; the state is layer by layer."""
    H, cells = layer.hidden_size, []
    for i in range(layer.num_layers):
        options = {"nonlinearity": "relu"} if kind == "relu" else {}
        cell = ONE_STEP[kind](layer.input_size if i == 0 else H, H, **options).double()
        cell.load_state_dict({k: getattr(layer, f"{k}_l{i}").detach() for k in cell.state_dict()})
        cells.append(cell.requires_grad_(False))

    def step(s, x):
        new = []
        for cell, part in zip(cells, s.chunk(len(cells), -1), strict=True):
            new += cell(x, (part[:, :H], part[:, H:])) if kind == "lstm" else (cell(x, part),)
            x = new[-2] if kind == "lstm" else new[-1]
        return torch.cat(new, -1)

    return step


def dense_jacobians(step, s, X):
    """Return reverse-mode Jacobians (T, n, N, N) along the trajectories from s (n, N) driven by X (n, T, n_inputs)."""
    jacobians = []
    for x in X.unbind(1):
        # Sequences are independent: the derivative of the sum over them holds the Jacobian of each.
        jacobians.append(jacobian(lambda s, x=x: step(s, x).sum(0), s).transpose(0, 1))
        s = step(s, x)
    return torch.stack(jacobians)


def plain_spectrum(jacobians, Q, warmup):
    """The textbook: J Q, QR, logarithms of the diagonal."""
    sums = 0.0
    for t, J in enumerate(jacobians):
        Q, R = torch.linalg.qr(J @ Q)
        if t >= warmup:
            sums = sums + R.diagonal(dim1=-2, dim2=-1).abs().log()
    return (sums / (len(jacobians) - warmup)).numpy()


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return lyapunov_spectrum(*args, **kwargs)
