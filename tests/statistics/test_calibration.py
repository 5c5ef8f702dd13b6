from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workbench.errors import StatisticsError
from workbench.statistics import contrast_all, pair
from workbench.statistics.calibration import Calibration, calibrate, calibrate_on_pool, clopper_pearson, count_splits
from workbench.statistics.comparison import Comparison
from workbench.statistics.methods import METHODS
from workbench.statistics.reference import compare_blocks
from workbench.statistics.scenarios import SCENARIOS, SHAPES, NoiseModel, fit_noise, scenario

RARE = 1e-5  # chance that a correct implementation misses a bound of this file


def known_sd(scores: np.ndarray, alpha: float) -> Comparison:
    """A z test that knows the noise: its error is exactly alpha for one arm, its power a formula."""
    estimate = scores[..., 1:, :].mean(axis=-1) - scores[..., :1, :].mean(axis=-1)
    error = np.sqrt(2 / scores.shape[-1])
    p = 2 * stats.norm.sf(np.abs(estimate) / error)
    half = stats.norm.isf(alpha / 2) * error
    return Comparison(estimate, estimate - half, estimate + half, p, p)


def always(p: float) -> object:
    def compare(scores: np.ndarray, alpha: float) -> Comparison:
        shape = (*scores.shape[:-2], scores.shape[-2] - 1)
        zeros, flat = np.zeros(shape), np.full(shape, p)
        return Comparison(zeros, zeros - 1, zeros + 1, flat, flat)

    return compare


def at_most(error: float, simulations: int) -> float:
    return float(stats.binom.isf(RARE, simulations, error)) / simulations


def at_least(error: float, simulations: int) -> float:
    return float(stats.binom.ppf(RARE, simulations, error)) / simulations


def test_a_test_that_knows_the_noise_has_the_error_and_the_power_of_the_formula() -> None:
    found = calibrate(known_sd, seeds=4, arms=1, alpha=0.1)
    assert at_least(0.1, 20_000) <= found.error <= at_most(0.1, 20_000)
    assert found.coverage == pytest.approx(1 - found.error)
    shift, critical = 2 / np.sqrt(2 / 4), stats.norm.isf(0.05)
    power = stats.norm.sf(critical - shift) + stats.norm.cdf(-critical - shift)
    assert at_least(power, 20_000) <= found.power <= at_most(power, 20_000)
    assert found.error_beside_effects is None


def test_independent_arms_multiply_their_errors_and_the_affected_ones_leave_the_rest() -> None:
    noise = NoiseModel((0.0, *[1.0] * 5))  # a baseline without noise leaves the arms independent
    found = calibrate(
        lambda scores, alpha: known_sd(np.sqrt(2) * scores, alpha), seeds=3, arms=5, noise=noise, effect=9.0
    )
    expected = 1 - 0.95**5
    assert at_least(expected, 20_000) <= found.error <= at_most(expected, 20_000)
    beside = 1 - 0.95**2
    assert at_least(beside, 20_000) <= found.error_beside_effects <= at_most(beside, 20_000)
    assert found.power == 1.0


@pytest.mark.parametrize(("p", "bin_index"), [(1e-9, 0), (0.01, 0), (0.0100001, 1), (0.05, 4), (0.29, 28), (1.0, 99)])
def test_a_p_value_counts_in_the_hundredth_it_ends(p: float, bin_index: int) -> None:
    found = calibrate(always(p), seeds=3, arms=2, simulations=50, effect=None)
    assert found.smallest_p[bin_index] == 50
    assert found.share_called(bin_index / 100) == 0.0
    assert found.share_called((bin_index + 1) / 100) == 1.0
    assert found.power is None


def test_the_same_question_has_the_same_answer_and_methods_see_the_same_data() -> None:
    seen: list[np.ndarray] = []

    def watched(scores: np.ndarray, alpha: float) -> Comparison:
        seen.append(scores)
        return known_sd(scores, alpha)

    asked = {"seeds": 5, "arms": 2, "noise": "t3", "simulations": 300, "effect": None}
    first, again = calibrate(watched, **asked), calibrate(watched, **asked)
    assert first == again
    assert np.array_equal(*seen)


