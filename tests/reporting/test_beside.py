from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workbench.errors import StatisticsError
from workbench.reporting.beside import beside_markdown, beside_table, judge_beside, measure_sizes
from workbench.statistics import compare_blocks, pair
from workbench.statistics.items import ItemRun, pair_items
from workbench.statistics.methods import METHODS
from workbench.statistics.pairing import ItemScores

SCORES = np.random.Generator(np.random.Philox(5)).standard_normal((3, 5)) + np.array([[0.0], [0.2], [4.0]])


def table(scores=SCORES, **options):
    rows = [(f"v{v}", s, value) for v, line in enumerate(scores) for s, value in enumerate(line)]
    return pair(rows, baseline="v0", metric="loss", higher_is_better=False, **options)


def test_every_method_judges_the_same_data_and_says_what_is_known_against_it():
    rows = {row.method: row for row in judge_beside(table(), 0.05)}
    assert set(rows) == set(METHODS)
    assert rows["seed-block bootstrap"].p == tuple(compare_blocks(SCORES).p_adjusted)
    alone = stats.ttest_rel(SCORES[2], SCORES[0]).pvalue
    assert rows["paired t, uncorrected"].p[1] == pytest.approx(alone)
    assert rows["sign-flip max-T"].floor == 0.0625
    assert "covers only 84 % at 5 seeds" in rows["percentile bootstrap"].fails
    assert all(row.fails.endswith(".") for row in rows.values())


def test_a_method_that_needs_more_seeds_says_so_instead_of_a_number():
    rows = {row.method: row for row in judge_beside(table(SCORES[:, :3]), 0.05)}
    assert rows["percentile bootstrap"].p is None
    assert "too few seeds" in rows["percentile bootstrap"].refused
    assert rows["paired t + Holm"].p is not None


def test_terminal_and_markdown_show_every_method_with_its_p_values():
    rows = judge_beside(table(), 0.05)
    assert beside_table(rows).row_count == len(METHODS)
    text = beside_markdown(rows, measure_sizes(table(), 0.5))
    assert all(row.method in text for row in rows)
    assert "| v1 | v2 |" in text


@pytest.mark.parametrize("options", [{"unpaired": ["v1"]}, {"seeds": [*range(5)], "arms": ["v1", "v2", "v3"]}])
def test_data_without_shared_seeds_have_no_other_methods(options):
    with pytest.raises(StatisticsError, match="seeds that all variants share"):
        judge_beside(table(**options), 0.05)


def test_effect_sizes_turn_with_the_metrics_direction():
    near, far = measure_sizes(table(), 0.5)
    d = SCORES[2] - SCORES[0]
    assert far.hedges_g == pytest.approx(d.mean() / d.std(ddof=1) * (1 - 3 / 15))
    assert (far.won[0], far.superiority) == (0.0, 0.0)  # a larger loss wins nothing
    assert far.e_value > near.e_value
    assert far.equivalent < near.equivalent


def test_item_scores_add_the_two_methods_that_ask_about_new_items():
    noise = np.random.Generator(np.random.Philox(9)).standard_normal((3, 5, 30))
    runs = [
        ItemRun(f"v{v}", s, ItemScores("run", [f"q{i}" for i in range(30)], noise[v, s] + SCORES[v, s], np.ones(30)))
        for v in range(3)
        for s in range(5)
    ]
    items = pair_items(runs, baseline="v0", metric="loss", higher_is_better=False)
    rows = {row.method: row for row in judge_beside(items.paired, 0.05, items)}
    assert rows["two-way random effects (new items too)"].p[1] < 0.05
    assert rows["crossed bootstrap (new items too)"].p[1] < 0.05
