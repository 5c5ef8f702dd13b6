"""A table of results held by columns, each value with the place it came from; CSV and parquet files are read into one.

Promises that a million rows take seconds and little more memory than the file, and that whatever is wrong is told with
its line. Refuses lines that do not fit the header, repeated column names, and text that is not UTF-8.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from workbench.errors import DataError

IDENTITY = ("variant", "seed")
OPTIONAL = ("metric", "task", "item", "cluster", "weight", "status")
KNOWN = (*IDENTITY, "value", *OPTIONAL)
# What other people call these columns. Only ever suggested: a seed of the data split is no seed of the run.
ALIASES = {
    "variant": (
        "model",
        "run",
        "arm",
        "method",
        "config",
        "configuration",
        "experiment",
        "group",
        "architecture",
        "name",
    ),
    "seed": ("seed", "random_seed", "rng_seed", "rng", "repeat", "replicate", "trial", "run"),
    "value": ("score", "result", "metric_value"),
}


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one source.

    Attributes:
        origin: What to call the source in messages: a path, or "mlflow:NAME".
        sha256: Of the source's content.
        columns: name -> values; equally long, never chunked.
        unit: What a row is: "line" of a CSV, "row" of a parquet file, "run" of a tracker.
        name_row: Row number -> what the unit is called there: a line number, a run's name.
        tracked: Rows are runs of a tracker, in which a score that is missing or not finite is a fate, no mistake.
        notes: What was assumed or left out on the way here.
    """

    origin: str
    sha256: str
    columns: dict[str, pa.Array]
    unit: str
    name_row: Callable[[int], str]
    tracked: bool = False
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def where(self, row: int, column: str | None = None) -> str:
        """Name the place of a row, or of one value in it."""
        place = f"{self.origin}, {self.unit} {self.name_row(row)}"
        return place if column is None else f"{place}, column {column}"

    def labels(self, column: str) -> tuple[NDArray[np.int64], list[str]]:
        """Return a column as text: int64[rows], each the index of a stripped, distinct text; empty where null."""
        held = self.columns[column]
        if pa.types.is_nested(held.type):
            held = pa.array([None if value is None else str(value) for value in held.to_pylist()], pa.string())
        encoded = pc.dictionary_encode(held, null_encoding="encode")
        texts = ["" if held is None else str(held).strip() for held in encoded.dictionary.to_pylist()]
        names = sorted(set(texts))
        index = {text: code for code, text in enumerate(names)}
        codes = np.array([index[text] for text in texts], np.int64)
        return codes[encoded.indices.to_numpy(zero_copy_only=False)], names

    def texts(self, column: str) -> list[str]:
        """Return a column as one stripped text per row."""
        codes, names = self.labels(column)
        return [names[code] for code in codes.tolist()]

    def numbers(self, column: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return a column as float64[rows] and where it holds no number at all (NaN there)."""
        held = self.columns[column]
        if pa.types.is_string(held.type) or pa.types.is_large_string(held.type):
            try:
                values = pc.cast(held, pa.float64())
            except pa.ArrowInvalid:
                return _parse(held.to_pylist())
        elif pa.types.is_null(held.type) or pa.types.is_boolean(held.type) or _is_numeric(held.type):
            values = pc.cast(held, pa.float64(), safe=False)
        else:
            return np.full(len(held), np.nan), np.ones(len(held), np.bool_)
        absent = pc.is_null(values).to_numpy(zero_copy_only=False)
        return pc.fill_null(values, np.nan).to_numpy(zero_copy_only=False), absent

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Return the table of some rows, which keep their places."""
        columns = {name: held.take(pa.array(rows)) for name, held in self.columns.items()}
        return replace(self, columns=columns, name_row=lambda row: self.name_row(int(rows[row])))

    def require(self, column: str) -> None:
        """Refuse a table without this column, with the names that look as if they meant it."""
        if column not in self.columns:
            raise self.missing(column)

    def likely(self, column: str) -> list[str]:
        """Name the columns that look as if they meant one of ours, the likeliest first."""
        ranked = [(rank, name) for name in self.columns if (rank := _likeness(name, column)) is not None]
        return [name for _, name in sorted(ranked, key=lambda pair: pair[0])]

    def missing(self, column: str) -> DataError:
        """Return the error for a column that is not there."""
        fix = None
        if column in (*IDENTITY, "value"):
            absent = [name for name in dict.fromkeys((column, *IDENTITY)) if name not in self.columns]
            found = {name: self.likely(name) for name in absent if self.likely(name)}
            known = ",".join(f"{name}={likely[0]}" for name, likely in found.items())
            others = "".join(f" or {column}={name}" for name in found.get(column, [])[1:3])
            fix = f"--map {known}{others}" if column in found else None
            fix = fix or f"if another column means the same, say so: --map {column}=NAME"
        return DataError(
            f"the {'runs have' if self.tracked else 'file has'} no column '{column}'",
            where=self.origin,
            expected="columns variant, seed and value (or one column per metric)",
            got="columns " + ", ".join(self.columns),
            fix=fix,
        )


def rename(table: Table, mapping: Mapping[str, str] | None) -> Table:
    """Give columns our names; "position+width" makes one column of two.

    Raises:
        DataError: for a name of ours that does not exist, or a column that is not there.
    """
    columns = dict(table.columns)
    for ours, theirs in (mapping or {}).items():
        if ours not in KNOWN:
            raise DataError(
                "the mapping names a column that does not exist here",
                expected="one of " + ", ".join(KNOWN),
                got=ours,
                fix="write ours=theirs, for example --map variant=model",
            )
        parts = [theirs] if theirs in table.columns else [part.strip() for part in theirs.split("+")]
        for part in parts:
            table.require(part)
        columns[ours] = table.columns[parts[0]] if len(parts) == 1 else combine(table, parts)
        if len(parts) == 1 and theirs != ours:
            columns.pop(theirs, None)
    return replace(table, columns=columns)


def combine(table: Table, parts: list[str]) -> pa.Array:
    """Name every row by its settings: "position=alibi, width=128"."""
    texts = [table.texts(part) for part in parts]
    return pa.array(
        [", ".join(f"{k}={v or 'none'}" for k, v in zip(parts, row, strict=True)) for row in zip(*texts, strict=True)]
    )


def read_file(path: Path) -> Table:
    """Read a .parquet file, or text with a header and fields separated by comma, semicolon or tab.

    Raises:
        DataError: for a file that cannot be read, is empty, or is not what its name says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = "a folder must hold lm-eval logs (samples_TASK_DATE.jsonl)" if path.is_dir() else None
        raise DataError("the results cannot be read", where=path, got=error.strerror or str(error), fix=fix) from None
    if not content.strip():
        raise DataError("the file is empty", where=path, expected="columns variant, seed, value", got="nothing")
    return _read_parquet(path, content) if path.suffix == ".parquet" else _read_csv(path, content)


def _read_parquet(path: Path, content: bytes) -> Table:
    try:
        held = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError("not a parquet file", where=path, got=str(error).splitlines()[0]) from None
    _refuse_repeated(held.column_names, str(path))
    columns = {name: _plain(held[name]) for name in held.column_names}
    return Table(str(path), hashlib.sha256(content).hexdigest(), columns, "row", lambda row: str(row + 1))


def _read_csv(path: Path, content: bytes) -> Table:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=f"{path}, byte {error.start}", expected="a CSV in UTF-8") from None
    header = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=header.count)
    line, fields = next(_lines(path, text, delimiter), (1, [""]))
    names = [name.strip() for name in fields]
    _refuse_repeated(names, f"{path}, line {line}")
    # Arrow parses a million lines in a second but knows no line numbers; what it refuses, Python's reader explains.
    held = _parse_fast(content, delimiter, len(names)) or _parse_slowly(path, text, delimiter, len(names))
    return Table(
        str(path), hashlib.sha256(content).hexdigest(), dict(zip(names, held, strict=True)), "line",
        _LineNumbers(path, text, delimiter),
    )  # fmt: skip


def _parse_fast(content: bytes, delimiter: str, width: int) -> list[pa.Array] | None:
    names = [str(index) for index in range(width)]
    try:
        held = pa.csv.read_csv(
            pa.BufferReader(content),
            pa.csv.ReadOptions(column_names=names),
            pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    columns = [held[name].combine_chunks().slice(1) for name in names]
    blank = pa.array(np.ones(len(columns[0]), np.bool_))
    for column in columns:
        blank = pc.and_(blank, pc.equal(pc.utf8_trim_whitespace(column), ""))
        if not pc.any(blank).as_py():
            return columns
    return [column.filter(pc.invert(blank)) for column in columns]


def _parse_slowly(path: Path, text: str, delimiter: str, width: int) -> list[pa.Array]:
    rows = []
    for line, fields in _lines(path, text, delimiter):
        if len(fields) != width:
            raise DataError(
                "a line does not fit the header",
                where=f"{path}, line {line}",
                expected=f"{width} fields",
                got=f"{len(fields)} fields",
            )
        rows.append(fields)
    return [pa.array(column, pa.string()) for column in list(zip(*rows[1:], strict=True)) or [()] * width]


def _lines(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield every line that is not blank with its number in the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                yield reader.line_num, fields
    except csv.Error as error:
        raise DataError("not a CSV file", where=f"{path}, line {reader.line_num}", got=str(error)) from None


@dataclass(frozen=True)
class _LineNumbers:
    """Row of a CSV -> its line, found by reading again: only messages ask, and they ask for few."""

    path: Path
    text: str
    delimiter: str

    def __call__(self, row: int) -> str:
        for index, (line, _) in enumerate(_lines(self.path, self.text, self.delimiter)):
            if index == row + 1:
                return str(line)
        return "?"


def _refuse_repeated(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        raise DataError("a column name stands twice", where=where, got=", ".join(names))


def _plain(held: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_dictionary(held.type):
        held = held.cast(held.type.value_type)
    return held.combine_chunks()


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _parse(texts: list[str | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values, unreadable = np.full(len(texts), np.nan), np.zeros(len(texts), np.bool_)
    for row, text in enumerate(texts):
        try:
            values[row] = float((text or "").strip().replace("_", "?"))
        except ValueError:
            unreadable[row] = True
    return values, unreadable


def _likeness(name: str, column: str) -> int | None:
    """Rank how clearly a foreign column name says in other words what one of ours says: "config.seed", "Model"."""
    last = name.lower().strip().replace("/", ".").replace(":", ".").rpartition(".")[2]
    wanted = ALIASES.get(column, ())
    if last in wanted:
        return wanted.index(last)
    return len(wanted) if column == "seed" and last.endswith("_seed") else None