@given(st.integers(1, 400), st.data())
def test_the_interval_is_that_of_clopper_and_pearson(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_splits_of_a_pool_are_counted() -> None:
    assert count_splits(10, 5, 1) == 126
    assert count_splits(200, 5, 6) is None
    runs = range(7)
    listed = set()
    for baseline in combinations(runs, 2):
        for one in combinations(set(runs) - set(baseline), 2):
            for other in combinations(set(runs) - set(baseline) - set(one), 2):
                listed.add((baseline, frozenset({one, other})))
    assert count_splits(7, 2, 2) == len(listed)


def test_a_pool_deals_every_run_at_most_once_and_all_alike() -> None:
    pool = np.arange(9.0) ** 1.5
    counts = np.zeros(9)

    def watched(scores: np.ndarray, alpha: float) -> Comparison:
        flat = np.sort(scores.reshape(len(scores), -1))
        assert (np.diff(flat) > 0).all()
        if len(scores) == 1000:
            counts[:] += [(scores[:, 0] == run).sum() for run in pool]
        return always(1.0)(scores, alpha)

    found = calibrate_on_pool(watched, pool, seeds=2, arms=2, simulations=1000, effect=None)
    assert stats.chisquare(counts).pvalue > RARE
    assert found.pool is not None
    assert (found.low, found.high, found.pool.runs, found.error) == (None, None, 9, 0.0)


def test_the_order_of_a_pool_does_not_matter() -> None:
    pool = np.random.default_rng(0).normal(size=12)
    one, other = (
        calibrate_on_pool(compare_blocks, held, seeds=3, arms=1, simulations=500) for held in (pool, pool[::-1])
    )
    assert one == other


def test_a_normal_pool_is_within_what_normal_pools_show() -> None:
    pool = stats.norm.ppf((np.arange(40) + 0.5) / 40)
    found = calibrate_on_pool(compare_blocks, pool, seeds=5, arms=1, simulations=5000)
    assert found.pool is not None
    assert found.pool.low < found.error < found.pool.high
    assert found.pool.splits is None


@pytest.mark.parametrize(
    ("pool", "complaint"),
    [
        (np.arange(14.0), "at most 4 seeds, or 1 arms"),
        (np.array([1.0, 2.0, np.nan, 3.0] * 5), "finite scores"),
        (np.ones((4, 5)), "list of finite scores"),
        (np.repeat([0.1, 0.3, 0.7], 30), "no spread"),
    ],
)
def test_a_pool_that_cannot_fill_the_design_is_refused(pool: np.ndarray, complaint: str) -> None:
    with pytest.raises(StatisticsError, match=complaint):
        calibrate_on_pool(compare_blocks, pool, seeds=5, arms=2, simulations=2000)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"noise": "calm"}, "one arm 2x"),
        ({"noise": "two arms 3x", "arms": 1}, "needs more arms"),
        ({"noise": NoiseModel((1.0, 1.0))}, "another number of arms"),
        ({"simulations": 0}, "nothing to simulate"),
    ],
)
def test_a_question_without_an_answer_is_refused(changed: dict, complaint: str) -> None:
    with pytest.raises(StatisticsError, match=complaint):
        calibrate(compare_blocks, **{"seeds": 5, "arms": 6, "simulations": 10, **changed})


@pytest.mark.parametrize("shape", SHAPES)
def test_quiet_noise_has_unit_scale_in_every_shape(shape: str) -> None:
    drawn = SHAPES[shape](np.random.Generator(np.random.Philox(key=1)), (400_000,))
    quiet = drawn[drawn < 2.5] if shape == "diverging" else drawn
    if shape == "t3":  # its variance has no variance of its own: compare quartiles
        assert np.quantile(quiet, 0.75) == pytest.approx(stats.t(3).ppf(0.75) / np.sqrt(3), abs=0.01)
    else:
        assert quiet.std() == pytest.approx(1.0, abs=0.03)
    assert drawn.mean() == pytest.approx(0.5 if shape == "diverging" else 0.0, abs=0.02)


@pytest.mark.parametrize("name", SCENARIOS)
def test_noisy_arms_stand_last(name: str) -> None:
    noise = scenario(name, 6)
    assert len(noise.scales) == 7
    assert list(noise.scales[1:]) == sorted(noise.scales[1:])
    assert noise.unit == 1.0


