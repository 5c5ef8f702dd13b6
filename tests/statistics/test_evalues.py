from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from workbench.errors import StatisticsError
from workbench.statistics.evalues import evalue_t, first_verdict, half_width, reject

KL = [-0.00437, -0.00545, -0.00343, -0.00682, -0.00514, -0.00441]


@pytest.mark.parametrize(("spread", "expected"), [(1.0, 64.250538), (4.0, 360.3279)])
def test_real_differences_have_the_published_evidence(spread: float, expected: float) -> None:
    assert evalue_t(KL, spread).e == pytest.approx(expected, rel=1e-6)


def test_the_e_value_is_the_density_of_t_averaged_over_effects_against_its_density_without() -> None:
    n = len(KL)
    t = stats.ttest_1samp(KL, 0).statistic
    averaged, _ = integrate.quad(
        lambda effect: stats.nct.pdf(t, n - 1, effect * np.sqrt(n)) * stats.norm.pdf(effect), -12, 12
    )
    assert evalue_t(KL).e == pytest.approx(averaged / stats.t.pdf(t, n - 1), rel=1e-6)


@pytest.mark.parametrize(("seeds", "expected"), [(5, 3.78), (6, 2.22), (8, 1.50), (10, 1.22), (20, 0.77)])
def test_the_confidence_sequence_has_the_published_width(seeds: int, expected: float) -> None:
    assert half_width(seeds, 0.05) / np.sqrt(seeds) == pytest.approx(expected, abs=0.005)


def test_nothing_can_be_rejected_before_the_fifth_seed() -> None:
    assert (first_verdict(), first_verdict(spread=4.0)) == (5, 4)
    sure = 1000 + np.array([0.1, -0.1, 0.2, -0.2])
    assert evalue_t(sure).e < 20 < evalue_t([*sure, 1000.0]).e
    assert evalue_t(sure).interval(0.95) == (-np.inf, np.inf)


@given(
    st.lists(st.floats(-1, 1), min_size=5, max_size=12).filter(lambda d: np.std(d) > 1e-3), st.sampled_from([1.0, 4.0])
)
def test_the_interval_excludes_zero_exactly_where_the_evidence_suffices(d: list[float], spread: float) -> None:
    found = evalue_t(d, spread)
    low, high = found.interval(0.95)
    if abs(found.e - 20) > 1e-6:
        assert (low > 0 or high < 0) == (found.e > 20)


def test_looking_after_every_seed_keeps_the_error() -> None:
    noise = np.random.default_rng(7).standard_normal((20_000, 20))
    largest = np.max([evalue_t(noise[:, :n]).e for n in range(2, 21)], axis=0)
    assert (largest >= 20).mean() == pytest.approx(0.018, abs=0.004)


def test_arms_step_down_from_k_over_alpha() -> None:
    assert reject([59.0, 39.0, 19.0]).tolist() == [False, False, False]
    assert reject([20.0, 60.0, 40.0]).tolist() == [True, True, True]
    assert reject([[61.0, 39.0, 25.0], [np.inf, 1.0, 41.0]]).tolist() == [[True, False, False], [True, False, True]]


@pytest.mark.parametrize(("differences", "spread"), [([1.0], 1.0), ([1.0, 1.0, 1.0], 1.0), ([1.0, 2.0], 0.0)])
def test_what_is_no_evidence_is_refused(differences: list[float], spread: float) -> None:
    with pytest.raises(StatisticsError):
        evalue_t(differences, spread)
