from __future__ import annotations

from itertools import combinations
from math import prod

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.regression.mixed_linear_model import MixedLM
from statsmodels.stats.anova import anova_lm

from workbench.errors import StatisticsError
from workbench.statistics.components import (
    Component,
    Components,
    advise,
    cross,
    interval_of_sum,
    variance_components,
    variance_of_mean,
)

# seven identical runs of one public model: CORE under nondeterminism alone
IDENTICAL = [0.25373, 0.2584, 0.25489, 0.2568, 0.25732, 0.26765, 0.25119]


def stream(number=0):
    return np.random.Generator(np.random.Philox(key=number))


def simulate(levels, variances, draws, sets=()):
    """Scores of a crossed random design, float64[*sets, levels...]; `variances` maps sources to variances."""
    names = list(levels)
    total = np.zeros((*np.atleast_1d(sets).astype(int), *levels.values()) if np.size(sets) else tuple(levels.values()))
    leading = total.shape[: total.ndim - len(names)]
    for source, variance in variances.items():
        shape = [levels[name] if name in source else 1 for name in names]
        total = total + np.sqrt(variance) * draws.standard_normal((*leading, *shape))
    return total


def long(table, names):
    index = np.indices(table.shape).reshape(table.ndim, -1)
    return pd.DataFrame(dict(zip(names, index, strict=True)) | {"y": table.ravel()})


def test_three_factor_mean_squares_are_those_of_the_analysis_of_variance():
    table = stream(1).standard_normal((4, 3, 5))
    found = variance_components(table, ["a", "b", "c"])
    formula = "y ~ C(a) + C(b) + C(c) + C(a):C(b) + C(a):C(c) + C(b):C(c)"
    anova = anova_lm(ols(formula, long(table, "abc")).fit())
    rows = {**{x: f"C({x})" for x in "abc"}, **{f"{x}{y}": f"C({x}):C({y})" for x, y in ("ab", "ac", "bc")}}
    for source, row in {**rows, "abc": "Residual"}.items():
        component = found[tuple(source)]
        assert component.mean_square == pytest.approx(anova.loc[row, "mean_sq"])
        assert component.df == anova.loc[row, "df"]


def test_components_solve_the_expected_mean_squares_written_by_hand():
    table = simulate({"a": 5, "b": 4, "c": 6}, {"a": 4.0, "b": 3.0, "c": 2.0, "ab": 1.0, "abc": 0.1}, stream(2))
    found = variance_components(table, ["a", "b", "c"])
    square = {"".join(c.source): c.mean_square for c in found.components}
    by_hand = {
        "a": (square["a"] - square["ab"] - square["ac"] + square["abc"]) / 24,
        "c": (square["c"] - square["ac"] - square["bc"] + square["abc"]) / 20,
        "ab": (square["ab"] - square["abc"]) / 6,
        "abc": square["abc"],
    }
    for source, expected in by_hand.items():
        assert found[tuple(source)].estimate == pytest.approx(max(0.0, expected))


def test_balanced_positive_components_are_those_of_restricted_maximum_likelihood():
    table = simulate({"a": 6, "b": 5}, {"a": 2.0, "b": 1.0, "ab": 0.5}, stream(3))
    found = variance_components(table, ["a", "b"])
    data = long(table, "ab")
    model = MixedLM.from_formula("y ~ 1", data, groups=np.ones(30), vc_formula={"a": "0 + C(a)", "b": "0 + C(b)"})
    fit = model.fit(reml=True)
    np.testing.assert_allclose(fit.vcomp, [found["a"].estimate, found["b"].estimate], rtol=1e-3)
    assert fit.scale == pytest.approx(found["a", "b"].estimate, rel=1e-3)


def test_one_factor_is_the_variance_with_its_chi_square_interval():
    found = variance_components(IDENTICAL, ["run"])
    run = found["run"]
    assert found.mean == pytest.approx(0.25714, abs=5e-6)
    assert np.sqrt(run.estimate) == pytest.approx(0.00523, abs=5e-6)
    low, high = 6 * run.estimate / stats.chi2.ppf([0.975, 0.025], 6)
    assert (run.low, run.high) == pytest.approx((low, high))


