from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from workbench.errors import StatisticsError
from workbench.statistics.permutation import (
    label_permutation,
    mcnemar,
    sign_flip_interval,
    sign_flip_max_t,
    sign_flip_p,
    smallest_label_p,
    smallest_sign_flip_p,
)
from workbench.statistics.student import block_t

KL = np.array([-0.00437, -0.00545, -0.00343, -0.00682, -0.00514, -0.00441])
differences = arrays(np.float64, st.integers(2, 8), elements=st.integers(-50, 50).map(lambda tenths: tenths / 10))


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def mean(values, axis):
    return np.mean(values, axis=axis)


@pytest.mark.parametrize("d", [KL, noise(9) + 0.4, np.array([0.1, 0.1, 0.3, -0.2, 0.2, 0.3, 0.1])])
def test_the_sign_flip_p_is_that_of_scipy(d):
    oracle = stats.permutation_test((d,), mean, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert sign_flip_p(d) == pytest.approx(oracle.pvalue)


def test_the_worked_example_has_the_floor_of_six_seeds():
    assert sign_flip_p(KL) == 0.03125 == smallest_sign_flip_p(6)


@settings(max_examples=60, deadline=None)
@given(d=differences)
def test_the_sign_flip_p_never_falls_below_its_floor_nor_depends_on_order_sign_or_unit(d):
    p = sign_flip_p(d)
    assert smallest_sign_flip_p(len(d)) <= p <= 1
    assert sign_flip_p(-1e6 * d[::-1]) == pytest.approx(p)


def test_many_seeds_draw_signs_from_a_fixed_stream():
    d = noise(16) + 0.5
    signs = 1 - 2 * ((np.arange(2**15)[:, None] >> np.arange(16)) & 1)
    exact = (np.abs(signs @ d) >= d.sum() * (1 - 1e-12)).mean()
    assert sign_flip_p(d) == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))
    assert sign_flip_p(np.arange(1.0, 31.0)) == smallest_sign_flip_p(30)


def test_below_six_seeds_there_is_no_interval_at_95_percent():
    interval = sign_flip_interval(KL[:5], 0.95)
    assert (interval.low, interval.high, interval.level) == (-np.inf, np.inf, 1.0)
    attainable = sign_flip_interval(KL[:5], 0.9375)
    assert (attainable.low, attainable.high, attainable.level) == (KL[:5].min(), KL[:5].max(), 0.9375)


def test_the_interval_of_the_worked_example_spans_its_differences():
    interval = sign_flip_interval(KL, 0.95)
    assert (interval.low, interval.high) == pytest.approx((-0.00682, -0.00343))
    assert interval.level == 1 - 2 / 2**6


def test_the_interval_holds_what_the_test_does_not_reject():
    d = noise(300, 8) + 0.7
    interval = sign_flip_interval(d, 0.9)
    assert (((interval.low > 0) | (interval.high < 0)) == (sign_flip_p(d) <= 1 - interval.level + 1e-12)).all()


def test_the_interval_beyond_enumeration_agrees_with_the_t_interval_of_normal_noise():
    d = noise(40)
    interval, oracle = sign_flip_interval(d, 0.95), stats.ttest_1samp(d, 0).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((oracle.low, oracle.high), abs=0.03)
    assert interval.level == pytest.approx(0.95)


def test_sign_flip_max_t_is_the_textbook_loop_over_all_signs():
    d = noise(3, 6) + np.array([[1.5], [0.8], [0.0]])

    def statistic(values):
        return np.abs(stats.ttest_1samp(values, 0, axis=-1).statistic)

    reference = np.array([statistic(d * np.array(signs)) for signs in product([1, -1], repeat=6)])
    order, adjusted, floor = np.argsort(-statistic(d)), np.empty(3), 0.0
    for step, arm in enumerate(order):
        largest = reference[:, order[step:]].max(axis=1)
        floor = max(floor, (largest >= statistic(d)[arm] * (1 - 1e-9)).mean())
        adjusted[arm] = floor
    answer = sign_flip_max_t(d)
    assert answer.p_adjusted == pytest.approx(adjusted)
    assert (answer.p == sign_flip_p(d)).all()


def test_identical_arms_are_no_evidence():
    answer = sign_flip_max_t(np.zeros((2, 5)))
    assert answer.p_adjusted.tolist() == [1.0, 1.0]


