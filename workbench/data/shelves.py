"""Documents on disk while data are prepared: read in order or by number, however many there are.

Promises a sequence of documents like any other, of which memory holds no more than the hashes and one batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from workbench.data.documents import Document, distinct

BATCH_BYTES = 4_000_000  # of text that are written, and read, at once
_SCHEMA = pa.schema([("name", pa.string()), ("text", pa.large_string()), ("source", pa.string())])


class Shelf(Sequence[Document]):
    """Some of the documents of an Arrow file, which is mapped into memory.

    Attributes:
        hashes: SHA-256 of each text, uint8[documents, 32].
        sizes: UTF-8 bytes of each text, int64[documents].
    """

    def __init__(self, file: pa.Table, hashes: np.ndarray, sizes: np.ndarray, rows: np.ndarray) -> None:
        self._batches = file.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._file, self._rows = file, rows
        self.hashes, self.sizes = hashes, sizes

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Document: ...

    @overload
    def __getitem__(self, place: slice) -> Shelf: ...

    def __getitem__(self, place: int | slice) -> Document | Shelf:
        if isinstance(place, slice):
            return self.chosen(np.arange(len(self))[place])
        number = range(len(self))[place]
        row = int(self._rows[number])
        batch = int(np.searchsorted(self._starts, row, side="right")) - 1
        held, at = self._batches[batch], row - int(self._starts[batch])
        return self._document(number, [held.column(name)[at].as_py() for name in _SCHEMA.names])

    def __iter__(self) -> Iterator[Document]:
        batches = np.searchsorted(self._starts, self._rows, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(batches)) + 1), len(self)]
        for start, stop in pairwise(edges):
            if start < stop:
                yield from self._read(int(batches[start]), int(start), int(stop))

    def chosen(self, which: np.ndarray) -> Shelf:
        """Return some of the documents: bool[documents], or their numbers."""
        return Shelf(self._file, self.hashes[which], self.sizes[which], self._rows[which])

    def _read(self, batch: int, start: int, stop: int) -> Iterator[Document]:
        rows = pa.array(self._rows[start:stop] - self._starts[batch])
        columns = [self._batches[batch].column(name).take(rows).to_pylist() for name in _SCHEMA.names]
        for number, fields in enumerate(zip(*columns, strict=True), start=start):
            yield self._document(number, fields)

    def _document(self, number: int, fields: Iterable[str]) -> Document:
        document = Document(*fields)
        document.__dict__["hash"] = self.hashes[number].tobytes().hex()  # where `cached_property` keeps it
        return document


def shelve(documents: Iterable[Document], path: Path) -> Shelf:
    """Write documents to `path`, and return them to be read from there; the file may be removed when none is in use."""
    hashes, sizes = bytearray(), list[int]()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        held, waiting = list[Document](), 0
        for document in documents:
            held.append(document)
            hashes += bytes.fromhex(document.hash)
            sizes.append(len(document.text.encode()))
            waiting += sizes[-1]
            if waiting >= BATCH_BYTES:
                writer.write_batch(_batch(held))
                held, waiting = [], 0
        writer.write_batch(_batch(held))
    with pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source).read_all()
    found = np.frombuffer(bytes(hashes), np.uint8).reshape(-1, 32)
    return Shelf(file, found, np.array(sizes, np.int64), np.arange(len(sizes)))


def shelve_distinct(documents: Iterable[Document], path: Path) -> tuple[Shelf, int]:
    """Write the first of every set of documents with equal text, as `shelve`, and count those dropped."""
    read = 0

    def counted() -> Iterator[Document]:
        nonlocal read
        for document in documents:
            read += 1
            yield document

    shelf = shelve(distinct(counted()), path)
    return shelf, read - len(shelf)


def size_of(documents: Sequence[Document]) -> int:
    """Return the UTF-8 bytes of documents."""
    return int(sizes_of(documents).sum())


def sizes_of(documents: Sequence[Document]) -> np.ndarray:
    """Return the UTF-8 bytes of each document, int64[documents]."""
    if isinstance(documents, Shelf):
        return documents.sizes
    return np.array([len(document.text.encode()) for document in documents], np.int64)


def hashes_of(documents: Sequence[Document]) -> list[str]:
    """Return the SHA-256 of the text of each document in hex, without a look at it where it is known."""
    if isinstance(documents, Shelf):
        return [row.tobytes().hex() for row in documents.hashes]
    return [document.hash for document in documents]


def picked(documents: Sequence[Document], keep: np.ndarray) -> Sequence[Document]:
    """Return some documents, bool[documents]: on disk where they lie there, else as a list."""
    if isinstance(documents, Shelf):
        return documents.chosen(keep)
    return [document for document, kept in zip(documents, keep.tolist(), strict=True) if kept]


def _batch(documents: list[Document]) -> pa.RecordBatch:
    columns = [[getattr(document, name) for document in documents] for name in _SCHEMA.names]
    return pa.record_batch([pa.array(held, kind.type) for held, kind in zip(columns, _SCHEMA, strict=True)], _SCHEMA)
