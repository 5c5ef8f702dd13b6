from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.benchmarks.sequential import BAR, SCENARIOS, family_wise_error, simulated_use
from workbench.errors import StatisticsError
from workbench.statistics.blocks import fit
from workbench.statistics.boundaries import SHARE, Design, boundaries
from workbench.statistics.looks import Left, look
from workbench.statistics.sequential import ABOVE, EQUIVALENT, RUNNING, Progress, Standing, decide, follow, forecast
from workbench.statistics.sequential import minimum_detectable_effect as smallest

SMALL = Design(seeds=6, arms=3)
LARGE = Design(seeds=10, arms=6)


def noise(*shape: int, key: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape)


def judge(scores: Any, design: Design = SMALL, status: Any = None, **named: Any) -> tuple[Standing, ...]:
    """Judge however many blocks there are; those still to come are missing."""
    return progress(scores, design, status, **named).arms


def progress(scores: Any, design: Design = SMALL, status: Any = None, **named: Any) -> Progress:
    padded = np.full((1 + design.arms, design.seeds), np.nan)
    ended = np.full(padded.shape, "missing", dtype="U8")
    seeds = np.shape(scores)[1]
    padded[:, :seeds] = scores
    ended[:, :seeds] = "finished" if status is None else status
    return decide(padded, ended.tolist(), design, **named)


def test_before_the_fourth_block_nothing_is_said() -> None:
    scores = noise(4, 3)
    scores[1] += 100
    assert judge(scores) == (Standing("running"),) * 3


def test_clear_differences_stop_their_arms_at_the_first_look_and_the_others_go_on() -> None:
    scores = noise(4, 6)
    scores[1] += 20
    scores[2] -= 20
    first = judge(scores[:, :4])
    assert [standing.state for standing in first] == ["better", "worse", "running"]
    last = judge(scores)
    assert last[:2] == first[:2]
    assert (last[2].state, last[2].seeds) == ("undecided", 6)


def test_runs_are_asked_for_block_by_block_and_only_of_undecided_arms() -> None:
    scores = noise(4, 6)
    scores[1] += 20
    assert progress(scores[:, :0]).asked.tolist() == [[True] * 4 + [False] * 2] * 4
    assert progress(scores[:, :4]).asked[:, 4].tolist() == [True, False, True, True]
    assert not progress(scores[:, :4]).asked[:, 5].any()
    whole = progress(scores)
    assert whole.over
    assert whole.asked.sum(axis=1).tolist() == [6, 4, 6, 6]
    scores[2:] += 20
    early = progress(scores[:, :4])
    assert early.over
    assert early.asked.sum() == 16


def test_a_boundary_for_one_arm_is_the_error_spent_so_far() -> None:
    limits = boundaries(6, 1).difference[:, 0]
    assert limits[0] == pytest.approx(SHARE * 0.05 / 3, rel=0.1)  # a paired t test's p is uniform
    assert (np.diff(limits) > 0).all()


def test_boundaries_fall_with_the_size_of_the_family_and_spend_what_they_may() -> None:
    limits = boundaries(6, 3)
    assert (np.diff(limits.difference, axis=1) <= 0).all()
    assert (np.diff(limits.equivalence, axis=1) <= 0).all()
    found = follow(noise(20_000, 4, 6, key=2), SMALL).state
    assert (found != RUNNING).any(axis=1).mean() == pytest.approx(SHARE * 0.05, abs=0.006)


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(4, 9))
def test_while_all_arms_run_a_look_is_the_default_test(key: int, arms: int, seeds: int) -> None:
    scores = noise(3, 1 + arms, seeds, key=key)
    scores[0, 1] *= 20
    found, known = look(scores, np.ones((3, arms), np.bool_), Left.none(3)), fit(scores)
    np.testing.assert_allclose(found.error, known.standard_error, rtol=1e-12)
    np.testing.assert_allclose(found.p_different(), known.p_different(), rtol=1e-9)
    np.testing.assert_allclose(found.p_beyond(0.5), known.p_beyond(0.5), rtol=1e-9)


def test_the_last_arm_is_judged_by_a_paired_t_test() -> None:
    scores = noise(1, 4, 6)
    found = look(scores, np.array([[False, True, False]]), Left(np.array([3.0]), np.array([4.0])))
    assert found.p_different()[0, 1] == pytest.approx(stats.ttest_rel(scores[0, 2], scores[0, 0]).pvalue)


