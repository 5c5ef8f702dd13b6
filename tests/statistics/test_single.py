from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from workbench.errors import StatisticsError
from workbench.statistics.pairing import Cell
from workbench.statistics.single import (
    History,
    contrast_items_only,
    contrast_target,
    contrast_with_history,
    pool_history,
)

LOSSES = {
    "base": [3.290, 3.280, 3.295, 3.281, 3.287],
    "deep": [3.275, 3.272, 3.289, 3.270, 3.281],
    "wide": [3.262, 3.265, 3.259, 3.260, 3.266],
}
CELLS = [Cell(name, seed, value) for name, values in LOSSES.items() for seed, value in enumerate(values)]
TRACK = History(0.0013, 10**9)  # a public speedrun's rule: sd known, claimed at (3.28 - mean) sqrt(n) >= .004


def against_target(rows=CELLS, target=3.28, **options):
    return contrast_target(rows, target, metric="loss", higher_is_better=False, **options)


def with_history(rows, history=TRACK, **options):
    return contrast_with_history(rows, history, baseline="base", metric="loss", higher_is_better=False, **options)


def test_a_target_is_asked_of_each_variant_by_a_one_sample_t_test_with_holm():
    contrasts = against_target()
    raw = [stats.ttest_1samp(values, 3.28).pvalue for values in LOSSES.values()]
    assert [c.arm for c in contrasts] == ["base", "deep", "wide"]
    assert [c.p for c in contrasts] == pytest.approx(raw)
    assert [c.p_adjusted for c in contrasts] == pytest.approx(multipletests(raw, method="holm")[1])
    for contrast, values in zip(contrasts, LOSSES.values(), strict=True):
        interval = stats.ttest_1samp(values, 3.28).confidence_interval(1 - 0.05 / 3)
        assert (contrast.low, contrast.high) == pytest.approx((interval.low - 3.28, interval.high - 3.28))
    assert [c.verdict for c in contrasts] == ["undecided", "undecided", "better"]


def test_beyond_a_target_never_claims_to_beat_the_baseline():
    for contrast in against_target():
        assert contrast.baseline == "target 3.28"
        assert "not with a baseline" in contrast.notes[0]
        assert "against a fixed number" in contrast.estimand


@pytest.mark.parametrize("runs", [1, 2, 7])
def test_the_known_noise_rule_of_a_public_speedrun_is_reproduced(runs):
    mean = 3.28 - 0.004 / sqrt(runs)
    (contrast,) = against_target([Cell("entry", seed, mean) for seed in range(runs)], history=TRACK)
    assert contrast.p / 2 == pytest.approx(stats.norm.sf(0.004 / 0.0013), rel=1e-6)
    assert contrast.p / 2 == pytest.approx(0.001, abs=5e-5)
    assert contrast.verdict == "better"


@pytest.mark.parametrize(("arm_runs", "baseline_runs"), [(1, 1), (1, 4), (3, 2)])
def test_single_runs_are_compared_on_borrowed_noise(arm_runs, baseline_runs):
    gap = 0.004 * sqrt(1 / arm_runs + 1 / baseline_runs)
    rows = [Cell("base", seed, 3.28) for seed in range(baseline_runs)]
    rows += [Cell("arm", 100 + seed, 3.28 - gap) for seed in range(arm_runs)]
    (contrast,) = with_history(rows, History(0.0013, 40))
    assert contrast.p == pytest.approx(2 * stats.t.sf(0.004 / 0.0013, 40))
    half = stats.t.isf(0.025, 40) * 0.0013 * sqrt(1 / arm_runs + 1 / baseline_runs)
    assert (contrast.low, contrast.high) == pytest.approx((-gap - half, -gap + half))
    assert (contrast.verdict, contrast.pairs) == ("better", min(arm_runs, baseline_runs))
    assert "rests on the noise of earlier runs (sd 0.0013, 40 df)" in contrast.notes[0]
    assert "no noisier" in contrast.notes[0]