def test_listed_relabelings_are_all_relabelings():
    scores = noise(3, 3) + np.array([[0.0], [2.0], [0.5]])
    observed = np.abs(block_t(scores).estimate / block_t(scores).standard_error)
    orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]
    reference = []
    for chosen in product(orders, repeat=3):
        test = block_t(np.stack([scores[order, seed] for seed, order in enumerate(chosen)], axis=1))
        reference.append(np.abs(test.estimate / test.standard_error))
    largest = np.array(reference).max(axis=1)
    expected = (largest >= observed.max() * (1 - 1e-9)).mean()
    assert label_permutation(scores, 0.05).p_adjusted.min() == pytest.approx(expected)


def test_with_one_arm_labels_permute_as_signs_flip():
    scores = noise(20, 2, 6)
    answer = label_permutation(scores, 0.05)
    assert answer.p[:, 0] == pytest.approx(sign_flip_p(scores[:, 1] - scores[:, 0]))
    assert smallest_label_p(6) == smallest_sign_flip_p(6)


def test_labels_of_many_arms_go_below_the_floor_of_three_seeds():
    scores = noise(7, 3) * 0.01 + np.arange(7)[:, None]
    answer = label_permutation(scores, 0.05)
    assert answer.p_adjusted[-1] == smallest_label_p(3, 6) == 1 / 2000
    assert answer.p_adjusted[-1] < smallest_sign_flip_p(3)


def test_the_smallest_p_of_listed_relabelings_is_reached():
    scores = np.array([[0.0, 0.1, 0.2], [5.0, 5.1, 5.3], [2.1, 2.2, 2.1]])
    assert label_permutation(scores, 0.05).p_adjusted.min() == pytest.approx(smallest_label_p(3, 2))


@pytest.mark.parametrize("noise_share", [1e-2, 1e-5, 1e-9])
def test_noise_that_is_tiny_beside_the_effects_breaks_no_ties(noise_share):
    scores = np.array([[0.0], [5.0], [2.0]]) + noise_share * noise(3, 3)
    answer, test = label_permutation(scores, 0.05), block_t(scores)
    assert answer.p_adjusted.min() == pytest.approx(smallest_label_p(3, 2))
    half = (answer.high - answer.estimate) / test.standard_error
    assert half == pytest.approx(half[0])
    assert (answer.high - answer.low < 1000 * noise_share).all()


def test_identical_arms_are_called_different_as_often_as_promised():
    answer = label_permutation(noise(800, 4, 4), 0.05)
    rejected = (answer.p_adjusted <= 0.05).any(axis=1).mean()
    assert rejected == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 800))
    assert ((answer.low > 0) | (answer.high < 0)).any(axis=1).mean() == rejected


@pytest.mark.parametrize(("gained", "lost"), [(10, 3), (1, 7), (4, 4), (0, 5), (0, 0)])
def test_mcnemar_is_that_of_statsmodels(gained, lost):
    baseline = np.array([0] * gained + [1] * lost + [1] * 20)
    arm = np.array([1] * gained + [0] * lost + [1] * 20)
    test = mcnemar(baseline, arm)
    assert test.p == pytest.approx(min(1.0, statsmodels_mcnemar([[20, lost], [gained, 0]], exact=True).pvalue))
    assert test.estimate == pytest.approx((gained - lost) / len(arm))
    assert test.standard_error == pytest.approx(np.std(arm - baseline, ddof=1) / np.sqrt(len(arm)))
    assert test.p >= test.attainable_p


def test_five_disagreements_cannot_be_significant():
    assert mcnemar([0] * 5 + [1], [1] * 6).attainable_p == 0.0625


@pytest.mark.parametrize(
    "judge",
    [
        lambda: sign_flip_p([1.0]),
        lambda: sign_flip_interval([1.0], 0.95),
        lambda: mcnemar([], []),
        lambda: mcnemar([0, 1], [1]),
        lambda: mcnemar([0, 0.5], [1, 0]),
    ],
)
def test_what_cannot_be_permuted_is_refused(judge):
    with pytest.raises(StatisticsError):
        judge()


@pytest.mark.parametrize("seeds", [3, 5])
def test_where_no_relabeling_can_reject_the_interval_holds_everything(seeds):
    scores = np.random.Generator(np.random.Philox(3)).standard_normal((200, 2, seeds))
    found = label_permutation(scores, 0.05)
    assert (found.p_adjusted > 0.05).all()
    assert np.isinf(found.high).all()
