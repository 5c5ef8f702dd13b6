from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from workbench.statistics.blocks import SET_ASIDE_LEVEL, SLACK, SLOPE, fit, noise


def draw(*shape, key=0):
    return np.random.Generator(np.random.Philox(key)).standard_normal(shape)


def naive_variance(scores):
    """The variance of every contrast per seed, written out for one data set without any arm set aside."""
    baseline, arms = scores[0], scores[1:]
    k, n = arms.shape
    residual = arms - arms.mean(axis=1, keepdims=True) - arms.mean(axis=0) + arms.mean()
    shared = (residual**2).sum() / ((n - 1) * (k - 1))
    common = np.var(baseline - arms.mean(axis=0), ddof=1) + (1 - 1 / k) * shared
    if k <= 3:
        return [max(common, np.var(arm - baseline, ddof=1)) for arm in arms], shared
    own = [np.var(arms[v] - np.delete(arms, v, axis=0).mean(axis=0), ddof=1) - shared / (k - 1) for v in range(k)]
    return [common + SLOPE * max(0.0, one - SLACK * shared) for one in own], shared


@pytest.mark.parametrize("arms", [2, 3, 4, 6, 20])
def test_standard_errors_are_those_of_the_formula_written_out(arms):
    scores = draw(1 + arms, 7, key=arms)
    found = fit(scores)
    variances, shared = naive_variance(scores)
    assert found.pooled.all()
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.array(variances) / 7), rtol=1e-12)
    np.testing.assert_allclose(found.estimate, scores[1:].mean(axis=1) - scores[0].mean())
    rows = [(v, s, scores[v, s]) for v in range(1, 1 + arms) for s in range(7)]
    table = anova_lm(ols("y ~ C(v) + C(s)", pd.DataFrame(rows, columns=["v", "s", "y"])).fit())
    assert shared == pytest.approx(table.loc["Residual", "mean_sq"])


def test_one_arm_gets_the_paired_t_test():
    scores = draw(50, 2, 5, key=3)
    oracle = stats.ttest_rel(scores[:, 1], scores[:, 0], axis=-1)
    np.testing.assert_allclose(fit(scores).p_different()[:, 0], oracle.pvalue)


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-100, 100), st.sampled_from([2, 4, 7]))
def test_shifting_rescaling_and_relabelling_change_no_p_value(key, scale, shift, arms):
    scores = draw(1 + arms, 5, key=key)
    order = np.random.Generator(np.random.Philox(key)).permutation(arms)
    moved = scale * (scores[:, ::-1] + np.arange(5)) + shift
    moved[1:] = moved[1:][order]
    np.testing.assert_allclose(fit(moved).p_different(), fit(scores).p_different()[order], rtol=1e-6, atol=1e-12)


def test_data_sets_are_judged_one_by_one():
    scores = draw(30, 8, 5, key=9)
    scores[::2, 3] *= 9
    together = fit(scores)
    for number, one in enumerate(scores):
        alone = fit(one)
        np.testing.assert_array_equal(alone.pooled, together.pooled[number])
        np.testing.assert_allclose(alone.p_different(), together.p_different()[number], rtol=1e-9)


def test_a_quiet_arm_does_not_shrink_its_own_standard_error_and_a_loud_one_enlarges_it():
    scores = draw(7, 8, key=12)
    quiet, loud = scores.copy(), scores.copy()
    quiet[1] = quiet[1].mean() + 0.01 * (quiet[1] - quiet[1].mean()) + scores[2:].mean(axis=0)
    loud[1] *= 2.5
    assert fit(quiet).standard_error[0] == pytest.approx(fit(quiet).standard_error.min())
    assert fit(loud).standard_error[0] > fit(loud).standard_error[1:].max()


def test_a_noisy_baseline_cannot_hide_behind_quiet_arms():
    scores = draw(4000, 7, 5, key=14)
    scores[:, 0] *= 5
    found = fit(scores)
    honest = np.sqrt((25 + 1) / 5)
    assert np.median(found.standard_error) == pytest.approx(honest, rel=0.15)


def test_the_arm_set_aside_is_the_noisiest_and_is_then_judged_on_its_own_pairs():
    scores = draw(200, 7, 6, key=15)
    scores[:, 4] *= 8
    found = fit(scores)
    aside = ~found.pooled
    assert aside[:, 3].mean() > 0.9
    assert aside[:, [0, 1, 2, 4, 5]].mean() < 0.01
    hit = scores[aside[:, 3]]
    own = stats.ttest_rel(hit[:, 4], hit[:, 0], axis=-1).pvalue
    np.testing.assert_allclose(found.p_different()[aside[:, 3], 3], own * (1 + 4 / 5))


def test_with_equal_noise_arms_are_set_aside_as_rarely_as_the_f_test_says():
    found = fit(draw(20_000, 7, 5, key=16))
    assert (~found.pooled).any(axis=1).mean() == pytest.approx(6 * SET_ASIDE_LEVEL, abs=0.003)


@pytest.mark.parametrize("seeds", [3, 4])
def test_with_fewer_than_five_seeds_no_arm_is_set_aside(seeds):
    scores = draw(100, 7, seeds, key=17)
    scores[:, 1] *= 50
    assert fit(scores).pooled.all()


def test_noise_is_measured_against_the_other_arms_and_unknown_below_three():
    scores = draw(7, 2000, key=18)
    scores[2] *= 3
    scores[0] *= 0.5
    baseline, *arms = noise(scores, np.array([True, False, True, True, True, True]))
    assert baseline.ratio == pytest.approx(np.sqrt((0.25 + 0.2) / 1.2), rel=0.05)
    assert arms[1].ratio == pytest.approx(np.sqrt((9 + 0.2) / 1.2), rel=0.05)
    assert arms[1].p < 1e-6 < arms[0].p
    two = noise(draw(3, 5), np.array([True, True]))
    assert [one is None for one in two] == [False, True, True]
    assert noise(np.zeros((6, 5)), np.ones(5, bool)) == [None] * 6
