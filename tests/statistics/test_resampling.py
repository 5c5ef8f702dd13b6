from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from workbench.errors import StatisticsError
from workbench.statistics.resampling import (
    COVERAGE,
    bootstrap,
    caution,
    resamples,
    residual_bootstrap_max_t,
    seed_bootstrap_max_t,
    smallest_bootstrap_p,
)
from workbench.statistics.student import paired_t

KL = np.array([-0.00437, -0.00545, -0.00343, -0.00682, -0.00514, -0.00441])
KINDS = tuple(COVERAGE)


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def quantile_ends(values, tail):
    """The innermost values with at least `tail` of a list of equally likely values at or beyond them."""
    ordered, beyond = np.sort(values), int(np.ceil(tail * len(values) - 1e-9))
    return ordered[beyond - 1], ordered[-beyond]


def studentised_by_hand(d):
    """The t of every one of the n^n resamples, infinite without spread."""
    drawn = d[np.array(list(product(range(len(d)), repeat=len(d))))]
    distance, error = drawn.mean(axis=1) - d.mean(), drawn.std(axis=1, ddof=1) / np.sqrt(len(d))
    still = np.ptp(drawn, axis=1) == 0
    return np.where(still, np.copysign(np.inf, distance), distance / np.where(still, 1.0, error))


@pytest.mark.parametrize("seeds", [2, 3, 5, 8])
def test_up_to_eight_seeds_every_resample_is_counted_exactly(seeds):
    drawn = resamples(seeds)
    assert len(drawn.counts) == comb(2 * seeds - 1, seeds)
    assert (drawn.counts.sum(axis=1) == seeds).all()
    assert drawn.orderings.sum() == seeds**seeds
    oracle = stats.multinomial(seeds, np.full(seeds, 1 / seeds)).pmf(drawn.counts)
    assert drawn.chance == pytest.approx(oracle)


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("percentile", -0.00580333, -0.00415167),
        ("basic", -0.00572167, -0.00407),
        ("bca", -0.00590667, -0.00419833),
    ],
)
def test_intervals_of_the_worked_example(kind, low, high):
    interval = bootstrap(KL, 0.95, kind)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-9)


@pytest.mark.parametrize(("kind", "method"), [("percentile", "percentile"), ("basic", "basic"), ("bca", "BCa")])
def test_intervals_are_those_of_scipy_up_to_its_monte_carlo_error(kind, method):
    d = noise(9)
    oracle = stats.bootstrap((d,), np.mean, method=method, n_resamples=50_000, rng=np.random.default_rng(1))
    interval = bootstrap(d, 0.95, kind)
    assert (interval.low, interval.high) == pytest.approx(tuple(oracle.confidence_interval), abs=0.03)


def test_the_expanded_percentile_interval_widens_the_tail_by_hesterbergs_formula():
    tail = stats.norm.cdf(-np.sqrt(6 / 5) * stats.t.ppf(0.975, 5))
    means = KL[np.array(list(product(range(6), repeat=6)))].mean(axis=1)
    interval = bootstrap(KL, 0.95, "expanded percentile")
    assert (interval.low, interval.high) == pytest.approx(quantile_ends(means, tail))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_studentised_intervals_count_resamples_without_spread_as_infinite(level):
    t, estimate, error = studentised_by_hand(KL), KL.mean(), stats.sem(KL)
    low, high = quantile_ends(t, (1 - level) / 2)
    equal = bootstrap(KL, level, "studentised")
    assert (equal.low, equal.high) == pytest.approx((estimate - high * error, estimate - low * error))
    half = quantile_ends(np.abs(t), 1 - level)[1] * error
    symmetric = bootstrap(KL, level, "symmetric studentised")
    assert (symmetric.low, symmetric.high) == pytest.approx((estimate - half, estimate + half))
    assert symmetric.p == pytest.approx((np.abs(t) >= abs(estimate / error) - 1e-9).mean())


def test_a_studentised_interval_is_infinite_where_spreadless_resamples_fill_the_tail():
    interval = bootstrap(noise(5), 1 - 2 * 5**-5, "studentised")
    assert interval.low == -np.inf
    assert interval.high == np.inf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", [5, 6, 9])
def test_an_interval_excludes_zero_exactly_when_its_p_is_below_alpha(kind, seeds):
    d = noise(150, seeds) + 0.8
    for alpha in (0.2, 0.05, 0.01):
        interval = bootstrap(d, 1 - alpha, kind)
        assert (((interval.low > 0) | (interval.high < 0)) == (interval.p < alpha)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-6, 1e5])
