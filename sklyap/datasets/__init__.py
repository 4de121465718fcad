"""Sequences and tasks to drive and train recurrent networks with."""

from __future__ import annotations

from sklyap.datasets.chaotic import make_chaotic_series
from sklyap.datasets.motion import load_motion
from sklyap.datasets.sequences import fetch_sequential_mnist, load_sequential_digits
from sklyap.datasets.sines import make_sine_targets
from sklyap.datasets.systems import KnownSystem, known_systems
from sklyap.datasets.tasks import make_adding, make_copy, make_delayed_copy, make_delayed_xor, make_recall
from sklyap.datasets.text import decode, encode, fetch_war_and_peace, load_text

__all__ = [
    "KnownSystem",
    "decode",
    "encode",
    "fetch_sequential_mnist",
    "fetch_war_and_peace",
    "known_systems",
    "load_motion",
    "load_sequential_digits",
    "load_text",
    "make_adding",
    "make_chaotic_series",
    "make_copy",
    "make_delayed_copy",
    "make_delayed_xor",
    "make_recall",
    "make_sine_targets",
]
