"""Dynamical systems whose Lyapunov spectra are known, as cells, to check a method or a setting against."""

from __future__ import annotations

from sklyap.datasets.systems.attractors import henon, ikeda, lorenz, rossler
from sklyap.datasets.systems.closed_form import (
    constant_gate_lstm,
    gaussian_product,
    linear_map,
    orthogonal_map,
    periodic_product,
    zero_gru,
)
from sklyap.datasets.systems.known_system import KnownSystem
from sklyap.datasets.systems.random_networks import rate_network, tanh_map

__all__ = [
    "KnownSystem",
    "constant_gate_lstm",
    "gaussian_product",
    "henon",
    "ikeda",
    "known_systems",
    "linear_map",
    "lorenz",
    "orthogonal_map",
    "periodic_product",
    "rate_network",
    "rossler",
    "tanh_map",
    "zero_gru",
]


def known_systems() -> list[KnownSystem]:
    """Return every system of this package with its default parameters, Lorenz with both sets.

    Examples
    --------
    >>> from sklyap.datasets import known_systems
    >>> len(known_systems()) > 8
    True
    """
    return [
        linear_map(),
        orthogonal_map(),
        orthogonal_map(scale=0.7),
        periodic_product(),
        gaussian_product(),
        zero_gru(),
        constant_gate_lstm(),
        henon(),
        ikeda(),
        lorenz("sprott"),
        lorenz("wolf"),
        rossler(),
        tanh_map(),
        rate_network(),
    ]
