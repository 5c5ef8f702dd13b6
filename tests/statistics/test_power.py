from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from workbench.errors import StatisticsError
from workbench.statistics import chance_of_verdict, minimum_detectable_effect, paired_power, share_called_equivalent
from workbench.statistics.power import upper_sd


@pytest.mark.parametrize(("seeds", "expected"), [(3, 3.26404), (5, 1.68200), (10, 0.99600)])
def test_smallest_detectable_effect_is_that_of_statsmodels(seeds, expected):
    assert minimum_detectable_effect(seeds) == pytest.approx(expected, abs=6e-6)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
@pytest.mark.parametrize("effect", [0.0, 0.5, 1.0, 2.0])
def test_power_is_that_of_statsmodels(seeds, alpha, effect):
    oracle = TTestPower().power(effect, seeds, alpha, alternative="two-sided")
    assert paired_power(seeds, effect, alpha) == pytest.approx(oracle, abs=1e-9)


@given(st.integers(2, 60), st.floats(0, 50), st.sampled_from([0.05, 0.01, 0.0025]))
def test_power_is_a_probability_and_never_below_alpha(seeds, effect, alpha):
    assert alpha - 1e-9 <= paired_power(seeds, effect, alpha) <= 1


def test_power_is_one_where_the_noncentral_t_of_libraries_gives_nan():
    assert paired_power(30, 2.0) == pytest.approx(1.0)


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_the_smallest_detectable_effect_has_the_power_asked_for(seeds):
    effect = minimum_detectable_effect(seeds, 0.01, 0.9)
    assert paired_power(seeds, effect, 0.01) == pytest.approx(0.9, abs=1e-8)


@pytest.mark.parametrize(("margin", "shares"), [(1.0, [0.13, 0.30, 0.63, 0.80]), (2.0, [0.56, 0.95, 1.00, 1.00])])
def test_share_of_identical_arms_called_equivalent(margin, shares):
    found = [share_called_equivalent(n, 0.05, margin) for n in (3, 5, 8, 10)]
    assert found == pytest.approx(shares, abs=0.01)


def test_chance_of_a_verdict_joins_both_questions():
    seeds = (3, 5, 10)
    powers = [paired_power(n, 1.3, 0.02) for n in seeds]
    assert chance_of_verdict(seeds, 1.3, 0.02) == pytest.approx(powers, abs=1e-3)
    with_margin = chance_of_verdict(seeds, 0.0, 0.05, 1.0)
    equivalent = np.array([share_called_equivalent(n, 0.05, 1.0) for n in seeds])
    assert (with_margin >= equivalent).all()
    assert (with_margin <= equivalent + 0.05).all()


def test_chance_of_a_verdict_agrees_with_simulation():
    draws = 0.4 + np.random.Generator(np.random.Philox(5)).standard_normal((40_000, 6))
    mean, error = draws.mean(axis=1), draws.std(axis=1, ddof=1) / np.sqrt(6)
    different, equivalent = np.abs(mean) > 2.570582 * error, np.abs(mean) + 2.015048 * error < 1.2
    simulated = (different | equivalent).mean()
    assert chance_of_verdict((6,), 0.4, 0.05, 1.2)[0] == pytest.approx(simulated, abs=0.01)


def test_the_upper_bound_of_a_pilot_sd_covers_four_times_in_five():
    draws = np.random.Generator(np.random.Philox(6)).standard_normal((20_000, 5)).std(axis=1, ddof=1)
    assert np.mean([upper_sd(sd, 4) >= 1 for sd in draws]) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    "question",
    [
        lambda: paired_power(1, 1.0),
        lambda: minimum_detectable_effect(5, 0.0),
        lambda: minimum_detectable_effect(5, 0.05, 1.0),
        lambda: share_called_equivalent(5, 0.05, 0.0),
    ],
)
def test_questions_without_an_answer_are_refused(question):
    with pytest.raises(StatisticsError):
        question()
