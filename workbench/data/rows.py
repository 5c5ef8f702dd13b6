"""Files of rows, in any of the formats in which benchmarks are published: (place for messages, row) after row.

Promises rows in the order of file names and of lines within a file, and a hash of what the files hold that does not
depend on where they lie. Refuses, with file and line, bytes that are not UTF-8 and lines that are not JSON.
"""

from __future__ import annotations

import csv
import glob
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import DataError

KINDS = (".jsonl", ".json", ".csv", ".parquet", ".txt.dev", ".txt.test")
EXPECTED = "a file, a folder or a glob of " + ", ".join(KINDS) + ", each also with .gz"

Row = tuple[str, Any]


def read_rows(path: str, *, header: bool = True) -> Iterator[Row]:
    """Yield (place, row) of every file that `path` names; a place is "file:line" where there are lines.

    Args:
        path: A file, a folder (searched throughout), or a glob. A row of text (.txt.dev, .txt.test) is a line.
        header: Whether the first line of a CSV file names its columns; its rows are lists where it does not.

    Raises:
        DataError: saying which file, and which line.
    """
    for file in find(path):
        kind = _kind(file)
        if kind == ".jsonl":
            yield from _lines(file)
        elif kind == ".json":
            yield from _document(file)
        elif kind == ".csv":
            yield from _table(file, header)
        elif kind.startswith(".txt"):
            yield from _texts(file)
        else:
            yield from _columns(file)


def find(path: str) -> list[Path]:
    """Return the files that `path` names, in the order of their names.

    Raises:
        DataError: if there is none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        if _kind(place) not in KINDS:
            got = "".join(place.suffixes[-2:]) or "a name without an ending"
            raise DataError("this kind of file cannot be read", where=place, expected=EXPECTED, got=got)
        return [place]
    candidates = place.rglob("*") if place.is_dir() else map(Path, glob.glob(str(place), recursive=True))
    found = sorted(file for file in candidates if file.is_file() and _kind(file) in KINDS and file.name[0] != ".")
    if not found:
        got = "no such file in this folder" if place.is_dir() else "nothing"
        raise DataError("there are no such files", where=place, expected=EXPECTED, got=got)
    return found


def content_hash(path: str) -> str:
    """Return the SHA-256 of what the files hold that `path` names, and of labels that lie beside them.

    Raises:
        DataError: if there is none, or one cannot be read.
    """
    try:
        found = [file for one in find(path) for file in (one, labels_beside(one)) if file is not None]
        held = [(file, file.stat().st_size, file.stat().st_mtime_ns) for file in found]
        return _hash_of(tuple(held))
    except OSError as error:
        raise DataError("a file cannot be read", where=path, got=error.strerror or str(error)) from None


def labels_beside(file: Path) -> Path | None:
    """Return the file of labels that belongs to a file of rows: `dev-labels.lst` beside `dev.jsonl`; None if none."""
    found = file.with_name(file.name.partition(".")[0] + "-labels.lst")
    return found if found.is_file() else None


def text_of(file: Path) -> str:
    """Return what a file holds, unpacked where its name ends in .gz.

    Raises:
        DataError: if it cannot be read, or is not UTF-8.
    """
    raw = _bytes(file)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            "a file is not UTF-8",
            where=f"{file}:{line}",
            expected="UTF-8 text",
            got=f"byte 0x{raw[error.start]:02x} ({error.reason})",
            fix="convert the file, for example with: iconv -t UTF-8",
        ) from None


@lru_cache(maxsize=64)
def _hash_of(held: tuple[tuple[Path, int, int], ...]) -> str:
    if len(held) == 1:
        return hashlib.sha256(_bytes(held[0][0])).hexdigest()
    found = [f"{file.name} {hashlib.sha256(_bytes(file)).hexdigest()}" for file, *_ in held]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def _kind(file: Path) -> str:
    name = file.name.removesuffix(".gz")
    part = re.search(r"\.txt\.(dev|test)$", name)
    return part.group() if part else Path(name).suffix


def _bytes(file: Path) -> bytes:
    try:
        raw = file.read_bytes()
        return gzip.decompress(raw) if file.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        got = getattr(error, "strerror", None) or str(error)
        raise DataError("a file cannot be read", where=file, got=got) from None


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    # Not str.splitlines, which would also break at U+2028, which JSON allows inside a string.
    for number, line in enumerate(text_of(file).split("\n"), start=1):
        if line.strip():
            yield f"{file}:{number}", line.strip()


def _lines(file: Path) -> Iterator[Row]:
    for place, line in _texts(file):
        yield place, _json(line, place)


def _document(file: Path) -> Iterator[Row]:
    text = text_of(file)
    if text.lstrip()[:1] != "[":  # JSON lines by another name, as some benchmarks are published
        yield from _lines(file)
        return
    for number, row in enumerate(_json(text, str(file)), start=1):
        yield f"{file}, entry {number}", row


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError("this is not valid JSON", where=place, expected="an object", got=f"{error.msg}, {at}") from None


def _table(file: Path, header: bool) -> Iterator[Row]:
    text = io.StringIO(text_of(file), newline="")
    reader = csv.DictReader(text) if header else csv.reader(text)
    try:
        for row in reader:
            yield f"{file}:{reader.line_num}", row
    except csv.Error as error:
        raise DataError("this is not valid CSV", where=f"{file}:{reader.line_num}", got=str(error)) from None


def _columns(file: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(pa.BufferReader(_bytes(file)))
    except pa.ArrowException as error:
        raise DataError("a Parquet file cannot be read", where=file, got=str(error).splitlines()[0]) from None
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{file}, row {number}", row