def test_three_levels_leave_a_factor_of_39_above_the_variance():
    below, above = interval_of_sum([(2, 1.0)], [], 0.05)
    assert (1 - below, 1 + above) == pytest.approx((0.271, 39.5), rel=1e-3)


@pytest.mark.parametrize(
    ("levels", "variances"),
    [
        ({"init": 5, "order": 4}, {("init",): 1.0, ("order",): 0.1, ("init", "order"): 1.0}),
        ({"init": 3, "order": 3}, {("init",): 1.0, ("order",): 1.0, ("init", "order"): 0.2}),
        (
            {"init": 5, "order": 4, "item": 8},
            {("init",): 1.0, ("item",): 3.0, ("init", "item"): 0.3, ("init", "order", "item"): 1.0},
        ),
    ],
)
def test_intervals_hold_the_true_component_as_often_as_they_say(levels, variances):
    sets = 500
    held: dict[tuple[str, ...], int] = {}
    for table in simulate(levels, variances, stream(prod(levels.values())), sets):
        for component in variance_components(table, list(levels)).components:
            true = variances.get(component.source, 0.0)
            held[component.source] = held.get(component.source, 0) + (component.low <= true <= component.high)
    assert min(held.values()) / sets > 0.95 - 4 * np.sqrt(0.95 * 0.05 / sets)


def test_a_negative_estimate_is_shown_as_zero_with_its_interval():
    found = [variance_components(table, ["init", "order"]) for table in stream(8).standard_normal((40, 4, 5))]
    negative = [f["order"] for f in found if f["order"].mean_square < f["init", "order"].mean_square]
    assert len(negative) > 10
    assert all(order.estimate == order.low == 0 for order in negative)
    assert np.mean([order.high > 0 for order in negative]) > 0.9


def test_two_levels_cannot_tell_and_say_so():
    table = stream(4).standard_normal((2, 6))
    found = variance_components(table, ["init", "item"])
    init = found["init"]
    assert (init.estimate, init.low, init.high) == (None, None, None)
    assert init.blocked == "init has 1 degree of freedom: add levels"
    assert found["init", "item"].estimate is not None
    with pytest.raises(StatisticsError, match="cannot tell a component"):
        advise(found, {"init": 1.0})
    assert variance_of_mean(found, fixed=["init"]) > 0


@given(st.permutations(range(3)), st.floats(-1e3, 1e3))
def test_neither_the_order_of_the_factors_nor_a_shift_changes_a_component(order, shift):
    table, names = stream(5).standard_normal((3, 4, 5)), ["a", "b", "c"]
    found = variance_components(table, names)
    other = variance_components(table.transpose(order) + shift, [names[i] for i in order])
    for component in found.components:
        assert other[component.source].estimate == pytest.approx(component.estimate, rel=1e-6, abs=1e-9)


def known(levels, variances):
    """Components with no doubt about them."""
    every = [s for order in range(1, 1 + len(levels)) for s in combinations(levels, order)]
    parts = (Component(s, 9, 0.0, variances.get(s, 0.0), 0.0, 0.0) for s in every)
    return Components(dict(levels), 0.0, tuple(parts), 0.95)


LEVELS = {"seed": 4, "item": 30, "checkpoint": 2}
NOISE = {("seed",): 0.5, ("item",): 2.0, ("seed", "item"): 3.0, ("seed", "checkpoint"): 1.5}
ALL = ("seed", "item", "checkpoint")
NOISE[ALL] = 4.0


def simulated_variance(levels, fixed=()):
    """Variance of the mean over repetitions of the study, the levels of fixed factors staying what they are."""
    sets = 20_000
    kept = {source: value for source, value in NOISE.items() if not set(source) <= set(fixed)}
    means = np.zeros(sets)
    for number, (source, variance) in enumerate(sorted(kept.items())):
        shape = [levels[name] for name in source]
        means += np.sqrt(variance) * stream(number).standard_normal((sets, prod(shape))).mean(axis=-1)
    return means.var()