def test_stopped_arms_leave_their_variance_in_the_pool() -> None:
    scores, squares, df = noise(1, 3, 8), 40.0, 5.0
    found = look(scores, np.ones((1, 2), np.bool_), Left(np.array([squares]), np.array([df])))
    arms = scores[0, 1:] - scores[0, 1:].mean(axis=1, keepdims=True)
    pool = (((arms - arms.mean(axis=0)) ** 2).sum() + squares) / (7 + df)
    apart = np.var(scores[0, 0] - scores[0, 1:].mean(axis=0), ddof=1)
    own = [np.var(scores[0, arm] - scores[0, 0], ddof=1) for arm in (1, 2)]
    np.testing.assert_allclose(found.error[0], np.sqrt(np.maximum(apart + pool / 2, own) / 8))
    assert found.df[0, 0] == pytest.approx(4 / (1.5**2 / 7 + 0.5**2 / (7 + df)))


def test_an_equivalent_arm_does_not_make_a_difference_easier_nor_the_reverse() -> None:
    design = Design(seeds=6, arms=3, margin=3.0)
    scores = 0.1 * noise(4, 6)
    scores[3] += 3.0
    found = judge(scores, design)
    assert [standing.state for standing in found] == ["equivalent", "equivalent", "better"]
    assert found[2].boundary == boundaries(6, 3).difference[0, 2]


@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(-5, 5))
@settings(max_examples=40)
def test_what_lies_after_a_stop_changes_nothing(key: int, one: float, two: float) -> None:
    scores = noise(4, 6, key=key)
    scores[1:3] += np.array([[one], [two]])
    found = judge(scores)
    status = np.full((4, 6), "finished", dtype="U8")
    for arm, standing in enumerate(found, start=1):
        if standing.state == "better" or standing.state == "worse":
            scores[arm, standing.seeds :] = 1e6
            status[arm, standing.seeds :] = "diverged"
            if standing.seeds % 2:
                status[arm, standing.seeds :] = "missing"
    if any(standing.state == "undecided" for standing in found):
        assert judge(scores, status=status) == found


@given(st.integers(0, 10_000), st.permutations([0, 1, 2]), st.floats(-4, 4))
@settings(max_examples=40)
def test_neither_order_nor_scale_nor_direction_matters(key: int, order: list[int], effect: float) -> None:
    design, wide = Design(6, 3, margin=1.5), Design(6, 3, margin=15.0)
    scores = noise(4, 6, key=key)
    scores[1] += effect
    found = judge(scores, design)
    moved = judge(3 - 10 * scores[[0, *(1 + arm for arm in order)]], wide, higher_is_better=False)
    for arm, standing in zip(order, moved, strict=True):
        assert (standing.state, standing.seeds) == (found[arm].state, found[arm].seeds)
        assert standing.low == pytest.approx(-10 * found[arm].high, abs=1e-9)  # type: ignore[operator]
        assert standing.high == pytest.approx(-10 * found[arm].low, abs=1e-9)  # type: ignore[operator]


@given(st.integers(0, 10_000))
@settings(max_examples=10)
def test_one_sweep_goes_as_it_does_among_many(key: int) -> None:
    scores = noise(5, 4, 6, key=key) + np.array([0.0, 3.0, -2.0, 0.0])[:, None]
    course = follow(scores, SMALL)
    for sweep in range(5):
        words = {0: "undecided", 1: "better", 2: "worse"}
        assert [words[code] for code in course.state[sweep].tolist()] == [s.state for s in judge(scores[sweep])]
        assert course.seeds[sweep].tolist() == [standing.seeds for standing in judge(scores[sweep])]


def test_a_block_counts_only_when_it_is_complete_and_those_before_it_are() -> None:
    scores = noise(4, 6)
    status = np.full((4, 6), "finished", dtype="U8")
    status[2, 4] = "missing"
    assert judge(scores, status=status) == judge(scores[:, :4])


def test_a_diverged_arm_may_be_worse_but_neither_better_nor_equivalent() -> None:
    status = np.full((4, 6), "finished", dtype="U8")
    status[1, 1] = "diverged"
    for effect, state in ((30.0, "undecided"), (0.0, "undecided"), (-30.0, "worse")):
        scores = 0.01 * noise(4, 6)
        scores[1] += effect
        found = judge(scores, Design(6, 3, margin=1.0), status)[0]
        assert (found.state, found.blocked) == (state, None if state == "worse" else "diverged")


@pytest.mark.parametrize("block", [0, 4])
def test_nothing_is_worse_than_a_baseline_that_diverges_be_it_after_the_stop(block: int) -> None:
    scores = noise(4, 6) + np.array([0.0, 30.0, -30.0, 0.0])[:, None]
    status = np.full((4, 6), "finished", dtype="U8")
    status[0, block] = "diverged"
    found = judge(scores, status=status)
    assert [standing.state for standing in found] == ["better", "undecided", "undecided"]
    assert [standing.blocked for standing in found] == [None, *2 * ["the baseline diverged"]]


