"""What an arm scores by itself: textbook intervals, over seeds and over items, beside what guessing scores."""

from __future__ import annotations

from typing import Any

import invented_sweep
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from workbench.records import Record, Status, scores_table
from workbench.reporting import decide_plan, html_page, markdown_report
from workbench.reporting.levels import Level, levels_sheet
from workbench.seeds import generator
from workbench.statistics.items import two_way

ARMS = ("rotary", "alibi")
PARADIGMS, PAIRS = 30, 8


def pairs(record: Record, *, paradigms: int = PARADIGMS, better: float = 0.1) -> pa.Table:
    """Return the scores of a run on minimal pairs, right a little more often than not, each paradigm its own way."""
    hard = generator(0, "paradigms").normal(0, 0.1, paradigms)
    drawn = generator(record.seed, f"pairs of {record.arm}").random((paradigms, PAIRS))
    right = (drawn < 0.5 + better + hard[:, None]).astype(float).ravel()
    names = [f"{paradigm:02} {pair}" for paradigm in range(paradigms) for pair in range(PAIRS)]
    order = np.array(generator(record.seed, "the order of a file").permutation(len(names)))
    columns = {name: [told] * len(names) for name, told in (("task", "blimp"), ("view", ""), ("metric", "accuracy"))}
    items = np.array(names)[order].tolist()
    clusters = [item.split()[0] for item in items]
    return scores_table(record.score_id, {**columns, "item": items, "cluster": clusters, "value": right[order]})


def plan(**changes: Any) -> dict[str, Any]:
    metric = {"metric": "accuracy", "higher_is_better": True, "unit": "share of items", "chance": 0.5}
    return {**invented_sweep.plan(ARMS), **metric, "secondary": [], **changes}


def levels(document: dict[str, Any], scores: Any = pairs) -> tuple[Level, ...]:
    return decide_plan(document, invented_sweep.records(document), scores)[0].levels


def test_an_interval_over_seeds_is_student_s() -> None:
    document = plan()
    for level in levels(document):
        means = [float(np.mean(pairs(invented_sweep.record(level.arm, seed))["value"])) for seed in range(5)]
        expected = stats.ttest_1samp(means, 0).confidence_interval(0.95)
        assert (level.runs, level.mean) == (5, pytest.approx(np.mean(means)))
        assert level.seeds == pytest.approx(tuple(expected))


def test_an_interval_over_items_counts_clusters_as_drawn_whatever_the_order_of_items() -> None:
    document = plan()
    level = levels(document)[0]
    runs = [pairs(invented_sweep.record("rotary", seed)).to_pylist() for seed in range(5)]
    values = np.array([[row["value"] for row in sorted(rows, key=lambda row: row["item"])] for rows in runs])
    low, high = two_way(values, clusters=np.repeat(np.arange(PARADIGMS), PAIRS)).interval(0.95)
    assert level.items == (pytest.approx(float(low)), pytest.approx(float(high)))
    assert level.seeds is not None
    assert level.items[1] - level.items[0] > level.seeds[1] - level.seeds[0]  # paradigms differ much, seeds little


def test_few_clusters_say_nothing_about_others_and_one_run_nothing_about_another() -> None:
    document = plan()
    few = levels(document, lambda record: pairs(record, paradigms=10))
    assert all(level.items is None and level.seeds is not None for level in few)
    lost = {("alibi", seed): Status.DIVERGED for seed in range(1, 5)}
    alone = decide_plan(document, invented_sweep.records(document, lost), pairs)[0].levels[1]
    assert (alone.runs, alone.seeds, alone.items) == (1, None, None)


def test_a_mean_over_tasks_is_the_mean_of_their_means() -> None:
    document = plan(metric="*/accuracy")

    def two(record: Record) -> pa.Table:
        table = pairs(record)
        other = table.set_column(table.schema.get_field_index("task"), "task", pa.array(["pairs"] * len(table)))
        half = other.filter(pa.array([item.endswith("0") for item in other["item"].to_pylist()]))
        return pa.concat_tables([table, half.cast(table.schema)])

    level = levels(document, two)[0]
    means = []
    for seed in range(5):
        rows = two(invented_sweep.record("rotary", seed)).to_pylist()
        means.append(np.mean([np.mean([row["value"] for row in rows if row["task"] == t]) for t in ("blimp", "pairs")]))
    assert level.mean == pytest.approx(np.mean(means))
    assert level.items is None


def test_the_report_says_which_arms_differ_from_guessing() -> None:
    document = plan()
    decisions = decide_plan(document, invented_sweep.records(document), pairs)
    report = markdown_report(decisions)
    level = decisions[0].levels[0]
    assert "### What each arm scores" in report
    assert f"| rotary | 5 | {level.mean:.3f} | " in report
    assert (
        "Guessing scores 0.5. The interval over seeds of every arm leaves that out, that over items too of " in report
    )
    assert "What each arm scores" in html_page(decisions)
    document["chance"] = round(np.mean([one.mean for one in decisions[0].levels]), 2)
    untaught = decide_plan(document, invented_sweep.records(document), pairs)
    assert f"Guessing scores {document['chance']}. No arm's interval over seeds leaves that out." in markdown_report(
        untaught
    )


def test_before_a_plan_is_complete_nothing_is_said() -> None:
    document = plan()
    decisions = decide_plan(document, invented_sweep.records(document)[:-1], pairs)
    assert decisions[0].levels == ()
    assert "What each arm scores" not in markdown_report(decisions)


def test_a_lost_run_is_not_counted() -> None:
    document = plan()
    held = invented_sweep.records(document, {("alibi", 2): Status.DIVERGED})
    assert [level.runs for level in decide_plan(document, held, pairs)[0].levels] == [5, 4]


def test_digits_are_those_worth_saying() -> None:
    told = levels_sheet((Level("one", 3, 0.56789, (0.5512, 0.5846), None),), "", None)
    assert told.rows == (("one", "3", "0.568", "[0.551, 0.585]", "–"),)
    assert told.headings[2] == "mean"
    wide = levels_sheet((Level("one", 3, 1234.5, (-100.0, 1400.0), None),), "nats", None)
    assert wide.rows[0][2:4] == ("1234", "[−100, 1400]")
