from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.errors import StatisticsError
from workbench.statistics.guards import Guard, claim_all
from workbench.statistics.pairing import Cell, pair


def table(scores, metric="loss", higher_is_better=False, lost=()):
    rows = [
        Cell(f"v{v}", s, value, "diverged" if (v, s) in lost else "finished")
        for v, line in enumerate(scores)
        for s, value in enumerate(line)
    ]
    return pair(rows, baseline="v0", metric=metric, higher_is_better=higher_is_better)


def draw(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def test_one_arm_claims_what_both_its_t_tests_show():
    loss, accuracy = draw(2, 6, key=1), draw(2, 6, key=2)
    loss[1] -= 4
    (claim,) = claim_all(table(loss), [Guard(table(accuracy, "accuracy", True), 3.0)])
    better = stats.ttest_rel(loss[1], loss[0]).pvalue
    no_worse = stats.ttest_1samp(accuracy[1] - accuracy[0], -3.0, alternative="greater").pvalue
    assert dict(claim.parts) == pytest.approx({"loss": better, "accuracy": no_worse})
    assert (claim.p, claim.holds) == (pytest.approx(max(better, no_worse)), True)


def test_a_claim_needs_every_part():
    loss, accuracy = draw(4, 6, key=3), draw(4, 6, key=4)
    loss[1:] -= 6
    accuracy[2] -= 4  # better on loss, worse on accuracy
    loss[3] += 6  # not better at all
    claims = claim_all(table(loss), [Guard(table(accuracy, "accuracy", True), 4.0)])
    assert [claim.holds for claim in claims] == [True, False, False]


def test_worse_is_no_better_however_clear():
    loss = draw(3, 6, key=5)
    loss[1] += 8
    claims = claim_all(table(loss), [Guard(table(draw(3, 6, key=6), "accuracy", True), 8.0)])
    assert claims[0].parts[0] == ("loss", 1.0)


def test_false_claims_are_rarer_than_alpha_over_all_arms():
    wrong, sweeps = 0, 400
    for key in range(sweeps):
        loss, accuracy = draw(5, 5, key=1000 + key), draw(5, 5, key=9000 + key)
        loss[1:] -= 6
        accuracy[1:] -= 2.0  # every arm is worse by exactly the margin
        claims = claim_all(table(loss), [Guard(table(accuracy, "accuracy", True), 2.0)])
        wrong += any(claim.holds for claim in claims)
    assert wrong / sweeps < 0.09  # at most .05 in truth; the Monte Carlo error is .011


def test_a_diverged_arm_claims_nothing_and_keeps_its_place():
    loss, accuracy = draw(3, 6, key=7), draw(3, 6, key=8)
    loss[1:] -= 8
    guard = Guard(table(accuracy, "accuracy", True), 8.0)
    lost, kept = claim_all(table(loss, lost={(1, 2)}), [guard])
    assert (lost.holds, lost.blocked, lost.p) == (False, "diverged in 1 seed", 1.0)
    assert kept.holds


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_margins_that_mean_nothing_are_refused(margin):
    with pytest.raises(StatisticsError, match="margin is not positive"):
        claim_all(table(draw(2, 5)), [Guard(table(draw(2, 5)), margin)])


def test_metrics_of_different_arms_and_claims_without_guards_are_refused():
    with pytest.raises(StatisticsError, match="other arms"):
        claim_all(table(draw(2, 5)), [Guard(table(draw(3, 5)), 1.0)])
    with pytest.raises(StatisticsError, match="needs a guard"):
        claim_all(table(draw(2, 5)), [])
