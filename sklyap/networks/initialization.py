"""Initial weights of recurrent layers: random laws, and a scale at the edge between order and chaos.

Layers are ``nn.RNN``, ``nn.GRU``, ``nn.LSTM``, or cells that lay out their parameters as these do: `weight_ih*`
and `weight_hh*` with one block of `hidden_size` rows per gate, and `bias*`. All functions change layers in place
and draw from torch's global generator.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from sklyap.cells import GRUCell, LSTMCell, RecurrentCell
from sklyap.exceptions import DivergedError
from sklyap.lyapunov import lyapunov_spectrum
from sklyap.runtime import unwarned
from sklyap.validation import check_choice, check_real

__all__ = ["INITIALIZERS", "chrono_", "critical_", "initialize_", "normal_", "orthogonal_", "uniform_", "xavier_"]

_LARGEST_FACTOR = 2.0**10  # beyond it every gate is saturated
_TOLERANCE = 1e-3  # nats per step, and of the logarithm of the factor
_LARGEST_EXPONENT = 100.0  # nats per step: what a root finder is told of annihilated directions and of divergence


@torch.no_grad()
def uniform_(layers: nn.Module, scale: float | None = None) -> None:
    """Draw every parameter, biases included, from U(-scale, scale).

    Parameters
    ----------
    layers : torch.nn.Module
    scale : float, optional
        Half the width of the interval; torch's own ``1/sqrt(hidden_size)`` when None.
    """
    for _, parameter, hidden_size in _named_parameters(layers):
        bound = hidden_size**-0.5 if scale is None else scale
        nn.init.uniform_(parameter, -bound, bound)


@torch.no_grad()
def normal_(layers: nn.Module, scale: float | None = None) -> None:
    """Draw weight matrices from N(0, scale²/fan_in) and set biases to zero.

    Parameters
    ----------
    layers : torch.nn.Module
    scale : float, optional
        The gain, g of random rate networks; 1 when None.
    """
    gain = 1.0 if scale is None else scale
    for block in _blocks(layers, "weight"):
        nn.init.normal_(block, std=gain * block.shape[1] ** -0.5)
    _zero_biases(layers)


@torch.no_grad()
def orthogonal_(layers: nn.Module, scale: float | None = None) -> None:
    """Make each gate's recurrent matrix orthogonal times scale, its input matrix semi-orthogonal, biases zero.

    Parameters
    ----------
    layers : torch.nn.Module
    scale : float, optional
        The singular values of the recurrent matrices; 1 when None.

    References
    ----------
    Saxe, A. M., McClelland, J. L. and Ganguli, S. (2014). Exact solutions to the nonlinear dynamics of learning
    in deep linear neural networks. ICLR.
    """
    for block in _blocks(layers, "weight_ih"):
        nn.init.orthogonal_(block)
    for block in _blocks(layers, "weight_hh"):
        nn.init.orthogonal_(block, gain=1.0 if scale is None else scale)
    _zero_biases(layers)


@torch.no_grad()
def xavier_(layers: nn.Module, scale: float | None = None) -> None:
    """Draw each gate's matrices from U(-a, a), a = scale·sqrt(6/(fan_in + fan_out)), and set biases to zero.

    Parameters
    ----------
    layers : torch.nn.Module
    scale : float, optional
        The gain; 1 when None.

    References
    ----------
    Glorot, X. and Bengio, Y. (2010). Understanding the difficulty of training deep feedforward neural networks.
    AISTATS.
    """
    for block in _blocks(layers, "weight"):
        nn.init.xavier_uniform_(block, gain=1.0 if scale is None else scale)
    _zero_biases(layers)


@torch.no_grad()
def critical_(layers: nn.Module, drive: Tensor | None = None, *, n_steps: int = 150) -> float:
    """Multiply the recurrent weights by the factor that brings the largest Lyapunov exponent closest to zero.

    The factor is the sign change of the exponent that lies nearest to 1: doubling or halving brackets it, and Brent's
    method finds it on a logarithmic scale. An exponent that never changes sign (an architecture that is stable by
    construction, say) is left at the factor where it was nearest to zero.

    Parameters
    ----------
    layers : torch.nn.Module
        With weights from any law.
    drive : Tensor of shape (n_sequences, n_steps, n_inputs), optional
        Input of the recurrent layers, repeated or cut to `n_steps`; standard normal when None.
    n_steps : int, default=150
        Steps per evaluation of the exponent; the first third is transient and not averaged.

    Returns
    -------
    float
        The largest exponent reached, in nats per step.

    Raises
    ------
    ValueError
        If the layers have no parameter called `weight_hh*`.

    References
    ----------
    Engelken, R., Wolf, F. and Abbott, L. F. (2023). Lyapunov spectra of chaotic recurrent neural networks. Physical
    Review Research 5, 043044.
    """
    twin = copy.deepcopy(layers).double().eval()
    originals = [(p, p.clone()) for p in _recurrent_weights(twin)]
    drive = _repeated(twin, drive, n_steps)

    def exponent(log_factor: float) -> float:
        for parameter, original in originals:
            parameter.copy_(original * math.exp(log_factor))
        return _largest_exponent(twin, drive)

    log_factor, value = _nearest_root(exponent, limit=math.log(_LARGEST_FACTOR), step=math.log(2.0))
    for parameter in _recurrent_weights(layers):
        parameter.mul_(math.exp(log_factor))
    return value


@torch.no_grad()
def chrono_(layers: nn.Module, longest: float) -> None:
    """Set the biases of LSTM and GRU gates so that units forget over times from 1 to `longest` steps.

    The bias of the forget gate of an LSTM is ln u with u from U(1, longest - 1), that of its input gate -ln u; the bias
    of the update gate of a GRU, which keeps what is there in torch's variant, is ln u. All other biases are zero, and
    weights stay as they are.

    Parameters
    ----------
    layers : torch.nn.Module
    longest : float
        T, the longest dependency that is expected, in steps; more than 2.

    Raises
    ------
    ValueError
        If a layer is neither an LSTM nor a GRU, has no biases, or `longest` is too small.

    References
    ----------
    Tallec, C. and Ollivier, Y. (2018). Can recurrent neural networks warp time? ICLR (section 2).
    """
    check_real(longest, "init_scale", low=2.0)
    if longest == 2.0:
        raise ValueError("The 'init_scale' parameter must be more than 2 steps with init='chrono'. Got 2.0.")
    for layer in _gated_layers(layers):
        lstm = isinstance(layer, nn.LSTM | nn.LSTMCell | LSTMCell)
        for name, bias in layer.named_parameters(recurse=False):
            if not name.startswith("bias"):
                continue
            bias.zero_()
            if name.startswith("bias_ih"):
                gates = bias.view(4 if lstm else 3, -1)
                nn.init.uniform_(gates[1], 1.0, longest - 1.0).log_()
                if lstm:
                    gates[0].copy_(-gates[1])


def _gated_layers(layers: nn.Module) -> list[nn.Module]:
    """Return the LSTM and GRU layers, all with biases; or raise."""
    owners = [m for m in layers.modules() if _owns(m, "weight_hh")]
    gated = (nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, LSTMCell, GRUCell)
    wrong = next((m for m in owners if not isinstance(m, gated)), None if owners else layers)
    if wrong is not None:
        raise ValueError(
            "The 'init' parameter can be 'chrono' for LSTM and GRU layers only, whose gates it sets. "
            f"Got a {type(wrong).__name__}."
        )
    for layer in owners:
        if not _owns(layer, "bias_ih"):
            raise ValueError(
                "The 'init' parameter can be 'chrono' for layers with biases only. "
                f"Got a {type(layer).__name__} without."
            )
    return owners


def _owns(layer: nn.Module, prefix: str) -> bool:
    return any(name.startswith(prefix) for name, _ in layer.named_parameters(recurse=False))


INITIALIZERS = ("default", "uniform", "normal", "orthogonal", "xavier", "critical", "chrono")
"""What `init` of :func:`initialize_` and of the estimators takes."""


def initialize_(
    layers: nn.Module, init: str = "default", scale: float | None = None, *, drive: Tensor | None = None
) -> None:
    """Initialize recurrent layers in place.

    Parameters
    ----------
    layers : torch.nn.Module
    init : {"default", "uniform", "normal", "orthogonal", "xavier", "critical", "chrono"}
        "default" leaves them as their constructor did.
    scale : float, optional
        See the function of that name; the longest dependency of "chrono", by default the steps of `drive`. "default"
        and "critical" have none and ignore it.
    drive : Tensor of shape (n_sequences, n_steps, n_inputs), optional
        What "critical" drives the layers with.

    Examples
    --------
    >>> import torch
    >>> from sklyap.networks.initialization import initialize_
    >>> layer = torch.nn.GRU(3, 8)
    >>> initialize_(layer, "uniform", 0.1)
    >>> bool(layer.weight_hh_l0.abs().max() <= 0.1)
    True
    """
    check_choice(init, "init", INITIALIZERS)
    if scale is not None:
        scale = check_real(scale, "init_scale", low=0.0)
    if init == "critical":
        critical_(layers, drive)
    elif init == "chrono":
        chrono_(layers, _longest(scale, drive))
    elif init != "default":
        _LAWS[init](layers, scale)


def _longest(scale: float | None, drive: Tensor | None) -> float:
    if scale is None and drive is None:
        raise ValueError("The 'init_scale' parameter must be the longest dependency, in steps, with init='chrono'.")
    return float(max(3, drive.shape[1])) if scale is None and drive is not None else float(scale or 0.0)


_LAWS: dict[str, Callable[[nn.Module, float | None], None]] = {
    "uniform": uniform_,
    "normal": normal_,
    "orthogonal": orthogonal_,
    "xavier": xavier_,
}


def _named_parameters(layers: nn.Module) -> Iterator[tuple[str, Tensor, int]]:
    """Yield each parameter with its own name and the hidden size of the layer that owns it."""
    for module in layers.modules():
        for name, parameter in module.named_parameters(recurse=False):
            rows = parameter.shape[0] if parameter.ndim else 1
            yield name, parameter, getattr(module, "hidden_size", rows)


def _named(layers: nn.Module, prefix: str) -> list[tuple[Tensor, int]]:
    found = [(parameter, size) for name, parameter, size in _named_parameters(layers) if name.startswith(prefix)]
    if not found:
        names = ", ".join(name for name, _ in layers.named_parameters())
        raise ValueError(
            f"The 'init' parameter needs recurrent layers with parameters called '{prefix}*'. "
            f"Got a {type(layers).__name__} with {names or 'none'}; use init='default' or 'uniform'."
        )
    return found


def _blocks(layers: nn.Module, prefix: str) -> list[Tensor]:
    """Return each gate's matrix (hidden_size, fan_in) of the parameters whose name begins with `prefix`."""
    matrices = [(parameter, size) for parameter, size in _named(layers, prefix) if parameter.ndim == 2]
    return [block for matrix, size in matrices for block in matrix.split(size)]


