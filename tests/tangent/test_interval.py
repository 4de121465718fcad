"""How many steps to the next factorisation: the controller alone, by numbers."""

import math

import pytest

from sklyap.tangent.interval import BlockVerdict, IntervalController

BUDGET, RANGE = 18.0, 350.0


def controller(interval=None, **options):
    return IntervalController(interval, spread_budget=BUDGET, growth_budget=RANGE, **options)


def run(control, rate, n_blocks, growth_rate=0.0):
    """Judge blocks that spread and grow at constant rates; return the lengths that were accepted."""
    accepted = []
    for _ in range(n_blocks):
        length = control.length
        if control.judge(length, rate * length, growth_rate * length) is BlockVerdict.ACCEPTED:
            accepted.append(length)
    return accepted


@pytest.mark.parametrize("rate,length", [(2.0, 7), (5.0, 2), (0.5, 28), (14.0, 1), (100.0, 1), (0.01, 64), (0.0, 64)])
def test_the_length_goes_to_the_planned_share_of_the_budget(rate, length):
    control = controller()
    accepted = run(control, rate, 20)
    assert control.length == length
    assert accepted[0] == 1  # nothing is known before the first block
    assert len(accepted) == 20, "constant rates never ask for a repetition"


@pytest.mark.parametrize("growth_rate,length", [(100.0, 2), (28.0, 10)])
def test_growth_that_would_overflow_counts_like_spread(growth_rate, length):
    control = controller()
    run(control, 0.0, 20, growth_rate)
    assert control.length == length


def test_lengths_at_most_double_and_add_one():
    assert run(controller(), 0.0, 8) == [1, 3, 7, 15, 31, 63, 64, 64]


def test_a_block_that_lost_digits_is_halved_until_it_holds():
    control = controller()
    run(control, 0.1, 10)
    assert control.length == 64
    verdicts = []
    while not verdicts or verdicts[-1] is BlockVerdict.TOO_LONG:
        verdicts.append(control.judge(control.length, 3.0 * control.length, 0.0))
    assert verdicts == [BlockVerdict.TOO_LONG] * 4 + [BlockVerdict.ACCEPTED]  # 64, 32, 16, 8; 4 steps of 3 nats hold
    assert control.length == 4  # 80 % of 18 nats


def test_an_infinite_spread_halves_the_block_but_leaves_no_memory():
    control = controller()
    run(control, 1.0, 10)
    assert control.length == 14
    assert control.judge(14, math.inf, 0.0) is BlockVerdict.TOO_LONG
    run(control, 1.0, 3)
    assert control.length == 14


def test_a_budget_that_is_just_met_is_accepted():
    control = controller()
    run(control, 0.5, 10)
    assert control.judge(control.length, BUDGET, 0.0) is BlockVerdict.ACCEPTED
    run(control, 0.0, 200)
    assert control.judge(control.length, BUDGET * (1 + 1e-12), 0.0) is BlockVerdict.TOO_LONG


def test_a_single_step_is_accepted_however_much_it_spreads():
    control = controller()
    assert control.judge(1, 1e3, 1e3) is BlockVerdict.ACCEPTED
    assert control.length == 1


def test_a_single_step_beyond_its_limit_is_out_of_digits():
    control = controller(single_step_limit=9.0)
    assert control.judge(1, 9.0, 0.0) is BlockVerdict.ACCEPTED
    assert control.judge(1, 9.001, 0.0) is BlockVerdict.OUT_OF_DIGITS
    run(control, 0.1, 50)
    assert control.length > 1
    assert control.judge(control.length, 10.0, 0.0) is BlockVerdict.ACCEPTED  # the limit is that of one step


def test_a_block_that_was_cut_short_does_not_change_the_plan():
    control = controller()
    run(control, 1.0, 10)
    assert control.judge(3, 0.0, 0.0) is BlockVerdict.ACCEPTED
    assert control.length == 14


def test_the_plan_forgets_a_bad_block_slowly():
    control = controller()
    run(control, 4.0, 10)
    assert control.length == 3
    lengths = run(control, 0.5, 80)
    assert lengths[:5] == [3, 3, 3, 3, 4] and lengths[-1] == 28
    assert sorted(lengths) == lengths


def test_caution_means_single_steps_for_a_while():
    control = controller()
    run(control, 0.0, 10)
    control.judge(1, 0.0, 0.0)
    control.be_cautious()
    control.judge(control.length, 0.0, 0.0)
    assert control.length == 1 and control.caution_left == 31
    lengths = run(control, 0.0, 34)
    assert lengths == [1] * 31 + [3, 7, 15]


def test_a_given_interval_is_obeyed():
    control = controller(5, single_step_limit=1.0)
    assert control.fixed and run(control, 1e6, 10) == [5] * 10
    control.be_cautious()
    assert run(control, 1e6, 10) == [5] * 10