def test_fitted_noise_finds_what_every_arm_scatters() -> None:
    generator = np.random.default_rng(3)
    truth = np.array([2.0, 1.0, 1.0, 4.0])
    scores = generator.normal(size=(4, 20_000)) * truth[:, None] + 3 * generator.normal(size=20_000)
    scores += np.arange(4)[:, None]
    found = fit_noise(scores)
    assert found.scales == pytest.approx(truth, rel=0.05)
    assert found.seed_sd == pytest.approx(3.0, rel=0.05)
    assert found.unit == pytest.approx(np.sqrt((truth**2).mean()), rel=0.05)
    assert fit_noise(scores, equal=True).scales == pytest.approx([found.unit] * 4)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_fitted_noise_follows_the_unit_and_ignores_what_seeds_share(
    rows: int, seeds: int, key: int, factor: float
) -> None:
    generator = np.random.default_rng(key)
    scores, shared = generator.normal(size=(rows, seeds)), generator.normal(size=seeds)
    found = fit_noise(scores)
    assert min(found.scales) >= 0.2499 * found.unit
    assert fit_noise(factor * scores).scales == pytest.approx(factor * np.array(found.scales))
    assert fit_noise(scores - scores[0]).scales == pytest.approx(found.scales)
    assert fit_noise(scores + shared).scales == pytest.approx(found.scales)


@pytest.mark.parametrize(
    "scores",
    [np.ones((3, 5)), np.ones(4), np.ones((3, 1)), np.full((3, 4), np.nan), 0.1 + np.zeros((3, 1)) + np.arange(4)],
)
def test_scores_without_noise_cannot_be_fitted(scores: np.ndarray) -> None:
    with pytest.raises(StatisticsError, match="fit"):
        fit_noise(scores)


@pytest.mark.parametrize("noise", ["normal", "one arm 3x", "baseline 3x"])
def test_what_is_calibrated_is_what_makes_the_verdicts(noise: str) -> None:
    generator = np.random.Generator(np.random.Philox(key=7))
    held = scenario(noise, 6).draw(generator, 3, 5)
    held[:, 1] += 2.0
    compared = compare_blocks(held, 0.05)
    for index, scores in enumerate(held):
        rows = [(f"arm {row}", seed, value) for row, line in enumerate(scores) for seed, value in enumerate(line)]
        contrasts = contrast_all(pair(rows, baseline="arm 0", metric="score", higher_is_better=True))
        assert [c.p_adjusted for c in contrasts] == pytest.approx(compared.p_adjusted[index].tolist())
        assert [c.verdict in ("better", "worse") for c in contrasts] == (compared.p_adjusted[index] <= 0.05).tolist()


# The quick version of results/calibration: true errors from there, bounds that chance misses once in 100,000.
@pytest.mark.parametrize("noise", ["normal", "one arm 5x", "baseline 3x", "exponential"])
@pytest.mark.parametrize(("seeds", "arms", "simulations"), [(5, 1, 10_000), (5, 6, 10_000), (5, 20, 1_500)])
def test_the_default_test_holds_its_error(noise: str, seeds: int, arms: int, simulations: int) -> None:
    found = calibrate(compare_blocks, seeds=seeds, arms=arms, noise=noise, simulations=simulations, effect=None)
    assert found.error <= at_most(0.065, simulations)
    assert found.coverage >= at_least(0.935, simulations)


def test_the_default_test_has_twice_the_power_of_paired_t_tests() -> None:
    ours, theirs = (
        calibrate(compare, seeds=5, arms=6, simulations=10_000)
        for compare in (compare_blocks, METHODS["paired t + Holm"].compare)
    )
    assert ours.power is not None
    assert theirs.power is not None
    assert ours.power > 0.57
    assert theirs.power < 0.31
    assert theirs.error <= at_most(0.05, 10_000)


@pytest.mark.parametrize(
    ("method", "noise", "arms", "error"),
    [
        ("percentile bootstrap", "normal", 1, 0.14),
        ("pooled block t + Holm", "one arm 5x", 6, 0.10),
        ("pooled block t + Holm", "baseline 3x", 6, 0.14),
    ],
)
def test_known_failures_are_found(method: str, noise: str, arms: int, error: float) -> None:
    found: Calibration = calibrate(
        METHODS[method].compare, seeds=5, arms=arms, noise=noise, simulations=3_000, effect=None
    )
    assert found.low is not None
    assert found.low > error
