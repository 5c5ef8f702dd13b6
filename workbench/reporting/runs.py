"""From a plan's records to paired arrays: the one place where item scores of runs become the cells of a test.

Promises means weighted over the same items in every run, and a cell for every record whatever became of it. Refuses to
mix numerics within a contrast, and to choose between tasks that report the same metric, within a run or between runs.
Never rebuilds the classes of a configuration.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.errors import StatisticsError
from workbench.identity import canonical
from workbench.records import Record, Status
from workbench.statistics import EVERY_TASK, Cell, ItemScores, Paired, macro_average, pair, run_means

Scores = Callable[[Record], pa.Table]


def read_runs(
    plan: Mapping[str, Any], records: Sequence[Record], scores: Scores
) -> tuple[dict[int, Record], dict[int, pa.Table]]:
    """Return the records of a plan's cells, and the item scores of those that finished.

    Raises:
        StatisticsError: if the runs mix numerics.
    """
    by_run = {record.run_id: record for record in records}
    found = {trial["cell"]: by_run[trial["run_id"]] for trial in plan["trials"] if trial["run_id"] in by_run}
    _refuse_mixed_numerics(found.values())
    return found, {cell: scores(record) for cell, record in found.items() if record.status is Status.FINISHED}


def pair_runs(
    plan: Mapping[str, Any], metric: Mapping[str, Any], found: Mapping[int, Record], finished: Mapping[int, pa.Table]
) -> Paired:
    """Arrange one metric of a plan's runs as arms by seeds; "*/metric" is its mean over all tasks that report it.

    Args:
        plan: The plan as plain JSON.
        metric: The metric's entry in the plan.
        found: Cell number -> its record.
        finished: Cell number -> the item scores of a finished run.

    Raises:
        StatisticsError: for a metric no run reports, or several tasks do; for items that differ between runs.
    """
    name, trials = metric["metric"], {trial["cell"]: trial for trial in plan["trials"]}
    if name.startswith(EVERY_TASK):
        reporting = sorted(_tasks_of(finished.values(), name.removeprefix(EVERY_TASK)))
        parts = {task: _cells(trials, f"{task}/{name.removeprefix(EVERY_TASK)}", found, finished) for task in reporting}
        rows = macro_average(parts) if parts else _cells(trials, name, found, finished)
    else:
        rows = _cells(trials, name, found, finished)
    names = [arm["name"] for arm in plan["arms"] if arm["name"] != plan["baseline"]]
    return pair(
        rows,
        baseline=plan["baseline"],
        metric=metric["metric"],
        higher_is_better=metric["higher_is_better"],
        arms=names,
        seeds=plan["seeds"],
        unpaired=[arm["name"] for arm in plan["arms"] if arm.get("pairing") == "none"],
    )


def mean_score(trial: Mapping[str, Any], table: pa.Table, metric: str) -> float | None:
    """Return one run's weighted mean of a metric over its items; None where it has none.

    Raises:
        StatisticsError: if several tasks report the metric.
    """
    held = items_of(trial, table, metric)
    return float(run_means([held])[0]) if len(held.items) else None


def _cells(
    trials: Mapping[int, Mapping[str, Any]], name: str, found: Mapping[int, Record], finished: Mapping[int, pa.Table]
) -> list[Cell]:
    items = {cell: items_of(trials[cell], table, name) for cell, table in sorted(finished.items())}
    scored = {cell: held for cell, held in items.items() if len(held.items)}
    if finished and not scored:
        reported = sorted({name for table in finished.values() for name in pc.unique(table["metric"]).to_pylist()})
        raise StatisticsError(
            "no run reports the metric",
            where="the scores of the finished runs",
            expected=name,
            got=", ".join(reported) or "no scores at all",
        )
    if "/" not in name:
        _refuse_other_tasks(name, _tasks_of(finished.values(), name))
    means = dict(zip(scored, run_means(list(scored.values())).tolist(), strict=True))
    rows = []
    for cell, record in found.items():
        # A finished run without this metric has not answered; that is a gap, never a zero.
        status = str(record.status) if record.status is not Status.FINISHED or cell in means else "missing"
        rows.append(Cell(trials[cell]["arm"], trials[cell]["seed"], means.get(cell), status))
    return rows


def _tasks_of(tables: Iterable[pa.Table], metric: str) -> set[str]:
    return {
        str(task)
        for table in tables
        for task in pc.unique(table.filter(pc.equal(table["metric"], metric))["task"]).to_pylist()
    }


def _refuse_other_tasks(metric: str, tasks: set[str]) -> None:
    """Refuse to compare runs that were asked otherwise: after other examples, say, or by another protocol."""
    if len(tasks) > 1:
        raise StatisticsError(
            "runs report this metric of different tasks",
            where="the scores of the finished runs",
            expected="one task, asked in one way: " + " or ".join(f"{task}/{metric}" for task in sorted(tasks)),
            got=metric,
            fix="name the task with the metric; a run that was not asked it counts as missing",
        )


def of_metric(table: pa.Table, metric: str) -> pa.ChunkedArray:
    """Say of every row whether it is of a metric; "task/metric" tells apart what several tasks report."""
    task, _, name = metric.rpartition("/")
    chosen = pc.equal(table["metric"], name)
    return pc.and_(chosen, pc.equal(table["task"], task)) if task else chosen


def rows_of(table: pa.Table, metric: str) -> pa.Table:
    """Return one run's rows of a metric."""
    return table.filter(of_metric(table, metric))


def items_of(trial: Mapping[str, Any], table: pa.Table, metric: str) -> ItemScores:
    """Take one metric's items from the scores of one run.

    Raises:
        StatisticsError: if several tasks report the metric.
    """
    rows, name = rows_of(table, metric), metric.rpartition("/")[2]
    tasks = sorted(set(rows["task"].to_pylist()))
    run = f"arm {trial['arm']}, seed {trial['seed']}"
    if len(tasks) > 1:
        raise StatisticsError(
            "several tasks report this metric",
            where=run,
            expected="one of " + ", ".join(f"{held}/{name}" for held in tasks),
            got=metric,
        )
    items = np.array(rows["item"].to_pylist(), dtype=np.str_)
    return ItemScores(run, items, rows["value"].to_numpy(), rows["weight"].to_numpy())


def _refuse_mixed_numerics(records: Iterable[Record]) -> None:
    kinds: dict[str, Record] = {}
    for record in records:
        if record.numerics is not None:
            # what changes no bit, such as activations that are computed again, may differ
            kinds.setdefault(json.dumps(canonical(record.numerics)), record)
    if len(kinds) > 1:
        raise StatisticsError(
            "the runs were computed with different numerics",
            where=", ".join(f"{record.arm} seed {record.seed}" for record in kinds.values()),
            expected="one device, precision, attention backend and thread count",
            got="; ".join(kinds),
            fix="run the plan again on one kind of device",
        )
