from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.errors import StatisticsError
from workbench.statistics.rank_tests import block_dunnett, dunnett, hodges_lehmann, signed_rank_interval, wilcoxon_p
from workbench.statistics.student import block_t

KL = np.array([-0.00437, -0.00545, -0.00343, -0.00682, -0.00514, -0.00441])


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def test_the_signed_rank_test_of_the_worked_example():
    assert wilcoxon_p(KL) == 0.03125
    assert hodges_lehmann(KL) == pytest.approx(-0.00491)


def test_signed_rank_p_values_are_those_of_scipy():
    d = noise(50, 7) + 0.5
    assert wilcoxon_p(d) == pytest.approx(stats.wilcoxon(d, axis=-1, method="exact").pvalue)


@pytest.mark.parametrize("d", [[1, 1, 2, -1, 3, 2], [0, 1, 0, 2, 2, -1, 4], [0.1 + 0.2, -0.3, 0.3, 0.7]])
def test_ties_and_zeros_are_enumerated_too(d):
    every_sign = stats.PermutationMethod(n_resamples=np.inf)
    oracle = stats.wilcoxon(np.round(d, 9), zero_method="wilcox", method=every_sign)
    assert wilcoxon_p(d) == pytest.approx(oracle.pvalue)


def test_differences_that_are_all_zero_are_no_evidence():
    assert wilcoxon_p(np.zeros(6)) == 1.0


@pytest.mark.parametrize("alpha", [0.1, 0.05])
def test_the_signed_rank_interval_holds_what_the_test_does_not_reject(alpha):
    d = noise(400, 8) + 0.7
    low, high = signed_rank_interval(d, 1 - alpha)
    assert (((low > 0) | (high < 0)) == (wilcoxon_p(d) <= alpha)).all()


def test_below_six_seeds_signed_ranks_give_no_interval_at_95_percent():
    assert signed_rank_interval(KL[:5], 0.95) == (-np.inf, np.inf)
    assert signed_rank_interval(KL, 0.95) == pytest.approx((KL.min(), KL.max()))


def test_dunnetts_p_values_are_those_of_scipy_for_groups_of_any_size():
    groups = [noise(n, key=n) + shift for n, shift in ((5, 0.0), (7, 1.0), (3, 0.5), (6, -1.4))]
    oracle = stats.dunnett(*groups[1:], control=groups[0], rng=np.random.default_rng(1)).pvalue
    assert dunnett(*groups) == pytest.approx(oracle, abs=2e-4)


def test_dunnetts_critical_value_is_the_published_one():
    # Dunnett (1964), table II: two-sided 5 %, six arms, 24 degrees of freedom, is 2.76.
    scores = noise(7, 5)
    answer = block_dunnett(scores, 0.05)
    assert (answer.high - answer.estimate) / block_t(scores).standard_error == pytest.approx(2.760, abs=6e-4)


def test_with_one_arm_dunnett_is_the_paired_t_test():
    scores = noise(20, 2, 6)
    answer, test = block_dunnett(scores, 0.05), block_t(scores)
    low, high = test.interval(0.95)
    assert answer.p_adjusted == pytest.approx(test.p, rel=1e-6)
    assert answer.low == pytest.approx(low)
    assert answer.high == pytest.approx(high)


def test_block_dunnett_steps_down_over_families_that_shrink():
    scores = noise(4, 5) + np.array([[0.0], [3.0], [0.2], [1.0]])
    t = np.abs(block_t(scores).estimate / block_t(scores).standard_error)
    draws = noise(400_000, 4, key=3)
    scale = np.sqrt(np.random.Generator(np.random.Philox(4)).chisquare(12, 400_000) / 12)
    reference = np.abs(draws[:, 1:] - draws[:, :1]) / np.sqrt(2) / scale[:, None]
    expected, floor = {}, 0.0
    for step, arm in enumerate(np.argsort(-t)):
        floor = max(floor, (reference[:, : 3 - step].max(axis=1) >= t[arm]).mean())
        expected[arm] = floor
    assert block_dunnett(scores, 0.05).p_adjusted == pytest.approx([expected[arm] for arm in range(3)], abs=3e-3)


def test_an_adjusted_p_is_never_smaller_than_the_raw_one():
    answer = block_dunnett(noise(300, 4, 3) * np.array([[1e-6], [1], [1], [1]]) + np.arange(4)[:, None] * 50, 0.05)
    assert (answer.p_adjusted >= answer.p).all()


@pytest.mark.parametrize(
    "judge",
    [
        lambda: wilcoxon_p([1.0]),
        lambda: hodges_lehmann([1.0]),
        lambda: signed_rank_interval([1.0], 0.9),
        lambda: dunnett([1.0, 2.0]),
        lambda: dunnett([1.0], [2.0]),
        lambda: dunnett([1.0, 1.0], [2.0, 2.0]),
        lambda: block_dunnett(noise(2, 1), 0.05),
    ],
)
def test_what_cannot_be_ranked_or_pooled_is_refused(judge):
    with pytest.raises(StatisticsError):
        judge()
