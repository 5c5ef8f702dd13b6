from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import StatisticsError
from workbench.statistics import Cell, ItemScores, contrast_all, pair, run_means

ROWS = [
    Cell(arm, seed, level + 0.1 * seed**2) for level, arm in enumerate(["base", "wide", "deep"]) for seed in (1, 2, 10)
]


def paired(rows, **changes):
    return pair(rows, **{"baseline": "base", "metric": "loss", "higher_is_better": False, **changes})


def test_rows_become_arms_by_seeds_with_the_baseline_first():
    table = paired(ROWS)
    assert (table.baseline, table.arms, table.seeds) == ("base", ("deep", "wide"), ("1", "2", "10"))
    np.testing.assert_allclose(table.values[0], [0.1, 0.4, 10.0])
    assert (table.status == "finished").all()
    assert not table.values.flags.writeable


@given(st.permutations(ROWS))
def test_the_order_of_the_rows_does_not_matter(rows):
    assert contrast_all(paired(rows)) == contrast_all(paired(ROWS))


def test_a_seed_is_the_same_block_as_number_float_and_text():
    assert paired([(row.variant, str(row.seed), row.value) for row in ROWS]).seeds == paired(ROWS).seeds
    assert paired([(row.variant, float(row.seed), row.value) for row in ROWS]).seeds == paired(ROWS).seeds


def test_planned_seeds_without_runs_are_missing_and_never_filled():
    table = paired(ROWS, seeds=[1, 2, 3, 10], arms=["wide", "deep"])
    assert table.arms == ("wide", "deep")
    assert (table.status[:, 2] == "missing").all()
    assert np.isnan(table.values[:, 2]).all()


def test_a_diverged_run_has_a_status_and_no_score():
    table = paired([*ROWS, Cell("wide", 3, None, "diverged"), Cell("base", 3, 1.0), Cell("deep", 3, 99.0, "failed")])
    assert table.status[:, 2].tolist() == ["finished", "failed", "diverged"]
    assert np.isnan(table.values[1:, 2]).all()


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([*ROWS, ("wide", 1, 5.0)], {}, r"given twice[\s\S]*\(wide, 1\) x2"),
        ([*ROWS, ("wide", 3, float("nan"))], {}, "no finite score"),
        ([*ROWS, ("wide", 3, float("inf"))], {}, "no finite score"),
        ([*ROWS, ("wide", 3, None)], {}, "no finite score"),
        ([*ROWS, ("wide", 3, 1.0, "crashed")], {}, "unknown status"),
        (ROWS, {"baseline": "bse"}, r"baseline does not exist[\s\S]*did you mean base"),
        ([row for row in ROWS if row.seed == 1], {}, "one seed"),
        ([row for row in ROWS if row.variant == "base"], {}, "nothing to compare"),
        ([], {}, "baseline does not exist"),
        (ROWS, {"seeds": [1, 2]}, r"do not fit[\s\S]*10"),
        (ROWS, {"arms": ["wide"]}, r"do not fit[\s\S]*deep"),
    ],
)
def test_rows_that_cannot_be_paired_are_refused_with_their_place(rows, changes, message):
    with pytest.raises(StatisticsError, match=message):
        paired(rows, **changes)


def test_bits_per_byte_is_a_ratio_of_totals():
    bits, size = np.array([100.0, 900.0]), np.array([50.0, 300.0])
    assert run_means([ItemScores("run", ["a", "b"], bits / size, size)]) == pytest.approx([1000 / 350])


@given(st.permutations(range(6)))
def test_the_order_of_the_items_does_not_change_a_single_bit(order):
    names = np.array([f"item {i}" for i in range(6)])
    values, weights = np.array([0.1, 0.7, 1e9, 1e-9, 0.3, 0.2]), np.arange(1.0, 7.0)
    straight = ItemScores("straight", names, values, weights)
    shuffled = ItemScores("shuffled", names[order], values[order], weights[order])
    first, second = run_means([straight, shuffled])
    assert first == second


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ItemScores("b", ["x", "z"], [1, 2], [1, 1]), r"different items[\s\S]*2 items in one only: y, z"),
        (ItemScores("b", ["x"], [1], [1]), "different items"),
        (ItemScores("b", ["x", "y"], [1, 2], [1, 3]), r"differently[\s\S]*item y"),
        (ItemScores("b", ["x", "x"], [1, 2], [1, 1]), "twice"),
        (ItemScores("b", ["x", "y"], [1, float("nan")], [1, 1]), r"cannot be averaged[\s\S]*item y"),
        (ItemScores("b", ["x", "y"], [1, 2], [1, 0]), "cannot be averaged"),
        (ItemScores("b", [], [], []), "no item scores"),
    ],
)
def test_runs_scored_on_other_items_or_weights_are_refused(other, message):
    with pytest.raises(StatisticsError, match=message):
        run_means([ItemScores("a", ["x", "y"], [1, 2], [1, 1]), other])
