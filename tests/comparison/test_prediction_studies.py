"""The studies of loss prediction run, at a size that says nothing, and their representations are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import prediction_populations, prediction_studies


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("populations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction_populations, "EPOCHS", {"recall": 3})
        prediction_populations.architectures("recall", path, n=22)
        prediction_populations.seeds("recall", path, n=12)
    return path


@pytest.mark.slow
def test_every_study_writes_its_table(directory, tmp_path):
    arguments = ["architectures", "seeds", "budget", "--directory", str(directory), "--tasks", "recall"]
    prediction_studies.main([*arguments, "--output", str(tmp_path), "--small"])
    wanted = {"architectures": "R², 10 given", "seeds": "epoch 3, ρ", "budget": "4 leading exponents"}
    for study, part in wanted.items():
        text = (tmp_path / f"prediction_{study}_table.md").read_text()
        assert part in text and "nan" not in text


def test_representations_know_the_length_of_the_task():
    spectra = np.array([[0.0, -0.1, -1.0, -5.0], [-3.0, -3.0, -3.0, -3.0]])
    made = prediction_studies.representations(spectra, n_steps=30)
    assert all(len(values) == 2 and np.isfinite(values).all() for values in made.values())
    # After 30 steps exp(0), exp(-3), exp(-30) and exp(-150) are left: two of four directions keep more than 1 %.
    assert made["memory"][0, 2] == 0.5 and made["memory"][1, 2] == 0
    twice = prediction_studies.representations(spectra / 2, n_steps=60)
    np.testing.assert_allclose(made["memory"][:, :5], twice["memory"][:, :5])
    np.testing.assert_allclose(made["time scales of the task"], twice["time scales of the task"])


def test_ranks_inside_families_forget_where_a_family_lies():
    rng = np.random.default_rng(0)
    features, families = rng.normal(size=(20, 3)), np.repeat(["a", "b"], 10)
    moved = features + (families == "b")[:, None] * 7.0
    np.testing.assert_array_equal(
        prediction_studies.within_families(features, families), prediction_studies.within_families(moved, families)
    )
