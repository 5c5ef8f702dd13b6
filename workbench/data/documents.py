"""Documents: the unit that is split, filtered, shuffled and scored.

Promises that a document is known by a hash of its text alone, so that where it lies changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class Document:
    """One text and the name under which its scores are kept.

    Attributes:
        name: Distinct within a corpus.
        text: As it is in its file.
        source: Which part of a mixture it belongs to; empty where a corpus has no parts.
    """

    name: str
    text: str
    source: str = ""

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the UTF-8 text, in hexadecimal: what splits and data order are keyed by."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield the first of every set of documents with equal text, holding no more than their hashes."""
    seen: set[bytes] = set()
    for document in documents:
        known = bytes.fromhex(document.hash)
        if known not in seen:
            seen.add(known)
            yield document


def drop_duplicates(documents: list[Document]) -> tuple[list[Document], int]:
    """Keep the first of every set of documents with equal text, and count those dropped."""
    kept = list(distinct(documents))
    return kept, len(documents) - len(kept)
