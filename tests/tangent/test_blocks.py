"""Blocks of one chunk: what is accepted, what is repeated, and that the fast way gives what the exact one does."""

import math

import pytest
import torch

from sklyap.cells import FunctionCell
from sklyap.cells.base import DenseLinearization
from sklyap.exceptions import DivergedError
from sklyap.orthonormalize import log_range, random_bases
from sklyap.tangent import growth_iteration, qr_iteration, spread_budget
from sklyap.tangent.blocks import Factoring, Factors, OutOfDigits, growth_blocks, qr_blocks
from sklyap.tangent.interval import BlockVerdict, IntervalController
from sklyap.tangent.jacobians import FoldedJacobians


class Spy(IntervalController):
    """A controller that remembers its verdicts."""

    def __init__(self, interval=None, **options):
        super().__init__(
            interval, spread_budget=spread_budget(torch.float64), growth_budget=log_range(torch.float64), **options
        )
        self.verdicts = []

    def judge(self, length, log_spread, growth):
        verdict = super().judge(length, log_spread, growth)
        self.verdicts.append((length, verdict))
        return verdict


def chunk(matrices, offset=0):
    """Return a chunk of the product of `matrices` (T, N, N) of one sequence, and a basis to start from."""
    J = torch.as_tensor(matrices, dtype=torch.float64).unsqueeze(1)
    Q = random_bases(J.shape[-1], J.shape[-1], seed=0, indices=[0])
    return FoldedJacobians(DenseLinearization(J), range(offset, offset + len(J)), Q), Q


