"""A source of results: which metrics it holds, and the scores of the one asked for.

Promises an answer that does not depend on the order of the rows. Refuses a metric that is absent or ambiguous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import DataError
from workbench.sources.cells import Chosen, ItemTable
from workbench.sources.table import IDENTITY, OPTIONAL, Table
from workbench.statistics.macro import EVERY_TASK, macro_average
from workbench.statistics.pairing import Cell


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
        chosen = Chosen(table if len(rows) == table.rows else table.take(rows), column)
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
