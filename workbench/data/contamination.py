"""Which items of a benchmark stand in the text that a model is trained on, whatever was taken out of it before.

Promises an answer that follows from the training tokens, further texts (`Text`: examples for fine-tuning, what a user
names) and the benchmark's files alone, found once and kept beside the tokens: what is searched is the text that the
tokens stand for, document by document, all of it, whether or not a run's budget reaches it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from workbench.data.benchmarks import Benchmark, read_items
from workbench.data.building import sole_builder
from workbench.data.overlap import SHORTEST, WORDS, Needles, Searchable
from workbench.data.prepared import Prepared
from workbench.identity import digest
from workbench.store import write_durably

SEARCHING = 1  # raised when the same text and items would give other hits


class Text(NamedTuple):
    """Text beside the training tokens; `key` is a hash of what `read` returns."""

    key: str
    read: Callable[[], Iterable[str]]


def overlapping(prepared: Prepared, benchmark: Benchmark, further: Sequence[Text] = ()) -> frozenset[str]:
    """Return the names of a benchmark's items that overlap with a training document, or with further text.

    Raises:
        DataError: if the benchmark cannot be read.
        StoreError: if what was found cannot be kept.
    """
    return _found(prepared, digest(benchmark), lambda: read_items(benchmark), further)


def overlapping_items(prepared: Prepared, items: Sequence[Searchable], further: Sequence[Text] = ()) -> frozenset[str]:
    """Return the names of those of any items that overlap with a training document, or with further text.

    Raises:
        StoreError: if what was found cannot be kept.
    """
    return _found(prepared, digest(*((item.name, list(item.texts)) for item in items)), lambda: items, further)


def _found(
    prepared: Prepared, source: str, items: Callable[[], Sequence[Searchable]], further: Sequence[Text]
) -> frozenset[str]:
    texts = [Text("", lambda: _texts(prepared)), *further]
    return frozenset().union(*(_found_once(prepared.folder, source, items, text) for text in texts))


def _found_once(
    folder: Path | None, source: str, items: Callable[[], Sequence[Searchable]], text: Text
) -> frozenset[str]:
    """Search for items: 13 words in a row, or a whole short item; by the hash of these, only the first time."""
    if folder is None:
        return _search(text, items())
    key = digest("overlap", SEARCHING, WORDS, SHORTEST, source, *([text.key] if text.key else []))
    path = folder / f"overlap-{key[:16]}.json"
    if (known := _read(path)) is not None:
        return known
    with sole_builder(path, lambda line: None, "searches these data for items of a benchmark"):
        known = _read(path)  # by whom this one waited for
        if known is None:
            known = _search(text, items())
            write_durably(path, json.dumps({"source": source, "items": sorted(known)}, indent=2).encode())
        return known


def _read(path: Path) -> frozenset[str] | None:
    with contextlib.suppress(OSError, ValueError, KeyError):  # not there yet, or damaged: found again
        return frozenset(json.loads(path.read_bytes())["items"])
    return None


def _search(text: Text, items: Sequence[Searchable]) -> frozenset[str]:
    return frozenset(hit.item for hit in Needles(items).find(text.read()))


def _texts(prepared: Prepared) -> Iterator[str]:
    for start, stop in pairwise(prepared.train.offsets.tolist()):
        yield prepared.tokenizer.decode(prepared.train.tokens[start:stop])
