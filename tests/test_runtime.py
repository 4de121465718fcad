"""Turns at what a process shares: lent and taken back, and the number of threads."""

from __future__ import annotations

import threading

import torch

from sklyap.runtime import isolated_rng, lent_turn, one_thread

CPU = torch.device("cpu")


def test_a_turn_that_is_lent_comes_back():
    order = []

    def other():
        with isolated_rng(CPU, 1):
            order.append(torch.rand(1).item())

    with isolated_rng(CPU, 0):
        first = torch.rand(1).item()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=0.2)
        assert thread.is_alive() and not order, "it must wait for its turn"
        with lent_turn():
            thread.join(timeout=30)
        second = torch.rand(1).item()
    with isolated_rng(CPU, 0):
        assert [first, second] == [torch.rand(1).item(), torch.rand(1).item()]
    with isolated_rng(CPU, 1):
        assert order == [torch.rand(1).item()]


def test_number_of_threads_comes_back_to_threads_that_overlap():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        began, go_on, seen = threading.Event(), threading.Event(), []

        def first():
            with one_thread():
                began.set()
                go_on.wait(30)
            seen.append(torch.get_num_threads())

        def second():  # begins to use torch while the first has it pinned, and ends after it
            began.wait(30)
            with one_thread():
                go_on.set()
                threads[0].join(30)
                seen.append(torch.get_num_threads())
            seen.append(torch.get_num_threads())

        threads = [threading.Thread(target=f) for f in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join(30)
        assert seen == [3, 1, 3] and later == [3] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
