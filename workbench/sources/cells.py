"""From the rows of one metric to cells: one per run, items averaged, the fate of every run beside it.

Promises the same items with the same weights in every run, and one message per mistake with its place. Refuses a run
given twice, and a score that is not a finite number unless the run says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError
from workbench.sources.table import IDENTITY, Table
from workbench.statistics.pairing import Cell, ItemScores, run_means

STATUSES = ("finished", "diverged", "failed")


@dataclass(frozen=True, eq=False)
class ItemTable:
    """Item scores of the finished runs, all on the same items.

    Attributes:
        runs: (variant, seed) of each row.
        items: Names of the columns, sorted.
        values: float64[runs, items].
        weights: float64[items], positive, the same for every run.
        clusters: str[items], or None where the source names none.
    """

    runs: tuple[tuple[str, str], ...]
    items: tuple[str, ...]
    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    clusters: tuple[str, ...] | None

    @property
    def means(self) -> NDArray[np.float64]:
        """Weighted mean of every run: float64[runs]."""
        # A sum, not a matrix product: its last bit must not depend on the number of threads.
        return np.asarray((self.values * self.weights).sum(axis=1) / self.weights.sum(), np.float64)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The rows of one metric and the column its scores stand in."""

    table: Table
    column: str

    def cells(self) -> tuple[list[Cell], None, tuple[str, ...]]:
        """One cell per row."""
        variants, seeds, run = self._runs()
        self._refuse_repeats(run, variants, seeds)
        status = self._statuses()
        values, status, left_out = self._scores(status)
        cells = [
            Cell(variant, seed, value if fate == "finished" else None, fate)
            for variant, seed, value, fate in zip(variants, seeds, values.tolist(), status.tolist(), strict=True)
            if fate != "missing"
        ]
        return cells, None, left_out

    def item_cells(self) -> tuple[list[Cell], ItemTable | None, tuple[str, ...]]:
        """Average the item rows of each run; a run is not finished if one of its rows says so."""
        variants, seeds, run = self._runs()
        status = self._statuses()
        _, first = np.unique(run, return_index=True)
        order = run[np.sort(first)].tolist()  # runs in order of appearance
        name = {
            number: (variants[row], seeds[row]) for number, row in zip(run[first].tolist(), first.tolist(), strict=True)
        }
        bad = np.flatnonzero(status != "finished")
        fates = dict(zip(run[bad[::-1]].tolist(), status[bad[::-1]].tolist(), strict=True))
        kept = np.flatnonzero(~np.isin(run, list(fates)))
        scores = _dense(self.table.take(kept), self.column, run[kept], name) if len(kept) else None
        means = dict(zip(scores.runs, scores.means.tolist(), strict=True)) if scores else {}
        cells = [Cell(*name[number], means.get(name[number]), fates.get(number, "finished")) for number in order]
        return cells, scores, ()

    def _runs(self) -> tuple[list[str], list[str], NDArray[np.int64]]:
        """Return variant, seed and number of the run of every row."""
        codes, texts = {}, {}
        for column in IDENTITY:
            if column not in self.table.columns:
                codes[column], texts[column] = np.zeros(self.table.rows, np.int64), ["1"]
                continue
            codes[column], texts[column] = self.table.labels(column)
            if "" in texts[column]:
                row = int(np.flatnonzero(codes[column] == texts[column].index(""))[0])
                raise DataError(f"a row names no {column}", where=self.table.where(row, column), expected=f"a {column}")
        # pandas writes seed 1 as 1.0 beside a gap
        plain = [re.sub(r"^(-?\d+)\.0+$", r"\1", text) for text in texts["seed"]]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(plain))}
        seeds = np.array([numbers[text] for text in plain], np.int64)[codes["seed"]]
        variants = [texts["variant"][code] for code in codes["variant"].tolist()]
        return variants, [plain[code] for code in codes["seed"].tolist()], codes["variant"] * len(numbers) + seeds

    def _refuse_repeats(self, run: NDArray[np.int64], variants: list[str], seeds: list[str]) -> None:
        _, first = np.unique(run, return_index=True)
        if len(first) == len(run):
            return
        again = int(np.setdiff1d(np.arange(len(run)), first)[0])
        earlier = int(np.flatnonzero(run == run[again])[0])
        raise DataError(
            "a run is given twice",
            where=self.table.where(again),
            expected="one row per variant and seed",
            got=f"variant {variants[again]}, seed {seeds[again]} again "
            f"(first in {self.table.unit} {self.table.name_row(earlier)})",
            fix="add a column 'item' if these are items of one run, or 'metric' if they are different metrics",
        )

    def _statuses(self) -> NDArray[np.str_]:
        if "status" not in self.table.columns:
            return np.full(self.table.rows, "finished", dtype="<U8")
        codes, texts = self.table.labels("status")
        for code, text in enumerate(texts):
            if text.lower() not in ("", *STATUSES):
                row = int(np.flatnonzero(codes == code)[0])
                raise DataError(
                    "unknown status",
                    where=self.table.where(row, "status"),
                    expected=", ".join(STATUSES),
                    got=self.table.columns["status"][row].as_py(),
                )
        return np.array([text.lower() or "finished" for text in texts], dtype="<U8")[codes]

    def _scores(self, status: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.str_], tuple[str, ...]]:
        """Read the scores; in a tracker's runs one that is not finite is a divergence and an absent one is left out."""
        values, unreadable = self.table.numbers(self.column)
        finished = status == "finished"
        if not self.table.tracked:
            refuse_bad_numbers(self.table, self.column, values, unreadable, finished)
            return values, status, ()
        absent = np.array([text == "" for text in self.table.texts(self.column)], np.bool_)
        refuse_bad_numbers(self.table, self.column, np.zeros(len(values)), unreadable & ~absent, finished)
        # A run that crashed on a loss of NaN did not fail for want of a machine.
        status = np.where((status != "diverged") & ~absent & ~unreadable & ~np.isfinite(values), "diverged", status)
        lacking = finished & absent
        status = np.where(lacking, "missing", status)
        note = f"{int(lacking.sum())} finished runs report no {self.column} and are left out"
        return (
            values,
            status,
            (note.replace("1 finished runs report", "1 finished run reports"),) if lacking.any() else (),
        )


