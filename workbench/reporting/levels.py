"""What every arm scores by itself: its mean, how sure that is, and where guessing would stand.

A contrast asks whether two arms differ; a level, whether one has learned anything. Promises the finished seeds of every
arm as they are, and intervals of their own: they are about one arm each and correct for nothing, so that two of them
which overlap say nothing about a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log10
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.errors import StatisticsError
from workbench.reporting.runs import items_of, mean_score, rows_of
from workbench.reporting.sheets import Sheet
from workbench.statistics import EVERY_TASK
from workbench.statistics.items import two_way
from workbench.statistics.student import paired_t

FEWEST_CLUSTERS = 20  # fewer say too little about others

Interval = tuple[float, float]


@dataclass(frozen=True)
class Level:
    """What one arm scores.

    Attributes:
        arm: Its name.
        runs: Finished runs with a score.
        mean: Over them.
        seeds: Interval of the mean over new seeds, the items as they are; None for fewer than two runs.
        items: Interval over new seeds and new items of the same kind, by clusters where items share one; None where
            there are too few of either.
    """

    arm: str
    runs: int
    mean: float
    seeds: Interval | None
    items: Interval | None


def measure_levels(
    plan: Mapping[str, Any], metric: str, finished: Mapping[int, pa.Table], *, confidence: float = 0.95
) -> tuple[Level, ...]:
    """Return what every arm of a plan scores, in the order of the plan; arms without a score are left out.

    Args:
        plan: The plan as plain JSON.
        metric: Its name, with that of its task where several report it; "*/metric" is the mean over tasks.
        finished: Cell number -> the item scores of a finished run.
        confidence: Of each interval by itself.

    Raises:
        StatisticsError: if several tasks report the metric.
    """
    trials = {trial["cell"]: trial for trial in plan["trials"]}
    found = []
    for arm in plan["arms"]:
        cells = [cell for cell in sorted(finished) if trials[cell]["arm"] == arm["name"]]
        means = [_mean(trials[cell], finished[cell], metric) for cell in cells]
        scored = [cell for cell, mean in zip(cells, means, strict=True) if mean is not None]
        values = np.array([mean for mean in means if mean is not None])
        if not len(values):
            continue
        seeds = _over_seeds(values, confidence)
        items = None if metric.startswith(EVERY_TASK) else _over_items(trials, scored, finished, metric, confidence)
        found.append(Level(arm["name"], len(values), float(values.mean()), seeds, items))
    return tuple(found)


def levels_sheet(levels: tuple[Level, ...], unit: str, chance: float | None) -> Sheet:
    """Return levels as a table that says how to read it.

    Args:
        levels: Of one metric.
        unit: Of the metric, in words, possibly empty.
        chance: What guessing scores; None where nobody knows.
    """
    places = _places(levels)
    rows = tuple(
        (one.arm, str(one.runs), _number(one.mean, places), _told(one.seeds, places), _told(one.items, places))
        for one in levels
    )
    reading = ["Each arm by itself, 95 %, corrected for nothing: to compare arms, read the differences."]
    if chance is not None:
        reading.append(f"Guessing scores {chance:g}. {_beyond(levels, chance)}")
    headings = ("arm", "runs", f"mean, {unit}" if unit else "mean", "over new seeds", "over new seeds and items")
    return Sheet("What each arm scores", headings, rows, tuple(reading))


def _told(interval: Interval | None, places: int) -> str:
    return "–" if interval is None else f"[{_number(interval[0], places)}, {_number(interval[1], places)}]"


def _number(value: float, places: int) -> str:
    return f"{value:.{places}f}".replace("-", "\N{MINUS SIGN}")


def _places(levels: tuple[Level, ...]) -> int:
    """Return how many decimals are worth saying: two digits of a middling interval."""
    widths = [high - low for one in levels for low, high in filter(None, (one.seeds, one.items)) if high > low]
    return min(6, max(0, 1 - floor(log10(median(widths))))) if widths else 3


def _beyond(levels: tuple[Level, ...], chance: float) -> str:
    """Say which arms differ from guessing, for these items and for others of their kind."""
    here = [level.arm for level in levels if _apart(level.seeds, chance)]
    anywhere = [level.arm for level in levels if _apart(level.items, chance)]
    if not here:
        return "No arm's interval leaves it out."
    told = f"On these items the interval of {_listed(here)} leaves that out"
    return f"{told}; on other items of their kind too, that of {_listed(anywhere)}." if anywhere else f"{told}."


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _apart(interval: Interval | None, chance: float) -> bool:
    return interval is not None and not interval[0] <= chance <= interval[1]


def _mean(trial: Mapping[str, Any], table: pa.Table, metric: str) -> float | None:
    if not metric.startswith(EVERY_TASK):
        return mean_score(trial, table, metric)
    name = metric.removeprefix(EVERY_TASK)
    tasks = sorted(set(table.filter(pc.equal(table["metric"], name))["task"].to_pylist()))
    means = [mean_score(trial, table, f"{task}/{name}") for task in tasks]
    return float(np.mean([mean for mean in means if mean is not None])) if means else None


def _over_seeds(means: np.ndarray, confidence: float) -> Interval | None:
    try:
        low, high = paired_t(means).interval(confidence)  # of one sample, paired with nothing
    except StatisticsError:  # a single run, or runs that all score alike
        return None
    return float(low), float(high)


def _over_items(
    trials: Mapping[int, Mapping[str, Any]],
    cells: list[int],
    finished: Mapping[int, pa.Table],
    metric: str,
    confidence: float,
) -> Interval | None:
    """Count as drawn both the seeds and the items, or whole clusters of items."""
    held = [items_of(trials[cell], finished[cell], metric) for cell in cells]
    orders = [np.argsort(one.items, kind="stable") for one in held]
    values = np.stack([np.asarray(one.values)[order] for one, order in zip(held, orders, strict=True)])
    names = rows_of(finished[cells[0]], metric)["cluster"].to_numpy(zero_copy_only=False)[orders[0]]
    clusters = np.unique(names, return_inverse=True)[1]
    if len(cells) < 2 or clusters.max() + 1 < FEWEST_CLUSTERS:
        return None
    try:
        low, high = two_way(values, weights=np.asarray(held[0].weights)[orders[0]], clusters=clusters).interval(
            confidence
        )
    except StatisticsError:  # seeds that all answer alike
        return None
    return float(low), float(high)