def _zero_biases(layers: nn.Module) -> None:
    for name, parameter, _ in _named_parameters(layers):
        if name.startswith("bias"):
            parameter.zero_()


def _recurrent_weights(layers: nn.Module) -> list[Tensor]:
    return [parameter for parameter, _ in _named(layers, "weight_hh")]


def _repeated(layers: nn.Module, drive: Tensor | None, n_steps: int) -> Tensor:
    like = next(layers.parameters())
    if drive is None:
        width: Any = layers.n_inputs if isinstance(layers, RecurrentCell) else layers.input_size
        return torch.randn(8, n_steps, width, dtype=like.dtype, device=like.device)
    return drive.to(like)[:, torch.arange(n_steps, device=like.device) % drive.shape[1]]


def _largest_exponent(layers: nn.Module, drive: Tensor) -> float:
    """Return the largest Lyapunov exponent in nats per step, within ±`_LARGEST_EXPONENT`."""
    try:
        with unwarned():  # a sign that cannot be told is what is looked for
            result = lyapunov_spectrum(
                layers, drive, n_exponents=1, warmup=drive.shape[1] // 3, device=drive.device, random_state=0
            )
    except DivergedError:
        return _LARGEST_EXPONENT
    return float(np.clip(result.exponents[0], -_LARGEST_EXPONENT, _LARGEST_EXPONENT))


def _nearest_root(function: Callable[[float], float], *, limit: float, step: float) -> tuple[float, float]:
    """Return ``(x, function(x))`` at the sign change nearest to 0, or where the function was nearest to zero."""
    seen: dict[float, float] = {}

    def evaluated(x: float) -> float:
        """Return the function, or zero where it is as good as that, which ends the search."""
        if x not in seen:
            seen[x] = function(x)
        return seen[x] if abs(seen[x]) > _TOLERANCE else 0.0

    x, value = 0.0, evaluated(0.0)
    direction = math.copysign(step, -value)
    while value and abs(x) < limit:
        previous, x = x, x + direction
        if value * evaluated(x) <= 0:
            brentq(evaluated, previous, x, xtol=_TOLERANCE, maxiter=20, disp=False)
            break
    return min(seen.items(), key=lambda pair: abs(pair[1]))
