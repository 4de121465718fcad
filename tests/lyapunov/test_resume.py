"""Going on where a result ended gives what one run gives, and refuses what is no continuation."""

import pickle

import numpy as np
import pytest
import torch

from sklyap import LyapunovSpectrumTransformer, lyapunov_spectrum
from sklyap.cells import FunctionCell
from sklyap.datasets import systems
from tests.lyapunov.helpers import inputs, network, quiet


def check_same(resumed, whole, atol=1e-12):
    assert resumed.n_steps == whole.n_steps and resumed.warmup == whole.warmup
    np.testing.assert_allclose(resumed.per_sequence, whole.per_sequence, rtol=0, atol=atol)
    np.testing.assert_allclose(resumed.exponents, whole.exponents, rtol=0, atol=atol)


def test_a_chaotic_system_bit_by_bit_on_the_same_orbit():
    cell = systems.henon().cell
    whole = lyapunov_spectrum(cell, 6000, warmup=500)
    result = lyapunov_spectrum(cell, 2000, warmup=500)
    for steps in (1000, 2999, 1):
        result = lyapunov_spectrum(cell, steps, resume=result)
    check_same(result, whole, atol=1e-10)
    # Bins of time differ, so that the estimates of one standard error do.
    assert 0.4 < result.standard_error[0] / whole.standard_error[0] < 2.5


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_driven_network(kind, batch_size):
    layer, X = network(kind), inputs(5, 90)
    whole = quiet(layer, X, warmup=10, batch_size=batch_size)
    first = quiet(layer, X[:, :40], warmup=10, batch_size=batch_size)
    before = first.per_sequence.copy()
    check_same(quiet(layer, X[:, 40:], resume=first, batch_size=batch_size), whole, atol=1e-9)
    np.testing.assert_array_equal(first.per_sequence, before)


def test_sequences_of_unequal_length():
    layer, X = network("gru"), inputs(4, 80)
    lengths, more = [30, 12, 30, 21], [20, 50, 1, 9]
    first = quiet(layer, [x[:n] for x, n in zip(X, lengths, strict=True)], warmup=4)
    rest = [x[n : n + m] for x, n, m in zip(X, lengths, more, strict=True)]
    whole = quiet(layer, [x[: n + m] for x, n, m in zip(X, lengths, more, strict=True)], warmup=4)
    resumed = quiet(layer, rest, resume=first)
    np.testing.assert_allclose(resumed.per_sequence, whole.per_sequence, rtol=0, atol=1e-9)
    assert resumed.n_steps == whole.n_steps


def test_local_exponents_and_factors_go_on():
    layer, X = network("rnn"), inputs(3, 60)
    options = {"return_local": True, "return_basis": True}
    whole, first = quiet(layer, X, warmup=5, **options), quiet(layer, X[:, :25], warmup=5, **options)
    resumed = quiet(layer, X[:, 25:], resume=first, **options)
    check_same(resumed, whole)
    for name in ("local", "basis", "r_factors", "block_steps"):
        np.testing.assert_allclose(getattr(resumed, name), getattr(whole, name), rtol=0, atol=1e-11)


def test_a_run_that_went_over_to_float64_goes_on_in_float64():
    layer, X = network("lstm", hidden=24), inputs(3, 60)
    whole = quiet(layer, X, warmup=10, dtype="float32")
    first = quiet(layer, X[:, :30], warmup=10, dtype="float32")
    assert first.end.Q.dtype == np.float64
    check_same(quiet(layer, X[:, 30:], resume=first, dtype="float32"), whole, atol=1e-6)


def test_fewer_exponents_and_results_in_other_units_and_from_a_file():
    layer, X = network("gru"), inputs(3, 60)
    whole = quiet(layer, X, warmup=10, n_exponents=2)
    first = quiet(layer, X[:, :30], warmup=10, n_exponents=2)
    for result in (first, first.to("bits"), first.per_time(0.1), pickle.loads(pickle.dumps(first))):
        check_same(quiet(layer, X[:, 30:], resume=result), whole, atol=1e-9)


def test_a_further_warm_up_is_skipped():
    layer, X = network("gru"), inputs(3, 60)
    first = quiet(layer, X[:, :30], warmup=10)
    resumed = quiet(layer, X[:, 30:], resume=first, warmup=7)
    assert (resumed.warmup, resumed.n_steps) == (17, 43)


