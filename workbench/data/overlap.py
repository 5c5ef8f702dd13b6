"""Words that documents share with the items of benchmarks: runs of n words, and whole items that are shorter.

A word is a run of letters and digits, as Unicode defines them, lower-cased: punctuation, underscores and white space
part words and are no part of them ("don't" is two). An item is searched for by each of its texts, the question with
every answer to it. A text of n words or more is found where any n of its words in a row stand in a document (n = 13:
arXiv:2005.14165, appendix C); a shorter one only where all of it does, and one of fewer than `shortest` words nowhere,
as it would stand in any text. How many items that concerns is counted.

Promises no false hit: what the hashes find is compared word by word; and memory bounded by the items and one long
document. A run is missed only where two runs of words of one item have the same 64-bit hash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np

WORDS = 13
SHORTEST = 4  # measured: 85 MB of books and articles hold sentences of BLiMP of two or three words, none of four
WORD = re.compile(r"[^\W_]+")
TOGETHER = 2_000_000  # characters of documents that are searched together
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that hashing a run loses nothing of a single word
MOST_BITS = 24  # of a hash, by which the table of what is known is addressed: 16 MiB


class Searchable(Protocol):
    """What can be searched for: an item of a benchmark, or anything else that has a name and texts."""

    @property
    def name(self) -> str:
        """Distinct among what is searched for."""

    @property
    def texts(self) -> Sequence[str]:
        """Its texts; any of them counts."""


class Hit(NamedTuple):
    """Words of a document that an item holds too, as many in a row as are shared.

    Attributes:
        document: Number of the document.
        item: Name of the item.
        start: Character of the document at which they begin.
        stop: Character after their end.
        words: The words, lower-cased, a space between two.
    """

    document: int
    item: str
    start: int
    stop: int
    words: str


class Searched(NamedTuple):
    """How many items can be found: by n words in a row, only as a whole, and not at all."""

    by_runs: int
    by_whole: int
    too_short: int


class _Found(NamedTuple):
    """Runs that were found, each int64[found]: where in the words, which needle's item, how many words."""

    places: np.ndarray
    owners: np.ndarray
    lengths: np.ndarray


