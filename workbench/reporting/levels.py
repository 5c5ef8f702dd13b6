"""What every arm scores by itself: its mean, how sure that is, and where guessing would stand.

A contrast asks whether two arms differ; a level, whether one has learned anything. Promises the finished seeds of every
arm as they are, and intervals of their own: they are about one arm each and correct for nothing, so that two of them
which overlap say nothing about a difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from workbench.errors import StatisticsError
from workbench.reporting.runs import items_of, rows_of
from workbench.reporting.sheets import Sheet
from workbench.statistics import EVERY_TASK, Paired
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
    plan: Mapping[str, Any], paired: Paired, finished: Mapping[int, pa.Table], *, confidence: float = 0.95
) -> tuple[Level, ...]:
    """Return what every arm of a plan scores, the baseline first; arms without a score are left out.

    Args:
        plan: The plan as plain JSON.
        paired: One metric of its runs, as it is judged.
        finished: Cell number -> the item scores of a finished run.
        confidence: Of each interval by itself.

    Raises:
        StatisticsError: if several tasks report the metric.
    """
    cells = {(trial["arm"], str(trial["seed"])): trial for trial in plan["trials"]}
    found = []
    for name, values, status in zip((paired.baseline, *paired.arms), paired.values, paired.status, strict=True):
        there = status == "finished"
        if there.any():
            trials = [cells[name, seed] for seed, kept in zip(paired.seeds, there.tolist(), strict=True) if kept]
            items = _over_items(trials, finished, paired.metric, confidence)
            mean, seeds = float(values[there].mean()), _over_seeds(values[there], confidence)
            found.append(Level(name, int(there.sum()), mean, seeds, items))
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
        return "No arm's interval over seeds leaves that out."
    told = f"The interval over seeds of {_listed(here, len(levels))} leaves that out"
    return f"{told}, that over items too of {_listed(anywhere, len(levels))}." if anywhere else f"{told}."


def _listed(names: list[str], of: int) -> str:
    if len(names) == of > 1:
        return "every arm"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _apart(interval: Interval | None, chance: float) -> bool:
    return interval is not None and not interval[0] <= chance <= interval[1]


def _over_seeds(means: np.ndarray, confidence: float) -> Interval | None:
    try:
        low, high = paired_t(means).interval(confidence)  # of one sample, paired with nothing
    except StatisticsError:  # a single run, or runs that all score alike
        return None
    return float(low), float(high)


def _over_items(
    trials: Sequence[Mapping[str, Any]], finished: Mapping[int, pa.Table], metric: str, confidence: float
) -> Interval | None:
    """Count as drawn both the seeds and the items, or whole clusters of items."""
    if len(trials) < 2 or metric.startswith(EVERY_TASK):
        return None
    held = [items_of(trial, finished[trial["cell"]], metric) for trial in trials]
    orders = [np.argsort(one.items, kind="stable") for one in held]
    values = np.stack([np.asarray(one.values)[order] for one, order in zip(held, orders, strict=True)])
    names = rows_of(finished[trials[0]["cell"]], metric)["cluster"].to_numpy(zero_copy_only=False)[orders[0]]
    clusters = np.unique(names, return_inverse=True)[1]
    if clusters.max() + 1 < FEWEST_CLUSTERS:
        return None
    weights = np.asarray(held[0].weights)[orders[0]]
    try:
        low, high = two_way(values, weights=weights, clusters=clusters).interval(confidence)
    except StatisticsError:  # seeds that all answer alike
        return None
    return float(low), float(high)
