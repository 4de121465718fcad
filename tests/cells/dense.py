"""An oracle: dense Jacobians by reverse mode of the real network, step by step, and those of the cell made of it."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from sklyap.cells.conversion import opened
from sklyap.cells.drive import Drive


def dense_jacobians(net, given, layer, **arguments):
    """Return Jacobians (n_sequences, T, N, N) of the layer in a real forward of `net`, in evaluation mode.

    In a loop each is the derivative of the state that the network gets from a call with respect to the state that it
    hands over; a layer called once is stepped through what it got.
    """
    calls = []
    before = layer.register_forward_pre_hook(lambda m, args, kwargs: calls.append([args, kwargs]), with_kwargs=True)
    after = layer.register_forward_hook(lambda m, args, output: calls[-1].extend([output, _plain(m)]))
    net.eval()
    net(given, **arguments)
    before.remove()
    after.remove()
    if isinstance(layer, nn.RNNCellBase):
        return torch.stack([_of_call(*call[:3]) for call in calls], 1)
    args, kwargs, _, plain = calls[0]
    assert len(calls) == 1
    return _stepped(plain, args, kwargs)


def _plain(layer):
    """Return a layer of torch with the weights that `layer` has at this moment."""
    if isinstance(layer, nn.RNNCellBase):
        return None
    kind = next(kind for kind in (nn.RNN, nn.GRU, nn.LSTM) if isinstance(layer, kind))
    plain = kind(layer.input_size, layer.hidden_size, layer.num_layers, batch_first=layer.batch_first).double()
    with torch.no_grad():
        for name, weight in zip(layer._flat_weights_names, layer._flat_weights, strict=True):
            getattr(plain, name).copy_(weight)
    return plain


def _of_call(args, kwargs, output):
    state = args[1] if len(args) > 1 else kwargs.get("hx")
    parts = list(state) if isinstance(state, tuple) else [state]
    outputs = list(output) if isinstance(output, tuple) else [output]
    rows = []
    for out in outputs:
        for i in range(out.shape[1]):
            grads = torch.autograd.grad(out[:, i].sum(), parts, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([torch.zeros_like(p) if g is None else g for g, p in zip(grads, parts)], 1))  # noqa: B905
    return torch.stack(rows, 1)


def _stepped(layer, args, kwargs):
    x, hx = args[0], args[1] if len(args) > 1 else kwargs.get("hx")
    if isinstance(x, PackedSequence):
        x = pad_packed_sequence(x, batch_first=layer.batch_first)[0]
    x = (x if layer.batch_first else x.transpose(0, 1)).detach()
    n_parts = 2 if isinstance(layer, nn.LSTM) else 1
    shape = (layer.num_layers, len(x), layer.hidden_size)
    state = [torch.zeros(shape, dtype=x.dtype) for _ in range(n_parts)]
    if hx is not None:
        state = [part.detach() for part in (hx if isinstance(hx, tuple) else (hx,))]
    jacobians = []
    for t in range(x.shape[1]):
        state = [part.detach().requires_grad_() for part in state]
        x_t = x[:, t : t + 1] if layer.batch_first else x[:, t : t + 1].transpose(0, 1)
        end = layer(x_t, tuple(state) if n_parts > 1 else state[0])[1]
        end = list(end) if isinstance(end, tuple) else [end]
        rows = []
        for index in range(layer.num_layers):
            for out in end:
                for i in range(layer.hidden_size):
                    grads = torch.autograd.grad(out[index, :, i].sum(), state, retain_graph=True)
                    rows.append(torch.stack(grads, 2).permute(1, 0, 2, 3).flatten(1))  # layers, parts, units
        jacobians.append(torch.stack(rows, 1))
        state = end
    return torch.stack(jacobians, 1)


def found_jacobians(net, sequences, **options):
    """Return the Jacobians (n_sequences, T, N, N) along the trajectory that sklyap finds for a network."""
    cell = opened(net)
    drive = Drive.of(cell, sequences, **options)
    x, s, _ = drive.padded(cell, list(range(drive.n_sequences)))
    with torch.no_grad():
        states = cell.trajectory(s, x.to(s))[:-1]
        return cell.jacobian(states, x.to(s).transpose(0, 1)).transpose(0, 1)
