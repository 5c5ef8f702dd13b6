"""Which cells of a plan are trained in one stack: the seeds of an arm, at the same stage.

A worker that takes a cell trains all of them, and the others find their weights. Seeds whose stage before diverged, and
those that have been trained, are left out.
"""

from __future__ import annotations

import json
from typing import Any

from workbench.planning import Plan, Trial
from workbench.records import Status
from workbench.store import Store


def stacked(plan: Plan, store: Store, trial: Trial, place: int) -> list[Trial]:
    """Return the cells whose models of a stage are trained when a cell needs its own, in the order of the plan.

    Args:
        plan: The plan.
        store: Where its models lie.
        trial: The cell.
        place: Of the stage, among those that train.

    Returns:
        The cell and others of its arm; none where seeds are not stacked, or the cell's own model has been trained.
    """
    if plan.numerics is None or plan.numerics.execution == "loop" or _ended(store, trial.model_keys[place]):
        return []
    cells = {one.model_keys[place]: one for one in plan.trials if one.arm == trial.arm}
    return [one for key, one in cells.items() if _ended(store, key) is None and _ready(store, one, place)]


def _ready(store: Store, trial: Trial, place: int) -> bool:
    return place == 0 or _ended(store, trial.model_keys[place - 1]) == Status.FINISHED


def _ended(store: Store, model_key: str) -> str | None:
    """Return how the training of a model ended; None where it has not."""
    try:
        summary: dict[str, Any] = json.loads((store.model_folder(model_key) / "final.json").read_text())
    except FileNotFoundError:
        return None
    return str(summary["status"])
