"""What users had before: the way of the thesis' public code, and the textbook way.

Both are written here from their operations, to be measured beside sklyap in one run.
"""

import torch
from torch import Tensor

__all__ = ["diagonal_products", "textbook"]


def diagonal_products(lstm: torch.nn.LSTM, x: Tensor) -> Tensor:
    """h-only spectrum of an LSTM as the thesis' public code computes it, in nats per step.

    Gates become diagonal matrices of all 4H rows, the Jacobian a chain of dense products with them, and
    `torch.linalg.qr` runs at every step. (J is applied, not its transpose; the cost is the same.)
    """
    n, H = len(x), lstm.hidden_size
    W, U, bias = lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0
    i, f, g, o = (slice(j * H, (j + 1) * H) for j in range(4))
    h, c = x.new_zeros(n, H), x.new_zeros(n, H)
    Q = torch.linalg.qr(torch.randn(n, H, H, dtype=x.dtype))[0]
    total = x.new_zeros(n, H)
    for t in range(x.shape[1]):
        y = x[:, t] @ W.T + h @ U.T + bias
        sig = torch.sigmoid(y)
        c_next = sig[:, f] * c + sig[:, i] * torch.tanh(y[:, g])
        slope = lambda: torch.diag_embed(sig * (1 - sig))  # noqa: B023, E731  rebuilt for every use, as there
        squash, gate = lambda: torch.diag_embed(torch.tanh(y)), lambda: torch.diag_embed(sig)  # noqa: B023
        sech = lambda z: torch.diag_embed(1 / torch.cosh(z))  # noqa: E731
        by_f = (slope()[:, f, f] @ torch.diag_embed(c)) @ U[f]
        by_i = (slope()[:, i, i] * squash()[:, g, g]) @ U[i]
        by_g = (gate()[:, i, i] * (sech(y) ** 2)[:, g, g]) @ U[g]
        by_o = (slope()[:, o, o] * torch.diag_embed(torch.tanh(c_next))) @ U[o]
        J = (gate()[:, o, o] @ sech(c_next) ** 2) @ (by_f + by_i + by_g) + by_o
        q, r = torch.linalg.qr(J @ Q)
        sign = torch.diag_embed(r.diagonal(dim1=1, dim2=2).sign())
        Q = q @ sign
        total += (sign @ r).diagonal(dim1=1, dim2=2).log()
        h, c = sig[:, o] * torch.tanh(c_next), c_next
    return (total / x.shape[1]).mean(0)


def textbook(lstm: torch.nn.LSTM, x: Tensor) -> Tensor:
    """Full-state spectrum as a user would write it: `vmap(jacrev(step))` and `torch.linalg.qr` at every step."""
    n, H = len(x), lstm.hidden_size

    def step(s: Tensor, x_t: Tensor) -> Tensor:
        h, c = s[:H], s[H:]
        y = lstm.weight_ih_l0 @ x_t + lstm.weight_hh_l0 @ h + lstm.bias_ih_l0 + lstm.bias_hh_l0
        i, f, g, o = y.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c), c])

    jacobian = torch.func.vmap(torch.func.jacrev(step))
    advance = torch.func.vmap(step)
    s = x.new_zeros(n, 2 * H)
    Q = torch.linalg.qr(torch.randn(n, 2 * H, 2 * H, dtype=x.dtype))[0]
    total = x.new_zeros(n, 2 * H)
    for x_t in x.unbind(1):
        Q, R = torch.linalg.qr(jacobian(s, x_t) @ Q)
        total += R.diagonal(dim1=1, dim2=2).abs().log()
        s = advance(s, x_t)
    return (total / x.shape[1]).mean(0)