def _dense(table: Table, column: str, run: NDArray[np.int64], name: dict[int, tuple[str, str]]) -> ItemTable:
    """Arrange rows as runs by items, in the order of run numbers and item names."""
    values, unreadable = table.numbers(column)
    everywhere = np.ones(len(values), np.bool_)
    refuse_bad_numbers(table, column, values, unreadable, everywhere)
    weights = np.ones(len(values))
    if "weight" in table.columns:
        weights, unreadable = table.numbers("weight")
        refuse_bad_numbers(table, "weight", weights, unreadable, everywhere)
    codes, items = table.labels("item")
    order = np.lexsort((codes, run))
    runs, counts = np.unique(run, return_counts=True)
    regular = (counts == counts[0]).all()
    shaped = codes[order].reshape(len(runs), -1) if regular else codes[:0]
    grid = weights[order].reshape(shaped.shape) if regular else weights[:0]
    sound = regular and bool((shaped == shaped[0]).all() and (np.diff(shaped[0]) > 0).all())
    if not (sound and (weights > 0).all() and (grid == grid[0]).all()):
        _explain(run, codes, items, values, weights, name)
    kept = tuple(items[code] for code in shaped[0].tolist())
    clusters = _clusters(table, order, shaped.shape, kept) if "cluster" in table.columns else None
    grid_values = values[order].reshape(shaped.shape)
    return ItemTable(tuple(name[int(number)] for number in runs), kept, grid_values, grid[0], clusters)


def _explain(
    run: NDArray[np.int64],
    codes: NDArray[np.int64],
    items: list[str],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    name: dict[int, tuple[str, str]],
) -> None:
    """Raise the statistics' own error on runs that do not share their items."""
    names = np.array(items, np.str_)
    scores = []
    for number in dict.fromkeys(run.tolist()):
        rows = run == number
        variant, seed = name[number]
        scores.append(ItemScores(f"variant {variant}, seed {seed}", names[codes[rows]], values[rows], weights[rows]))
    run_means(scores)


def _clusters(
    table: Table, order: NDArray[np.int64], shape: tuple[int, ...], items: tuple[str, ...]
) -> tuple[str, ...]:
    codes, names = table.labels("cluster")
    grid = codes[order].reshape(shape)
    differ = np.argwhere(grid != grid[0])
    if len(differ):
        row, item = (int(index) for index in differ[0])
        place = int(order.reshape(shape)[row, item])
        raise DataError(
            "an item belongs to different clusters in two runs",
            where=table.where(place, "cluster"),
            expected=f"item {items[item]} in cluster {names[grid[0, item]]!r}",
            got=repr(names[grid[row, item]]),
        )
    return tuple(names[code] for code in grid[0].tolist())


def refuse_bad_numbers(
    table: Table,
    column: str,
    values: NDArray[np.float64],
    unreadable: NDArray[np.bool_],
    counted: NDArray[np.bool_],
) -> None:
    """Refuse the first of the `counted` rows whose score is text or not finite, with its place."""
    bad = np.flatnonzero(counted & (unreadable | ~np.isfinite(values)))
    if not len(bad):
        return
    row = int(bad[0])
    held = table.columns[column][row].as_py()
    if unreadable[row]:
        comma = isinstance(held, str) and re.fullmatch(r"\s*[+-]?\d+,\d+\s*", held)
        raise DataError(
            "a score is not a number",
            where=table.where(row, column),
            expected="a number",
            got=repr(held),
            fix="write decimals with a point" if comma else None,
        )
    raise DataError(
        "a score is not finite",
        where=table.where(row, column),
        expected="a finite number",
        got=repr(held),
        fix="add a column 'status' and write 'diverged' there (or 'failed', for trouble with the machine)",
    )
