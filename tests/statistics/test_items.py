from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.anova import anova_lm

from workbench.errors import StatisticsError
from workbench.statistics.items import ItemRun, items_only, pair_items, two_way
from workbench.statistics.multiplicity import holm
from workbench.statistics.new_items import contrast_new_items
from workbench.statistics.pairing import ItemScores

TOY = np.array([[1.0, 2, 3, 4], [2, 4, 3, 5], [0, 1, 2, 6]])  # seeds × items
CORRECT = np.array([1.0, 1, 0, 0, 1, 0, 1, 1])
PASSAGE = np.array([0, 0, 1, 1, 2, 2, 3, 3])


def stream(number=0):
    return np.random.Generator(np.random.Philox(key=number))


def runs(scores, *, status=(), names=None, weights=None):
    """Tidy rows of float64[variants, seeds, items]; `status` maps (variant, seed) to a fate."""
    status = dict(status)
    items = names if names is not None else [f"item {i}" for i in range(scores.shape[-1])]
    weights = weights if weights is not None else np.ones(len(items))
    for v, arm in enumerate(scores):
        for s, values in enumerate(arm):
            name = "base" if v == 0 else f"arm {v}"
            fate = status.get((v, s), "finished")
            yield ItemRun(
                name, s, ItemScores(f"{name}/{s}", items, values, weights) if fate == "finished" else None, fate
            )


def table(scores, *, clusters=None, **changes):
    rows = runs(scores, **changes)
    return pair_items(rows, baseline="base", metric="accuracy", higher_is_better=True, clusters=clusters)


def test_mean_squares_are_those_of_the_analysis_of_variance():
    long = pd.DataFrame({"y": TOY.ravel(), "s": np.repeat(range(3), 4), "i": np.tile(range(4), 3)})
    anova = anova_lm(ols("y ~ C(s) + C(i)", long).fit())
    test = two_way(TOY)
    np.testing.assert_allclose(test.mean_squares, anova["mean_sq"], rtol=1e-12)
    np.testing.assert_allclose(test.degrees, anova["df"])
    np.testing.assert_allclose(test.mean_squares, [1.75, 8.305556, 0.972222], atol=1e-6)


def test_error_and_degrees_follow_satterthwaite():
    test = two_way(TOY)
    squares, degrees = np.array([1.75, 8 + 11 / 36, 35 / 36]), np.array([2, 3, 6])
    variance = squares @ [1, 1, -1] / 12
    df = (variance * 12) ** 2 / (squares**2 / degrees).sum()
    assert test.standard_error**2 == pytest.approx(0.7569444444)
    assert test.df == pytest.approx(df)
    assert test.p == pytest.approx(2 * stats.t.sf(2.75 / np.sqrt(variance), df))
    low, high = test.interval(0.95)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, df, 2.75, np.sqrt(variance)))


def test_equivalence_is_two_one_sided_tests():
    test = two_way(TOY - TOY.mean() + 0.1)
    above = stats.t.cdf((0.1 - 2) / test.standard_error, test.df)
    below = stats.t.sf((0.1 + 2) / test.standard_error, test.df)
    assert test.equivalence_p(2.0) == pytest.approx(max(above, below))


def test_the_error_is_never_smaller_than_that_of_seeds_or_of_items_alone():
    d = stream().standard_normal((400, 3, 6))
    test = two_way(d)
    largest = np.maximum(test.mean_squares[..., 0], test.mean_squares[..., 1])
    assert (test.standard_error**2 >= largest / 18 * (1 - 1e-12)).all()
    without_items = test.mean_squares[..., 1] < test.mean_squares[..., 2]
    alone = without_items & (test.mean_squares[..., 0] > test.mean_squares[..., 1])
    seeds_only = stats.ttest_1samp(d[alone].mean(axis=-1), 0, axis=-1)
    assert alone.sum() > 20
    np.testing.assert_allclose(test.p[alone], seeds_only.pvalue)


def test_noise_that_cancels_in_every_margin_still_counts():
    test = two_way([[1.0, 3.0], [3.0, 1.0]])
    assert test.mean_squares.tolist() == [0, 0, 4]
    assert (test.estimate, test.standard_error, test.df) == (2, 1, 1)


def test_clustered_error_is_that_of_a_regression_on_clusters():
    assert items_only(CORRECT).standard_error == pytest.approx(0.1829813, abs=1e-7)
    clustered = items_only(CORRECT, clusters=PASSAGE)
    assert clustered.standard_error == pytest.approx(0.2393568, abs=1e-7)
    fit = OLS(CORRECT, np.ones(8)).fit(cov_type="cluster", cov_kwds={"groups": PASSAGE})
    assert clustered.standard_error == pytest.approx(fit.bse[0])
    assert "nothing about retraining" in clustered.estimand


