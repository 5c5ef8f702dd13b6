from __future__ import annotations

import numpy as np
import pytest

from workbench.errors import StatisticsError
from workbench.statistics.contrasts import contrast_all
from workbench.statistics.macro import macro_average
from workbench.statistics.pairing import Cell, pair

TASKS = ("cloze", "blimp", "piqa")
SCORES = np.random.Generator(np.random.Philox(key=2)).random((3, 3, 5))  # task, variant, seed


def cells(task, fates=()):
    fates = dict(fates)
    for (v, s), value in np.ndenumerate(SCORES[TASKS.index(task)]):
        fate = fates.get((v, s), "finished")
        yield Cell(f"v{v}", s, value if fate == "finished" else None, fate)


def judged(rows):
    return contrast_all(pair(rows, baseline="v0", metric="macro", higher_is_better=True))


def test_every_task_counts_the_same():
    averages = {(cell.variant, cell.seed): cell.value for cell in macro_average({t: list(cells(t)) for t in TASKS})}
    for (v, s), value in np.ndenumerate(SCORES.mean(axis=0)):
        assert averages[f"v{v}", s] == pytest.approx(value)


def test_the_average_is_judged_by_the_method_that_judges_a_task():
    average = judged(macro_average({task: list(cells(task)) for task in TASKS}))
    parts = [judged(list(cells(task))) for task in TASKS]
    for arm, contrast in enumerate(average):
        assert contrast.estimate == pytest.approx(np.mean([part[arm].estimate for part in parts]))


def test_the_order_of_tasks_and_rows_does_not_change_a_bit():
    straight = judged(macro_average({task: list(cells(task)) for task in TASKS}))
    assert judged(macro_average({task: list(cells(task))[::-1] for task in reversed(TASKS)})) == straight


def test_a_run_shares_the_worst_fate_of_its_tasks():
    tasks = {
        "cloze": list(cells("cloze", {(1, 2): "failed", (2, 0): "failed"})),
        "blimp": list(cells("blimp", {(1, 2): "diverged"})),
    }
    found = {(cell.variant, cell.seed): cell for cell in macro_average(tasks)}
    assert (found["v1", 2].status, found["v1", 2].value) == ("diverged", None)
    assert found["v2", 0].status == "failed"
    assert found["v0", 0].status == "finished"


def test_a_run_without_a_task_is_refused_and_not_averaged_over_the_others():
    with pytest.raises(StatisticsError, match=r"lacks a task[\s\S]*task piqa[\s\S]*\(v2, 4\)"):
        macro_average({"cloze": list(cells("cloze")), "piqa": list(cells("piqa"))[:-1]})


def test_an_average_of_nothing_is_refused():
    with pytest.raises(StatisticsError, match="no task to average"):
        macro_average({})
