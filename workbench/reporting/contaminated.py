"""Benchmark items that stand in the training text of an arm: a metric's scores without them.

Promises that an item flagged in any run is left out in all, so that runs stay paired over the same items. Chooses
nothing by its score: the flags come from the texts alone (`data.contamination`). Results from elsewhere have flags
where `workbench evaluate` wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.records import CONTAMINATED, flagged_rows
from workbench.reporting.runs import of_metric
from workbench.sources import Source
from workbench.statistics import EVERY_TASK

CLEAN = "@clean"  # what the name of a metric without contaminated items ends with


class Clean(NamedTuple):
    """The scores of a metric without contaminated items.

    Attributes:
        tables: Cell number -> item scores; what is not of this metric is as it was.
        items: How many items are left out.
        of: Of how many.
        by_arm: Items flagged in the runs of each arm, in the order of the plan.
        emptied: Tasks of which no item is left.
    """

    tables: dict[int, pa.Table]
    items: int
    of: int
    by_arm: dict[str, int]
    emptied: tuple[str, ...]

    @property
    def note(self) -> str:
        """What was left out, in a sentence."""
        arms = ", ".join(f"{arm} {count:,}" for arm, count in self.by_arm.items())
        return (
            f"{self.items:,} of {self.of:,} items overlap with the training text of an arm ({arms}) and are left out "
            "in every run"
        )


class CleanSource(NamedTuple):
    """Results from elsewhere without the contaminated items of a metric; as `Clean`, by variant.

    Attributes:
        source: What is not of this metric is as it was.
        items: How many items are left out.
        of: Of how many.
        by_variant: Items flagged in the runs of each variant, in the order of their rows.
        emptied: Tasks of which no item is left.
    """

    source: Source
    items: int
    of: int
    by_variant: dict[str, int]
    emptied: tuple[str, ...]

    @property
    def note(self) -> str:
        """What was left out, in a sentence."""
        variants = ", ".join(f"{name} {count:,}" for name, count in self.by_variant.items())
        return (
            f"{self.items:,} of {self.of:,} items are flagged as standing in the text that a variant was trained on, "
            f"or that they were searched for in ({variants}), and are left out in every run"
        )


def source_without_contaminated(source: Source, name: str | None) -> CleanSource | None:
    """Leave the items of a metric that are flagged in any run out of all; None where none is, or nothing is flagged.

    Args:
        source: Results; only those of `workbench evaluate` have flags.
        name: Of the metric, as `Source.results` takes it.

    Raises:
        DataError: for a metric that is absent or ambiguous.
    """
    table = source.table
    if not {"score_id", "flags", "item", "variant"} <= set(table.columns):
        return None
    flags, unreadable = table.numbers("flags")
    flagged = np.where(unreadable, 0, flags).astype(np.int64) & CONTAMINATED > 0
    if not flagged.any():
        return None
    own = np.zeros(table.rows, bool)
    for one in _every_task(source, name):
        own[source.select(one)[0]] = True
    task = table.labels("task") if "task" in table.columns else (np.zeros(table.rows, np.int64), [""])
    item, variant = table.labels("item"), table.labels("variant")
    keys = task[0] * len(item[1]) + item[0]
    gone = np.unique(keys[own & flagged])
    if not len(gone):
        return None
    left = own & ~np.isin(keys, gone)
    kept = np.flatnonzero(~own | left)
    by_variant = {
        variant[1][code]: len(np.unique(keys[own & flagged & (variant[0] == code)]))
        for code in dict.fromkeys(variant[0][own].tolist())
    }
    emptied = sorted(task[1][code] for code in set(task[0][own].tolist()) - set(task[0][left].tolist()))
    return CleanSource(Source(table.take(kept)), len(gone), len(np.unique(keys[own])), by_variant, tuple(emptied))


def without_contaminated(plan: Mapping[str, Any], name: str, finished: Mapping[int, pa.Table]) -> Clean | None:
    """Leave the items of a metric that are flagged in any run out of all; None where none is.

    Args:
        plan: The plan as plain JSON.
        name: Of the metric; "task/metric" and "*/metric" as in a plan.
        finished: Cell number -> the item scores of a finished run.
    """
    arms = {trial["cell"]: trial["arm"] for trial in plan["trials"]}
    own = {cell: of_metric(table, name.removeprefix(EVERY_TASK)) for cell, table in finished.items()}
    flagged: dict[str, set[str]] = {arm["name"]: set() for arm in plan["arms"]}
    for cell, table in finished.items():
        flagged[arms[cell]] |= _keys(table.filter(pc.and_(own[cell], flagged_rows(table, CONTAMINATED))))
    left_out = set[str]().union(*flagged.values())
    if not left_out:
        return None
    every = set[str]().union(*(_keys(table.filter(own[cell])) for cell, table in finished.items()))
    gone = pa.array(sorted(left_out))
    tables = {
        cell: table.filter(pc.invert(pc.and_(own[cell], pc.is_in(_key(table), value_set=gone))))
        for cell, table in finished.items()
    }
    emptied = sorted({_task(key) for key in every} - {_task(key) for key in every - left_out})
    by_arm = {arm: len(keys) for arm, keys in flagged.items()}
    return Clean(tables, len(left_out), len(every), by_arm, tuple(emptied))


def _every_task(source: Source, name: str | None) -> list[str | None]:
    if name is None or not name.startswith(EVERY_TASK):
        return [name]
    return [one for one in source.metrics() if one.endswith(name.removeprefix("*"))]


def _key(table: pa.Table) -> Any:
    task, item = (table[name].cast(pa.string()) for name in ("task", "item"))
    return pc.binary_join_element_wise(task, item, "\x1f")


def _keys(table: pa.Table) -> set[str]:
    return set(_key(table).to_pylist())


def _task(key: str) -> str:
    return key.partition("\x1f")[0]
