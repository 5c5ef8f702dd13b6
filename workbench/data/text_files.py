"""The user's own text: finding the files of a corpus, and hashing them.

Promises that the same bytes give the same documents under the same names on every machine, wherever they lie: a path is
no part of identity, and names are positions within the corpus.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench.data.documents import Document
from workbench.data.reading import READERS, ending, read_file, unreadable
from workbench.errors import DataError
from workbench.identity import Spec, added, setting

KINDS = (".txt", ".jsonl", ".parquet")  # the first two also compressed: .gz, .zst


class Files(Spec):
    """The user's own text: a .txt, .jsonl or .parquet file, a folder of them, or a glob.

    JSON lines and Parquet hold one document in the field `text_field` of each row. A text file holds documents that are
    separated by a line `<|endoftext|>`, or, without such lines, paragraphs that are packed to documents of about 4 kB.
    Text and JSON lines may be compressed (.txt.gz, .jsonl.zst).
    """

    kind: Literal["files"] = "files"
    path: str = setting(effect="efficiency", min_length=1)  # the bytes are identity, the place where they lie is not
    text_field: str = added("text", min_length=1)


@dataclass(frozen=True)
class Source:
    """One file of a corpus; `name` is relative to the corpus, and empty where the corpus is this one file."""

    name: str
    path: Path

    @property
    def prefix(self) -> str:
        """What the names of its documents begin with."""
        return f"{self.name}:" if self.name else ""


def documents_of(sources: list[Source], field: str) -> Iterator[Document]:
    """Yield the documents of files in the order of rows within a file; those of white space only are left out."""
    for source in sources:
        for number, text in read_file(source.path, field):
            if text.strip():
                yield Document(source.prefix + str(number), text)


def hashes_of(sources: list[Source]) -> list[Any]:
    """Return [name, SHA-256 of the raw bytes] of every file; the ending stands for the name of a single file."""
    found = []
    for source in sources:
        try:
            with open(source.path, "rb") as handle:
                found.append([source.name or ending(source.path), hashlib.file_digest(handle, "sha256").hexdigest()])
        except OSError as error:
            unreadable(source.path, error)
    return found


def sources_of(told: str) -> list[Source]:
    """Find the files of a path, folder or glob, in the order of their names.

    Raises:
        DataError: if there are none, or one of a kind that cannot be read.
    """
    path = Path(told).expanduser()
    if path.is_file():
        if ending(path) not in READERS:
            raise DataError(
                "this kind of file cannot be read as a corpus",
                where=path,
                expected=" or ".join(KINDS),
                got=ending(path) or "a name without an ending",
            )
        return [Source("", path)]
    folder = path.is_dir()
    candidates = path.rglob("*") if folder else map(Path, glob.glob(str(path), recursive=True))
    paths = [
        found for found in candidates if ending(found) in READERS and found.is_file() and not found.name.startswith(".")
    ]
    if not paths:
        raise DataError(
            "there is no corpus" if folder or path.parent.is_dir() else "there is no such folder",
            where=path,
            expected=f"a file, a folder or a glob of {', '.join(KINDS)}",
            got="no such file in this folder" if folder else "nothing",
            fix="check --corpus PATH",
        )
    if len(paths) == 1:
        return [Source("", paths[0])]
    root = path if folder else Path(os.path.commonpath([found.parent for found in paths]))
    return sorted(
        (Source(found.relative_to(root).as_posix(), found) for found in paths), key=lambda source: source.name
    )
