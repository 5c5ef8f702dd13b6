"""Results from elsewhere: a CSV or parquet file of scores becomes tidy rows.

Promises one row per (variant, seed) of one metric, item scores averaged with their weights, and a message with file,
line and column for whatever is wrong. Recognises a tidy file (columns variant, seed, value and optionally metric, task,
item, weight, status) and a wide one (a column per metric). Refuses duplicated cells, text where a number should stand,
and a choice between several metrics that the user did not make.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import DataError
from workbench.statistics import Cell, ItemScores, run_means

IDENTITY = ("variant", "seed")
OPTIONAL = ("metric", "task", "item", "cluster", "weight", "status")
STATUSES = ("finished", "diverged", "failed")


@dataclass(frozen=True)
class Results:
    """Tidy rows of one metric and where they came from. `items` is the number of items behind each score, or 0."""

    path: Path
    sha256: str
    metric: str
    rows: tuple[Cell, ...]
    items: int

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants, in order of appearance."""
        return tuple(dict.fromkeys(row.variant for row in self.rows))


@dataclass(frozen=True)
class _Table:
    """Columns of a file, every value with the place it came from."""

    path: Path
    columns: dict[str, list[Any]]
    lines: Sequence[int]
    unit: str  # "line" of a CSV, "row" of a parquet file

    def where(self, row: int, column: str | None = None) -> str:
        place = f"{self.path}, {self.unit} {self.lines[row]}"
        return place if column is None else f"{place}, column {column}"

    def number(self, row: int, column: str) -> float:
        held = self.columns[column][row]
        try:
            value = float(held.strip().replace("_", "?") if isinstance(held, str) else held)
        except (TypeError, ValueError):
            raise DataError(
                "a score is not a number", where=self.where(row, column), expected="a number", got=repr(held)
            ) from None
        if not isfinite(value):
            raise DataError(
                "a score is not finite",
                where=self.where(row, column),
                expected="a finite number",
                got=repr(held),
                fix="add a column 'status' and write 'diverged' there (or 'failed', for trouble with the machine)",
            )
        return value


def read_results(path: Path | str, mapping: Mapping[str, str] | None = None, *, metric: str | None = None) -> Results:
    """Read the scores of one metric.

    Args:
        path: A .csv (or .tsv) or .parquet file with one row per run, or per run and item.
        mapping: Our column name -> the file's: {"variant": "model", "seed": "config.seed"}.
        metric: Which metric: a value of column `metric` or `task` ("task/metric" where a metric belongs to several
            tasks), the name of a column in a wide file, or, in a file with neither, what to call the column `value`.
            May be left out where the file holds one metric only.

    Raises:
        DataError: for a file that cannot be read or is empty, a missing column, a score that is not a finite number, a
            duplicated cell, or a metric that is absent or ambiguous; each with its place.
        StatisticsError: for items or item weights that differ between runs.
    """
    path = Path(path)
    content = _read_bytes(path)
    table = _rename(_read_parquet(path, content) if path.suffix == ".parquet" else _read_csv(path, content), mapping)
    for column in IDENTITY:
        _require_column(table, column)
    rows, column, name = _select(table, metric)
    if not rows:
        raise DataError("the file has no results", where=path, expected="one row per variant and seed", got="no rows")
    cells, items = _item_cells(table, rows, column) if "item" in table.columns else (_cells(table, rows, column), 0)
    return Results(path, hashlib.sha256(content).hexdigest(), name, tuple(cells), items)


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError("the results cannot be read", where=path, got=error.strerror or str(error)) from None
    if not content.strip():
        raise DataError("the file is empty", where=path, expected="columns variant, seed, value", got="nothing")
    return content


def _read_parquet(path: Path, content: bytes) -> _Table:
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError("not a parquet file", where=path, got=str(error).splitlines()[0]) from None
    columns = {name: table[name].to_pylist() for name in table.column_names}
    return _Table(path, columns, range(1, 1 + table.num_rows), "row")