def test_an_arm_that_lost_a_run_is_judged_on_its_own_pairs() -> None:
    scores = noise(4, 6)
    status = np.full((4, 6), "finished", dtype="U8")
    status[1, 2] = "failed"
    kept = [0, 1, 3, 4, 5]
    found = judge(scores, status=status)[0]
    assert found.p == pytest.approx(stats.ttest_rel(scores[1, kept], scores[0, kept]).pvalue)
    assert found.estimate == pytest.approx((scores[1] - scores[0])[kept].mean())


def test_a_seed_without_a_baseline_brings_no_look() -> None:
    scores = noise(4, 6)
    status = np.full((4, 6), "finished", dtype="U8")
    status[0, 2] = "failed"
    found = judge(scores, status=status)
    assert {standing.seeds for standing in found} == {5}
    assert {standing.state for standing in found} == {"undecided"}


def test_an_interval_that_crosses_zero_under_a_rejection_is_cut_there() -> None:
    scores = noise(200, 4, 6, key=5) + np.array([0.0, 6.0, 6.0, 2.5])[:, None]
    found = [standing for sweep in scores for standing in judge(sweep)]
    cut = [standing for standing in found if standing.cut]
    assert cut
    assert all(standing.low == 0 and standing.state == "better" for standing in cut)
    assert all(standing.low >= 0 for standing in found if standing.state == "better")  # type: ignore[operator]


def test_repeated_intervals_hold_the_truth_at_all_looks_together() -> None:
    effects = np.array([0.0, 1.0, 3.0])
    course = follow(noise(5_000, 4, 6, key=6) + np.r_[0.0, effects][:, None], SMALL)
    missed = ((course.low > effects) | (course.high < effects)).any(axis=1)
    assert missed.mean() < 0.05


def test_false_equivalence_at_the_margin_is_as_rare_as_promised() -> None:
    ends = np.array([0.0, 1.5, -1.5, 1.5])[:, None]
    course = follow(noise(10_000, 4, 6, key=7) + ends, Design(6, 3, margin=1.5))
    assert 0.02 < (course.state == EQUIVALENT).any(axis=1).mean() < 0.05


def test_futility_spares_seeds_from_the_sixth_on_and_finds_nothing_that_is_not_there() -> None:
    scores = noise(1_000, 7, 10, key=8)
    patient, hasty = follow(scores, LARGE), follow(scores, Design(10, 6, futility=True))
    assert hasty.seeds.mean() < 0.75 * patient.seeds.mean()
    assert hasty.seeds[hasty.state == 4].min() == 6
    assert np.isin(hasty.state, (1, 2)).any(axis=1).mean() < 0.075


def test_scores_without_noise_decide_nothing_but_equality() -> None:
    design, base = Design(6, 1, margin=0.1), noise(6)
    assert judge([base, base], design)[0] == Standing(
        "equivalent", 4, 0.0, 0.0, 0.0, 1.0, boundaries(6, 1).difference[0, 0]
    )
    shifted = judge([base, base + 1.0], design)[0]
    assert (shifted.state, shifted.low, shifted.high) == ("undecided", None, None)
    assert shifted.blocked == "no noise between seeds to test against"


@pytest.mark.parametrize(
    "wrong", [{"seeds": 4}, {"arms": 0}, {"alpha": 0.0}, {"alpha": 0.7}, {"margin": 0.0}, {"margin": float("nan")}]
)
def test_impossible_designs_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(StatisticsError):
        Design(**{"seeds": 6, "arms": 3, **wrong})


def test_scores_that_do_not_fit_the_design_are_refused() -> None:
    with pytest.raises(StatisticsError, match="do not fit"):
        decide(noise(3, 6), [["finished"] * 6] * 3, SMALL)
    with pytest.raises(StatisticsError, match="no finite score"):
        judge(np.full((4, 5), np.nan))


def test_a_forecast_says_what_a_design_will_probably_cost_and_find() -> None:
    clear, hidden = forecast(SMALL, 4.0), forecast(SMALL, 0.0)
    assert clear.runs < 20 < hidden.runs <= 24
    assert hidden.found < 0.03
    effect = smallest(SMALL)
    assert forecast(SMALL, effect, 1 / 3).found == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_error_over_all_looks_stays_under_the_bar(name: str) -> None:
    error = family_wise_error(name, LARGE, simulations=2_000)
    assert error <= BAR + 3 * np.sqrt(BAR * (1 - BAR) / 2_000)


@pytest.mark.parametrize(("effect", "power", "share"), [(2.0, 0.90, 0.70), (3.0, 0.99, 0.52)])
def test_clear_effects_are_found_with_a_fraction_of_the_runs(effect: float, power: float, share: float) -> None:
    use = simulated_use(LARGE, (effect,) * 6, simulations=2_000)
    assert use.right >= power
    assert use.runs <= share


def test_a_verdict_says_up_and_not_down() -> None:
    assert (follow(noise(50, 4, 6) + np.array([0.0, 9.0, 9.0, 9.0])[:, None], SMALL).state == ABOVE).all()
