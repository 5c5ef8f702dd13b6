from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import StatisticsError
from workbench.statistics import crossed
from workbench.statistics.crossed import crossed_bootstrap
from workbench.statistics.items import two_way


def stream(number=0):
    return np.random.Generator(np.random.Philox(key=number))


SCORES = stream().standard_normal((4, 5, 60)) + np.array([0.0, 0.0, 0.2, 1.0])[:, None, None]


def by_hand(scores, resamples, weights, clusters):
    """Resample by index, one draw after the other, with the very counts of the internal stream."""
    weights = np.ones(scores.shape[-1]) if weights is None else np.asarray(weights)
    clusters = np.arange(scores.shape[-1]) if clusters is None else np.asarray(clusters)
    seeds, count = scores.shape[1], clusters.max() + 1
    members = [np.flatnonzero(clusters == c) for c in range(count)]
    for first, by_seed, by_cluster in crossed._weights(seeds, count, resamples):
        for row in range(len(by_seed)):
            picked_seeds = np.repeat(np.arange(seeds), by_seed[row].astype(int))
            picked = np.concatenate([members[c] for c in np.repeat(np.arange(count), by_cluster[row].astype(int))])
            means = np.average(scores[:, picked_seeds][:, :, picked], axis=-1, weights=weights[picked]).mean(axis=-1)
            yield first + row, means[1:] - means[0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clustered", [False, True])
def test_draws_are_those_of_resampling_by_index(weighted, clustered):
    weights = stream(1).uniform(0.5, 2, 60) if weighted else None
    clusters = stream(2).permutation(np.repeat(np.arange(24), [1, 4] * 12)) if clustered else None
    draws = crossed_bootstrap(SCORES, weights=weights, clusters=clusters, resamples=300).draws
    for number, expected in by_hand(SCORES, 300, weights, clusters):
        np.testing.assert_allclose(draws[number], expected, rtol=0, atol=1e-11)


def test_the_spread_is_the_variance_of_the_pigeonhole():
    d = SCORES[2] - SCORES[0]
    seeds, items = d.shape
    by_seed, by_item, all_ = d.mean(axis=1).var(), d.mean(axis=0).var(), d.var()
    # counts of multinomial draws: seed means, item means and what neither explains vary independently
    exact = by_seed / seeds + by_item / items + (all_ - by_seed - by_item) / (seeds * items)
    assert crossed_bootstrap(SCORES).standard_error[1] ** 2 == pytest.approx(exact, rel=0.05)


def test_it_is_more_cautious_than_the_two_way_analysis_of_the_same_data():
    bootstrap = crossed_bootstrap(SCORES, resamples=4_000).standard_error
    analysis = [two_way(arm - SCORES[0]).standard_error for arm in SCORES[1:]]
    assert (bootstrap > analysis).all()


def test_intervals_and_adjusted_p_values_tell_the_same_story():
    compared = crossed_bootstrap(SCORES).comparison
    outside = (compared.low > 0) | (compared.high < 0)
    assert outside[2]
    assert (compared.p_adjusted[outside] <= 0.05).all()
    assert (compared.p_adjusted >= compared.p).all()


@given(st.integers(0, 2**32), st.floats(1e-6, 1e6))
def test_sums_on_the_grid_are_exact_in_any_order(key, unit):
    rows = unit * stream(key).standard_cauchy((3, 60))
    whole, steps = crossed._on_grid(rows, 5 * 60)
    counts = stream(key + 1).multinomial(60, np.full(60, 1 / 60), 20)
    integers = counts @ whole.astype(np.int64).T  # whole numbers have no rounding to disagree about
    np.testing.assert_array_equal(counts.astype(np.float64) @ whole.T, integers)
    assert 5 * 60 * np.abs(whole).max() <= 2**53
    assert (np.abs(whole * steps[:, None] - rows) <= steps[:, None] / 2).all()
    assert (steps <= 2.0**-43 * np.abs(rows).max(axis=-1)).all()


def test_neither_the_block_size_nor_the_number_of_threads_changes_a_byte(monkeypatch):
    expected = crossed_bootstrap(SCORES, resamples=500).draws.tobytes()
    monkeypatch.setattr(crossed, "BLOCK", 7)
    assert crossed_bootstrap(SCORES, resamples=500).draws.tobytes() == expected
    program = (
        "import hashlib, numpy as np; from workbench.statistics.crossed import crossed_bootstrap;"
        "scores = np.random.Generator(np.random.Philox(key=9)).standard_normal((6, 5, 3000));"
        "print(hashlib.sha256(crossed_bootstrap(scores, resamples=400).draws.tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


def test_a_callers_generator_and_the_unit_of_the_scores_change_nothing():
    np.random.seed(1)  # noqa: NPY002
    first = crossed_bootstrap(SCORES, resamples=400)
    np.random.seed(2)  # noqa: NPY002
    second = crossed_bootstrap(SCORES * 1024, resamples=400)
    np.testing.assert_array_equal(first.draws * 1024, second.draws)
    np.testing.assert_array_equal(first.comparison.p_adjusted, second.comparison.p_adjusted)


def test_an_arm_equal_to_the_baseline_is_no_different_with_certainty():
    scores = SCORES.copy()
    scores[1] = scores[0]
    compared = crossed_bootstrap(scores, resamples=400).comparison
    assert (compared.estimate[0], compared.low[0], compared.high[0], compared.p[0]) == (0, 0, 0, 1)
    assert all(np.isfinite(column).all() for column in compared)


@pytest.mark.parametrize(
    ("scores", "changes", "message"),
    [
        (SCORES[0], {}, "wrong shape"),
        (SCORES[:1], {}, "wrong shape"),
        (SCORES[:, :2], {}, "too few seeds"),
        (SCORES[..., :19], {}, "too few items"),
        (SCORES, {"clusters": np.arange(60) % 5}, "too few items"),
        (SCORES, {"resamples": 150}, "tail"),
        (SCORES, {"weights": np.zeros(60)}, "weights do not fit"),
        (np.where(np.arange(60) == 3, np.nan, SCORES), {}, r"no number[\s\S]*item 3"),
        (SCORES[[0, 0]] + np.array([0.0, 0.1])[:, None, None], {}, "same amount everywhere"),
    ],
)
def test_what_cannot_be_resampled_is_refused(scores, changes, message):
    with pytest.raises(StatisticsError, match=message):
        crossed_bootstrap(scores, **changes)
