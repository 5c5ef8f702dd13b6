from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.weightstats import ttost_paired

from workbench.errors import StatisticsError
from workbench.statistics.student import block_residuals, block_t, equivalence_p, paired_t, welch_t

# Paired differences of two entries of a public training record, run under the same six seeds.
KL = np.array([-0.00437, -0.00545, -0.00343, -0.00682, -0.00514, -0.00441])


def noise(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def test_the_paired_t_test_is_that_of_scipy():
    test, oracle = paired_t(KL), stats.ttest_1samp(KL, 0)
    assert test.p == pytest.approx(1.3962448e-4, rel=1e-7)
    assert test.p == pytest.approx(oracle.pvalue, rel=1e-10)
    assert test.interval(0.95) == pytest.approx((-0.00615332, -0.00372002), abs=1e-8)


@pytest.mark.parametrize(("runs", "arm_runs"), [(5, 5), (3, 8), (2, 2)])
def test_welch_is_that_of_scipy_for_groups_of_any_size(runs, arm_runs):
    baseline, arm = noise(4, runs), 3 * noise(4, arm_runs, key=1) + 1
    test, oracle = welch_t(baseline, arm), stats.ttest_ind(arm, baseline, axis=-1, equal_var=False)
    assert test.p == pytest.approx(oracle.pvalue, rel=1e-9)
    assert test.df == pytest.approx(oracle.df)
    interval = oracle.confidence_interval(0.9)
    assert np.array(test.interval(0.9)) == pytest.approx(np.array([interval.low, interval.high]))


def test_the_pooled_block_test_uses_the_residual_mean_square_of_the_two_way_table():
    scores = noise(4, 5) + np.arange(5) * 3 + np.array([[0], [1], [2], [0]])
    arm, seed = np.indices(scores.shape)
    table = pd.DataFrame({"y": scores.ravel(), "arm": arm.ravel(), "seed": seed.ravel()})
    anova = anova_lm(ols("y ~ C(arm) + C(seed)", table).fit())
    mean_square, df = anova.loc["Residual", "mean_sq"], anova.loc["Residual", "df"]
    test = block_t(scores)
    assert set(test.df.tolist()) == {df}
    assert test.standard_error == pytest.approx(np.sqrt(2 * mean_square / 5))
    t = (scores[1:].mean(axis=1) - scores[0].mean()) / np.sqrt(2 * mean_square / 5)
    assert test.p == pytest.approx(2 * stats.t.sf(np.abs(t), df))


def test_with_one_arm_the_block_test_is_the_paired_test():
    scores = noise(3, 2, 6)
    block, paired = block_t(scores), paired_t(scores[:, 1] - scores[:, 0])
    assert block.p[:, 0] == pytest.approx(paired.p)
    assert block.standard_error[:, 0] == pytest.approx(paired.standard_error)


def test_residuals_hold_neither_arm_nor_seed_effects():
    residuals = block_residuals(noise(2, 4, 5) + 7)
    assert residuals.sum(axis=-1) == pytest.approx(np.zeros((2, 4)), abs=1e-12)
    assert residuals.sum(axis=-2) == pytest.approx(np.zeros((2, 5)), abs=1e-12)


@pytest.mark.parametrize(("margin", "expected"), [(0.006, 0.0372950), (0.0065, 0.0107016)])
def test_equivalence_is_that_of_statsmodels(margin, expected):
    assert equivalence_p(paired_t(KL), margin) == pytest.approx(expected, abs=5e-8)
    assert equivalence_p(paired_t(KL), margin) == pytest.approx(ttost_paired(KL, 0 * KL, -margin, margin)[0])


def test_equivalence_needs_the_interval_at_twice_the_level_inside_the_margin():
    test = welch_t(noise(50, 5), noise(50, 7, key=1))
    low, high = test.interval(0.9)
    assert ((equivalence_p(test, 1.2) < 0.05) == ((low > -1.2) & (high < 1.2))).all()


@pytest.mark.parametrize(
    "judge",
    [
        lambda: paired_t([1.0]),
        lambda: paired_t([1.0, 1.0]),
        lambda: welch_t([1.0], [1.0, 2.0]),
        lambda: welch_t([1.0, 1.0], [2.0, 2.0]),
        lambda: block_t([[1.0, 2.0]]),
        lambda: block_t([[1.0], [2.0]]),
        lambda: block_t([[1.0, 2.0], [3.0, 4.0]]),
    ],
)
def test_scores_without_a_variance_are_refused(judge):
    with pytest.raises(StatisticsError):
        judge()