class Needles:
    """Items, made ready to be searched for in any number of documents.

    Args:
        items: What to search for.
        n: Words in a row that count as overlap.
        shortest: Words that a text needs to be searched for as a whole, if it has fewer than `n`.
    """

    def __init__(self, items: Sequence[Searchable], n: int = WORDS, shortest: int = SHORTEST) -> None:
        self.n, self.shortest = n, min(shortest, n)
        self.names = [item.name for item in items]
        self._ids: dict[str, int] = {}
        texts = [[split(text) for text in dict.fromkeys(item.texts)] for item in items]
        self._longest = np.array([max(map(len, held), default=0) for held in texts], np.int64)
        self._index(texts)

    def searched(self, items: slice = slice(None)) -> Searched:
        """Return how some of the items, or all, can be found."""
        longest = self._longest[items]
        by_runs, enough = int((longest >= self.n).sum()), int((longest >= self.shortest).sum())
        return Searched(by_runs, enough - by_runs, len(longest) - enough)

    def find(self, documents: Iterable[str]) -> Iterator[Hit]:
        """Yield what documents share with the items, document by document, in the order of their text."""
        first = 0
        for batch in _together(documents):
            spelled = [[self._ids.get(word, 0) for word in WORD.findall(text.lower())] for text in batch]
            ends = np.cumsum([len(ids) + 1 for ids in spelled])
            words = np.fromiter(chain.from_iterable(chain(ids, (0,)) for ids in spelled), np.int64, int(ends[-1]))
            for document, owner, start, stop in self._spans(self._look_up(words), ends):
                own = start - (int(ends[document - 1]) if document else 0)
                yield _hit(first + document, self.names[owner], batch[document], own, stop - start)
            first += len(batch)

    def _index(self, texts: Sequence[Sequence[Sequence[str]]]) -> None:
        """Hash every run of n words of the texts, and those that are shorter as a whole; sort by hash."""
        ids = self._ids
        kept = [(owner, words) for owner, held in enumerate(texts) for words in held if len(words) >= self.shortest]
        flat = [ids.setdefault(word, len(ids) + 1) for _, words in kept for word in words]
        self._flat = np.array(flat, np.int64)
        sizes = np.array([len(words) for _, words in kept], np.int64)
        owners = np.array([owner for owner, _ in kept], np.int64)
        begins = np.cumsum(sizes) - sizes
        runs = np.maximum(sizes - self.n + 1, 1)  # of one text
        starts = np.repeat(begins - (np.cumsum(runs) - runs), runs) + np.arange(runs.sum())
        lengths, owners = np.repeat(np.minimum(sizes, self.n), runs), np.repeat(owners, runs)
        hashes = np.zeros(len(starts), np.uint64)
        for length, found in _hashes(self._flat, self.n):
            here = lengths == length
            hashes[here] = found[starts[here]]
        order = np.lexsort((owners, hashes, lengths))
        again = np.zeros(len(order), bool)  # what an item says in several of its texts counts once
        again[1:] = np.all([np.diff(held[order].view(np.int64)) == 0 for held in (hashes, owners, lengths)], axis=0)
        order = order[~again]
        self._known = {}
        for length in np.unique(lengths):
            rows = order[lengths[order] == length]
            table = np.zeros(1 << min(MOST_BITS, 5 + len(rows).bit_length()), bool)  # a few in a hundred are taken
            table[_address(hashes[rows], table)] = True
            self._known[int(length)] = hashes[rows], starts[rows], owners[rows], table

    def _look_up(self, words: np.ndarray) -> _Found:
        """Find the needles in words, int64[words]; 0 stands for a word that no item has, and parts documents."""
        found = []
        for length, hashes in _hashes(words, self.n):
            if length not in self._known:
                continue
            known, starts, owners, table = self._known[length]
            places = np.flatnonzero(table[_address(hashes, table)])
            low, high = (np.searchsorted(known, hashes[places], side) for side in ("left", "right"))
            counts = high - low
            places = np.repeat(places, counts)
            needles = np.repeat(low - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
            reach = np.arange(length)
            same = (words[places[:, None] + reach] == self._flat[starts[needles][:, None] + reach]).all(axis=1)
            found.append(_Found(places[same], owners[needles[same]], np.full(int(same.sum()), length)))
        none = np.empty(0, np.int64)
        return _Found(*map(np.concatenate, zip(*found, strict=True))) if found else _Found(none, none, none)

    def _spans(self, found: _Found, ends: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        """Join runs that touch: (document, item, first word of all, word after the last), in the order of the text."""
        documents = np.searchsorted(ends, found.places, side="right")
        spans: dict[tuple[int, int], list[list[int]]] = {}
        for row in np.lexsort((found.places, found.owners, documents)).tolist():
            start, length = int(found.places[row]), int(found.lengths[row])
            held = spans.setdefault((int(documents[row]), int(found.owners[row])), [])
            if held and start <= held[-1][1]:
                held[-1][1] = max(held[-1][1], start + length)
            else:
                held.append([start, start + length])
        joined = [(document, start, stop, owner) for (document, owner), held in spans.items() for start, stop in held]
        for document, start, stop, owner in sorted(joined):
            yield document, owner, start, stop


def split(text: str) -> list[str]:
    """Return the words of a text: runs of letters and digits, lower-cased.

    >>> split("Don't _panic_: it's 42!")
    ['don', 't', 'panic', 'it', 's', '42']
    """
    return WORD.findall(text.lower())


def _hashes(words: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Hash the first 1, 2, ... `longest` words from every place on, uint64[places where there are as many]."""
    values = words.astype(np.uint64)
    held = np.zeros(len(words), np.uint64)
    for length in range(1, min(longest, len(words)) + 1):
        held = held[: len(words) - length + 1] * FACTOR + values[length - 1 :]
        yield length, held


def _address(hashes: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return the place of every hash in a table of a power of two places."""
    mixed: np.ndarray = (hashes ^ (hashes >> np.uint64(31))) * FACTOR
    return mixed >> np.uint64(65 - len(table).bit_length())


def _together(documents: Iterable[str]) -> Iterator[list[str]]:
    held: list[str] = []
    size = 0
    for text in documents:
        held.append(text)
        size += len(text)
        if size >= TOGETHER:
            yield held
            held, size = [], 0
    if held:
        yield held


def _hit(document: int, item: str, text: str, first: int, count: int) -> Hit:
    """Find where in a text its words `first` to `first + count` stand."""
    lowered = text.lower()
    matches = [found.span() for _, found in zip(range(first + count), WORD.finditer(lowered), strict=False)][first:]
    words = " ".join(lowered[start:stop] for start, stop in matches)
    start, stop = matches[0][0], matches[-1][1]
    if len(lowered) != len(text):  # a few capitals have two characters in lower case
        ends = np.cumsum([len(character.lower()) for character in text])
        start, stop = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop, "left")) + 1
    return Hit(document, item, start, stop, words)