def test_intervals_follow_the_unit_and_the_sign_and_forget_the_order(kind, scale):
    d = noise(40, 6) + 0.3
    interval, turned = bootstrap(d, 0.9, kind), bootstrap(-scale * d[:, ::-1], 0.9, kind)
    assert -turned.high / scale == pytest.approx(interval.low, rel=1e-9)
    assert -turned.low / scale == pytest.approx(interval.high, rel=1e-9)
    assert turned.p == pytest.approx(interval.p)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_cover_as_often_as_is_known_of_them(kind):
    interval = bootstrap(noise(3000, 5, key=5), 0.95, kind)
    covered = ((interval.low <= 0) & (interval.high >= 0)).mean()
    known = COVERAGE[kind][5]
    assert covered == pytest.approx(known, abs=4 * np.sqrt(known * (1 - known) / 3000))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seeds", [5, 7, 10])
def test_no_p_falls_below_the_rarest_resample(kind, seeds):
    certain = bootstrap(np.arange(1.0, seeds + 1) + 100, 0.95, kind)
    assert certain.p >= smallest_bootstrap_p(seeds, kind=kind) * (1 - 1e-9)
    if "studentised" not in kind and kind != "bca":
        assert certain.p == pytest.approx(smallest_bootstrap_p(seeds, kind=kind))


def test_an_interval_that_needs_a_rarer_resample_than_there_is_is_infinite():
    interval = bootstrap(noise(5), 1 - 0.05 / 6, "expanded percentile")
    assert (interval.low, interval.high) == (-np.inf, np.inf)


def test_pairing_survives_resampling():
    item = 10 * noise(20)
    baseline, arm = item + 0.1 * noise(20, key=1), item + 1.0 + 0.1 * noise(20, key=2)
    interval = bootstrap(arm - baseline, 0.95, "percentile")
    assert interval.p < 0.001
    assert 0.9 < interval.low < 1.0 < interval.high < 1.1


def test_a_generator_is_honoured_and_the_global_one_is_left_alone():
    d, state = noise(12), np.random.get_state()[1].copy()  # noqa: NPY002

    def ends(generator):
        return tuple(map(float, bootstrap(d, 0.95, "percentile", generator)))

    assert ends(np.random.default_rng(7)) == ends(np.random.default_rng(7))
    assert ends(np.random.default_rng(7)) != ends(np.random.default_rng(8))
    assert ends(None) == ends(None)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_cautions_name_the_coverage_and_cease_with_enough_seeds():
    assert caution("percentile", 5) == "a 95 % percentile interval covers only 84 % at 5 seeds, even of normal noise"
    assert "90 % at 10 seeds" in caution("bca", 12)
    assert caution("expanded percentile", 8) is None
    assert caution("studentised", 5) is None
    assert caution("percentile", 20) is None


def test_resampling_whole_seeds_is_the_step_down_over_every_resample():
    scores = noise(3, 5) + np.array([[0.0], [3.0], [1.0]])
    d = scores[1:] - scores[0]
    t = np.abs(np.stack([studentised_by_hand(row) for row in d], axis=1))
    observed = np.abs(paired_t(d).estimate / paired_t(d).standard_error)
    first = (t.max(axis=1) >= observed.max()).mean()
    second = max(first, (t[:, observed.argmin()] >= observed.min()).mean())
    answer = seed_bootstrap_max_t(scores, 0.05)
    assert sorted(answer.p_adjusted) == pytest.approx([first, second])


def test_resampled_residuals_keep_the_promised_error_of_identical_arms():
    answer = residual_bootstrap_max_t(noise(600, 3, 5), 0.05)
    rejected = (answer.p_adjusted <= 0.05).any(axis=1).mean()
    assert rejected == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 600))
    assert ((answer.low > 0) | (answer.high < 0)).any(axis=1).mean() == rejected


def test_residuals_that_run_out_give_no_number_that_is_none():
    answer = residual_bootstrap_max_t(noise(50, 2, 3), 0.05)
    assert np.isfinite(answer.p_adjusted).all()
    assert not np.isnan(answer.low).any()


@pytest.mark.parametrize(
    "judge",
    [
        lambda: bootstrap(noise(4), 0.95, "percentile"),
        lambda: bootstrap(np.ones(6), 0.95, "percentile"),
        lambda: bootstrap(noise(6), 1.0, "percentile"),
        lambda: bootstrap(noise(6), 0.95, "wild"),
        lambda: seed_bootstrap_max_t(noise(3, 4), 0.05),
    ],
)
def test_what_cannot_be_resampled_is_refused(judge):
    with pytest.raises(StatisticsError):
        judge()
