"""Populations on a dask cluster of two worker processes, also when workers are killed."""

from __future__ import annotations

import os
import signal

import joblib
import numpy as np
import pytest
import torch
from tqdm import tqdm

from sklyap.datasets import load_sequential_digits
from sklyap.networks import RNNClassifier
from sklyap.population import NetworkPopulation, train_population

distributed = pytest.importorskip("distributed")

X, y = load_sequential_digits(n_class=3, return_X_y=True)
GRID = {"hidden_size": [6, 8], "lr": [1e-3, 1e-2]}


def train(directory=None):
    base = RNNClassifier("gru", max_epochs=10, batch_size=32, device="cpu")
    return train_population(base, GRID, X, y, n_networks=8, directory=directory, random_state=0, verbose=0)


def assert_same(one, other):
    assert [r.params for r in one.records] == [r.params for r in other.records]
    np.testing.assert_array_equal(one.losses(), other.losses())
    for a, b in zip(one.networks(), other.networks(), strict=True):
        weights, others = a.export_state()[0], b.export_state()[0]
        assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.fixture(scope="module")
def expected():
    return train()


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
        joblib.parallel_config(backend="dask"),
    ):
        yield client


def kill_after(monkeypatch, n_finished, processes):
    """Kill processes when so many networks are finished, and return the list of those that were killed."""
    killed = []

    class KillingBar(tqdm):
        def update(self, n=1):
            self.n_finished = getattr(self, "n_finished", 0) + 1
            if self.n_finished == n_finished:
                for process in processes:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    monkeypatch.setattr("sklyap.population.training.tqdm", KillingBar)
    return killed


def test_cluster_gives_the_same_population(client, expected, tmp_path):
    population = train(tmp_path / "population")
    assert_same(population, expected)
    assert_same(NetworkPopulation.load(tmp_path / "population"), expected)
    processes = set(client.run(os.getpid).values())
    assert len(processes) == 2 and os.getpid() not in processes


def test_every_network_is_there_after_a_worker_was_killed(client, expected, tmp_path, monkeypatch):
    client.wait_for_workers(2, timeout=60)
    killed = kill_after(monkeypatch, 2, list(client.run(os.getpid).values())[:1])
    population = train(tmp_path / "population")
    assert len(killed) == 1 and not population.failures
    assert_same(population, expected)


@pytest.mark.slow
def test_every_network_is_there_after_all_workers_were_killed(client, expected, monkeypatch):
    """No worker is left that holds the data, and no network is on the disk."""
    client.wait_for_workers(2, timeout=60)
    killed = kill_after(monkeypatch, 2, list(client.run(os.getpid).values()))
    population = train()
    assert len(killed) == 2 and not population.failures
    assert_same(population, expected)
