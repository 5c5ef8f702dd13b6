"""Reading one file of text: plain, JSON lines or Parquet, as it is or compressed.

Promises that a file is read as a stream, one document in memory at a time, and that a compressed file gives what its
content would. Refuses text that is not UTF-8 (with the byte offset), malformed JSON and missing fields (with the
line), and damaged archives; never repairs or skips silently.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, cast

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import DataError, MissingExtra

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors put it before the first line of UTF-8
PACKED_BYTES = 4096
_SEPARATOR = re.compile(rb"<\|endoftext\|>[ \t\r]*\n?")
_BLANK = re.compile(rb"[ \t\r]*\n")
_COMPRESSED = (".gz", ".zst")


def ending(path: Path) -> str:
    """Return what a file's name says of its kind: ".jsonl", or ".jsonl.gz" where it is compressed."""
    return "".join(path.suffixes[-2:]) if path.suffix in _COMPRESSED else path.suffix


def read_file(path: Path, field: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the document within the file, text); of rows, the field `field`.

    Raises:
        DataError: if the file is not what its name promises.
        MissingExtra: if it is compressed by zstandard, and that is not installed.
    """
    yield from READERS[ending(path)](path, field)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, decompressed where its name ends in .gz or .zst.

    Raises:
        DataError: if it cannot be read, or is damaged; also while it is read within the context.
        MissingExtra: if it is compressed by zstandard, and that is not installed.
    """
    damaged: tuple[type[Exception], ...] = (gzip.BadGzipFile, EOFError, zlib.error)
    try:
        with contextlib.ExitStack() as stack:
            raw: Any = stack.enter_context(open(path, "rb"))
            if path.suffix == ".gz":
                raw = gzip.GzipFile(fileobj=raw)
            elif path.suffix == ".zst":
                library = _zstandard()
                damaged = (library.ZstdError,)
                raw = library.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            # a buffer of our own, as reading lines of an archive without it takes three times as long
            yield stack.enter_context(io.BufferedReader(cast(Any, raw), 2**20)) if path.suffix in _COMPRESSED else raw
    except damaged as error:
        got = str(error) or type(error).__name__
        raise DataError("a compressed file is damaged", where=path, got=got, fix="download or write it again") from None
    except OSError as error:
        unreadable(path, error)


# --- plain text


def _read_text(path: Path, field: str) -> Iterator[tuple[int, str]]:
    with opened(path) as handle:
        separated = any(map(_is_separator, _lines(handle)))
    with opened(path) as handle:
        texts = _separated(handle, path) if separated else _pack(_paragraphs(handle, path), PACKED_BYTES)
        yield from enumerate((text.strip() for text in texts), start=1)


def _is_separator(line: bytes) -> bool:
    return line.startswith(b"<|endo") and _SEPARATOR.fullmatch(line) is not None


