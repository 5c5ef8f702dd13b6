"""A contrast is about one task, asked in one way: other examples or another protocol make it another task."""

from __future__ import annotations

from typing import Any, cast

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import StatisticsError
from workbench.records import Record, Status, scores_table
from workbench.reporting.runs import pair_runs
from workbench.statistics import Paired

LABELS = ("mmlu", "mmlu, 5-shot", "mmlu (stlm)")
SEEDS = (0, 1)


class Finished:
    """As much of a record as pairing reads."""

    status = Status.FINISHED


def scores(label: str, value: float) -> pa.Table:
    columns = {"task": [label] * 2, "view": ["context=8"] * 2, "metric": ["accuracy"] * 2, "item": ["a", "b"]}
    return scores_table("s", columns | {"value": [value, 1.0]})


def compare(metric: str, labels: dict[str, str]) -> Paired:
    trials = [
        {"cell": k, "arm": arm, "seed": seed} for k, (arm, seed) in enumerate((a, s) for a in labels for s in SEEDS)
    ]
    plan = {
        "trials": trials,
        "arms": [{"name": arm} for arm in labels],
        "baseline": next(iter(labels)),
        "seeds": list(SEEDS),
    }
    finished = {
        trial["cell"]: scores(labels[str(trial["arm"])], 0.25 * int(cast(Any, trial["cell"]))) for trial in trials
    }
    found = cast(dict[int, Record], {cell: Finished() for cell in finished})
    return pair_runs(plan, {"metric": metric, "higher_is_better": True}, found, finished)


@given(st.sampled_from(LABELS), st.sampled_from(LABELS))
def test_arms_that_were_asked_otherwise_are_not_compared(base: str, arm: str) -> None:
    labels = {"base": base, "arm": arm}
    if base == arm:
        assert (compare("accuracy", labels).status == "finished").all()
        return
    with pytest.raises(StatisticsError, match="different tasks") as raised:
        compare("accuracy", labels)
    assert f"{arm}/accuracy" in str(raised.value)


def test_naming_the_task_leaves_those_that_were_not_asked_it_missing() -> None:
    paired = compare("mmlu/accuracy", {"base": "mmlu", "arm": "mmlu, 5-shot"})
    assert paired.status.tolist() == [["finished"] * 2, ["missing"] * 2]


def test_a_mean_over_tasks_needs_every_task_of_every_run() -> None:
    paired = compare("*/accuracy", {"base": "mmlu", "arm": "mmlu, 5-shot"})
    assert (paired.status == "missing").all()
