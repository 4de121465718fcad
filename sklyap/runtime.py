"""What a process shares: threads, random state, and how denormal numbers are treated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["flushed_denormals", "isolated_rng", "one_thread", "seed_generators"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Pin torch to one thread: the same bits whatever `n_jobs`, and no oversubscription."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero, which contracting networks fill their basis with and CPUs are slow on."""
    tiny = torch.tensor([torch.finfo(torch.float64).tiny], dtype=torch.float64)
    before = bool((tiny / 4 == 0).item())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def isolated_rng(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from generators seeded with `seed`; torch's global ones come out as they went in."""
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        seed_generators(device, seed)
        yield


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed torch's global generator, and the device's."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)
