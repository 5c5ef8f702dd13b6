"""From a table to the scores of one metric: a cell per run, items averaged, the fate of every run beside it.

Promises an answer that does not depend on the order of the rows, the same items with the same weights in every run, and
one message per mistake with its place. Refuses a run given twice, a score that is not a finite number unless the run
says why, and a metric that is absent or ambiguous.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError
from workbench.sources.table import IDENTITY, OPTIONAL, Table
from workbench.statistics.macro import EVERY_TASK, macro_average
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
class Results:
    """Tidy rows of one metric and where they came from.

    Attributes:
        origin: Path, or "mlflow:NAME".
        sha256: Of the content.
        metric: Name of the metric.
        rows: One cell per run.
        items: Number of items behind each score, or 0.
        scores: The item scores themselves, or None without items.
        notes: What was assumed or left out on the way.
    """

    origin: str
    sha256: str
    metric: str
    rows: tuple[Cell, ...]
    items: int
    scores: ItemTable | None = None
    notes: tuple[str, ...] = ()

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants, in order of appearance."""
        return tuple(dict.fromkeys(row.variant for row in self.rows))


@dataclass(frozen=True, eq=False)
class Source:
    """Results of one or more metrics under our column names."""

    table: Table

    @property
    def tidy(self) -> bool:
        """Whether scores stand in a column `value` rather than in a column per metric."""
        return "value" in self.table.columns

    def metrics(self) -> list[str]:
        """Name every metric there is: "task/metric" in a tidy source, columns that vary between runs in a wide one."""
        if self.tidy:
            names = ["/".join(dict.fromkeys(key)) for key in self._series()[1]]
            return names if names != [""] else ["value"]
        return [name for name in _numeric(self.table) if np.unique(_finite(self.table.numbers(name)[0])).size > 1]

    def results(self, metric: str | None = None) -> Results:
        """Return the scores of one metric.

        Args:
            metric: A value of column `metric` or `task` ("task/metric" where a metric belongs to several tasks), the
                name of a column in a wide source, or, in one with neither, what to call the column `value`. May be left
                out where there is one metric only. "*/metric" is its mean over all tasks, each counting the same.

        Raises:
            DataError: for a missing column, no rows, a score that is not a finite number, a run given twice, or a
                metric that is absent or ambiguous; each with its place.
            StatisticsError: for items or item weights that differ between runs.
        """
        if metric is not None and metric.startswith(EVERY_TASK):
            return self._average(metric)
        table = self.table
        assumed: tuple[str, ...] = ()
        table.require("variant")
        if "seed" not in table.columns and "item" in table.columns and not table.likely("seed"):
            assumed = ("the source names no seeds: each variant is taken as one run",)
        else:
            table.require("seed")
        rows, column, name = self.select(metric)
        if not len(rows):
            raise DataError(
                "the file has no results", where=table.origin, expected="one row per variant and seed", got="no rows"
            )
        chosen = _Chosen(table if len(rows) == table.rows else table.take(rows), column)
        cells, scores, left_out = chosen.item_cells() if "item" in table.columns else chosen.cells()
        items = len(scores.items) if scores else 0
        notes = (*table.notes, *assumed, *left_out)
        return Results(table.origin, table.sha256, name, tuple(cells), items, scores, notes)

    def _average(self, metric: str) -> Results:
        names = [name for name in self.metrics() if name.endswith(metric.removeprefix("*"))]
        if not names:
            raise DataError(
                "no task reports that metric",
                where=self.table.origin,
                expected="*/METRIC with one of " + ", ".join(self.metrics()),
                got=metric,
            )
        parts = {name: self.results(name) for name in names}
        rows = macro_average({name: part.rows for name, part in parts.items()})
        notes = tuple(dict.fromkeys(note for part in parts.values() for note in part.notes))
        told = f"{metric} is the mean over {len(names)} tasks, each counting the same: {', '.join(names)}"
        return Results(self.table.origin, self.table.sha256, metric, tuple(rows), 0, None, (*notes, told))

    def _series(self) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
        """Number the (task, metric) of every row: int64[rows] into the sorted list of those there are."""
        keys = [self.table.labels(name) for name in ("task", "metric") if name in self.table.columns]
        combined = np.zeros(self.table.rows, np.int64)
        for codes, names in keys:
            combined = combined * len(names) + codes
        found, series = np.unique(combined, return_inverse=True)
        first = [int(np.flatnonzero(series == number)[0]) for number in range(len(found))]
        return series, [tuple(names[codes[row]] for codes, names in keys) for row in first]

    def select(self, metric: str | None) -> tuple[NDArray[np.int64], str, str]:
        """Return the rows of a metric, the column its scores stand in, and its full name; see `results`."""
        table, every = self.table, np.arange(self.table.rows)
        if not self.tidy or (metric in table.columns and "metric" not in table.columns):
            column = self._wide_column(metric)
            return every, column, column
        if not {"task", "metric"} & set(table.columns):
            return every, "value", metric or "value"
        series, found = self._series()
        asked = [key for key in found if metric is None or metric in (*key, "/".join(key))]
        if len(asked) != 1:
            names = ", ".join("/".join(key) for key in found)
            raise DataError(
                "the file does not hold that metric" if not asked else "the file holds more than one such metric",
                where=table.origin,
                expected="one of " + names,
                got=metric or "no choice",
                fix=None if not asked else "choose with --metric NAME",
            )
        rows = np.flatnonzero(series == found.index(asked[0]))
        return rows, "value", "/".join(dict.fromkeys(asked[0]))

    def _wide_column(self, metric: str | None) -> str:
        if metric is not None:
            self.table.require(metric)
            return metric
        others = [name for name in self.table.columns if name not in (*IDENTITY, *OPTIONAL)]
        if not others:
            raise self.table.missing("value")
        numeric = _numeric(self.table)
        if len(numeric) != 1:
            raise DataError(
                "the file holds more than one metric" if numeric else "the file holds no column of numbers",
                where=self.table.origin,
                expected="one of " + ", ".join(numeric or others),
                got="no choice",
                fix="choose with --metric NAME",
            )
        return numeric[0]


@dataclass(frozen=True, eq=False)
class _Chosen:
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


def _numeric(table: Table) -> list[str]:
    """Name the columns that hold numbers wherever they hold anything, and are none of ours."""
    found = []
    for name in table.columns:
        if name in (*IDENTITY, *OPTIONAL):
            continue
        _, unreadable = table.numbers(name)
        if unreadable.all():
            continue
        texts = table.texts(name) if unreadable.any() else []
        if not any(texts[row] for row in np.flatnonzero(unreadable).tolist()):
            found.append(name)
    return found


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]