def _lines(handle: IO[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(handle):
        yield line if number else line.removeprefix(BYTE_ORDER_MARK)


def _separated(handle: IO[bytes], path: Path) -> Iterator[str]:
    offset, held = 0, list[bytes]()
    for line in _lines(handle):
        if not _is_separator(line):
            held.append(line)
            continue
        text = b"".join(held)
        yield utf8(text, str(path), offset)
        offset += len(text) + len(line)
        held = []
    yield utf8(b"".join(held), str(path), offset)


def _paragraphs(handle: IO[bytes], path: Path) -> Iterator[str]:
    offset, held = 0, list[bytes]()
    for line in _lines(handle):
        if held and _BLANK.fullmatch(line):
            text = b"".join(held)
            yield utf8(text, str(path), offset)
            offset += len(text)
            held = []
        held.append(line)
    if held:
        yield utf8(b"".join(held), str(path), offset)


def packed(text: str, size: int) -> Iterator[str]:
    """Join paragraphs (single lines, where a paragraph alone is too long) until `size` bytes are reached."""
    yield from _pack(re.split(r"(?<=\n)(?=[ \t\r]*\n)", text), size)


def _pack(paragraphs: Iterable[str], size: int) -> Iterator[str]:
    held, taken = list[str](), 0
    for paragraph in paragraphs:
        for piece in [paragraph] if len(paragraph) <= size else paragraph.splitlines(keepends=True):
            held.append(piece)
            taken += len(piece.encode())
            if taken >= size:
                yield "".join(held)
                held, taken = [], 0
    if held:
        yield "".join(held)


# --- JSON lines


def json_lines(path: Path, expected: str) -> Iterator[tuple[int, str, object]]:
    """Read a file of JSON lines: (number, "file:number" for messages, what the line holds); blank lines are left out.

    Args:
        path: The file, which may be compressed.
        expected: What a line looks like, for messages.

    Raises:
        DataError: with file and line, for a file that cannot be read, bytes that are not UTF-8, and malformed JSON.
    """
    offset = 0
    with opened(path) as handle:
        # Lines are split as bytes: str.splitlines would also break at U+2028, which JSON allows inside a string.
        for number, line in enumerate(_lines(handle), start=1):
            place = f"{path}:{number}"
            text = utf8(line, place, offset)
            offset += len(line)
            if not text.strip():
                continue
            try:
                yield number, place, json.loads(text)
            except json.JSONDecodeError as error:
                got = f"{error.msg}, column {error.colno}"
                raise DataError("a line is not valid JSON", where=place, expected=expected, got=got) from None


def valid_text(value: object, what: str, place: str, expected: str) -> str:
    """Return a value of a JSON line that is text.

    Raises:
        DataError: if it is no string, or holds half of a surrogate pair, which no UTF-8 can hold.
    """
    if not isinstance(value, str):
        raise DataError(f"{what} is not a string", where=place, expected=expected, got=type(value).__name__)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{what} is not valid Unicode",
            where=place,
            expected="paired surrogates",
            got=f"a lone {value[error.start]!a} at character {error.start}",
        ) from None
    return value


def _read_json_lines(path: Path, field: str) -> Iterator[tuple[int, str]]:
    for number, place, row in json_lines(path, f'{{"{field}": "..."}}'):
        yield number, _text_of(row, place, field)


def _text_of(row: object, place: str, field: str) -> str:
    expected = f"an object with the field '{field}', a string"
    if not isinstance(row, dict):
        raise DataError("a line is not a document", where=place, expected=expected, got=type(row).__name__)
    if field not in row:
        fields = ", ".join(map(repr, row)) or "no field"
        raise DataError("a document has no text", where=place, expected=expected, got=fields)
    return valid_text(row[field], "a document's text", place, expected)


# --- Parquet


def _read_parquet(path: Path, field: str) -> Iterator[tuple[int, str]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError("a Parquet file cannot be read", where=path, got=str(error).splitlines()[0]) from None
    with file:
        names = file.schema_arrow.names
        kind = file.schema_arrow.field(field).type if field in names else None
        if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            got = f"'{field}' of type {kind}" if kind is not None else ", ".join(map(repr, names)) or "no column"
            raise DataError("a Parquet file has no text", where=path, expected=f"a string column '{field}'", got=got)
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=[field]):
            for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                number += 1
                place = f"{path}, row {number}"
                if value is None:
                    raise DataError("a document has no text", where=place, expected="a string", got="null")
                yield number, utf8(value, place, 0)


READERS: dict[str, Callable[[Path, str], Iterator[tuple[int, str]]]] = {
    ".txt": _read_text,
    ".txt.gz": _read_text,
    ".txt.zst": _read_text,
    ".jsonl": _read_json_lines,
    ".jsonl.gz": _read_json_lines,
    ".jsonl.zst": _read_json_lines,
    ".parquet": _read_parquet,
}


def unreadable(path: Path, error: OSError) -> NoReturn:
    """Say that the system cannot read a file of the corpus.

    Raises:
        DataError: always.
    """
    raise DataError("a file of the corpus cannot be read", where=path, got=error.strerror or str(error)) from None


def utf8(raw: bytes, place: str, offset: int) -> str:
    """Decode bytes that stand `offset` bytes into a file.

    Raises:
        DataError: with the byte at fault, if they are not UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            "the corpus is not UTF-8",
            where=f"{place}, byte {offset + error.start}",
            expected="UTF-8 text",
            got=f"byte 0x{raw[error.start]:02x} ({error.reason})",
            fix="convert the file, for example with: iconv -t UTF-8",
        ) from None


def _zstandard() -> Any:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingExtra("zstandard", "data") from None
    return zstandard
