"""Results of `workbench evaluate`, analysed with and without the items that are flagged in any run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.records import CONTAMINATED, TRUNCATED
from workbench.reporting.analysis import analyze_all
from workbench.reporting.answers import Terms

ITEMS = tuple(f"item {number}" for number in range(12))
Flags = dict[str, set[str]]


def value(variant: str, seed: int, task: str, item: str) -> float:
    name = f"{variant}{seed}{task}{item}"
    return float(np.random.default_rng([ord(letter) for letter in name]).normal())


def results(
    path: Path,
    flags: Flags,
    *,
    bit: int = CONTAMINATED,
    seeds: int = 4,
    tasks: tuple[str, ...] = ("blimp",),
    ours: bool = True,
) -> Path:
    rows = [
        {"variant": variant, "seed": seed, "task": task, "metric": "margin", "item": item, "cluster": item}
        | {"value": value(variant, seed, task, item), "weight": 1.0 + ITEMS.index(item)}
        | {"flags": bit if item in flags.get(variant, set()) and task == tasks[0] else 0}
        for variant in ("a", "b", "c")
        for seed in range(seeds)
        for task in tasks
        for item in ITEMS
    ]
    held = pa.Table.from_pylist(rows)
    held = held.set_column(held.column_names.index("flags"), "flags", held["flags"].cast(pa.uint8()))
    pq.write_table(held.append_column("score_id", pa.array(["x"] * len(rows))) if ours else held, path)
    return path


def test_flagged_items_are_left_out_of_every_run_in_a_decision_of_its_own(tmp_path: Path) -> None:
    path = results(tmp_path / "scores.parquet", {"b": {"item 3"}, "c": {"item 3", "item 7"}})
    whole, clean = analyze_all(path, Terms(baseline="a"))
    assert (whole.metric, clean.metric, clean.exploratory) == ("blimp/margin", "blimp/margin@clean", True)
    assert clean.footnotes[0] == (
        "2 of 12 items are flagged as standing in the text that a variant was trained on, or that they were searched "
        "for in (a 0, b 1, c 2), and are left out in every run"
    )
    assert clean.title.endswith("blimp/margin without contaminated items")
    kept = [item for item in ITEMS if item not in ("item 3", "item 7")]
    for decision, items in ((whole, list(ITEMS)), (clean, kept)):
        for contrast in decision.contrasts:
            means = {
                name: np.mean(
                    [
                        np.average(
                            [value(name, seed, "blimp", item) for item in items],
                            weights=[1.0 + ITEMS.index(item) for item in items],
                        )
                        for seed in range(4)
                    ]
                )
                for name in ("a", contrast.arm)
            }
            assert contrast.estimate == pytest.approx(means[contrast.arm] - means["a"])


def test_an_average_over_tasks_loses_the_flagged_items_of_each(tmp_path: Path) -> None:
    path = results(tmp_path / "scores.parquet", {"b": {"item 0"}}, tasks=("blimp", "arc"))
    whole, clean, other = analyze_all(path, Terms(baseline="a"), metrics=["*/margin", "arc/margin"])
    assert [whole.metric, clean.metric, other.metric] == ["*/margin", "*/margin@clean", "arc/margin"]
    assert "1 of 24 items" in clean.footnotes[0]
    assert clean.contrasts[0].estimate != whole.contrasts[0].estimate


@pytest.mark.parametrize("terms", [{"new_items": True}, {"anytime": True}, {"smallest_effect": 0.1}])
def test_the_same_question_is_asked_again(tmp_path: Path, terms: dict[str, bool | float]) -> None:
    path = results(tmp_path / "scores.parquet", {"b": {"item 0"}})
    whole, clean = analyze_all(path, Terms(baseline="a", **terms))  # type: ignore[arg-type]
    assert (clean.question, clean.higher_is_better) == (whole.question, whole.higher_is_better)
    assert clean.contrasts[0].estimand == whole.contrasts[0].estimand
    assert clean.contrasts[0].method == whole.contrasts[0].method


def test_single_runs_are_compared_over_the_items_left(tmp_path: Path) -> None:
    path = results(tmp_path / "scores.parquet", {"b": {"item 0"}}, seeds=1)
    whole, clean = analyze_all(path, Terms(baseline="a"))
    assert [one.facts["Items"].partition(",")[0] for one in (whole, clean)] == ["12", "11"]


def test_other_flags_and_columns_of_other_people_mean_nothing(tmp_path: Path) -> None:
    flags = {"b": {"item 0"}}
    assert len(analyze_all(results(tmp_path / "a.parquet", flags, bit=TRUNCATED), Terms(baseline="a"))) == 1
    assert len(analyze_all(results(tmp_path / "b.parquet", flags, ours=False), Terms(baseline="a"))) == 1
    assert len(analyze_all(results(tmp_path / "c.parquet", {}), Terms(baseline="a"))) == 1


def test_where_every_item_is_flagged_a_footnote_says_so(tmp_path: Path) -> None:
    path = results(tmp_path / "scores.parquet", {"c": set(ITEMS)})
    (only,) = analyze_all(path, Terms(baseline="a"))
    assert only.footnotes[-1].endswith(
        "(a 0, b 0, c 12); without them nothing is decided: no other item is left of blimp"
    )