@pytest.mark.parametrize("fixed", [(), ("item",)])
def test_advice_is_what_repeating_the_study_shows(fixed):
    found = known(LEVELS, NOISE)
    costs = {"seed": 12.0, "item": 0.5, "checkpoint": 2.0}
    costs = {factor: cost for factor, cost in costs.items() if factor not in fixed}
    options = advise(found, costs, fixed=fixed)
    assert {option.factor: option.more for option in options}["checkpoint"] == 6
    measured = []
    for option in options:
        levels = LEVELS | {option.factor: LEVELS[option.factor] + option.more}
        measured.append(simulated_variance(levels, fixed))
        assert option.variance == pytest.approx(measured[-1], rel=0.05)
        assert option.gain == pytest.approx(1 - option.variance / variance_of_mean(found, fixed=fixed))
    assert measured == sorted(measured)
    assert options[0].factor == "checkpoint"


def test_estimated_components_predict_the_variance_of_the_mean():
    levels = {"seed": 8, "item": 20, "checkpoint": 6}
    tables = simulate(levels, NOISE, stream(6), 400)
    predicted = [variance_of_mean(variance_components(table, ALL)) for table in tables]
    assert np.mean(predicted) == pytest.approx(tables.mean(axis=(1, 2, 3)).var(), rel=0.2)


def test_averaging_checkpoints_cannot_remove_the_noise_between_seeds():
    found = known(LEVELS, {("seed",): 1.0, ("seed", "checkpoint"): 0.01})
    (seed, checkpoint) = advise(found, {"seed": 10.0, "checkpoint": 0.1}, budget=10.0)
    assert (seed.factor, seed.more, checkpoint.more) == ("seed", 1, 100)
    assert checkpoint.gain < 0.01


def test_tidy_rows_become_a_crossed_table_in_any_order():
    table = stream(7).standard_normal((3, 2, 4))
    rows = [(f"i{a}", b, f"q{c}", table[a, b, c]) for a, b, c in np.ndindex(3, 2, 4)]
    np.testing.assert_array_equal(cross(rows, ["init", "order", "item"]), table)
    np.testing.assert_array_equal(cross(rows[::-1], ["init", "order", "item"]), table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cross([("a", 1, 0.0), ("a", 1, 0.1)], ["init", "order"]), r"given twice[\s\S]*a, 1"),
        (lambda: cross([("a", 1, 0.0), ("b", 2, 0.1)], ["init", "order"]), r"not crossed[\s\S]*2 of 4"),
        (lambda: cross([("a", 1, 0.0)], ["init"]), "does not fit the factors"),
        (lambda: variance_components([[1.0, 2.0]], ["init", "order"]), r"never varies[\s\S]*init"),
        (lambda: variance_components([[1.0, np.nan], [0, 1]], ["init", "order"]), r"hole[\s\S]*init 0, order 1"),
        (lambda: variance_components(np.ones((3, 3)), ["init", "order"]), "never vary"),
        (lambda: variance_components(np.ones((3, 3)), ["init"]), "axes do not fit"),
        (lambda: variance_components(np.ones((3, 3)), ["init", "init"]), "axes do not fit"),
        (lambda: advise(known(LEVELS, NOISE), {"size": 1.0}), "costs do not fit"),
        (lambda: advise(known(LEVELS, NOISE), {"item": 1.0}, fixed=["item"]), "costs do not fit"),
        (lambda: advise(known(LEVELS, NOISE), {"item": 0.0}), "costs do not fit"),
        (lambda: advise(known(LEVELS, NOISE), {"item": 2.0}, budget=1.0), "buys nothing"),
    ],
)
def test_what_cannot_be_told_is_refused(call, message):
    with pytest.raises(StatisticsError, match=message):
        call()