def _read_csv(path: Path, content: bytes) -> _Table:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=f"{path}, byte {error.start}", expected="a CSV in UTF-8") from None
    header = text.lstrip().splitlines()[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    rows, lines = [], []
    try:
        for row in reader:
            if any(field.strip() for field in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError("not a CSV file", where=f"{path}, line {reader.line_num}", got=str(error)) from None
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise DataError("a column name stands twice", where=f"{path}, line {lines[0]}", got=", ".join(names))
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(names):
            raise DataError(
                "a line does not fit the header",
                where=f"{path}, line {line}",
                expected=f"{len(names)} fields",
                got=f"{len(row)} fields",
            )
    columns = {name: [row[index] for row in rows[1:]] for index, name in enumerate(names)}
    return _Table(path, columns, lines[1:], "line")


def _rename(table: _Table, mapping: Mapping[str, str] | None) -> _Table:
    columns = dict(table.columns)
    for ours, theirs in (mapping or {}).items():
        if ours not in (*IDENTITY, "value", *OPTIONAL):
            raise DataError(
                "the mapping names a column that does not exist here",
                expected="one of " + ", ".join((*IDENTITY, "value", *OPTIONAL)),
                got=ours,
                fix="write ours=theirs, for example --map variant=model",
            )
        if theirs not in table.columns:
            raise _missing_column(table, theirs)
        columns[ours] = table.columns[theirs]
        columns.pop(theirs if theirs != ours else "", None)
    return _Table(table.path, columns, table.lines, table.unit)


def _require_column(table: _Table, column: str) -> None:
    if column not in table.columns:
        raise _missing_column(table, column)


def _missing_column(table: _Table, column: str) -> DataError:
    return DataError(
        f"the file has no column '{column}'",
        where=table.path,
        expected="columns variant, seed and value (or one column per metric)",
        got="columns " + ", ".join(table.columns),
        fix=f"if another column means the same, say so: --map {column}=NAME"
        if column in (*IDENTITY, "value")
        else None,
    )


def _select(table: _Table, metric: str | None) -> tuple[list[int], str, str]:
    """Find the rows, the column and the name of the metric asked for."""
    every = list(range(len(table.lines)))
    if "value" not in table.columns or (metric in table.columns and "metric" not in table.columns):
        column = _wide_column(table, metric)
        return every, column, column
    keys = [name for name in ("task", "metric") if name in table.columns]
    if not keys:
        return every, "value", metric or "value"
    series = [tuple(str(table.columns[key][row]) for key in keys) for row in every]
    found = sorted(set(series))
    asked = [key for key in found if metric is None or metric in (*key, "/".join(key))]
    if len(asked) != 1:
        names = ", ".join("/".join(key) for key in found)
        raise DataError(
            "the file does not hold that metric" if not asked else "the file holds more than one such metric",
            where=table.path,
            expected="one of " + names,
            got=metric or "no choice",
            fix=None if not asked else "choose with --metric NAME",
        )
    chosen = asked[0] if asked else ()
    return [row for row in every if series[row] == chosen], "value", "/".join(dict.fromkeys(chosen))


def _wide_column(table: _Table, metric: str | None) -> str:
    if metric is not None:
        _require_column(table, metric)
        return metric
    others = [name for name in table.columns if name not in (*IDENTITY, *OPTIONAL)]
    numeric = [
        name for name in others if all(_is_number(held) for held in table.columns[name] if held not in ("", None))
    ]
    if not others:
        raise _missing_column(table, "value")
    if len(numeric) != 1:
        raise DataError(
            "the file holds more than one metric" if numeric else "the file holds no column of numbers",
            where=table.path,
            expected="one of " + ", ".join(numeric or others),
            got="no choice",
            fix="choose with --metric NAME",
        )
    return numeric[0]


def _is_number(held: object) -> bool:
    try:
        float(str(held))
    except ValueError:
        return False
    return True


def _cells(table: _Table, rows: list[int], column: str) -> list[Cell]:
    cells: list[Cell] = []
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        variant, seed = _identity(table, row)
        if (variant, seed) in seen:
            raise DataError(
                "a run is given twice",
                where=table.where(row),
                expected="one row per variant and seed",
                got=f"variant {variant}, seed {seed} again (first in {table.unit} {table.lines[seen[variant, seed]]})",
                fix="add a column 'item' if these are items of one run, or 'metric' if they are different metrics",
            )
        seen[variant, seed] = row
        status = _status(table, row)
        cells.append(Cell(variant, seed, table.number(row, column) if status == "finished" else None, status))
    return cells


def _item_cells(table: _Table, rows: list[int], column: str) -> tuple[list[Cell], int]:
    """Average the item rows of each run; a run is not finished if one of its rows says so."""
    runs: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        runs.setdefault(_identity(table, row), []).append(row)
    fates = {
        key: next((s for s in (_status(table, row) for row in held) if s != "finished"), "finished")
        for key, held in runs.items()
    }
    finished = {key: held for key, held in runs.items() if fates[key] == "finished"}
    weighted = "weight" in table.columns
    scores = [
        ItemScores(
            f"variant {variant}, seed {seed}",
            [str(table.columns["item"][row]) for row in held],
            [table.number(row, column) for row in held],
            [table.number(row, "weight") if weighted else 1.0 for row in held],
        )
        for (variant, seed), held in finished.items()
    ]
    means = dict(zip(finished, run_means(scores).tolist(), strict=True))
    cells = [Cell(variant, seed, means.get((variant, seed)), fates[variant, seed]) for variant, seed in runs]
    return cells, len(scores[0].items) if scores else 0


def _identity(table: _Table, row: int) -> tuple[str, str]:
    labels = []
    for column in IDENTITY:
        held = table.columns[column][row]
        label = "" if held is None else str(held).strip()
        if not label:
            raise DataError(f"a row names no {column}", where=table.where(row, column), expected=f"a {column}")
        labels.append(label)
    return labels[0], re.sub(r"^(-?\d+)\.0+$", r"\1", labels[1])  # pandas writes seed 1 as 1.0 beside a gap


def _status(table: _Table, row: int) -> str:
    held = table.columns["status"][row] if "status" in table.columns else None
    status = str(held).strip().lower() if held is not None else ""
    if status and status not in STATUSES:
        raise DataError("unknown status", where=table.where(row, "status"), expected=", ".join(STATUSES), got=held)
    return status or "finished"