def test_what_is_no_continuation_is_refused():
    layer, X = network("gru"), inputs(3, 60)
    first = quiet(layer, X[:, :30])
    with pytest.raises(ValueError, match=r"next steps of the 3 sequence\(s\) .* Got 2 sequence\(s\)"):
        lyapunov_spectrum(layer, X[:2, 30:], resume=first)
    with pytest.raises(ValueError, match=r"result of the same network\. Got one of another"):
        lyapunov_spectrum(network("gru", seed=1), X[:, 30:], resume=first)
    with pytest.raises(ValueError, match="Got one with 6 exponents of 6 dimensions instead; 2 of 6"):
        lyapunov_spectrum(layer, X[:, 30:], resume=first, n_exponents=2)
    with pytest.raises(ValueError, match="6 exponents of 6 dimensions instead; 6 of 7"):
        lyapunov_spectrum(network("gru", hidden=7), X[:, 30:], resume=first)
    with pytest.raises(ValueError, match="without what they keep"):
        lyapunov_spectrum(layer, X[:, 30:], resume=first, return_local=True)
    with pytest.raises(TypeError, match=r"'resume' parameter must be a LyapunovResult or None\. Got dict instead"):
        lyapunov_spectrum(layer, X, resume={})


def test_a_changed_step_function_is_another_network():
    def cell(rate):
        return FunctionCell(lambda s, x: rate * s * (1 - s), 1, initial_state=[0.3])

    first = lyapunov_spectrum(cell(3.9), 500)
    with pytest.raises(ValueError, match="takes another step than that one did"):
        lyapunov_spectrum(cell(3.8), 500, resume=first)


@pytest.mark.parametrize("name", ["weight_hh_l0", "weight_ih_l0", "bias_ih_l0"])
def test_a_network_that_was_trained_on_is_another(name):
    layer, X = network("gru"), inputs(3, 60)
    first = quiet(layer, X[:, :30])
    with torch.no_grad():
        getattr(layer, name)[0] += 1e-9
    with pytest.raises(ValueError, match=r"result of the same network\. Got one of another: its weights differ"):
        lyapunov_spectrum(layer, X[:, 30:], resume=first)


def test_another_encoder_is_another_network():
    net, X = torch.nn.Sequential(torch.nn.Linear(3, 3), network("gru")).double(), inputs(3, 60)
    first = quiet(net, X[:, :30])
    quiet(net, X[:, 30:], resume=first)
    with torch.no_grad():
        net[0].weight[0, 0] += 1e-6
    with pytest.raises(ValueError, match="its weights differ"):
        lyapunov_spectrum(net, X[:, 30:], resume=first)


def test_a_constant_of_a_step_that_moved_a_little():
    def cell(rate):
        return FunctionCell(lambda s, x: rate * s * (1 - s), 1, initial_state=[0.3])

    first = lyapunov_spectrum(cell(3.9), 500)
    with pytest.raises(ValueError, match="takes another step than that one did"):
        lyapunov_spectrum(cell(3.9 + 1e-6), 500, resume=first)


def test_steps_that_were_seen_are_refused():
    layer, X = network("gru"), inputs(3, 90)
    first = quiet(layer, X[:, :30])
    second = quiet(layer, X[:, 30:60], resume=first)
    for result, again, i in ((first, X[:, :30], 0), (first, X, 0), (second, X[:, 30:60], 0), (second, X[:, :60], 0)):
        with pytest.raises(ValueError, match=f"number {i}, steps that it has seen"):
            lyapunov_spectrum(layer, again, resume=result)
    quiet(layer, X[:, 60:], resume=second)
    constant = torch.ones(3, 30, 3, dtype=torch.float64)
    quiet(layer, constant, resume=quiet(layer, constant))


def test_results_without_an_end_say_so():
    layer, X = network("gru"), inputs(3, 60)
    light = quiet(layer, X, resumable=False)
    assert light.end is None
    transformer = LyapunovSpectrumTransformer(X).fit([layer])
    transformer.transform([layer])
    for result in (light, transformer.results_[0]):
        with pytest.raises(ValueError, match="knows where its run ended"):
            lyapunov_spectrum(layer, X, resume=result)


def test_the_end_is_that_of_each_sequence():
    layer, lengths = network("gru"), [9, 20, 14]
    X = inputs(3, 20)
    end = quiet(layer, [x[:n] for x, n in zip(X, lengths, strict=True)], warmup=2).end
    for i, n in enumerate(lengths):
        last = layer(X[i : i + 1, :n].transpose(0, 1))[1].detach()[0, 0]
        torch.testing.assert_close(torch.as_tensor(end.s[i]), last)
        np.testing.assert_allclose(end.Q[i].T @ end.Q[i], np.eye(6), atol=1e-12)
