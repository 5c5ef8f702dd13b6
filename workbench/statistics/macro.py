"""Macro averages: every task counts the same, whatever its number of items.

Promises that an average is taken within a run, so that whatever method judges a single task judges the average as well
and gives it an interval of its own. Refuses a run that lacks a task, and never averages over the tasks it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.errors import StatisticsError
from workbench.statistics.pairing import Cell

EVERY_TASK = "*/"  # before the name of a metric: its mean over all tasks that report it
WORST_FIRST = ("diverged", "failed", "missing", "finished")


def macro_average(tasks: Mapping[str, Sequence[Cell]]) -> list[Cell]:
    """Average each run over its tasks; a run that did not finish in one of them has the worst of its fates.

    Args:
        tasks: Task to the scores of all runs, all tasks in one unit and direction.

    Returns:
        One cell per run, in the order of the first task.

    Raises:
        StatisticsError: for no task, a run given twice, or a run that lacks a task.
    """
    if not tasks:
        raise StatisticsError("there is no task to average", expected="at least one task", got="none")
    names = sorted(tasks)
    held = {name: {(cell.variant, str(cell.seed)): cell for cell in tasks[name]} for name in names}
    _refuse_incomplete(held, names)
    averages = []
    for cell in tasks[names[0]]:
        own = [held[name][cell.variant, str(cell.seed)] for name in names]
        status = next(fate for fate in WORST_FIRST if fate in {one.status for one in own})
        values = [one.value for one in own if one.value is not None]
        value = float(np.mean(values)) if status == "finished" and len(values) == len(own) else None
        averages.append(Cell(cell.variant, cell.seed, value, status))
    return averages


def _refuse_incomplete(held: Mapping[str, Mapping[tuple[str, str], Cell]], names: Sequence[str]) -> None:
    everywhere = set[tuple[str, str]]().union(*held.values())
    for name in names:
        lacking = sorted(everywhere - set(held[name]))
        if lacking:
            raise StatisticsError(
                "a run lacks a task of the average",
                where=f"task {name}",
                expected="every run scored on every task",
                got=f"{len(lacking)} runs without: " + ", ".join(f"({v}, {s})" for v, s in lacking[:5]),
                fix="evaluate the task there, or give the run the status 'failed' in it",
            )
