"""A metric beside itself without the items that stand in training text: the same items left out in every run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import invented_sweep
import numpy as np
import pyarrow as pa
import pytest

from workbench.records import CONTAMINATED, TRUNCATED, Record, Status
from workbench.reporting import csv_table, decide_plan, html_page, markdown_report
from workbench.reporting.contaminated import without_contaminated
from workbench.reporting.naming import spoken

ARMS = ("rotary", "alibi", "learned")
Scores = Callable[[Record], pa.Table]


def flagging(items: dict[str, set[str]], bit: int = CONTAMINATED) -> Scores:
    """Return the scores of the invented sweep, with some items flagged in the runs of some arms."""

    def scores(record: Record) -> pa.Table:
        table = invented_sweep.scores(record)
        flags = [bit if item in items.get(record.arm, set()) else 0 for item in table["item"].to_pylist()]
        return table.set_column(table.schema.get_field_index("flags"), "flags", pa.array(flags, pa.uint8()))

    return scores


def decide(scores: Scores, **changes: Any) -> list[Any]:
    document = {**invented_sweep.plan(ARMS), **changes}
    return decide_plan(document, invented_sweep.records(document), scores)


def test_without_flags_nothing_stands_beside() -> None:
    assert [decision.metric for decision in decide(invented_sweep.scores)] == ["bits_per_byte", "accuracy"]
    assert [decision.metric for decision in decide(flagging({"alibi": {"a"}}, TRUNCATED))] == [
        "bits_per_byte",
        "accuracy",
    ]


def test_an_item_flagged_in_one_arm_is_left_out_in_all() -> None:
    scores = flagging({"alibi": {"a"}, "learned": {"a", "c"}})
    primary, clean, _ = decide(scores)
    assert (clean.metric, clean.exploratory, clean.complete) == ("bits_per_byte@clean", True, True)
    assert clean.footnotes[0] == (
        "2 of 4 items overlap with the training text of an arm (rotary 0, alibi 1, learned 2) and are "
        "left out in every run"
    )

    def mean(arm: str, seed: int) -> float:
        table = invented_sweep.scores(invented_sweep.record(arm, seed)).to_pylist()
        kept = [row for row in table if row["item"] in ("b", "d")]
        return float(np.average([row["value"] for row in kept], weights=[row["weight"] for row in kept]))

    for contrast in clean.contrasts:
        assert contrast.exploratory
        expected = np.mean([mean(contrast.arm, seed) - mean("rotary", seed) for seed in range(5)])
        assert contrast.estimate == pytest.approx(expected)
    assert [one.estimate for one in primary.contrasts] == [
        one.estimate for one in decide(invented_sweep.scores)[0].contrasts
    ]


def test_every_decided_metric_has_its_own_beside_it() -> None:
    found = decide(flagging({"alibi": {"a", "x"}}))
    assert [decision.metric for decision in found] == [
        "bits_per_byte", "bits_per_byte@clean", "accuracy", "accuracy@clean",
    ]  # fmt: skip
    assert "1 of 3 items" in found[-1].footnotes[0]


def test_a_metric_of_which_no_item_is_left_says_so() -> None:
    decisions = decide(flagging({"learned": {"x", "y", "z"}}))
    assert [decision.metric for decision in decisions] == ["bits_per_byte", "accuracy"]
    assert decisions[1].footnotes[-1] == (
        "3 of 3 items overlap with the training text of an arm (rotary 0, alibi 0, learned 3); without them "
        "nothing is decided: no other item is left of choices"
    )


def test_a_lost_run_is_lost_there_too() -> None:
    document = invented_sweep.plan(ARMS)
    held = invented_sweep.records(document, {("alibi", 2): Status.DIVERGED})
    clean = decide_plan(document, held, flagging({"learned": {"a"}}))[1]
    assert (clean.contrasts[0].arm, clean.contrasts[0].pairs, clean.contrasts[0].missing) == ("alibi", 4, 1)


def test_the_order_of_runs_changes_nothing_and_other_metrics_keep_their_items() -> None:
    document = invented_sweep.plan(ARMS)
    scores = flagging({"alibi": {"x"}})
    tables = {trial["cell"]: scores(record) for trial, record in _cells(document)}
    found = without_contaminated(document, "choices/accuracy", tables)
    assert found is not None
    assert (found.items, found.of, found.by_arm["alibi"], found.emptied) == (1, 3, 1, ())
    assert all(set(table["item"].to_pylist()) == {"a", "b", "c", "d", "y", "z"} for table in found.tables.values())
    turned = without_contaminated(document, "*/accuracy", dict(reversed(tables.items())))
    assert turned is not None
    assert all(turned.tables[cell].equals(table) for cell, table in found.tables.items())


def test_reports_hold_both_and_name_them() -> None:
    decisions = decide(flagging({"alibi": {"a"}}))
    assert spoken("*/accuracy@2x@clean") == "*/accuracy at 2× context without contaminated items"
    report = markdown_report(decisions)
    assert "## Exploratory: bits per byte without contaminated items" in report
    assert "1 of 4 items overlap with the training text" in report
    assert "bits per byte without contaminated items" in html_page(decisions)
    assert "bits_per_byte@clean" in csv_table(decisions)


def _cells(document: dict[str, Any]) -> list[tuple[dict[str, Any], Record]]:
    return list(zip(document["trials"], invented_sweep.records(document), strict=True))
