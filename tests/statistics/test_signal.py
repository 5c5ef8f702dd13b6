from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from workbench.errors import StatisticsError
from workbench.statistics.signal import average_last, decision_accuracy, measure_signal, signal_to_noise_ratio


def stream(number=0):
    return np.random.Generator(np.random.Philox(key=number))


def test_the_ratio_is_that_of_the_paper():
    assert signal_to_noise_ratio([1, 2, 4], [1, 1.1, 0.9]) == pytest.approx(15.74672, abs=5e-6)
    both = signal_to_noise_ratio([[1, 2, 4], [1, 1, 4]], [[1, 1.1, 0.9], [1, 1.1, 0.9]])
    assert both.tolist() == [signal_to_noise_ratio(row, [1, 1.1, 0.9]) for row in ([1, 2, 4], [1, 1, 4])]


@given(st.floats(0.01, 100))
def test_the_ratio_has_no_unit(unit):
    scaled = signal_to_noise_ratio(np.array([1, 2, 4]) * unit, np.array([1, 1.1, 0.9]) * unit)
    assert scaled == pytest.approx(15.74672, abs=5e-6)


def test_f_is_that_of_the_one_way_analysis_of_variance():
    scores = stream(1).standard_normal((6, 5)) + np.arange(6.0)[:, None]
    signal = measure_signal(scores)
    oracle = stats.f_oneway(*scores)
    assert (signal.f, signal.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert signal.noise == pytest.approx(np.sqrt(np.mean([row.var(ddof=1) for row in scores])))
    assert signal.ratio == pytest.approx(np.ptp(scores.mean(axis=1)) / signal.noise)


def test_the_intraclass_correlation_is_that_of_shrout_and_fleiss():
    judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert measure_signal(judges).icc == pytest.approx(0.17, abs=0.005)  # their table 4, ICC(1, 1)
    low, high = stats.f.ppf([0.975, 0.025], 5, 18)
    f = measure_signal(judges).f
    assert measure_signal(judges).icc_low == max(0.0, (f / low - 1) / (f / low + 3))
    assert measure_signal(judges).icc_high == pytest.approx((f / high - 1) / (f / high + 3))


def test_noise_is_never_measured_across_variants():
    """A standard deviation over all variants and checkpoints at once contains the signal, and hides any of it."""
    noise = stream(2).standard_normal((25, 5))
    strong = noise + 100 * np.arange(25.0)[:, None]
    assert measure_signal(strong).noise == pytest.approx(measure_signal(noise).noise)
    assert measure_signal(strong).ratio > 1_000
    assert np.ptp(strong.mean(axis=1)) / strong.std() < 4


def test_equal_variants_have_a_range_but_no_signal():
    signal = measure_signal(stream(3).standard_normal((2_000, 25, 5)))
    assert signal.ratio.mean() == pytest.approx(3.93 / np.sqrt(5), rel=0.02)
    assert signal.f.mean() == pytest.approx(100 / 98, rel=0.02)
    assert (signal.p < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (signal.icc_low == 0).mean() > 0.95


def test_the_interval_holds_the_true_correlation_as_often_as_it_says():
    scores = stream(4).standard_normal((4_000, 8, 4)) + stream(5).standard_normal((4_000, 8, 1))
    signal = measure_signal(scores)
    assert ((signal.icc_low <= 0.5) & (signal.icc_high >= 0.5)).mean() == pytest.approx(0.95, abs=0.015)


def test_repeats_without_noise_give_an_infinite_ratio_and_a_correlation_of_one():
    signal = measure_signal([[1.0, 1.0], [2.0, 2.0]])
    assert (signal.ratio, signal.f, signal.p) == (np.inf, np.inf, 0)
    assert (signal.icc, signal.icc_low, signal.icc_high) == (1, 1, 1)


def test_decision_accuracy_counts_pairs_and_halves_ties():
    accuracy = decision_accuracy([1, 2, 3, 3], [10, 30, 20, 40])
    assert (accuracy.share, accuracy.pairs) == ((4 + 0.5) / 6, 6)
    assert decision_accuracy([1, 2, 3], [3, 2, 1]).share == 0


@given(st.permutations(range(9)), st.permutations(range(9)))
def test_decision_accuracy_is_kendalls_tau(one, other):
    tau = stats.kendalltau(one, other).statistic
    assert decision_accuracy(one, other).share == pytest.approx((1 + tau) / 2)


def test_its_interval_is_wilsons_for_half_as_many_trials_as_variants():
    accuracy = decision_accuracy(np.arange(10), np.array([1, 0, *range(2, 10)]))
    low, high = proportion_confint(accuracy.share * 5, 5, method="wilson")
    assert (accuracy.low, accuracy.high) == pytest.approx((low, high))


def test_agreement_in_every_pair_is_not_certainty():
    accuracy = decision_accuracy(range(6), range(6))
    assert accuracy.share == accuracy.high == 1
    assert accuracy.low < 0.5


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_the_interval_holds_the_true_accuracy_at_least_as_often_as_it_says(correlation):
    sets, variants = 600, 12
    small = stream(6).standard_normal((sets, variants))
    target = correlation * small + np.sqrt(1 - correlation**2) * stream(7).standard_normal((sets, variants))
    true = 0.5 + np.arcsin(correlation) / np.pi  # Sheppard (1899)
    found = [decision_accuracy(one, other) for one, other in zip(small, target, strict=True)]
    assert np.mean([accuracy.low <= true <= accuracy.high for accuracy in found]) > 0.93


def test_averaging_the_last_checkpoints_leaves_the_noise_between_seeds():
    scores = stream(8).standard_normal((400, 1)) + stream(9).standard_normal((400, 16))
    np.testing.assert_array_equal(average_last(scores, 1), scores[:, -1])
    np.testing.assert_allclose(average_last(scores, 16), scores.mean(axis=-1))
    assert average_last(scores, 16).var() == pytest.approx(1 + 1 / 16, rel=0.2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: signal_to_noise_ratio([1.0], [1.0, 2.0]), "two scores of each"),
        (lambda: signal_to_noise_ratio([1.0, 2.0], [1.0, 1.0]), "no spread"),
        (lambda: signal_to_noise_ratio([-1.0, -2.0], [1.0, 2.0]), "positive"),
        (lambda: measure_signal([1.0, 2.0]), "noise is what repeats"),
        (lambda: measure_signal([[1.0], [2.0]]), "noise is what repeats"),
        (lambda: measure_signal([[1.0, np.nan], [2.0, 1.0]]), r"no number[\s\S]*\[0, 1\]"),
        (lambda: measure_signal(np.ones((3, 3))), "never vary"),
        (lambda: decision_accuracy([1, 2], [1, 2]), "three variants"),
        (lambda: decision_accuracy([1, 2, 3], [1, 2, 3, 4]), "same variants"),
        (lambda: decision_accuracy([1, 2, np.inf], [1, 2, 3]), "no number"),
        (lambda: average_last([1.0, 2.0], 3), "not that many checkpoints"),
        (lambda: average_last([1.0, 2.0], 0), "not that many checkpoints"),
    ],
)
def test_what_cannot_be_measured_is_refused(call, message):
    with pytest.raises(StatisticsError, match=message):
        call()
