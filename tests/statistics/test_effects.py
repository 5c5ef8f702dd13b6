from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from workbench.errors import StatisticsError
from workbench.statistics.effects import (
    almost_stochastic_order,
    difference_in_baseline_sds,
    posterior_of_difference,
    probability_of_superiority,
    seeds_to_show_superiority,
    seeds_won,
    standardised_difference,
)
from workbench.statistics.student import equivalence_p, paired_t

KL = np.array([-0.00437, -0.00545, -0.00343, -0.00682, -0.00514, -0.00441])
runs = st.lists(st.integers(-9, 9).map(float), min_size=3, max_size=7)


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def ulmer_example():
    """The example in the documentation of the library that made this order known."""
    legacy = np.random.RandomState(1234)
    return legacy.normal(0.9, 0.8, 5), legacy.normal(0, 1, 5)


def test_the_standardised_difference_of_the_worked_example():
    effect = standardised_difference(KL)
    assert effect.estimate == pytest.approx(-4.2582, abs=5e-5)
    assert effect.unbiased / effect.estimate == pytest.approx(0.8421, abs=5e-5)


def test_hedges_factor_removes_the_bias_of_small_samples():
    effect = standardised_difference(noise(40_000, 5) + 1)
    assert effect.unbiased.mean() == pytest.approx(1, abs=0.02)
    assert effect.estimate.mean() > 1.2


def test_a_difference_in_sds_of_the_baseline_ignores_the_spread_of_the_arm():
    effect = difference_in_baseline_sds([1.0, 2.0, 3.0], [0.0, 10.0])
    assert effect.estimate == 3.0
    assert effect.unbiased == pytest.approx(3.0 * (1 - 3 / 7))


def test_superiority_is_the_mann_whitney_statistic():
    baseline, arm = noise(20, 6).round(1), noise(20, 4, key=1).round(1)
    oracle = stats.mannwhitneyu(arm, baseline, axis=-1).statistic / 24
    assert probability_of_superiority(baseline, arm) == pytest.approx(oracle)


def test_superiority_over_tasks_is_that_of_rliable():
    arm = np.array([[1, 2], [2, 2], [1, 1], [2, 1]])  # runs by tasks
    baseline = np.array([[1, 1], [2, 2], [3, 3]])
    assert probability_of_superiority(baseline.T, arm.T).mean() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("won", "lost", "ties"), [(0, 6, 0), (5, 0, 0), (3, 2, 0), (4, 1, 2)])
def test_seeds_won_have_the_exact_interval_of_statsmodels(won, lost, ties):
    share = seeds_won([1.0] * won + [-1.0] * lost + [0.0] * ties)
    low, high = proportion_confint(won, won + lost, 0.05, method="beta")
    assert (float(share.low), float(share.high)) == pytest.approx((low, high))
    assert (float(share.share), int(share.ties)) == (won / (won + lost), ties)


def test_nothing_but_ties_is_no_evidence():
    share = seeds_won([0.0, 0.0, 0.0])
    assert (float(share.share), float(share.low), float(share.high)) == (0.5, 0.0, 1.0)


def test_noether_asks_for_29_runs_to_show_three_quarters():
    assert seeds_to_show_superiority(0.75) == 29


@given(st.floats(0.51, 0.99))
def test_a_larger_superiority_needs_no_more_runs(probability):
    assert seeds_to_show_superiority(probability + 0.01) <= seeds_to_show_superiority(probability)


@pytest.mark.parametrize("correlation", [0.0, 0.1])
def test_the_posterior_is_a_t_distribution_around_the_mean(correlation):
    scale = KL.std(ddof=1) * np.sqrt(1 / 6 + correlation / (1 - correlation))
    oracle = stats.t(5, KL.mean(), scale).cdf([-0.005, 0.005])
    posterior = posterior_of_difference(KL, 0.005, correlation)
    assert posterior.below == pytest.approx(oracle[0])
    assert posterior.within == pytest.approx(oracle[1] - oracle[0])
    assert posterior.above == pytest.approx(1 - oracle[1])


def test_the_posterior_tails_are_the_two_one_sided_tests():
    posterior = posterior_of_difference(KL, 0.006)
    assert max(posterior.below, posterior.above) == pytest.approx(equivalence_p(paired_t(KL), 0.006))


def violation_by_integration(baseline, arm):
    """The definition: integrals over the two quantile functions."""
    p = (np.arange(210_000) + 0.5) / 210_000
    gap = np.quantile(baseline, p, method="inverted_cdf") - np.quantile(arm, p, method="inverted_cdf")
    return np.mean(np.maximum(gap, 0) ** 2) / np.mean(gap**2)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (3, 7), (6, 4)])
def test_the_violation_of_dominance_is_its_defining_integral(n, m):
    baseline, arm = noise(n), noise(m, key=1) + 0.3
    expected = violation_by_integration(baseline, arm)
    assert almost_stochastic_order(baseline, arm).violation == pytest.approx(expected, abs=1e-9)


def test_the_documented_example_of_almost_stochastic_order():
    arm, baseline = ulmer_example()
    order = almost_stochastic_order(baseline, arm)
    assert order.violation == 0
    assert order.upper == pytest.approx(0.225, abs=0.003)


def test_more_comparisons_make_the_claim_harder():
    arm, baseline = ulmer_example()
    bounds = [almost_stochastic_order(baseline, arm, comparisons=m).upper for m in (1, 2, 3, 5, 10, 50)]
    assert bounds == sorted(bounds)
    assert bounds[-1] > bounds[0] + 0.1


@pytest.mark.parametrize("runs_per_side", [3, 5, 9])
def test_two_models_far_apart_are_ordered_for_certain(runs_per_side):
    baseline, arm = noise(runs_per_side), noise(runs_per_side, key=1) + 10
    assert almost_stochastic_order(baseline, arm, comparisons=1) == (0.0, 0.0)
    assert almost_stochastic_order(arm, baseline).violation == 1.0


@given(baseline=runs, arm=runs)
def test_the_two_directions_share_the_violation(baseline, arm):
    there, back = almost_stochastic_order(baseline, arm), almost_stochastic_order(arm, baseline)
    assert there.violation + back.violation == pytest.approx(1)
    assert there.violation <= there.upper <= 1


@pytest.mark.parametrize(
    "judge",
    [
        lambda: standardised_difference([1.0, 2.0]),
        lambda: standardised_difference([1.0, 1.0, 1.0]),
        lambda: difference_in_baseline_sds([1.0, 1.0, 1.0], [2.0]),
        lambda: seeds_to_show_superiority(0.5),
        lambda: seeds_to_show_superiority(0.75, power=1.0),
        lambda: posterior_of_difference(KL, -0.1),
        lambda: posterior_of_difference(KL, 0.1, correlation=1.0),
        lambda: almost_stochastic_order([1.0, 2.0], [1.0, 2.0, 3.0]),
        lambda: almost_stochastic_order(KL, KL, comparisons=0),
    ],
)
def test_effects_that_do_not_exist_are_refused(judge):
    with pytest.raises(StatisticsError):
        judge()