def test_unequal_clusters_and_weights_give_the_sandwich_error_of_a_weighted_mean():
    clusters = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    weights = np.array([1.0, 5, 2, 2, 7, 1, 3, 1])
    ours = items_only(CORRECT, weights=weights, clusters=clusters)
    share = weights / weights.sum()
    mean = (share * CORRECT).sum()
    sums = np.array([(share * (CORRECT - mean))[clusters == c].sum() for c in range(4)])
    assert ours.estimate == pytest.approx(mean)
    assert ours.standard_error == pytest.approx(np.sqrt(4 / 3 * (sums**2).sum()))
    assert ours.df == pytest.approx(1 / sum(share[clusters == c].sum() ** 2 for c in range(4)) - 1)


def test_pairing_items_removes_what_they_share():
    ability = stream(1).standard_normal(500)
    baseline, arm = ability + 0.5 * stream(2).standard_normal((2, 500))
    paired = items_only(arm - baseline).standard_error
    unpaired = np.hypot(items_only(arm).standard_error, items_only(baseline).standard_error)
    assert paired == pytest.approx(stats.sem(arm - baseline))
    assert paired < 0.6 * unpaired


@pytest.mark.parametrize("weights", [None, [2.0, 2, 2, 2]])
def test_equal_weights_and_clusters_of_one_change_nothing(weights):
    plain = two_way(TOY)
    for other in (two_way(TOY, weights=weights), two_way(TOY, weights=weights, clusters=[3, 0, 2, 1])):
        for ours, theirs in zip(plain, other, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_clusters_of_equal_size_are_analysed_as_items():
    means = TOY.reshape(3, 2, 2).mean(axis=-1)
    clustered, averaged = two_way(TOY, clusters=[0, 0, 1, 1]), two_way(means)
    for ours, theirs in zip(clustered, averaged, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_seed_effect_does_not_leak_into_the_residual_through_the_weights():
    shift = np.array([[10.0], [-20.0], [10.0]])
    weights = [1.0, 9, 2, 4]
    before, after = two_way(TOY, weights=weights), two_way(TOY + shift, weights=weights)
    np.testing.assert_allclose(before.mean_squares[1:], after.mean_squares[1:])


@pytest.mark.parametrize(
    ("seeds", "items", "seed_sd", "item_sd", "weighted"),
    [(5, 200, 0.0, 0.3, False), (5, 100, 0.1, 0.2, True), (3, 60, 0.1, 0.0, False), (10, 30, 0.2, 0.3, True)],
)
def test_identical_arms_are_called_different_at_no_more_than_the_level(seeds, items, seed_sd, item_sd, weighted):
    draws, sets = stream(seeds * items), 2_000
    d = seed_sd * draws.standard_normal((sets, seeds, 1)) + item_sd * draws.standard_normal((sets, 1, items))
    d = d + draws.standard_normal((sets, seeds, items))
    weights = draws.lognormal(0, 0.7, items) if weighted else None
    share = float((two_way(d, weights=weights).p < 0.05).mean())
    assert share < 0.05 + 4 * np.sqrt(0.05 * 0.95 / sets)


@given(st.permutations(range(12)), st.permutations(range(7)))
def test_neither_rows_nor_items_in_another_order_change_a_bit(order, items):
    scores = stream(4).standard_normal((3, 4, 7)) * 1e3
    clusters = {f"item {i}": f"passage {i % 3}" for i in range(7)}
    weights = np.arange(1.0, 8)
    straight = contrast_new_items(table(scores, clusters=clusters, weights=weights))
    names = np.array([f"item {i}" for i in items])
    shuffled = list(runs(scores[..., items], names=names, weights=weights[list(items)]))
    rows = [shuffled[i] for i in order]
    other = pair_items(rows, baseline="base", metric="accuracy", higher_is_better=True, clusters=clusters)
    assert straight == contrast_new_items(other)


def test_contrasts_are_the_two_way_tests_of_each_arm_with_holm():
    scores = stream(3).standard_normal((4, 5, 40)) + np.array([0, 0.0, 0.5, 1.0])[:, None, None]
    contrasts = contrast_new_items(table(scores), smallest_effect=0.8)
    tests = [two_way(arm - scores[0]) for arm in scores[1:]]
    assert [contrast.arm for contrast in contrasts] == ["arm 1", "arm 2", "arm 3"]
    np.testing.assert_allclose([c.estimate for c in contrasts], [t.estimate for t in tests])
    np.testing.assert_allclose([c.p_adjusted for c in contrasts], holm([t.p for t in tests]))
    np.testing.assert_allclose([c.p_equivalence for c in contrasts], holm([t.equivalence_p(0.8) for t in tests]))
    np.testing.assert_allclose([(c.low, c.high) for c in contrasts], [t.interval(1 - 0.05 / 3) for t in tests])


def test_an_arm_is_judged_on_the_seeds_in_which_both_finished():
    scores = stream(5).standard_normal((3, 4, 30))
    items = table(scores, status={(1, 2): "diverged", (2, 0): "failed"})
    first, second = contrast_new_items(items)
    assert (first.pairs, second.pairs) == (3, 3)
    assert first.estimate == pytest.approx((scores[1] - scores[0])[[0, 1, 3]].mean())
    assert np.isnan(items.scores[1, 2]).all()
    assert items.complete().shape == (3, 2, 30)
    np.testing.assert_allclose(items.paired.values[0], scores[0].mean(axis=-1))


def test_an_arm_that_cannot_be_tested_says_why_and_keeps_its_place_in_the_family():
    scores = stream(6).standard_normal((4, 3, 30))
    scores[2] = scores[0] + 0.5
    fates = {(3, s): "diverged" for s in range(3)}
    tested, idle, gone = contrast_new_items(table(scores, status=fates))
    assert idle.blocked == "no noise between seeds to test against"
    assert idle.estimate == pytest.approx(0.5)
    assert (gone.blocked, gone.estimate) == ("diverged in 3 seeds", None)
    assert tested.family == 3
    assert tested.p_adjusted == pytest.approx(min(1.0, 3 * float(two_way(scores[1] - scores[0]).p)))


def test_an_arm_equal_to_the_baseline_on_every_item_leaves_nothing_to_test():
    scores = np.repeat(stream(7).standard_normal((1, 3, 20)), 2, axis=0)
    (contrast,) = contrast_new_items(table(scores), smallest_effect=0.1)
    assert (contrast.estimate, contrast.verdict) == (0, "undecided")
    assert contrast.blocked == "scores equal to the baseline's on every item"


def test_a_diverged_arm_is_neither_better_nor_equivalent_for_new_items():
    scores = stream(8).standard_normal((2, 6, 40)) + np.array([0, 5.0])[:, None, None]
    (better,) = contrast_new_items(table(scores))
    (vetoed,) = contrast_new_items(table(scores, status={(1, 2): "diverged"}))
    assert (better.verdict, vetoed.verdict, vetoed.blocked) == ("better", "undecided", "diverged in 1 seed")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: two_way([[1.0, 2.0]]), "one seed"),
        (lambda: two_way([[1.0], [2.0]]), "one item"),
        (lambda: two_way([[1.0, 2.0], [2.0, 4.0]], clusters=[0, 0]), "one item"),
        (lambda: two_way([[1.0, np.nan], [2.0, 4.0]]), r"no number[\s\S]*\[0, 1\]"),
        (lambda: two_way([[1.0, np.inf], [2.0, 4.0]]), "no number"),
        (lambda: two_way([[1.0, 2.0], [1.0, 2.0]]), "seeds change nothing"),
        (lambda: two_way(TOY, weights=[1.0, 0, 1, 1]), "weights do not fit"),
        (lambda: two_way(TOY, weights=[1.0, 1]), "weights do not fit"),
        (lambda: items_only([1.0]), "one item"),
        (lambda: two_way(TOY, weights=[1e9, 1, 1, 1]), r"one item[\s\S]*4, worth 1.00"),
        (lambda: table(TOY[None].repeat(2, 0), clusters={"item 1": "a"}), r"no cluster[\s\S]*3 of 4"),
        (lambda: contrast_new_items(table(stream().normal(size=(2, 3, 4))), alpha=0.7), "no error rate"),
        (
            lambda: pair_items([ItemRun("base", 0, None)], baseline="base", metric="m", higher_is_better=True),
            "finished run has no item scores",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(call, message):
    with pytest.raises(StatisticsError, match=message):
        call()


def test_runs_scored_on_other_items_are_refused():
    rows = [*runs(TOY[None].repeat(2, 0)), ItemRun("arm 2", 0, ItemScores("odd", ["item 0"], [1.0], [1.0]))]
    with pytest.raises(StatisticsError, match="different items"):
        pair_items(rows, baseline="base", metric="accuracy", higher_is_better=True)
