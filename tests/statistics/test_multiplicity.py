from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from workbench.errors import StatisticsError
from workbench.statistics.multiplicity import (
    benjamini_hochberg,
    benjamini_yekutieli,
    critical_value,
    holm,
    hommel,
    max_t,
    step_down,
    tail_share,
)

ADJUSTMENTS = {"holm": holm, "hommel": hommel, "fdr_bh": benjamini_hochberg, "fdr_by": benjamini_yekutieli}
families = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def step_down_by_hand(statistics, reference):
    """Westfall and Young's algorithm, one hypothesis at a time."""
    order = sorted(range(len(statistics)), key=lambda arm: -statistics[arm])
    adjusted, floor = np.empty(len(statistics)), 0.0
    for step, arm in enumerate(order):
        largest = reference[:, order[step:]].max(axis=1)
        floor = max(floor, (1 + (largest >= statistics[arm]).sum()) / (1 + len(reference)))
        adjusted[arm] = floor
    return adjusted


@pytest.mark.parametrize("name", ADJUSTMENTS)
@settings(max_examples=12, deadline=None)  # the oracle collects garbage at every call
@given(p=families)
def test_adjusted_p_values_are_those_of_statsmodels(name, p):
    assert ADJUSTMENTS[name](p) == pytest.approx(multipletests(p, method=name)[1], abs=1e-12)


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values())
@given(p=families)
def test_adjusting_keeps_the_order_of_the_evidence_and_never_helps(adjust, p):
    adjusted = adjust(p)
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= -1e-15).all()
    assert ((adjusted >= np.array(p) - 1e-15) & (adjusted <= 1)).all()


def test_the_family_that_a_peer_adjusts_out_of_order_comes_out_in_order():
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])


@given(p=families)
def test_hommel_is_never_larger_than_holm(p):
    assert (hommel(p) <= holm(p) + 1e-15).all()


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values())
def test_many_families_are_adjusted_at_once(adjust):
    p = np.random.default_rng(1).random((4, 3, 7))
    assert (adjust(p)[2, 1] == adjust(p[2, 1])).all()


@pytest.mark.parametrize("adjust", ADJUSTMENTS.values())
@pytest.mark.parametrize("p", [[0.1, np.nan], [-0.1], [1.1]])
def test_numbers_that_are_no_probabilities_are_refused(adjust, p):
    with pytest.raises(StatisticsError, match="not a probability"):
        adjust(p)


def test_stepping_down_is_the_textbook_loop():
    statistics, reference = np.abs(noise(20, 4)) * 2, np.abs(noise(199, 4, key=1))
    expected = [step_down_by_hand(row, reference) for row in statistics]
    assert step_down(statistics, reference) == pytest.approx(np.array(expected))


def test_every_data_set_may_have_its_own_reference():
    statistics, reference = np.abs(noise(5, 3)), np.abs(noise(5, 99, 3, key=1))
    expected = [step_down(row, draws) for row, draws in zip(statistics, reference, strict=True)]
    assert step_down(statistics, reference) == pytest.approx(np.array(expected))


def test_listed_draws_count_with_their_chances_and_no_p_falls_below_the_rarest():
    reference, chance = np.array([[1.0], [2.0], [3.0]]), np.array([0.7, 0.2, 0.1])
    assert step_down([2.0], reference, chance) == pytest.approx([0.3])
    assert step_down([9.0], reference, chance) == pytest.approx([0.1])


def test_equal_up_to_rounding_is_equal():
    assert step_down([0.3], np.array([[0.1 + 0.2], [0.0], [0.3 - 1e-16]])) == pytest.approx([0.75])


def test_smallest_p_values_step_down_as_largest_statistics_do():
    p, reference = np.random.default_rng(2).random(5), np.random.default_rng(3).random((299, 5))
    expected = step_down_by_hand(-p, -reference)
    assert step_down(-p, -reference) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.31])
@pytest.mark.parametrize("listed", [False, True])
def test_the_critical_value_is_passed_exactly_when_the_single_step_p_is_small_enough(alpha, listed):
    maxima = np.abs(noise(199)).round(2)
    chance = np.full(199, 1 / 199) if listed else None
    observed = np.concatenate([maxima, maxima + 0.004])
    p = np.array([tail_share(np.array([t]), maxima[:, None], chance)[0] for t in observed])
    assert ((observed > critical_value(maxima, alpha, chance)) == (p <= alpha + 1e-12)).all()


def test_without_enough_draws_no_value_is_critical():
    assert critical_value(np.arange(10.0), 0.05) == np.inf


def test_an_interval_excludes_zero_when_its_arm_alone_beats_the_largest_of_all():
    estimate, error = noise(200, 3), np.ones((200, 3)) * 0.4
    answer = max_t(estimate, error, np.abs(noise(399, 3, key=1)), 0.05)
    excluded = (answer.low > 0) | (answer.high < 0)
    assert (excluded.any(axis=1) == (answer.p_adjusted.min(axis=1) <= 0.05)).all()
    assert (answer.p <= answer.p_adjusted).all()