def test_borrowed_noise_is_corrected_over_the_arms():
    rows = [Cell("base", 0, 3.28), Cell("a", 0, 3.284), Cell("b", 0, 3.2845), Cell("c", 0, 3.281)]
    contrasts = with_history(rows, History(0.0013, 40))
    raw = [2 * stats.t.sf(abs(c.estimate) / (0.0013 * sqrt(2)), 40) for c in contrasts]
    assert [c.p_adjusted for c in contrasts] == pytest.approx(multipletests(raw, method="holm")[1])
    assert {c.verdict for c in contrasts} == {"undecided"}  # alone, the second would have passed
    assert raw[1] < 0.05


def test_equivalence_on_borrowed_noise_is_two_one_sided_tests():
    (contrast,) = with_history([Cell("base", 0, 3.28), Cell("a", 0, 3.2801)], History(0.0013, 40), smallest_effect=0.01)
    error = 0.0013 * sqrt(2)
    assert contrast.p_equivalence == pytest.approx(stats.t.cdf((0.0001 - 0.01) / error, 40))
    assert (contrast.verdict, contrast.relevance) == ("equivalent", "within")


def test_an_arm_noisier_than_the_history_gets_no_verdict():
    rows = [Cell("base", seed, 3.28) for seed in range(3)]
    rows += [Cell("wild", seed, value) for seed, value in enumerate((3.1, 3.2, 3.15))]
    (contrast,) = with_history(rows, History(0.0013, 40))
    ratio = np.std([3.1, 3.2, 3.15], ddof=1) / 0.0013
    assert f"{ratio:.1f} times as noisy as the history" in contrast.blocked
    assert (contrast.verdict, contrast.p, contrast.low) == ("undecided", None, None)


def test_history_pools_the_spread_within_groups_only():
    groups = [[1.0, 1.2, 0.9, 1.1], [5.0, 5.3, 5.1], [9.0], [2.0, 2.1, 2.2, 1.9, 2.0, 2.4, 2.2]]
    history = pool_history(groups)
    squares = sum(np.var(group, ddof=1) * (len(group) - 1) for group in groups if len(group) > 1)
    assert history.df == 11
    assert history.sd == pytest.approx(sqrt(squares / 11))


@pytest.mark.parametrize("groups", [[], [[1.0]], [[1.0, 1.1]] * 9, [[1.0] * 20]])
def test_a_thin_history_is_refused(groups):
    with pytest.raises(StatisticsError, match="too thin"):
        pool_history(groups)


@pytest.mark.parametrize(
    "history", [History(0.0, 40), History(0.1, 9), History(float("nan"), 40), History(0.1, float("nan"))]
)
def test_a_declared_history_is_held_to_the_same(history):
    with pytest.raises(StatisticsError, match="too thin"):
        against_target(history=history)


def test_a_diverged_run_can_make_no_arm_better_and_no_baseline_win():
    rows = [*CELLS, Cell("wide", 5, None, "diverged")]
    wide = against_target(rows)[2]
    assert (wide.verdict, wide.blocked, wide.missing) == ("undecided", "diverged in 1 seed", 1)
    rows = [Cell("base", 0, 3.28), Cell("base", 1, None, "diverged"), Cell("bad", 0, 3.5), Cell("good", 0, 3.1)]
    bad, good = with_history(rows)
    assert (bad.verdict, bad.blocked) == ("undecided", "the baseline diverged in 1 seed")
    assert good.verdict == "better"


def test_runs_that_failed_are_counted_and_said():
    rows = [*CELLS, Cell("wide", 5, None, "failed")]
    wide = against_target(rows)[2]
    assert (wide.verdict, wide.pairs, wide.missing) == ("better", 5, 1)
    assert "failed on its machine in seed 5" in wide.notes


def test_what_leaves_no_noise_is_no_certainty():
    one, same = against_target([Cell("one", 0, 3.1), Cell("same", 0, 3.2), Cell("same", 1, 3.2)])
    assert (one.verdict, one.p) == ("undecided", None)
    assert "--history-sd" in one.blocked
    assert same.blocked == "no noise between seeds to test against"
    assert one.family == 2


def test_the_forecast_counts_further_runs():
    (contrast,) = with_history([Cell("base", 0, 3.28), Cell("a", 0, 3.277)], History(0.0013, 311))
    needed = next(
        more
        for more in range(1, 50)
        if stats.norm.sf(stats.t.isf(0.025, 311) - 0.003 / (0.0013 * sqrt(2 / (1 + more)))) >= 0.8
    )
    assert (contrast.verdict, contrast.more_seeds) == ("undecided", needed)


