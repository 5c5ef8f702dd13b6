"""From tidy rows to a dense array of arms by seeds, with the fate of every cell beside it.

Promises that a cell either holds one finite score or says why it does not, that items are averaged with their weights
and over the same items in every run, and that the result does not depend on the order of the rows. Refuses duplicated
cells, scores that are not finite, a baseline that is not there and a single seed. Never imputes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import StatisticsError

ROUNDING = 1e-12  # spread below this share of the scores is arithmetic, not noise
STATUSES = ("finished", "diverged", "failed", "missing")


class Cell(NamedTuple):
    """One run as a tidy row. `value` counts only where the run finished."""

    variant: str
    seed: str | int
    value: float | None
    status: str = "finished"


@dataclass(frozen=True, eq=False)
class Paired:
    """One metric of several arms and their baseline under shared seeds.

    Attributes:
        metric: Name of the metric.
        higher_is_better: Its direction.
        baseline: Name of the baseline, row 0.
        arms: Names of the other rows, in order.
        seeds: Labels of the blocks: runs of one block share their seeds.
        values: float64[1 + arms, seeds]; NaN exactly where the run did not finish.
        status: str[1 + arms, seeds]: "finished", "diverged" (an outcome of the arm), "failed" (trouble with machine or
            code) or "missing" (not run, or without this metric).
        unpaired: Arms whose runs share no noise with the baseline's, whatever their seeds are called.
    """

    metric: str
    higher_is_better: bool
    baseline: str
    arms: tuple[str, ...]
    seeds: tuple[str, ...]
    values: NDArray[np.float64]
    status: NDArray[np.str_]
    unpaired: frozenset[str] = frozenset()


class ItemScores(NamedTuple):
    """The item scores of one run: equally long arrays of item names, values and positive weights."""

    run: str
    items: Sequence[str] | NDArray[np.str_]
    values: Sequence[float] | NDArray[np.float64]
    weights: Sequence[float] | NDArray[np.float64]


def pair(
    rows: Iterable[tuple[str, str | int, float | None] | tuple[str, str | int, float | None, str]],
    *,
    baseline: str,
    metric: str,
    higher_is_better: bool,
    arms: Sequence[str] | None = None,
    seeds: Sequence[str | int] | None = None,
    unpaired: Collection[str] | None = None,
) -> Paired:
    """Arrange tidy rows (variant, seed, value, status; see `Cell`) as arms by seeds.

    Args:
        rows: One row per run, in any order.
        baseline: The variant all others are compared with.
        metric: Name of the metric, for messages and tables.
        higher_is_better: Its direction.
        arms: Order of the arms (all variants but the baseline, by name, unless given).
        seeds: Block labels of the plan, so that runs still to come count as missing (those of the rows unless given).
        unpaired: Arms declared to share no noise with the baseline; pairing is what the design says, never what a
            p-value likes.

    Raises:
        StatisticsError: for a duplicated cell, a finished run without a finite value, an unknown status, a variant or
            seed outside those named, a baseline without rows, no arm, or fewer than two seeds.
    """
    cells = [Cell(row[0], _label(row[1]), *row[2:]) for row in rows]
    _refuse_bad_cells(cells)
    variants = sorted({cell.variant for cell in cells}, key=natural)
    if baseline not in variants and (arms is None or seeds is None):
        raise unknown_baseline(baseline, variants)
    arms = tuple(arms) if arms is not None else tuple(name for name in variants if name != baseline)
    found = {str(cell.seed) for cell in cells}
    blocks = tuple(_label(seed) for seed in seeds) if seeds is not None else tuple(sorted(found, key=natural))
    names = (baseline, *arms)
    _refuse_bad_shape(names, blocks, variants, found)
    row_of, column_of = {name: i for i, name in enumerate(names)}, {label: i for i, label in enumerate(blocks)}
    values = np.full((len(names), len(blocks)), np.nan)
    status = np.full(values.shape, "missing", dtype="<U8")
    for cell in cells:
        where = row_of[cell.variant], column_of[str(cell.seed)]
        status[where] = cell.status
        if cell.status == "finished":
            values[where] = cell.value
    values.flags.writeable = status.flags.writeable = False
    apart = frozenset(unpaired or ())
    if strange := apart - set(arms):
        raise StatisticsError("no such arm to leave unpaired", expected=", ".join(arms), got=", ".join(sorted(strange)))
    return Paired(metric, higher_is_better, baseline, arms, blocks, values, status, apart)


def run_means(runs: Sequence[ItemScores]) -> NDArray[np.float64]:
    """Average the items of each run with their weights: sum(value * weight) / sum(weight).

    A ratio metric keeps its meaning this way: bits per byte with bytes as weights is total bits over total bytes.

    Returns:
        float64[runs], independent of the order of the items.

    Raises:
        StatisticsError: where a run lacks an item of the first run, has one more, repeats one, holds a value that is
            not finite or a weight that is not positive, or weighs an item differently (a different evaluation).
    """
    means = np.empty(len(runs))
    reference: tuple[str, NDArray[np.str_], NDArray[np.float64]] | None = None
    for row, run in enumerate(runs):
        names = np.asarray(run.items, dtype=np.str_)
        order = np.argsort(names, kind="stable")
        names = names[order]
        values = np.asarray(run.values, np.float64)[order]
        weights = np.asarray(run.weights, np.float64)[order]
        _refuse_bad_items(run.run, names, values, weights)
        reference = reference or (run.run, names, weights)
        _refuse_other_items(run.run, names, weights, *reference)
        means[row] = (values * weights).sum() / weights.sum()  # no BLAS: its threads would move the last bits
    return means


def natural(label: str) -> tuple[int, int, str]:
    """Sort key that puts whole numbers first and in numeric order: "2" before "10" before "control"."""
    return (0, int(label), "") if label.removeprefix("-").isdecimal() else (1, 0, label)


def unknown_baseline(baseline: str, variants: Sequence[str]) -> StatisticsError:
    """Return the error for a baseline that is not among the variants, with the nearest name as a hint."""
    near = get_close_matches(baseline, variants, n=1)
    return StatisticsError(
        "the baseline does not exist",
        expected="one of " + ", ".join(variants),
        got=baseline,
        fix=f"did you mean {near[0]}?" if near else None,
    )


def _label(seed: object) -> str:
    """Name a block the same whether a file gave 1, 1.0 or "1"."""
    if isinstance(seed, float | np.floating) and float(seed).is_integer():
        return str(int(seed))
    return str(seed)


def _refuse_bad_cells(cells: Sequence[Cell]) -> None:
    for cell in cells:
        where = f"variant {cell.variant}, seed {cell.seed}"
        if cell.status not in STATUSES:
            raise StatisticsError("unknown status", where=where, expected=", ".join(STATUSES), got=cell.status)
        if cell.status == "finished" and (cell.value is None or not isfinite(cell.value)):
            raise StatisticsError(
                "a finished run has no finite score",
                where=where,
                expected="a number",
                got=cell.value,
                fix="give the row the status 'diverged' (an outcome of the arm) or 'failed' (trouble with the machine)",
            )
    counts = Counter((cell.variant, cell.seed) for cell in cells)
    repeated = [f"({variant}, {seed}) x{count}" for (variant, seed), count in counts.items() if count > 1]
    if repeated:
        raise StatisticsError(
            "a cell is given twice",
            where=", ".join(sorted(repeated)[:10]) + (f" and {len(repeated) - 10} more" if len(repeated) > 10 else ""),
            expected="one row per (variant, seed)",
            got=f"{len(repeated)} repeated cells",
        )


def _refuse_bad_shape(names: Sequence[str], blocks: Sequence[str], variants: Sequence[str], found: set[str]) -> None:
    strange = sorted(set(variants) - set(names)) + sorted(found - set(blocks))
    if strange or len(set(names)) < len(names) or len(set(blocks)) < len(blocks):
        raise StatisticsError(
            "the rows do not fit the arms and seeds they were said to have",
            expected=f"distinct arms {', '.join(names)}; distinct seeds {', '.join(blocks)}",
            got=f"unexpected {', '.join(strange)}" if strange else "a repeated name",
        )
    if len(names) < 2:
        raise StatisticsError("there is nothing to compare", expected="a baseline and one more variant", got=names[0])
    if len(blocks) < 2:
        raise StatisticsError(
            "one seed says nothing about another",
            expected="at least two seeds per variant, better five",
            got=f"{len(blocks)} seed{'s' * (len(blocks) != 1)}",
            fix="repeat the baseline and the variants under more seeds",
        )


def _refuse_bad_items(
    run: str, names: NDArray[np.str_], values: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    if not len(names):
        raise StatisticsError("a run has no item scores", where=run, expected="at least one item", got="none")
    if (names[1:] == names[:-1]).any():
        raise StatisticsError("a run scores an item twice", where=run, got=names[1:][names[1:] == names[:-1]][0])
    bad = ~(np.isfinite(values) & np.isfinite(weights) & (weights > 0))
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise StatisticsError(
            "an item score cannot be averaged",
            where=f"{run}, item {names[first]}",
            expected="a finite value and a positive weight",
            got=f"value {values[first]}, weight {weights[first]}",
        )


def _refuse_other_items(
    run: str,
    names: NDArray[np.str_],
    weights: NDArray[np.float64],
    first: str,
    first_names: NDArray[np.str_],
    first_weights: NDArray[np.float64],
) -> None:
    if not np.array_equal(names, first_names):
        only = sorted(set(names.tolist()) ^ set(first_names.tolist()))
        raise StatisticsError(
            "two runs were scored on different items",
            where=f"{run} and {first}",
            expected="the same items in every run",
            got=f"{len(only)} items in one only: {', '.join(only[:5])}",
            fix="evaluate every run on the same items; a missing item is never filled in",
        )
    if not np.array_equal(weights, first_weights):
        item = int(np.flatnonzero(weights != first_weights)[0])
        raise StatisticsError(
            "two runs weigh the same item differently",
            where=f"{run} and {first}, item {names[item]}",
            expected=f"weight {first_weights[item]}",
            got=f"weight {weights[item]}",
            fix="weigh by what the item is (its bytes), not by what a run made of it (its tokens)",
        )