def rotations(n_steps, rates, seed=0):
    """Return random rotations (T, N, N) times diagonal matrices of growth exp(rates)."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.linalg.qr(torch.randn(n_steps, len(rates), len(rates), generator=generator, dtype=torch.float64))[0]
    return Q * torch.tensor(rates, dtype=torch.float64).exp()


def test_the_blocks_of_a_chunk_cover_its_steps_and_rebuild_its_product():
    along, Q = chunk(rotations(50, [1.0, 0.0, -2.0]), offset=7)
    blocks = list(qr_blocks(along, Q, along.steps, Factoring.of("auto", Q), Spy()))
    assert [block.start for block in blocks] == [7, *(block.stop for block in blocks[:-1])] and blocks[-1].stop == 57
    product = Q
    for block in blocks:
        for t in range(block.start, block.stop):
            product = along[t].dense() @ product
        torch.testing.assert_close(block.Q @ block.R, product, rtol=1e-12, atol=0)
        product = block.Q
        torch.testing.assert_close(block.R.diagonal(dim1=-2, dim2=-1).log(), block.log_growth)


@pytest.mark.parametrize("size", [3, 40])
def test_growth_is_that_of_the_factors(size):
    along, Q = chunk(rotations(60, torch.linspace(1, -3, size).tolist()))
    exact = sum(b.log_growth for b in qr_blocks(along, Q, along.steps, Factoring.of("householder", Q), Spy(1)))
    for controller in (Spy(), Spy(1), Spy(3)):
        blocks = list(growth_blocks(along, Q, Factoring.of("auto", Q), controller, exact=[60]))
        torch.testing.assert_close(sum(b.log_growth for b in blocks), exact, rtol=1e-7, atol=1e-7)
        assert blocks[-1].Q is not None and blocks[-1].stop == 60


def test_only_the_last_block_of_a_batch_has_a_basis():
    along, Q = chunk(rotations(60, [1.0, 0.0, -2.0]))
    blocks = list(growth_blocks(along, Q, Factoring.of("auto", Q), Spy(4), exact=[60]))
    assert [block.Q is not None for block in blocks] == [False] * 14 + [True]


def test_a_block_that_lost_digits_is_repeated():
    matrices = rotations(80, [0.1, 0.0, -0.1])
    matrices[40:60] = rotations(20, [4.0, 0.0, -4.0], seed=1)
    along, Q = chunk(matrices)
    spy = Spy()
    blocks = list(qr_blocks(along, Q, along.steps, Factoring.of("auto", Q), spy))
    assert any(verdict is BlockVerdict.TOO_LONG for _, verdict in spy.verdicts)
    assert all(block.log_spread <= spread_budget(torch.float64) for block in blocks)


def test_after_an_annihilated_direction_nothing_is_run_in_vain():
    """A map with a zero eigenvalue: a longer block would be repeated, for it looks as if it had lost digits."""
    along, Q = chunk(torch.diag(torch.tensor([1.0, 0.9, 0.0])).expand(30, 3, 3))
    spy = Spy()
    blocks = list(qr_blocks(along, Q, along.steps, Factoring.of("auto", Q), spy))
    assert len(spy.verdicts) == len(blocks) == 30
    assert all(math.isinf(block.log_growth[0, 2]) for block in blocks[2:])
    assert all(math.isfinite(block.log_growth[0, :2].sum()) for block in blocks)


def test_graded_rows_are_found_in_the_sequences_that_have_them():
    """One saturated sequence beside an ordinary one: each has the growth that it has alone."""
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(1, 2, 6, 6, generator=generator, dtype=torch.float64)
    J[0, 1] *= torch.logspace(0, -60, 6, dtype=torch.float64).unsqueeze(-1)
    Q = random_bases(6, 6, seed=0, indices=[0, 1])
    both = next(
        qr_blocks(FoldedJacobians(DenseLinearization(J), range(1), Q), Q, range(1), Factoring.of("auto", Q), Spy())
    )
    log_det = torch.linalg.slogdet(J[0, 0])[1], torch.linalg.slogdet(J[0, 1])[1]
    torch.testing.assert_close(both.log_growth.sum(-1), torch.stack(log_det), rtol=0, atol=1e-8)
    assert both.log_growth[1].min() < -100


def test_a_step_beyond_the_limit_of_its_dtype_ends_the_run():
    matrices = rotations(10, [0.1, -0.1])
    matrices[0] = torch.diag(torch.tensor([1e3, 1e-3], dtype=torch.float64))
    along, Q = chunk(matrices)
    factoring = Factoring.of("auto", Q)
    for limit in (3.0, 20.0):
        exact = qr_blocks(along, Q, along.steps, factoring, Spy(single_step_limit=limit))
        growth = growth_blocks(along, Q, factoring, Spy(single_step_limit=limit), exact=[10])
        for blocks in (exact, growth):
            if limit == 3.0:
                with pytest.raises(OutOfDigits):
                    next(blocks)
            else:
                assert sum(block.stop - block.start for block in blocks) == 10


def test_an_overflow_is_named_where_fewer_steps_do_not_help():
    matrices = rotations(10, [0.0, 0.0])
    matrices[6] *= math.inf
    along, Q = chunk(matrices, offset=100)
    with pytest.raises(DivergedError, match="tangent basis of sequence 0 is not finite at step 106"):
        list(qr_blocks(along, Q, along.steps, Factoring.of("auto", Q), Spy()))
    with pytest.raises(DivergedError, match=r"after 5 steps without factorisation; lower qr_interval"):
        list(qr_blocks(along, Q, along.steps, Factoring.of("auto", Q), Spy(5)))


def test_factors_after_a_warm_up():
    cell = FunctionCell(lambda s, x: s * torch.tensor([0.9, 0.5], dtype=s.dtype), 2, initial_state=[1.0, 1.0])
    Q = random_bases(2, 2, seed=0, indices=[0])
    whole, late = (Factors.of(qr_iteration(cell, 30, Q=Q, qr_interval=1), Q, warmup=w) for w in (0, 10))
    assert len(whole.Q) == 31 and len(late.Q) == 21 and len(late.R) == len(late.log_growth) == 20
    for a, b in zip(whole.Q[10:], late.Q, strict=True):
        torch.testing.assert_close(a, b)


def test_both_generators_name_the_state_where_chunks_and_sequences_end():
    cell = FunctionCell(lambda s, x: 0.9 * s + x, 2, n_inputs=2)
    x = torch.randn(3, 40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Q = random_bases(2, 2, seed=0, indices=range(3))
    lengths = [40, 25, 12]
    for run in (qr_iteration, growth_iteration):
        with torch.no_grad():
            ends = {b.stop: b.s for b in run(cell, x, Q=Q, lengths=lengths, breakpoints=[5]) if b.s is not None}
        states = cell.trajectory(cell.initial_state(3), x)
        assert {5, 12, 25, 40} <= ends.keys()
        for stop, s in ends.items():
            torch.testing.assert_close(s, states[stop, : len(s)])
            assert len(s) == sum(length >= stop for length in lengths)


def test_growth_is_exact_where_a_block_crosses_an_edge():
    """Blocks of three steps never end at step 10 or 20, and those that cross them end in an orthonormal basis."""
    along, Q = chunk(rotations(36, torch.linspace(0.5, -1, 100).tolist()))
    exact = list(qr_blocks(along, Q, along.steps, Factoring.of("householder", Q), Spy(3)))
    blocks = list(growth_blocks(along, Q, Factoring.of("auto", Q), Spy(3), exact=[0, 10, 20, 36]))
    expected, found = (torch.stack([block.log_growth for block in run]).cumsum(0) for run in (exact, blocks))
    error = dict(zip([block.stop for block in blocks], (found - expected).abs().amax((1, 2)).tolist(), strict=True))
    assert max(error[stop] for stop in (12, 21, 36)) < 1e-10
    assert min(error[stop] for stop in (3, 6, 9, 15, 18, 24)) > 1e-3, "in between, growth is relative to a skew basis"