ITEMS = np.random.default_rng(3)
RIGHT = {"base": (ITEMS.random(400) < 0.5) * 1.0}
RIGHT["wide"] = np.where(ITEMS.random(400) < 0.9, RIGHT["base"], 1 - RIGHT["base"])
RIGHT["good"] = np.where(ITEMS.random(400) < 0.8, RIGHT["base"], 1.0)


def over_items(scores=RIGHT, **options):
    return contrast_items_only(scores, baseline="base", metric="acc", higher_is_better=True, **options)


def test_single_runs_are_compared_item_by_item_and_labelled():
    good, wide = over_items()
    for contrast in (good, wide):
        paired = stats.ttest_rel(RIGHT[contrast.arm], RIGHT["base"])
        interval = paired.confidence_interval(0.975)
        assert contrast.p == pytest.approx(paired.pvalue)
        assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high))
        assert contrast.notes[0] == "items only: says nothing about retraining"
        assert "nothing about retraining" in contrast.estimand
        assert contrast.pairs == 1
    assert (good.verdict, wide.verdict) == ("better", "undecided")
    assert wide.blocked == "these items do not tell the two runs apart"


def test_pairing_the_items_is_sharper_than_comparing_two_error_bars():
    wide = over_items()[1]
    unpaired = stats.ttest_ind(RIGHT["wide"], RIGHT["base"]).confidence_interval(0.975)
    assert wide.high - wide.low < 0.5 * (unpaired.high - unpaired.low)


def test_right_or_wrong_items_carry_the_exact_test_of_mcnemar():
    gained = int((RIGHT["wide"] > RIGHT["base"]).sum())
    lost = int((RIGHT["wide"] < RIGHT["base"]).sum())
    p = stats.binomtest(gained, gained + lost).pvalue
    assert f"exact McNemar p = {p:.3g}" in over_items()[1].notes
    assert not any("McNemar" in note for note in over_items({name: held * 2 for name, held in RIGHT.items()})[1].notes)


def test_clustered_items_widen_the_error():
    codes = np.repeat(np.arange(40), 10)
    shift = np.repeat(np.random.default_rng(0).normal(0, 0.3, 40), 10)
    noise = np.random.default_rng(1).normal(0, 0.1, 400)
    scores = {"base": np.zeros(400), "arm": shift + noise + 0.05}
    (plain,), (clustered,) = over_items(scores), over_items(scores, clusters=codes)
    means = scores["arm"].reshape(40, 10).mean(axis=1)
    assert clustered.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert clustered.high - clustered.low > 2 * (plain.high - plain.low)
    assert "clustered" in clustered.method


def test_runs_alike_on_every_item_leave_nothing_to_test():
    (contrast,) = over_items({"base": RIGHT["base"], "copy": RIGHT["base"].copy()})
    assert contrast.verdict == "undecided"
    assert contrast.blocked.startswith("the runs score alike on every item")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: against_target(target=float("nan")), "target is no number"),
        (lambda: against_target(alpha=0.7), "alpha is no error rate"),
        (lambda: against_target(smallest_effect=-1.0), "not a positive number"),
        (lambda: with_history([Cell("bas", 0, 1.0), Cell("b", 0, 1.0)]), "the baseline does not exist"),
        (lambda: with_history([Cell("base", 0, 1.0)]), "nothing to compare"),
        (lambda: against_target([*CELLS, CELLS[0]]), r"given twice[\s\S]*variant base, seed 0"),
        (lambda: against_target([Cell("a", 0, float("inf"))]), "no finite score"),
        (lambda: over_items({"base": RIGHT["base"]}), "nothing to compare"),
        (lambda: over_items({"arm": RIGHT["base"], "other": RIGHT["base"]}), "the baseline does not exist"),
    ],
)
def test_questions_without_sense_are_refused(ask, message):
    with pytest.raises(StatisticsError, match=message):
        ask()


@given(st.permutations(CELLS), st.floats(0.0005, 0.01))
def test_the_order_of_the_rows_changes_nothing(rows, margin):
    assert against_target(rows, smallest_effect=margin) == against_target(smallest_effect=margin)
    history = History(0.005, 30)
    assert with_history(rows, history) == with_history(CELLS, history)
