from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from workbench.errors import StatisticsError
from workbench.statistics.components import variance_components, variance_of_mean
from workbench.statistics.differences import split_components

LEVELS = {"init": 5, "order": 4}
SHARED = {("init",): 4.0, ("order",): 1.0, ("init", "order"): 0.5}
OWN = {("init",): 1.0, ("order",): 0.5, ("init", "order"): 2.0}


def stream(number=0):
    return np.random.Generator(np.random.Philox(key=number))


def simulate(variants, shared, own, draws, sets=1):
    """float64[sets, variants, init, order]: noise all variants share, and noise of each one's own."""
    total = np.zeros((sets, variants, *LEVELS.values()))
    for parts, arms in ((shared, 1), (own, variants)):
        for source, variance in parts.items():
            shape = [size if name in source else 1 for name, size in LEVELS.items()]
            total = total + np.sqrt(variance) * draws.standard_normal((sets, arms, *shape))
    return total + np.arange(variants)[:, None, None]


def test_mean_squares_of_a_difference_are_the_interactions_with_the_variant():
    (table,) = simulate(3, SHARED, OWN, stream(1))
    cells = product(range(3), range(5), range(4))
    data = pd.DataFrame([(*cell, table[cell]) for cell in cells], columns=["v", "a", "b", "y"])
    anova = anova_lm(ols("y ~ C(v) * (C(a) + C(b)) + C(a):C(b)", data).fit())
    found = split_components(table, list(LEVELS)).difference
    for source, row in {"init": "C(v):C(a)", "order": "C(v):C(b)", ("init", "order"): "Residual"}.items():
        assert found[source].df == anova.loc[row, "df"]
        assert found[source].mean_square == pytest.approx(2 * anova.loc[row, "mean_sq"])


def test_of_two_variants_it_is_the_analysis_of_their_differences():
    (table,) = simulate(2, SHARED, OWN, stream(2))
    found, alone = (
        split_components(table, list(LEVELS)).difference,
        variance_components(table[1] - table[0], list(LEVELS)),
    )
    for component, expected in zip(found.components, alone.components, strict=True):
        assert component.df == expected.df
        assert component.estimate == pytest.approx(expected.estimate)
        assert (component.low, component.high) == pytest.approx((expected.low, expected.high))


def test_a_score_has_the_mean_of_the_variants_own_components():
    (table,) = simulate(3, {}, {("init",): 9.0, ("order",): 9.0, ("init", "order"): 0.1}, stream(3))
    found = split_components(table, list(LEVELS)).score
    alone = [variance_components(one, list(LEVELS)) for one in table]
    for component in found.components:
        each = [one[component.source].estimate for one in alone]
        assert component.estimate == pytest.approx(np.mean(each))


@pytest.mark.parametrize("variants", [2, 4])
@pytest.mark.parametrize("shared", [{}, SHARED], ids=["nothing shared", "much shared"])
def test_intervals_hold_the_truth_whether_variants_share_noise_or_not(variants, shared):
    sets, held = 400, {}
    for table in simulate(variants, shared, OWN, stream(variants), sets):
        for part, components in split_components(table, list(LEVELS))._asdict().items():
            for one in components.components:
                own = OWN[one.source]
                true = 2 * own if part == "difference" else own + shared.get(one.source, 0.0)
                held[part, one.source] = held.get((part, one.source), 0) + (one.low <= true <= one.high)
    assert min(held.values()) / sets > 0.95 - 4 * np.sqrt(0.95 * 0.05 / sets)


def test_the_predicted_error_of_a_difference_is_what_repeating_the_study_shows():
    tables = simulate(3, SHARED, OWN, stream(5), 400)
    predicted = [variance_of_mean(split_components(table, list(LEVELS)).difference) for table in tables]
    differences = np.diff(tables[:, :2].mean(axis=(2, 3)), axis=1)
    assert np.mean(predicted) == pytest.approx(differences.var(ddof=1), rel=0.2)


def test_what_all_variants_share_cancels_entirely():
    (table,) = simulate(3, SHARED, {}, stream(6))
    found = split_components(1e6 + table, list(LEVELS))
    assert [one.estimate for one in found.difference.components] == [0.0] * 3
    assert found.score["init"].estimate > 0


def test_two_levels_tell_a_difference_from_three_variants_on_but_never_a_score():
    table = stream(7).standard_normal((3, 2, 6))
    found = split_components(table, ["init", "item"])
    assert found.score["init"].blocked == "init has 1 degree of freedom: add levels"
    assert found.difference["init"].estimate is not None
    assert split_components(table[:2], ["init", "item"]).difference["init"].estimate is None


@given(st.permutations(range(3)))
def test_the_order_of_the_variants_changes_nothing(order):
    (table,) = simulate(3, SHARED, OWN, stream(8))
    one, other = split_components(table, list(LEVELS)), split_components(table[order], list(LEVELS))
    for part, again in zip(one, other, strict=True):
        for component in part.components:
            assert again[component.source].estimate == pytest.approx(component.estimate, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.ones((1, 3, 3)), "two variants"),
        (np.array([1.0, 2.0]), "two variants"),
        (np.ones((2, 3, 3)), "never vary"),
        (np.full((2, 3, 3), np.nan), "hole"),
    ],
)
def test_what_is_no_design_of_variants_is_refused(table, message):
    with pytest.raises(StatisticsError, match=message):
        split_components(table, list(LEVELS))
